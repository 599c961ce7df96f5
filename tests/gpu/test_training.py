"""Training on the GPU: what the memory plan may not change, resuming, and a step that never waits for the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ltx2_job.data.plan import Pick
from ltx2_job.errors import Stopped
from ltx2_job.export import load_lora
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.stage import Stage, StopFlag
from ltx2_job.store import Store
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.batches import Reader
from ltx2_job.training.draw import draw
from ltx2_job.training.objective import losses
from ltx2_job.training.optimizers import FusedAdamW
from ltx2_job.training.processes import Processes
from ltx2_job.training.step import Step
from ltx2_job.training.trainer import run_training
from training_runs import Recorder, clip, fill_store, make_stage

STEPS = 10
SAMPLES = [clip("a"), clip("b"), clip("c", sounding=False), clip("d")]
PLANS = ("bf16/resident/keep:48", "bf16/resident/keep:0")


class _StopsAt(Recorder):
    """Wishes the run to stop when it hears of a step."""

    def __init__(self, last: int, stop: StopFlag, metrics: Path):
        super().__init__(metrics)
        self.last, self.stop = last, stop

    def step(self, step: int, max_steps: int, values: Any) -> None:
        super().step(step, max_steps, values)
        if step == self.last:
            self.stop.request()


@pytest.fixture
def repeatable() -> Iterator[None]:
    """Kernels whose result does not depend on the order in which threads arrive, where torch has such."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def _stage(root: Path, model: Path, gpu: torch.device, **options: Any) -> Stage:
    settings = {
        "train_batch_size": 2, "max_train_steps": STEPS, "ltx2_first_frame_conditioning_probability": 0.5,
        "mixed_precision": "bf16", "memory": PLANS[0],
    }  # fmt: skip
    stage = make_stage(root, model, SAMPLES, **{**settings, **options})
    stage.plan = replace(stage.plan, device=gpu.type)
    return stage


def _train(stage: Stage) -> list[float]:
    run_training(stage)
    assert isinstance(stage.reporter, Recorder)
    return [values["loss"] for _, values in stage.reporter.steps]


def _ready(root: Path, model: Path, gpu: torch.device, memory: str) -> tuple[Any, ...]:
    """A loaded model with a LoRA whose B is not zero, and one micro-batch with its draw on the GPU."""
    plan = MemoryPlan.parse(memory)
    transformer = Checkpoint.open(model).transformer(plan, gpu).train()
    adapters = AdapterSet.create(transformer, rank=4, alpha=4.0, seed=3)
    random = torch.Generator().manual_seed(5)
    for key, view in adapters.views.items():
        if ".lora_B." in key:
            view.copy_(torch.randn(view.shape, generator=random) * 0.02)
    store = Store(root / "cache")
    fill_store(store, SAMPLES)
    picks = [Pick(sample, 0, position) for position, sample in enumerate(SAMPLES[:2])]
    batch = Reader(store).batch(picks, samples=2, sounding=2).to(gpu)
    chance = draw(42, 0, picks, batch.grid, batch.audio.shape[1], first_frame_probability=0.5).to(gpu)
    return transformer, adapters, batch, chance


def test_recomputation_changes_neither_losses_nor_gradients(tmp_path: Path, tiny20: Path, gpu: torch.device) -> None:
    """Catches blocks recomputed from another state, or with another context, than in the forward pass."""
    gradients, first = [], []
    for memory in PLANS:
        transformer, adapters, batch, chance = _ready(tmp_path, tiny20, gpu, memory)
        part = losses(transformer, batch, chance, 1.0)
        part.total.backward()
        first.append(float(part.total.detach()))
        gradients.append(adapters.gradient.double())
    kept, recomputed = gradients
    assert kept.norm() > 0 and kept.isfinite().all()
    cosine = float(torch.dot(kept, recomputed) / kept.norm() / recomputed.norm())
    difference = float((kept - recomputed).norm() / kept.norm())
    print(f"keep:48 against keep:0: gradient cosine {cosine:.8f}, difference {difference:.1e}; losses {first}")
    assert first[0] == pytest.approx(first[1], rel=1e-6)
    # The same kernels on the same numbers; only sums whose order is not fixed may differ, by bf16's rounding.
    assert cosine > 0.9999
    assert difference < 4e-3


def test_ten_steps_are_the_same_under_both_plans(tmp_path: Path, tiny20: Path, gpu: torch.device) -> None:
    kept, recomputed = (_train(_stage(tmp_path / str(n), tiny20, gpu, memory=memory)) for n, memory in enumerate(PLANS))
    print("losses keep:48", kept, "keep:0", recomputed)
    assert len(kept) == STEPS
    assert recomputed == pytest.approx(kept, rel=5e-3)
    assert len(set(kept)) == STEPS, "the losses of ten steps with different noise cannot be alike"


def test_training_on_the_gpu_is_training_on_the_cpu(tmp_path: Path, tiny20: Path, gpu: torch.device) -> None:
    """The same draws everywhere: in fp32 the losses of ten steps agree to the rounding of ten updates."""
    options = {"memory": "fp32/resident/keep:48", "mixed_precision": "no"}
    there = _train(_stage(tmp_path / "gpu", tiny20, gpu, **options))
    here = _train(_stage(tmp_path / "cpu", tiny20, torch.device("cpu"), **options))
    assert there == pytest.approx(here, rel=1e-3)


def test_a_stopped_run_goes_on_to_the_same_bits(
    tmp_path: Path, tiny20: Path, gpu: torch.device, repeatable: None
) -> None:
    """Catches what a checkpoint forgets: moments, the step's number, noise or order that depend on the start."""
    whole = _stage(tmp_path / "whole", tiny20, gpu)
    losses_whole = _train(whole)

    stop = StopFlag()
    first = _stage(tmp_path / "parts", tiny20, gpu, reporter=_StopsAt(4, stop, tmp_path / "metrics.jsonl"))
    first.stop = stop
    with pytest.raises(Stopped):
        run_training(first)
    second = _stage(tmp_path / "parts", tiny20, gpu)
    losses_second = _train(second)
    assert 0 < len(losses_second) < STEPS
    assert losses_second == losses_whole[-len(losses_second) :]
    ours, theirs = load_lora(second.run.lora), load_lora(whole.run.lora)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_step_never_waits_for_the_host(tmp_path: Path, tiny20: Path, gpu: torch.device) -> None:
    """Catches .item(), a Python branch on a tensor, and copies from pageable memory inside the step."""
    transformer, adapters, batch, chance = _ready(tmp_path, tiny20, gpu, PLANS[1])
    optimizer = FusedAdamW(adapters, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.01)
    step = Step(transformer, adapters, optimizer, Processes(0, 1, gpu), audio_loss_weight=1.0, clip=("norm", 1.0))
    step(1, 1e-3, [(batch, chance)])  # makes what is made once: rotary tables, handles, the workspace of the products
    before = adapters.weight.clone()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        values = step(2, 1e-3, [(batch, chance)])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert values.isfinite().all()
    assert not torch.equal(before, adapters.weight)
