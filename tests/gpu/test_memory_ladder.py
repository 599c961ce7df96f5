"""A card that is too small for the plan, made so by a cap while the shipped command runs: the next plan fits.

The cap is the allocator's own (torch.cuda.set_per_process_memory_fraction), set in one process of the training once its
first checkpoint is there, or in the cache stage from the start.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

STEPS, EVERY = 6, 2
KEEP_ALL, KEEP_NONE = "bf16/resident/keep:48", "bf16/resident/keep:0"

# sitecustomize of every Python process of the training. It writes down what is held at most, and sets the cap.
WATCH = """
import os, sys, threading, time
if "--worker" in sys.orig_argv and {stage!r} in sys.orig_argv and os.environ.get("RANK") == {rank!r}:
    def watch():
        capped, peak = False, 0
        while True:
            time.sleep(0.002)
            torch = sys.modules.get("torch")
            if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
                continue
            device = int(os.environ.get("LOCAL_RANK", "0"))
            if torch.cuda.max_memory_allocated(device) > peak:
                peak = torch.cuda.max_memory_allocated(device)
                with open({peak!r}, "a") as file:
                    file.write(str(peak) + chr(10))
            if {most} and not capped and os.path.exists({after!r}):
                total = torch.cuda.get_device_properties(device).total_memory
                torch.cuda.set_per_process_memory_fraction({most} / total, device)
                torch.cuda.empty_cache()
                capped = True
    threading.Thread(target=watch, daemon=True).start()
"""


class Place:
    """A workspace with real clips and the tiny checkpoint, and the shipped command in it."""

    def __init__(self, folder: Path, clips: Path, model: Path) -> None:
        self.folder = folder
        (folder / "clips").mkdir()
        for suffix in (".mp4", ".txt"):
            shutil.copy(clips / f"bigbuckbunny{suffix}", folder / "clips")
        shutil.copytree(model.parent, folder / "models")

    def run(self, name: str, count: int, expect: int = 0, watch: dict[str, Any] | None = None, **spec: Any) -> str:
        """`ltx2 run` of a new training on `count` GPUs; what it printed."""
        config = {
            "model_family": "ltxvideo2", "model_type": "lora", "seed": 42, "resolution": 512, "train_batch_size": 8,
            "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors", "max_train_steps": STEPS, "lora_rank": 4,
            "checkpoint_step_interval": EVERY, "validation_disable": True,
        }  # fmt: skip
        clips = {
            "id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips",
            "caption_strategy": "textfile", "resolution": 512, "video": {"num_frames": 121, "min_frames": 121},
        }  # fmt: skip
        spec = {"gpu": {"class": "auto", "count": count}, "config": config, "datasets": [clips]} | spec
        body = {"apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": name}, "spec": spec}
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(body))
        custom = self.folder / "custom" / name
        custom.mkdir(parents=True)
        values = {"stage": "train", "rank": "0", "peak": str(self.folder / f"{name}.peak"), "most": 0, "after": "/"}
        (custom / "sitecustomize.py").write_text(WATCH.format(**(values | (watch or {}))))
        paths = [str(custom), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LTX2")}
        done = subprocess.run(
            [sys.executable, "-m", "ltx2_operator.cli", "run", f"{name}.yaml"], cwd=self.folder, text=True,
            env=environment | {"PYTHONPATH": os.pathsep.join(paths)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=500,
        )  # fmt: skip
        print(done.stdout)  # with pytest -s the log is the story
        assert done.returncode == expect, done.stdout
        return done.stdout

    def peak(self, name: str) -> int:
        """Bytes that the watched process of a run held at most."""
        return max(map(int, (self.folder / f"{name}.peak").read_text().split()))

    def words(self, name: str) -> list[dict[str, Any]]:
        """The last word of each attempt."""
        folder = self.folder / "runs" / name / "attempts"
        return [json.loads((folder / f"{n}.json").read_text()) for n in range(1, 1 + len(list(folder.iterdir())))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, real_clips: Path, tiny20: Path, gpu: torch.device) -> Place:
    return Place(tmp_path_factory.mktemp("ladder"), real_clips, tiny20)


@pytest.fixture(scope="module")
def between(place: Place) -> int:
    """Bytes: too few for the plan that keeps everything, enough for the one that recomputes everything."""
    peaks = []
    for name, memory in (("keeps", KEEP_ALL), ("recomputes", KEEP_NONE)):
        place.run(name, 1, memory=memory)
        peaks.append(place.peak(name))
    most, least = peaks
    print(f"peak {most} bytes under {KEEP_ALL}, {least} under {KEEP_NONE}")
    assert most > 1.3 * least
    return (most + least) // 2


@pytest.mark.parametrize(("rank", "count"), [("0", 1), ("0", 2), ("1", 2)])
def test_training_goes_on_with_the_smaller_plan_at_the_checkpoint(
    rank: str, count: int, place: Place, between: int
) -> None:
    if torch.cuda.device_count() < count:
        pytest.skip("needs two GPUs")
    name = f"train-{rank}-of-{count}"
    after = place.folder / f"runs/{name}/checkpoints/step-{EVERY:07d}"
    said = place.run(name, count, watch={"rank": rank, "most": between, "after": str(after)})
    words = place.words(name)
    assert [word["exitCode"] for word in words] == [80, 80, 0]
    assert (words[0]["step"], words[-1]["step"]) == (EVERY, STEPS)
    assert all("CUDA out of memory" in word["message"] for word in words[:2])
    assert f"GPUOutOfMemory: {KEEP_ALL} → bf16/resident/keep:24, continues from step {EVERY}" in said
    assert f"GPUOutOfMemory: bf16/resident/keep:24 → {KEEP_NONE}, continues from step {EVERY}" in said
    assert said.count(f"resuming from step {EVERY}") == 2
    assert "Traceback" not in said and "Exception raised from" not in said  # nor the peer's C++ traces
    assert (place.folder / f"runs/{name}/lora.safetensors").exists()


def test_the_cache_stage_goes_on_beside_the_gpu(place: Place) -> None:
    """The encoders find no room on the card: the next plan runs them on the CPU, and training follows."""
    changed = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips", "resolution": 256,
               "caption_strategy": "textfile", "video": {"num_frames": 17, "min_frames": 17}}  # fmt: skip
    said = place.run("encoders", 1, watch={"stage": "cache", "most": 1 << 20}, datasets=[changed])
    first, *_, last = place.words("encoders")
    assert (first["exitCode"], first["reason"], first["stage"]) == (80, "GPUOutOfMemory", "cache")
    assert "does not fit on the GPU beside one clip" in first["message"]
    assert "GPUOutOfMemory: cache: device → cpu" in said and "Traceback" not in said
    assert (last["exitCode"], last["stage"], last["step"]) == (0, "train", STEPS)
