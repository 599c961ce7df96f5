"""Kills a whole run (cache, then train) again and again at chosen moments, and compares how it ends.

`python -m kills 200` (from tests/) does 200 kills; test_kill.py does eight.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from forks import Child, Say, fork
from ltx2_job import checkpoint, commands
from ltx2_job.config import resolve
from ltx2_job.stage import StopFlag, open_stage
from ltx2_job.workspace import RunFolder, write_json
from media import write_clip

PHASES = ("caching", "training", "saving", "validating")
STEPS = 6
CONFIG = {
    "max_train_steps": STEPS,
    "checkpoint_step_interval": 2,
    "checkpoints_total_limit": 2,
    "validation_step_interval": 3,
    "eval_steps_interval": 3,
    "lora_rank": 4,
    "lora_alpha": 8,
    "learning_rate": 2e-3,
    "lr_scheduler": "cosine",
    "validation_prompt": "a red square moves to the right",
    "validation_num_inference_steps": 2,
    "validation_guidance": 1,
    "validation_num_video_frames": 9,
    "validation_resolution": "64x64",
    "disable_benchmark": True,
    "mixed_precision": "no",
}


@dataclass(frozen=True)
class Kill:
    """SIGKILL when this share of a phase's time has passed, counted from when the run enters that phase first."""

    phase: str
    share: float


@dataclass(frozen=True)
class Whole:
    """The unbroken run: its workspace, the hashes it ended with, and the seconds that each phase took at least."""

    root: Path
    hashes: dict[str, str]
    seconds: dict[str, float]


def prepare(root: Path, model: Path) -> Path:
    """A workspace with three short clips, one of them silent, and a ConfigMap's files; returns the latter's folder."""
    folder = root / "datasets" / "videos"
    for index in range(3):
        path = write_clip(folder / f"{index}.mp4", width=64, height=64, frames=9, layout="stereo" if index else None)
        path.with_suffix(".txt").write_text(f"clip number {index}")
    clips = {
        "id": "clips",
        "type": "local",
        "dataset_type": "video",
        "instance_data_dir": "datasets/videos",
        "resolution": 64,
    }
    clips |= {"resolution_type": "pixel", "caption_strategy": "textfile", "video": {"num_frames": 9, "min_frames": 9}}
    page = resolve({"pretrained_model_name_or_path": str(model), **CONFIG}, [clips]).dump()
    files = root / "files"
    plan = {"gpuClass": "cpu", "device": "cpu", "nodes": 1, "processes": 1}
    plan |= {"memory": "fp32/resident/keep:48", "cacheMemory": "device"}
    for name, value in (("config", page["config"]), ("datasets", page["datasets"]), ("plan", plan)):
        write_json(files / f"{name}.json", value)
    return files


def start(root: Path, files: Path, name: str, attempt: int) -> Child:
    """One attempt, cache and train, that tells each phase it enters."""
    return fork(attempt_of, root, files, name, attempt)


def attempt_of(say: Say, root: Path, files: Path, name: str, attempt: int) -> None:
    """What `start` runs in the child."""
    for stage_name in ("cache", "train"):
        stage = open_stage(stage_name, files, root, name, attempt, StopFlag(), {})
        original = stage.reporter.state

        def state(phase: str, original: Callable[[str], None] = original) -> None:
            original(phase)
            say(phase)

        stage.reporter.state = state  # type: ignore[method-assign]
        commands.STAGES[stage_name](stage)


def result(run: RunFolder) -> dict[str, str]:
    """sha256 of LoRA and optimizer state in the last checkpoint, and of both LoRA files."""
    last = checkpoint.listed(run.checkpoints)[-1]
    files = [last / checkpoint.ADAPTER, last / checkpoint.OPTIMIZER, run.lora, run.lora_diffusers]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def unbroken(root: Path, model: Path) -> Whole:
    """A run that nobody disturbs. Its workspace is prepared by this."""
    child = start(root, prepare(root, model), "run", 1)
    heard = [(child.word(), time.monotonic())]
    while heard[-1][0]:
        heard.append((child.word(), time.monotonic()))
    code = child.wait()
    if code:
        raise RuntimeError(f"the unbroken run ended with {code}")
    seconds: dict[str, float] = {}
    for (phase, began), (_, ended) in pairwise(heard):
        seconds[phase] = min(seconds.get(phase, math.inf), ended - began)
    return Whole(root, result(RunFolder(root / "runs" / "run")), seconds)


def broken(root: Path, whole: Whole, kills: list[Kill], with_cache: bool) -> tuple[dict[str, str], int]:
    """How a run ends that is killed so, each attempt once, and then left alone; and how many kills came before its end.

    `with_cache` takes the unbroken run's cache over, so that only training runs.
    """
    left = ("runs",) if with_cache else ("runs", "cache")
    shutil.copytree(
        whole.root, root, ignore=lambda at, names: [n for n in names if Path(at) == whole.root and n in left]
    )
    hits = 0
    for attempt, kill in enumerate(kills, 1):
        child = start(root, root / "files", "run", attempt)
        while child.word() not in (kill.phase, ""):
            pass
        time.sleep(kill.share * whole.seconds[kill.phase])
        hits += child.kill() < 0
    code = start(root, root / "files", "run", len(kills) + 1).wait()
    if code:
        raise RuntimeError(f"the last attempt after {kills} ended with {code}")
    run = RunFolder(root / "runs" / "run")
    damaged = [path for path in checkpoint.listed(run.checkpoints) if checkpoint.damage(path)]
    leftovers = [path.name for path in run.checkpoints.iterdir() if path not in checkpoint.listed(run.checkpoints)]
    if damaged or leftovers:
        raise RuntimeError(f"after {kills}: damaged {damaged}, left over {leftovers}")
    steps = [line["step"] for line in map(json.loads, run.metrics.read_text().splitlines()) if "loss" in line]
    if steps != list(range(1, STEPS + 1)):
        raise RuntimeError(f"after {kills}: metrics.jsonl has the steps {steps}")
    return result(run), hits


def chosen(count: int, seed: int) -> list[Kill]:
    """Kills in every phase by turns, at seeded random moments."""
    source = random.Random(seed)
    return [Kill(PHASES[i % len(PHASES)], source.random()) for i in range(count)]


def main() -> int:
    """Any number of kills, four to a run; prints each run and returns the number that ended otherwise."""
    from ltx2_job.models.tiny import write_tiny

    wrong, kills = 0, chosen(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        whole = unbroken(root / "unbroken", write_tiny(root / "models"))
        for first in range(0, len(kills), 4):
            part = kills[first : first + 4]
            ended, hits = broken(root / "broken", whole, part, with_cache=False)
            same = ended == whole.hashes
            wrong += not same
            print(
                first + len(part),
                "kills,",
                hits,
                "hit:",
                "same" if same else f"DIFFERENT after {part}",
                flush=True,
            )
            shutil.rmtree(root / "broken")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
