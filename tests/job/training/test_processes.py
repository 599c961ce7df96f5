"""Two gloo processes end where one ends with the same global batch, and leave together when one is told to stop."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forks import Child, fork, free_port
from ltx2_job import checkpoint, exitcodes
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.training.adapters import AdapterSet
from training_runs import clip, make_stage, train_rank

CLIPS = [clip("a"), clip("b", sounding=False), clip("c"), clip("d", sounding=False), clip("e", frames=17, audio=17)]


def start(
    root: Path, model: Path, world: int, tell: int | None = None, cut: int | None = None, **settings: Any
) -> list[Child]:
    """One training of `world` processes; rank 1 is told to stop after step `tell`, rank 0 in the videos of `cut`."""
    port = free_port()
    make_stage(root, model, CLIPS, world=world, **settings)  # every rank finds the cache filled
    return [fork(train_rank, root, model, CLIPS, rank, world, port, tell, cut, settings) for rank in range(world)]


def weights(root: Path, name: str) -> torch.Tensor:
    tensors = load_file(checkpoint.listed(root / f"runs/{name}/checkpoints")[-1] / checkpoint.ADAPTER)
    return torch.cat([tensors[key].flatten() for key in sorted(tensors)])


def test_two_processes_are_one(tmp_path: Path, tiny20: Path, transformer: Callable[[], LTX2Transformer]) -> None:
    """20 steps of 4 clips, sounding and silent mixed: 2 x 2 against 1 x 4. Catches: a mean of the ranks' means."""
    settings = {"max_train_steps": 20, "eval_steps_interval": 10}
    two = start(tmp_path, tiny20, 2, name="two", gradient_accumulation_steps=2, **settings)
    assert [child.wait() for child in two] == [0, 0]
    (one,) = start(tmp_path, tiny20, 1, name="one", train_batch_size=2, gradient_accumulation_steps=2, **settings)
    assert one.wait() == 0
    views = AdapterSet.create(transformer(), rank=4, alpha=4.0, seed=42).views
    origin = torch.cat([views[key].flatten() for key in sorted(views)])
    moved = weights(tmp_path, "one") - origin
    assert (weights(tmp_path, "two") - weights(tmp_path, "one")).norm() / moved.norm() <= 1e-4
    logs = [
        [json.loads(line) for line in (tmp_path / f"runs/{name}/metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for first, second in zip(*logs, strict=True):
        for name in ("loss", "loss_video", "loss_audio", "grad_norm", "held_out_loss"):
            assert (name in first) == (name in second)
            assert first.get(name, 0.0) == pytest.approx(second.get(name, 0.0), rel=1e-4)
    assert sum("held_out_loss" in line for line in logs[1]) == 3


def test_a_stop_of_one_process_is_a_stop_of_all_and_one_process_goes_on(tmp_path: Path, tiny20: Path) -> None:
    """Only rank 1 hears the signal. Nobody hangs, both leave with 85 at the same step, and world size 1 resumes it.

    Rank 0 validates after every step: catches a rank that learns of the stop earlier than the other.
    """
    settings = {"max_train_steps": 9, "name": "run", "validation_disable": False, "validation_step_interval": 1}
    began = time.monotonic()
    children = start(tmp_path, tiny20, 2, tell=3, **settings)
    assert [child.wait(60) for child in children] == [exitcodes.STOPPED] * 2 and time.monotonic() - began < 60
    (path,) = checkpoint.listed(tmp_path / "runs/run/checkpoints")
    assert 4 <= checkpoint.step_of(path) <= 6
    (one,) = start(tmp_path, tiny20, 1, gradient_accumulation_steps=2, **settings)
    assert one.wait() == 0
    (whole,) = start(tmp_path, tiny20, 1, gradient_accumulation_steps=2, max_train_steps=9, name="whole")
    assert whole.wait() == 0
    torch.testing.assert_close(weights(tmp_path, "run"), weights(tmp_path, "whole"), rtol=1e-3, atol=1e-5)


def test_a_stop_in_a_measurement_is_a_stop_of_all_at_that_step(tmp_path: Path, tiny20: Path) -> None:
    """Rank 1 hears the signal right before step 2 is measured. Catches going on: its held-out loss would be lost."""
    settings = {"max_train_steps": 6, "name": "run", "eval_steps_interval": 2}
    children = start(tmp_path, tiny20, 2, tell=2, **settings)
    assert [child.wait(60) for child in children] == [exitcodes.STOPPED] * 2
    (path,) = checkpoint.listed(tmp_path / "runs/run/checkpoints")
    assert checkpoint.step_of(path) == 2
    again = start(tmp_path, tiny20, 2, **settings)
    assert [child.wait(60) for child in again] == [0, 0]
    lines = [json.loads(line) for line in (tmp_path / "runs/run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [0, 2, 4, 6]


def test_a_stop_in_the_videos_of_one_process_is_a_stop_of_all_at_that_step(tmp_path: Path, tiny20: Path) -> None:
    """Rank 1 makes none and goes on to the next step. Catches a step whose videos are never made."""
    settings = {"max_train_steps": 6, "name": "run", "validation_disable": False, "validation_step_interval": 2}
    children = start(tmp_path, tiny20, 2, cut=2, **settings)
    assert [child.wait(60) for child in children] == [exitcodes.STOPPED] * 2
    (path,) = checkpoint.listed(tmp_path / "runs/run/checkpoints")
    assert checkpoint.step_of(path) == 2
    again = start(tmp_path, tiny20, 2, **settings)
    assert [child.wait(60) for child in again] == [0, 0]
    made = sorted(path.name for path in (tmp_path / "runs/run/validation").iterdir())
    assert made == [checkpoint.name_of(step) for step in (0, 2, 4, 6)]


def test_a_lost_peer_is_a_named_end_that_is_tried_again(tmp_path: Path, tiny20: Path) -> None:
    """Rank 1 is killed in the middle: rank 0 ends with the code of a lost peer instead of hanging."""
    first, second = start(tmp_path, tiny20, 2, name="run", max_train_steps=4000, lora_rank=1)
    metrics = tmp_path / "runs/run/metrics.jsonl"
    until = time.monotonic() + 60
    while not (metrics.exists() and '"step": 3' in metrics.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    second.kill()
    assert first.wait(60) == exitcodes.TEMPORARY
