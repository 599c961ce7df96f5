"""The loss that says whether training helps: the same clips, noise and levels at every step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from ltx2_job.data.index import Sample
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.training.batches import Reader, audio_tokens, grid_of
from ltx2_job.training.draw import held_out_draw
from ltx2_job.training.objective import losses
from ltx2_job.training.processes import Processes

LEVELS: Final = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
BORROWED: Final = 8  # training clips that are measured where no dataset is of type eval


@dataclass(frozen=True)
class Measurement:
    """Means over clips and levels: video loss, audio loss of sounding clips, and video + weight x audio."""

    total: float
    video: float
    audio: float


@dataclass(frozen=True)
class _Question:
    sample: Sample

    @property
    def text_key(self) -> str:
        return self.sample.text_keys[0]


def choose(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The clips to measure: all held-out ones; where there are none, up to 8 training clips spread evenly over the run
    (those of a dataset that probability 0 switches off are neither).

    Borrowed clips are measured with noise that training never uses, but the model does see them: their loss falls by
    learning them by heart as well. An `eval` dataset measures what carries over.
    """
    ordered = sorted(samples, key=lambda sample: sample.id)
    held_out = tuple(sample for sample in ordered if sample.held_out)
    trained = tuple(sample for sample in ordered if sample.probability > 0)
    if held_out or len(trained) <= BORROWED:
        return held_out or trained
    return tuple(trained[i * len(trained) // BORROWED] for i in range(BORROWED))


class HeldOut:
    """Measures the held-out loss; the clips are divided among the processes."""

    def __init__(
        self,
        samples: Sequence[Sample],
        reader: Reader,
        seed: int,
        audio_loss_weight: float,
        processes: Processes,
        stopping: Callable[[], bool],
    ):
        """`stopping` is asked between clips; see `measure`."""
        self.samples = choose(samples)
        self.borrowed = not any(sample.held_out for sample in self.samples)
        self._reader, self._seed, self._weight = reader, seed, audio_loss_weight
        self._processes, self._stopping = processes, stopping

    def measure(self, model: LTX2Transformer) -> Measurement | None:
        """The loss now; None, on every process, where any of them was told to stop meanwhile. Changes nothing."""
        device = self._processes.device
        # video sum, audio sum, video count, audio count, processes that stopped
        sums = torch.zeros(5, dtype=torch.float64, device=device)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            for sample in self.samples[self._processes.rank :: self._processes.world]:
                if self._stopping():
                    sums[4] += 1
                    break
                batch = self._reader.batch([_Question(sample)], samples=1, sounding=1).to(device)
                for level in LEVELS:
                    chance = held_out_draw(
                        self._seed,
                        sample.id,
                        grid_of(sample),
                        audio_tokens(sample),
                        level,
                        channels=self._reader.channels,
                    )
                    part = losses(model, batch, chance.to(device), self._weight)
                    sums[0] += part.video
                    sums[1] += part.audio
                sums[2] += len(LEVELS)
                sums[3] += len(LEVELS) * sample.sounding
        model.train(was_training)
        self._processes.sum(sums)
        video, audio, videos, audios, stopped = sums.tolist()
        if stopped:
            return None
        video, audio = video / videos, audio / max(audios, 1.0)
        return Measurement(video + self._weight * audio, video, audio)
