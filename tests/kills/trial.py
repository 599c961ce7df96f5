"""The run that is broken: three short clips, six steps, a checkpoint every second and a validation every third."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forks import Child, Say, fork, free_port
from ltx2_job import commands
from ltx2_job.config import resolve
from ltx2_job.stage import Stage
from ltx2_job.supervise import Order, work
from ltx2_job.workspace import RunFolder, write_json
from media import write_clip

STEPS: Final = 6
INTERVAL: Final = 2  # steps between two checkpoints
NAME: Final = "run"
MARK: Final = "KILLS_PLACE"  # in the environment of every process of an attempt
CONFIG: Final = {
    "max_train_steps": STEPS,
    "checkpoint_step_interval": INTERVAL,
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
class Place:
    """A workspace with one run in it, trained by this many processes; beside it what a pod has outside its volume."""

    base: Path
    processes: int = 1

    root = property(lambda self: self.base / "workspace")
    run = property(lambda self: RunFolder(self.root / "runs" / NAME))
    cache = property(lambda self: self.root / "cache")
    files = property(lambda self: self.base / "files")  # the mounted ConfigMap
    cached = property(lambda self: self.base / "cached")  # a copy of the volume as the cache stage left it
    termination_log = property(lambda self: self.base / "termination-log")

    def output(self, stage: str, attempt: int, rank: int = 0) -> Path:
        """What a process printed."""
        return self.base / f"{stage}-{attempt}-{rank}.out"


@dataclass(frozen=True)
class Heard:
    """A phase that rank 0 said it enters, and when (seconds of the monotonic clock)."""

    phase: str
    at: float


def prepare(place: Place, model: Path) -> None:
    """Three short clips, one of them silent, and the files of the ConfigMap."""
    folder = place.root / "datasets" / "videos"
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
    plan = {"gpuClass": "cpu", "device": "cpu", "nodes": 1, "processes": place.processes}
    plan |= {"memory": "fp32/resident/keep:48", "cacheMemory": "device"}
    for name, value in (("config", page["config"]), ("datasets", page["datasets"]), ("plan", plan)):
        write_json(place.files / f"{name}.json", value)


def copied(whole: Place, base: Path, *, with_cache: bool) -> Place:
    """A new place with the inputs of another; `with_cache` takes what its cache stage made over as well."""
    place = Place(base, whole.processes)
    shutil.copytree(whole.files, place.files)
    source, target = (whole.cached, place.root) if with_cache else (whole.root / "datasets", place.root / "datasets")
    shutil.copytree(source, target, dirs_exist_ok=True)
    return place


def start(place: Place, stage: str, attempt: int, first: Callable[[], None] | None = None) -> list[Child]:
    """The processes of one stage of one attempt, rank 0 first; rank 0 says each phase that it enters.

    `first` is done in each process before anything else.
    """
    world, port = (place.processes if stage == "train" else 1), free_port()
    return [fork(_worker, place, stage, attempt, rank, world, port, first) for rank in range(world)]


def phases(child: Child, idle: Callable[[], None] = lambda: None) -> Iterator[Heard]:
    """What a process says until it has ended; `idle` is called whenever it has been silent for 20 ms."""
    while True:
        while not child.pipe.poll(0.02):
            idle()
        word = child.word()
        if not word:
            return
        yield Heard(word, time.monotonic())


def _worker(
    say: Say,
    place: Place,
    stage_name: str,
    attempt: int,
    rank: int,
    world: int,
    port: int,
    first: Callable[[], None] | None,
) -> int:
    """One process of a stage, from the command line's order to the exit code, as `ltx2-job` itself does it."""
    output = os.open(place.output(stage_name, attempt, rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(
        {MARK: str(place.base), "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)},
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    if rank == 0:
        os.environ["LTX2JOB_TERMINATION_LOG"] = str(place.termination_log)

    if first is not None:
        first()

    def run_stage(stage: Stage) -> None:
        original = stage.reporter.state

        def state(phase: str) -> None:
            original(phase)
            say(phase)

        stage.reporter.state = state  # type: ignore[method-assign]
        commands.STAGES[stage_name](stage)

    return work(Order(stage_name, place.files, place.root, NAME, attempt), run_stage)
