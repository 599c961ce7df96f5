"""A cache stage for tests: clips made on the spot, and a small stand-in for the model that counts what it is asked."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ltx2_job.caching import stage as cache_stage
from ltx2_job.caching.survey import Workers
from ltx2_job.config import Resolved, resolve
from ltx2_job.data.index import Index
from ltx2_job.errors import Stopped
from ltx2_job.workspace import Workspace
from media import write_clip

PARTS = ("vae", "audio_vae", "connectors", "text_encoder")


class FakeVAE:
    """Means over 32 x 32 x 8 blocks, in three of 128 channels. The posterior's mode is the mean; a sample is not."""

    temporal_compression_ratio, spatial_compression_ratio = 8, 32
    device = torch.device("cpu")
    latents_mean, latents_std = torch.zeros(128), torch.ones(128)

    def __init__(self, calls: Calls, dtype: torch.dtype):
        self.calls, self.dtype = calls, dtype

    def encode(self, pixels: Tensor) -> Any:
        self.calls.count["video"] += 1
        self.calls.pixels.append(pixels.float().clone())
        first, rest = pixels[:, :, :1], pixels[:, :, 1:]
        frames = torch.cat([first, rest.unflatten(2, (-1, 8)).mean(3)] if rest.shape[2] else [first], 2)
        means = torch.nn.functional.avg_pool3d(frames.float(), (1, 32, 32))
        mode = torch.nn.functional.pad(means, (0, 0, 0, 0, 0, 0, 0, 125))
        sample = mode + 1
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: mode, sample=lambda: sample))


class FakeAudioVAE:
    """Mean of four mel frames, in 8 channels x 16 bins."""

    device, dtype = torch.device("cpu"), torch.float32
    latents_mean, latents_std = torch.zeros(128), torch.ones(128)
    config = SimpleNamespace(latent_channels=8)

    def __init__(self, calls: Calls):
        self.calls = calls

    def encode(self, mel: Tensor) -> Any:
        self.calls.count["audio"] += 1
        padded = torch.nn.functional.pad(mel, (0, 0, 0, -mel.shape[2] % 4))
        pooled = padded.unflatten(2, (-1, 4)).mean(3)[..., ::4].repeat(1, 4, 1, 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: pooled))


class FakeTextEncoder:
    """Each text's hash as numbers."""

    def __init__(self, calls: Calls):
        self.calls = calls

    def encode(self, captions: list[str]) -> list[tuple[Tensor, Tensor]]:
        result = []
        for caption in captions:
            self.calls.count["text"] += 1
            self.calls.texts.append(caption)
            numbers = torch.tensor(list(hashlib.sha256(caption.encode()).digest())).float()
            result.append((numbers.repeat(4, 1), numbers[:16].repeat(4, 1)))
        return result

    def close(self) -> None:
        self.calls.order.append("close text")


@dataclass
class Calls:
    """What the stand-in was asked."""

    count: Counter[str] = field(default_factory=Counter)
    hashed: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)


@dataclass
class FakeCheckpoint:
    """One file per part; a part's fingerprint is the hash of its file."""

    folder: Path
    calls: Calls
    text_tokens: int = 4

    @property
    def source(self) -> Any:
        return SimpleNamespace(part=lambda name: SimpleNamespace(arguments={"part": name}))

    def files(self, part: str) -> tuple[Path, ...]:
        return (self.folder / f"{part}.bin",)

    def fingerprint(self, part: str) -> str:
        self.calls.hashed[part] += 1
        return hashlib.sha256(self.files(part)[0].read_bytes()).hexdigest()

    def video_vae(self, device: torch.device, dtype: torch.dtype) -> FakeVAE:
        self.calls.order.append("video")
        return FakeVAE(self.calls, dtype)

    def audio_vae(self, device: torch.device) -> FakeAudioVAE:
        self.calls.order.append("audio")
        return FakeAudioVAE(self.calls)

    def text_encoder(self, device: torch.device, dtype: torch.dtype) -> FakeTextEncoder:
        self.calls.order.append("text")
        return FakeTextEncoder(self.calls)


class FakeReporter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.counted: list[tuple[int, int, str | None, str]] = []
        self.states: list[str] = []

    def state(self, name: str) -> None:
        self.states.append(name)

    def items(self, done: int, total: int, result: str | None = None, kind: str = "items") -> None:
        self.counted.append((done, total, result, kind))

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def info(self, message: str) -> None:
        pass

    def transfer(self, name: str, done: int, total: int, rate: float | None) -> None:
        pass


class FakeStop:
    """Raises Stopped at the n-th check."""

    def __init__(self, after: int | None = None):
        self.left = after

    def check(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Stopped("told to stop")


class SharedWorkers(Workers):
    """Media workers that outlive a run, since starting them takes most of a small run's time."""

    def __exit__(self, *_: object) -> None:
        pass

    def finish(self) -> None:
        """End them after the last test."""
        super().__exit__()


class Bench:
    """A workspace with clips, and a way to run the cache stage on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, workers: Workers):
        self.workers = workers
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # durability is test_store's; here it only costs
        self.workspace = Workspace(root)
        self.calls = Calls()
        self.clips = root / "datasets" / "videos"
        self.model = root / "models"
        self.model.mkdir(parents=True)
        for part in PARTS:
            (self.model / f"{part}.bin").write_text(part)
        self.config: dict[str, Any] = {"max_train_steps": 5, "validation_prompt": "a fox"}
        self.dataset: dict[str, Any] = {
            "id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos",
            "caption_strategy": "textfile", "resolution": 64, "video": {"num_frames": 9},
        }  # fmt: skip
        self.others: list[dict[str, Any]] = []
        self.resolved: Resolved | None = None  # in place of what config and datasets give
        self.plan = SimpleNamespace(device="cpu", cache_memory="device", nodes=1, processes=1, cores=None)
        self.reporter = FakeReporter()
        self.stop = FakeStop()
        self.fence = SimpleNamespace(check=lambda: None)
        monkeypatch.setattr(cache_stage, "open_checkpoint", lambda stage: FakeCheckpoint(self.model, self.calls))

    def clip(self, name: str, caption: str | None = None, **options: Any) -> Path:
        """A clip with a caption beside it."""
        path = write_clip(self.clips / f"{name}.mp4", **{"width": 64, "height": 64, "frames": 9, **options})
        path.with_suffix(".txt").write_text(caption or f"caption of {name}")
        return path

    def stage(self, name: str = "fox", world: int = 1) -> Any:
        """What run_cache takes."""
        resolved = self.resolved or resolve(self.config, [self.dataset, *self.others], workspace=self.workspace.root)
        self.workspace.note_run(name, self.workspace.run(name, resolved.training.output_dir))  # as open_stage does
        return SimpleNamespace(
            name="cache", config=resolved.training, datasets=resolved.datasets, plan=self.plan,
            workspace=self.workspace, run=self.workspace.run(name, resolved.training.output_dir), run_name=name,
            attempt=1, uid="", rank=0, world=world, local_rank=0, stop=self.stop, reporter=self.reporter,
            fence=self.fence, digest=resolved.digest,
        )  # fmt: skip

    def run(self, name: str = "fox") -> tuple[Index, Counter[str]]:
        """Run the stage with a fresh reporter; the index, and how often each encoder was called this time."""
        self.reporter = FakeReporter()
        before = Counter(self.calls.count)
        index = cache_stage.run_cache(self.stage(name), lambda cores: self.workers)
        return index, self.calls.count - before
