"""From the plan of a step to tensors, for the coming steps while the present one is computed."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor

from ltx2_job.data.index import Sample
from ltx2_job.data.plan import Planner
from ltx2_job.errors import DataError
from ltx2_job.models.positions import Grid, pack_video
from ltx2_job.store import AUDIO, TEXT, VIDEO, Store
from ltx2_job.training.draw import Draw, draw
from ltx2_job.training.objective import Batch

AHEAD = 2  # steps made ready in advance: one is being used up, one waits


class _Use(Protocol):
    @property
    def sample(self) -> Sample: ...
    @property
    def text_key(self) -> str: ...


@dataclass(frozen=True)
class Reader:
    """Reads samples of the store as a batch. `channels`: of a video and of an audio token."""

    store: Store
    channels: tuple[int, int] = (128, 128)

    def batch(self, uses: Sequence[_Use], samples: int, sounding: int) -> Batch:
        """The batch of some uses of one shape, on the host; `samples` and `sounding` are the counts of the whole step.

        Raises DataError naming the clip whose item is missing from the store or has another shape than the index says.
        """
        first = uses[0].sample
        grid = grid_of(first)
        texts = [self._item(use.sample, TEXT, use.text_key) for use in uses]
        heard = torch.tensor([float(use.sample.sounding) for use in uses])
        return Batch(
            video=torch.stack([self._video(use.sample, grid) for use in uses]),
            audio=torch.stack([self._audio(use.sample) for use in uses]),
            video_text=torch.stack([text["video"] for text in texts]),
            audio_text=torch.stack([text["audio"] for text in texts]),
            video_share=torch.full((len(uses),), 1.0 / samples),
            audio_share=heard / max(1, sounding),
            a2v_scale=heard,
            grid=grid,
            fps=first.fps,
            isolate=first.audio_latents == 0,
        )

    def _video(self, sample: Sample, grid: Grid) -> Tensor:
        latents = self._item(sample, VIDEO, sample.video_key)["latents"].float()
        self._check(sample, "video", latents, (self.channels[0], *grid))
        return pack_video(latents.unsqueeze(0)).squeeze(0)

    def _audio(self, sample: Sample) -> Tensor:
        # A silent sample's audio reaches neither the video nor the loss: zeros stand for it. A run without any audio
        # still carries one token, since the audio half of the model cannot be empty.
        shape = (audio_tokens(sample), self.channels[1])
        if not sample.sounding or sample.audio_key is None:
            return torch.zeros(shape)
        latents = self._item(sample, AUDIO, sample.audio_key)["latents"].float()
        self._check(sample, "audio", latents, shape)
        return latents

    def _item(self, sample: Sample, kind: str, key: str) -> dict[str, Tensor]:
        try:
            return self.store.get(kind, key)
        except KeyError:
            raise DataError(
                f"{sample.path}: its {kind} item {key} is not in the cache; run `ltx2 cache` again"
            ) from None

    def _check(self, sample: Sample, kind: str, latents: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(latents.shape) != shape:
            raise DataError(
                f"{sample.path}: cached {kind} latents have shape {list(latents.shape)}, the index says {list(shape)}; "
                "run `ltx2 cache` again"
            )


def grid_of(sample: Sample) -> Grid:
    """Latent (frames, height, width) of a sample: the video VAE folds 8 frames after the first, and 32 x 32 pixels."""
    return (sample.frames - 1) // 8 + 1, sample.height // 32, sample.width // 32


def audio_tokens(sample: Sample) -> int:
    """Audio tokens that a sample is trained with: its latents, or one placeholder in a run without audio."""
    return max(1, sample.audio_latents)


@dataclass(frozen=True)
class Noise:
    """The settings of the draw of every step."""

    seed: int
    first_frame_probability: float
    static_shift: float | None


Work = list[tuple[Batch, Draw]]


class Batches:
    """The micro-batches of one rank, step after step, made ready by a thread. Use as a context manager."""

    def __init__(
        self, planner: Planner, reader: Reader, noise: Noise, rank: int, device: torch.device, first: int, last: int
    ):
        """Steps from index `first` up to but not including `last`."""
        self._planner, self._reader, self._noise, self._rank, self._device = planner, reader, noise, rank, device
        self._coming = iter(range(first, last))
        self._ready: deque[Future[Work]] = deque()
        self._pool = ThreadPoolExecutor(1, "batches")

    def __enter__(self) -> "Batches":
        for _ in range(AHEAD):
            self._ask()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def next(self) -> Work:
        """The micro-batches of the next step, on the device. Raises what loading them raised, see Reader.batch."""
        work = self._ready.popleft().result()
        self._ask()
        return [(batch.to(self._device), chance.to(self._device)) for batch, chance in work]

    def _ask(self) -> None:
        step = next(self._coming, None)
        if step is not None:
            self._ready.append(self._pool.submit(self._load, step))

    def _load(self, step: int) -> Work:
        plan = self._planner.step(step)
        work = []
        for micro in plan.ranks[self._rank]:
            sample = micro.picks[0].sample
            chance = draw(
                self._noise.seed,
                step,
                micro.picks,
                grid_of(sample),
                audio_tokens(sample),
                first_frame_probability=self._noise.first_frame_probability,
                static_shift=self._noise.static_shift,
                channels=self._reader.channels,
            )
            batch = self._reader.batch(micro.picks, plan.samples, plan.sounding)
            if self._device.type == "cuda":
                batch, chance = batch.pin(), chance.pin()
            work.append((batch, chance))
        return work
