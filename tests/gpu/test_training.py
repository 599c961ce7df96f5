"""The training loop on a GPU: bf16, nothing waits for the host inside a step, out of memory, several GPUs."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ltx2_job import checkpoint
from ltx2_job.errors import GPUOutOfMemoryError, Stopped
from ltx2_job.stage import Stage
from ltx2_job.training import step as step_module
from ltx2_job.training.trainer import run_training
from nccl_run import CLIPS
from training_runs import make_stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm GPU"),
]
BF16 = {"device": "cuda", "memory": "bf16/resident/keep:48"}


def weights(stage: Stage) -> torch.Tensor:
    tensors = load_file(checkpoint.listed(stage.run.checkpoints)[-1] / checkpoint.ADAPTER)
    return torch.cat([tensors[key].flatten().float() for key in sorted(tensors)])


def hashes(stage: Stage) -> list[str]:
    last = checkpoint.listed(stage.run.checkpoints)[-1]
    names = (checkpoint.ADAPTER, checkpoint.OPTIMIZER)
    return [hashlib.sha256((last / name).read_bytes()).hexdigest() for name in names]


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_bf16"])
def test_bf16_learns_and_no_step_waits_for_the_host(
    tmp_path: Path, tiny20: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """torch raises at any synchronising call inside a step. Catches: `.item()`, a copy from pageable memory."""
    done = step_module.Step.__call__

    def strict(self: Any, number: int, rate: float, work: list[Any], stop: bool = False) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("error" if number > 3 else "default")  # the first steps make tables and handles
        try:
            return done(self, number, rate, work, stop)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(step_module.Step, "__call__", strict)
    stage = make_stage(tmp_path, tiny20, CLIPS[:4], **BF16, max_train_steps=40, learning_rate=5e-3, optimizer=optimizer)
    run_training(stage)
    (_, before), (_, after) = stage.reporter.measured  # type: ignore[attr-defined]
    assert after < 0.95 * before


def test_the_gpu_computes_what_the_cpu_computes(tmp_path: Path, tiny20: Path) -> None:
    stages = [
        make_stage(tmp_path, tiny20, CLIPS, name=device, device=device, max_train_steps=10)
        for device in ("cpu", "cuda")
    ]
    for stage in stages:
        run_training(stage)
    cpu, gpu = (weights(stage) for stage in stages)
    assert (cpu - gpu).norm() / cpu.norm() < 1e-3
    cpu_loss, gpu_loss = ([values["loss"] for _, values in stage.reporter.steps] for stage in stages)  # type: ignore[attr-defined]
    assert cpu_loss == pytest.approx(gpu_loss, rel=1e-3)


def test_bf16_is_near_fp32(tmp_path: Path, tiny20: Path) -> None:
    """The first loss, before any update, within bf16's precision."""
    losses = []
    for memory in ("fp32/resident/keep:48", "bf16/resident/keep:48"):
        stage = make_stage(tmp_path, tiny20, CLIPS, name=memory[:4], device="cuda", memory=memory, max_train_steps=1)
        run_training(stage)
        losses.append(stage.reporter.steps[0][1]["loss"])  # type: ignore[attr-defined]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_resuming_and_recomputing_change_no_bit(tmp_path: Path, tiny20: Path) -> None:
    """cuBLAS and attention are deterministic for equal shapes on one card; so is everything around them."""
    whole = make_stage(tmp_path, tiny20, CLIPS, name="whole", **BF16, max_train_steps=6, optimizer="adamw_bf16")
    run_training(whole)
    broken = make_stage(tmp_path, tiny20, CLIPS, name="broken", **BF16, max_train_steps=6, optimizer="adamw_bf16")
    report = broken.reporter.step

    def step(number: int, *rest: Any) -> None:
        report(number, *rest)
        if number == 2:
            broken.stop.request()

    broken.reporter.step = step  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        run_training(broken)
    less = {"device": "cuda", "memory": "bf16/resident/keep:0"}
    again = make_stage(tmp_path, tiny20, CLIPS, name="broken", **less, max_train_steps=6, optimizer="adamw_bf16")
    run_training(again)
    assert hashes(again) == hashes(whole)


def test_out_of_memory_names_the_plan(tmp_path: Path, tiny20: Path) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 20)) / total)
    try:
        with pytest.raises(GPUOutOfMemoryError, match="memory plan bf16/resident/keep:48"):
            run_training(make_stage(tmp_path, tiny20, CLIPS, **BF16, train_batch_size=64))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_are_one(tmp_path: Path, tiny20: Path) -> None:
    for name, world in (("one", 1), ("two", 2)):
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
        command = [sys.executable, "-m", "nccl_run", str(tmp_path), str(tiny20)]
        ranks = [
            subprocess.Popen([*command, str(rank), str(world), name], env=environment | {"LOCAL_RANK": str(rank)})
            for rank in range(world)
        ]
        assert [process.wait(300) for process in ranks] == [0] * world
    one, two = (
        load_file(tmp_path / f"runs/{name}/checkpoints/step-0000020" / checkpoint.ADAPTER) for name in ("one", "two")
    )
    difference = sum(float((one[key] - two[key]).square().sum()) for key in one) ** 0.5
    assert difference / sum(float(tensor.square().sum()) for tensor in one.values()) ** 0.5 < 1e-3
