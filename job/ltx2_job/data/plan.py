"""Which samples an optimizer step takes: a pure function of (samples, configuration, step, world size). Torch-free.

One step takes `train_batch_size x world x gradient_accumulation_steps` uses of samples, **all of one shape**. Hence
how that number is split into ranks, accumulation and batch changes nothing: the order of all samples is the same for
2 ranks with batch 1, 1 rank with batch 2, and 1 rank with 2 accumulated batches, no rank waits for another one's longer
clip, and to resume one needs the step's number alone.

An epoch, built anew from (seed, epoch number) each time:
1. Samples that can share a batch (same width, height, frames, audio latents and frame rate) form a group.
2. Within a group, each dataset gives ceil(n * passes) uses, where n is its number of samples there and
   passes = (repeats + 1) * probability / (largest probability of any dataset). They are taken from an endless row of
   seeded permutations of these samples, an epoch going on where the last one ended: whole passes use every sample
   equally often, and a dataset of probability 0.5 uses each of its samples once in two epochs.
3. The group's uses are shuffled and filled up to whole steps by starting over from the first one (so a group smaller
   than a step is used more often than the others; the cache stage's report names it).
4. The steps of all groups are shuffled.

Permutations come from sorting by a keyed BLAKE2b hash, not from a random generator whose stream a library may change.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from ltx2_job.data.index import Bucket, Sample
from ltx2_job.errors import DataError


class PlanConfig(Protocol):
    """What of the training configuration decides the order."""

    @property
    def train_batch_size(self) -> int: ...
    @property
    def gradient_accumulation_steps(self) -> int: ...
    @property
    def seed(self) -> int: ...


class LengthConfig(PlanConfig, Protocol):
    """PlanConfig and the two keys of which exactly one says how long to train."""

    @property
    def max_train_steps(self) -> int: ...
    @property
    def num_train_epochs(self) -> int: ...


@dataclass(frozen=True)
class Pick:
    """One use of a sample in one optimizer step."""

    sample: Sample
    caption: int  # index into sample.text_keys, drawn uniformly for this use
    position: int  # 0 .. samples of the step - 1; the same at any world size (a sample may occur twice in a step)

    @property
    def text_key(self) -> str:
        """The store key of the drawn caption."""
        return self.sample.text_keys[self.caption]


@dataclass(frozen=True)
class MicroBatch:
    """What one rank takes through the model at once: `train_batch_size` picks of one shape and one frame rate."""

    bucket: Bucket
    fps: float
    picks: tuple[Pick, ...]


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step over all ranks. `ranks[rank][i]` is that rank's i-th micro-batch.

    `samples` and `sounding` count the whole step (all ranks, all accumulated micro-batches): the divisors of the video
    and the audio loss (design N3). `sounding` may be 0.
    """

    step: int
    epoch: int
    bucket: Bucket
    samples: int
    sounding: int
    ranks: tuple[tuple[MicroBatch, ...], ...]


class Planner:
    """`plan` for many steps of one run: keeps the current epoch's order instead of building it for every step."""

    def __init__(self, samples: Iterable[Sample], config: PlanConfig, world: int):
        """Raises DataError if no sample is left to train on; held-out samples never are."""
        self.seed = config.seed
        self.world = world
        self.batch = config.train_batch_size
        self.accumulation = config.gradient_accumulation_steps
        self.size = self.batch * self.world * self.accumulation
        self._groups = _groups(samples)
        self.steps_per_epoch = sum(math.ceil(sum(each.uses for each in group) / self.size) for group in self._groups)
        self._epoch: tuple[int, list[tuple[Sample, ...]]] | None = None

    def step(self, step: int) -> StepPlan:
        """The plan of optimizer step `step`, counted from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        taken = self._epoch[1][index]
        picks = tuple(
            Pick(sample, _number(self.seed, "caption", step, position) % len(sample.text_keys), position)
            for position, sample in enumerate(taken)
        )
        bucket, fps = taken[0].bucket, taken[0].fps

        def micro(rank: int, turn: int) -> MicroBatch:
            first = (turn * self.world + rank) * self.batch
            return MicroBatch(bucket, fps, picks[first : first + self.batch])

        return StepPlan(
            step=step,
            epoch=epoch,
            bucket=bucket,
            samples=len(picks),
            sounding=sum(pick.sample.sounding for pick in picks),
            ranks=tuple(tuple(micro(rank, turn) for turn in range(self.accumulation)) for rank in range(self.world)),
        )

    def uses(self) -> list[tuple[Bucket, float, int, int]]:
        """Per group: (bucket, fps, uses that the passes of one epoch ask for, uses after filling up whole steps)."""
        rows = []
        for group in self._groups:
            wanted = sum(each.uses for each in group)
            first = group[0].samples[0]
            rows.append((first.bucket, first.fps, wanted, math.ceil(wanted / self.size) * self.size))
        return rows

    def _order(self, epoch: int) -> list[tuple[Sample, ...]]:
        """The steps of one epoch, each a tuple of `size` samples of one group."""
        steps: list[tuple[Sample, ...]] = []
        for number, group in enumerate(self._groups):
            row = [sample for each in group for sample in each.take(self.seed, epoch)]
            # A sample may occur several times: its place in the row tells the occurrences apart.
            row = [row[i] for i in _shuffled(range(len(row)), self.seed, "uses", epoch, number)]
            for first in range(0, len(row), self.size):
                steps.append(tuple(row[i % len(row)] for i in range(first, first + self.size)))
        return [steps[i] for i in _shuffled(range(len(steps)), self.seed, "steps", epoch)]


@dataclass(frozen=True)
class _Part:
    """The samples that one dataset has in one group, and how many uses of them an epoch makes."""

    samples: tuple[Sample, ...]
    uses: int

    def take(self, seed: int, epoch: int) -> list[Sample]:
        """The uses of one epoch: the next `uses` places of the endless row of permutations."""
        count = len(self.samples)
        name = self.samples[0].dataset
        taken: list[Sample] = []
        place = epoch * self.uses
        while len(taken) < self.uses:
            turn, offset = divmod(place + len(taken), count)
            order = _shuffled(range(count), seed, "pass", name, turn, self.samples[0].id)
            wanted = self.uses - len(taken)
            taken += [self.samples[i] for i in order[offset : offset + wanted]]
        return taken


def plan(samples: Iterable[Sample], config: PlanConfig, step: int, world: int) -> StepPlan:
    """What optimizer step `step` (from 0) takes, at `world` ranks. Pure; `Planner` is quicker for many steps.

    Raises DataError if no sample is left to train on.
    """
    return Planner(samples, config, world).step(step)


def steps_per_epoch(samples: Iterable[Sample], config: PlanConfig, world: int) -> int:
    """Optimizer steps in which every sample is used as often as its dataset's repeats ask for."""
    return Planner(samples, config, world).steps_per_epoch


def total_steps(config: LengthConfig, samples: Sequence[Sample], world: int = 1) -> int:
    """Optimizer steps of the whole training: `max_train_steps`, or `num_train_epochs` epochs where that is 0."""
    if config.max_train_steps:
        return config.max_train_steps
    return config.num_train_epochs * steps_per_epoch(samples, config, world)


def _groups(samples: Iterable[Sample]) -> list[list[_Part]]:
    trained = sorted((sample for sample in samples if not sample.held_out), key=lambda sample: sample.id)
    # Weight 0 switches a dataset off, as in a lottery.
    trained = [sample for sample in trained if sample.probability > 0]
    if not trained:
        raise DataError("no sample to train on: every clip was skipped, held out or has probability 0; see report.json")
    highest = max(sample.probability for sample in trained)
    groups: dict[tuple[Bucket, float], dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in trained:
        groups[(sample.bucket, sample.fps)][sample.dataset].append(sample)
    return [
        [
            _Part(tuple(part), math.ceil(len(part) * (part[0].repeats + 1) * part[0].probability / highest - 1e-9))
            for _, part in sorted(groups[key].items())
        ]
        for key in sorted(groups)
    ]


def _number(*parts: object) -> int:
    """64 bits that depend on all parts and on nothing else."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def _shuffled(places: range, *parts: object) -> list[int]:
    """A permutation of places that depends on the parts alone."""
    prefix = repr(parts)
    return sorted(places, key=lambda place: blake2b(f"{prefix}{place}".encode(), digest_size=16).digest())
