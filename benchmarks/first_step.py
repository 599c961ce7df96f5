"""How long a training process takes to its first step: `python benchmarks/first_step.py [RUNS]` (5).

Makes a workspace with a tiny checkpoint and two synthetic clips, caches them, and then starts `ltx2-job train` RUNS
times, each a fresh process on a fresh run folder. Measured from the start of the command to the moment its first
optimizer step stands in metrics.jsonl. Beside it, in the same run: what its imports alone take. Prints one JSON line.
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
BIN = Path(sys.executable).parent
IMPORTS = {
    "torch": "import torch",
    "torch and diffusers' transformer": "import diffusers.models.transformers.transformer_ltx2",
}
CLIPS = """
from pathlib import Path
from media import write_clip
folder = Path("datasets")
folder.mkdir()
for name in ("a", "b"):
    write_clip(folder / f"{name}.mp4", width=64, height=64, frames=9)
    (folder / f"{name}.txt").write_text("a clip")
"""
CONFIG = {
    "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors",
    "max_train_steps": 1,
    "validation_disable": True,
    "lora_rank": 4,
}
DATASETS = [
    {
        "id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets",
        "caption_strategy": "textfile", "resolution": 64, "video": {"num_frames": 9},
    }
]  # fmt: skip
PLAN = {
    "gpuClass": "cpu", "device": "cpu", "nodes": 1, "processes": 1,
    "memory": "fp32/resident/keep:48", "cacheMemory": "device",
}  # fmt: skip


def environment() -> dict[str, str]:
    """One thread, this repository's packages, a port that the system chooses."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("job", "operator", "tests"))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "LTX2JOB_PORT": "0"}


def seconds(command: list[str], folder: Path) -> float:
    """Wall time of a fresh process."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    return time.perf_counter() - start


def first_step(folder: Path, name: str) -> float:
    """Seconds until the first step of a new run is on disk."""
    seconds(job("cache", name), folder)
    start = time.time()
    seconds(job("train", name), folder)
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return next(line["time"] for line in map(json.loads, lines) if line.get("step") == 1 and "loss" in line) - start


def job(stage: str, name: str) -> list[str]:
    """The command line of a pod."""
    return [str(BIN / "ltx2-job"), stage, "--files", "files", "--run", name]


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run([sys.executable, "-c", CLIPS], cwd=folder, env=environment(), check=True)
        seconds([str(BIN / "ltx2-job"), "tiny", "models"], folder)
        (folder / "files").mkdir()
        for name, value in (("config", CONFIG), ("datasets", DATASETS), ("plan", PLAN)):
            (folder / "files" / f"{name}.json").write_text(json.dumps(value))
        imports = {
            name: round(statistics.median(seconds([sys.executable, "-c", code], folder) for _ in range(runs)), 2)
            for name, code in IMPORTS.items()
        }
        steps = [round(first_step(folder, f"run-{number}"), 2) for number in range(runs)]
    print(
        json.dumps(
            {
                "first_step_seconds": {"median": statistics.median(steps), "min": min(steps), "max": max(steps)},
                "runs": steps,
                "imports_seconds": imports,
                "cores": os.cpu_count(),
                "load": os.getloadavg()[0],
            }
        )
    )


if __name__ == "__main__":
    main()
