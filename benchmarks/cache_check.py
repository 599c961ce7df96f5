"""How long a cache stage takes that has nothing to do: `python benchmarks/cache_check.py [CLIPS]` (1000).

Makes a workspace with that many clips (copies of one small clip, each made unique by a few bytes at its end) and a tiny
model, fills its cache with placeholders instead of running the models, and then times the command in fresh processes,
start-up included. Prints one JSON line.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = 3

STAGE = """
import sys, time
from pathlib import Path
from ltx2_job.config import resolve
from ltx2_job.stage import Stage, StagePlan
from ltx2_job.workspace import Workspace
from ltx2_job.caching.stage import run_cache

config = {"pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors", "max_train_steps": 1}
dataset = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos",
           "caption_strategy": "textfile", "resolution": 64, "video": {"num_frames": 9}}
workspace = Workspace(Path.cwd())
resolved = resolve(config, [dataset], workspace=workspace.root)
stage = Stage("cache", resolved.training, resolved.datasets, StagePlan(), workspace, workspace.run("check"), "check")
index = run_cache(stage)
heavy = sorted({"torch", "diffusers", "transformers", "av", "numpy"} & set(sys.modules))
print(len(index.samples), *heavy)
"""

FILL = """
from ltx2_job.caching import encode

class Placeholders(encode.Encoding):
    def run(self):
        import torch
        for kind, items in (("video", self.work.videos), ("audio", self.work.audios), ("text", self.work.texts)):
            for item in items.values():
                self._put(kind, item, {"latents": torch.zeros(1)})

encode.Encoding = Placeholders
"""


MODEL = """
from pathlib import Path
from ltx2_job.models.tiny import write_tiny
print(write_tiny(Path("models")))
"""

CLIP = """
from pathlib import Path
from media import write_clip
print(write_clip(Path("clip.mp4"), width=64, height=64, frames=9))
"""


def environment() -> dict[str, str]:
    """The packages of this repository, one thread."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("job", "operator", "tests"))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def run(code: str, folder: Path) -> tuple[float, list[str]]:
    """Seconds of a fresh process, and the words of its last line."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - start, done.stdout.strip().splitlines()[-1].split()


def workspace(folder: Path, clips: int) -> None:
    """A tiny model and that many clips with captions."""
    run(MODEL, folder)
    run(CLIP, folder)
    raw = (folder / "clip.mp4").read_bytes()
    videos = folder / "datasets" / "videos"
    videos.mkdir(parents=True)
    for number in range(clips):
        # A `free` box after the last one is ignored by every reader.
        box = number.to_bytes(8, "big")
        (videos / f"{number:05}.mp4").write_bytes(raw + (16).to_bytes(4, "big") + b"free" + box)
        (videos / f"{number:05}.txt").write_text(f"caption number {number}")


def main(arguments: list[str]) -> None:
    """Measure and print."""
    clips = int(arguments[0]) if arguments else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace(folder, clips)
        first, _ = run(FILL + STAGE, folder)
        times = [run(STAGE, folder) for _ in range(RUNS)]
    seconds = [round(took, 3) for took, _ in times]
    counted, *heavy = times[-1][1]
    assert int(counted) == clips, counted
    result = {
        "clips": clips,
        "first_seconds": round(first, 1),
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "imported": heavy,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
