"""The job as a pod runs it: real processes, the tiny model, a stop in the middle and another start."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from job.shell.conftest import PLAN, write_files
from media import write_clip

CONFIG = {
    "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors",
    "resolution": 64,
    "max_train_steps": 60,
    "learning_rate": 1e-3,
    "lora_rank": 4,
    "checkpoint_step_interval": 1000,
    "eval_steps_interval": 0,
    "disable_benchmark": True,
    "validation_prompt": "a red fox",
    "validation_resolution": "64x64",
    "validation_num_video_frames": 9,
    "validation_num_inference_steps": 2,
    "validation_step_interval": 0,
}
DATASETS = [
    {
        "id": "clips",
        "type": "local",
        "dataset_type": "video",
        "instance_data_dir": "clips",
        "caption_strategy": "textfile",
        "video": {"num_frames": 9, "min_frames": 9},
    }
]


def start(verb: str, workspace: Path) -> subprocess.Popen[str]:
    """A stage as its pod starts it."""
    words = [verb, "--files", str(workspace / "files"), "--workspace", str(workspace), "--run", "fox", "--attempt", "1"]
    environ = {**os.environ, "LTX2JOB_TERMINATION_LOG": str(workspace / "log"), "LTX2JOB_GRACE_SECONDS": "60"}
    command = [sys.executable, "-m", "ltx2_job.cli", *words]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def word(workspace: Path) -> dict:
    return json.loads((workspace / "log").read_text())


@pytest.mark.slow
def test_a_run_that_is_stopped_and_started_again(tiny20, tmp_path):
    """SIGTERM to process 1 in the middle: 85, a checkpoint and a word; the same command again goes on to the end.

    Catches a signal that does not arrive, a code that is lost between worker and launcher, a stop that is taken for
    success, a second start that begins anew, and outputs that are missing at the end.
    """
    shutil.copytree(tiny20.parent, tmp_path / "models")
    write_clip(tmp_path / "clips" / "a.mp4")
    (tmp_path / "clips" / "a.txt").write_text("a bright square moves to the right")
    write_files(tmp_path / "files", CONFIG, DATASETS, PLAN)
    run = tmp_path / "runs" / "fox"

    cache = start("cache", tmp_path)
    output = cache.communicate(timeout=240)[0]
    assert cache.returncode == 0, output
    assert word(tmp_path)["result"]["clips"] == 1

    first = start("train", tmp_path)
    for line in first.stdout:
        if line.startswith("step 1/60"):
            first.send_signal(signal.SIGTERM)
            break
    output = first.communicate(timeout=240)[0]
    assert first.returncode == 85, output
    assert "again to stop at once" in output
    stopped = word(tmp_path)
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert stopped["exitCode"] == 85 and stopped["checkpoint"]["step"] == stopped["step"] == int(checkpoint.name[5:])
    assert 0 < stopped["step"] < 60 and not (run / "result.json").exists()

    second = start("train", tmp_path)
    output = second.communicate(timeout=240)[0]
    assert second.returncode == 0, output
    assert f"resuming from step {stopped['step']}" in output
    assert (word(tmp_path)["exitCode"], word(tmp_path)["step"]) == (0, 60)
    assert word(tmp_path)["result"]["lora"] == "runs/fox/lora.safetensors"
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(1, 61))
    for name in (
        "lora.safetensors",
        "lora.diffusers.safetensors",
        "loss.png",
        "validation/step-0000060/validation-64x64.mp4",
    ):
        assert (run / name).stat().st_size > 0
