"""A run folder with cached data of random clips, without any clip: what the train stage starts from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltx2_job.config import resolve
from ltx2_job.data.index import Index, Sample
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.reporter import Reporter
from ltx2_job.stage import Stage, StagePlan, StopFlag
from ltx2_job.store import AUDIO, TEXT, VIDEO, Store
from ltx2_job.workspace import Workspace

TEXT_TOKENS = 16
CONFIG = {
    "learning_rate": 2e-3,
    "max_train_steps": 6,
    "lora_rank": 4,
    "checkpoint_step_interval": 0,
    "eval_steps_interval": 0,
    "validation_disable": True,
    "mixed_precision": "no",
}
DATASET = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}


def clip(
    name: str,
    *,
    frames: int = 9,
    size: int = 64,
    sounding: bool = True,
    held_out: bool = False,
    audio: int = 9,
    repeats: int = 0,
) -> Sample:
    """A sample of the index; `audio` latents, 0 for a run without audio."""
    return Sample(
        id=f"clips/{name}", dataset="eval" if held_out else "clips", path=f"datasets/videos/{name}",
        width=size, height=size, frames=frames, fps=25.0, audio_latents=audio, sounding=sounding and audio > 0,
        video_key=f"{name}v", audio_key=f"{name}a" if sounding and audio else None, text_keys=(f"{name}t",),
        repeats=repeats, probability=1.0, held_out=held_out,
    )  # fmt: skip


def tensors(sample: Sample, widths: tuple[int, int]) -> dict[str, dict[str, torch.Tensor]]:
    """What the store holds of a sample: smooth random latents of unit scale, and text."""
    source = np.random.default_rng(abs(hash_of(sample.id)))
    grid = ((sample.frames - 1) // 8 + 1, sample.height // 32, sample.width // 32)
    colour = source.standard_normal((128, 1, 1, 1))
    video = 0.9 * colour + 0.4 * source.standard_normal((128, *grid))
    audio = 0.9 * source.standard_normal((1, 128)) + 0.4 * source.standard_normal((max(1, sample.audio_latents), 128))
    text = {
        name: source.standard_normal((TEXT_TOKENS, width))
        for name, width in zip(("video", "audio"), widths, strict=True)
    }
    return {
        VIDEO: {"latents": torch.from_numpy(video).to(torch.bfloat16)},
        AUDIO: {"latents": torch.from_numpy(audio).float()},
        TEXT: {name: torch.from_numpy(value).to(torch.bfloat16) for name, value in text.items()},
    }


def hash_of(text: str) -> int:
    """A number that depends on the text alone (Python's own hash differs between processes)."""
    return int.from_bytes(text.encode(), "big") % (1 << 61)


def fill_store(store: Store, samples: list[Sample], widths: tuple[int, int]) -> None:
    """Put every item of the samples into the store; `widths` of the text for video and audio."""
    for sample in samples:
        items = tensors(sample, widths)
        store.put(VIDEO, sample.video_key, items[VIDEO], {})
        store.put(TEXT, sample.text_keys[0], items[TEXT], {})
        if sample.audio_key:
            store.put(AUDIO, sample.audio_key, items[AUDIO], {})


def make_stage(
    root: Path,
    model: Path,
    samples: list[Sample],
    *,
    name: str = "run",
    reporter: Reporter | None = None,
    rank: int = 0,
    world: int = 1,
    memory: str = "fp32/resident/keep:48",
    device: str = "cpu",
    widths: tuple[int, int] = (64, 64),
    **config: Any,
) -> Stage:
    """A train stage whose cache is filled: store, index and configuration under `root`."""
    resolved = resolve({"pretrained_model_name_or_path": str(model), **CONFIG, **config}, [DATASET])
    resolved.require_supported()
    workspace = Workspace(root)
    run = workspace.run(name, resolved.training.output_dir)
    store = Store(workspace.cache)
    fill_store(store, samples, widths)
    if rank == 0:
        Index(tuple(samples), {}, str(store.root)).save(run.index)
    plan = StagePlan(device=device, memory=memory, processes=world)
    return Stage(
        "train", resolved.training, resolved.datasets, plan, workspace, run, name,
        rank=rank, world=world, local_rank=rank, digest=resolved.digest, stop=StopFlag(),
        reporter=reporter or Recorder(run.metrics),
    )  # fmt: skip


def train_rank(
    say: Callable[[str], None],
    root: Path,
    model: Path,
    samples: list[Sample],
    rank: int,
    world: int,
    port: int,
    tell: int | None,
    cut: int | None,
    settings: dict[str, Any],
) -> None:
    """One rank of a training, for a child process.

    Rank 1 is told to stop after step `tell`; rank 0 while it makes the videos of step `cut`.
    """
    from ltx2_job.training.trainer import run_training

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    stage = make_stage(root, model, samples, rank=rank, world=world, **settings)
    if rank:
        stage.reporter = Reporter()
    if rank == 1 and tell is not None:
        original = stage.reporter.step

        def step(number: int, *rest: Any) -> None:
            original(number, *rest)
            if number == tell:
                stage.stop.request()

        stage.reporter.step = step  # type: ignore[method-assign]

    def validate(model: LTX2Transformer, step: int) -> list[Path]:
        if step == cut:
            stage.stop.request()
        stage.stop.check()
        folder = stage.run.validation / f"step-{step:07d}"
        folder.mkdir(parents=True)
        return []

    # As in a pod: rank 0 alone makes videos, so it alone has something to do at these steps.
    run_training(stage, validate if rank == 0 else None)


class Recorder(Reporter):
    """Keeps everything that is reported, and writes metrics.jsonl as the real one does."""

    def __init__(self, metrics: Path):
        super().__init__()
        self.metrics = metrics
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.measured: list[tuple[int, float]] = []
        self.saved: list[int] = []
        self.messages: list[str] = []

    def _line(self, entry: dict[str, Any]) -> None:
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        with self.metrics.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def step(self, step: int, max_steps: int, values: Any) -> None:
        self.steps.append((step, dict(values)))
        self._line({"step": step, **values})

    def held_out(self, step: int, loss: float, parts: Any) -> None:
        self.measured.append((step, loss))
        self._line({"step": step, "held_out_loss": loss, **{f"held_out_{key}": value for key, value in parts.items()}})

    def checkpoint(self, step: int, path: Path, seconds: float) -> None:
        self.saved.append(step)

    def warn(self, message: str) -> None:
        self.messages.append(message)

    def info(self, message: str) -> None:
        self.messages.append(message)
