"""Learning-rate schedules as pure functions of the number of optimizer steps already done.

No state: the rate of step k is the same after a restart, at any world size and under accumulation. Shapes follow the
common definitions (transformers' and diffusers' `get_scheduler`); what differs is said at each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ltx2_job.errors import ConfigError, Problem


@dataclass(frozen=True)
class Schedule:
    """A schedule with its settings bound.

    `peak` is `learning_rate`; `warmup` the steps of linear rise from 0 (step 0 has rate 0, step `warmup` the peak);
    `total` the run's optimizer steps. `end` and `power` are `lr_end` and `lr_power` of polynomial, `cycles` the
    `lr_num_cycles` of cosine_with_restarts and sine; linear and cosine end at 0.
    """

    name: str
    peak: float
    total: int
    warmup: int = 0
    end: float = 0.0
    power: float = 1.0
    cycles: int = 1

    def __post_init__(self) -> None:
        """Raises ConfigError for a name that is no schedule."""
        if self.name not in SHAPES:
            remedy = f"one of {', '.join(SHAPES)}"
            raise ConfigError(Problem("lr_scheduler", f"{self.name!r} is not a schedule", remedy))

    def rate(self, step: int) -> float:
        """The learning rate of the optimizer step with index `step` (0 for the first)."""
        if self.name != "constant" and step < self.warmup:
            return self.peak * step / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        return SHAPES[self.name](self, progress)


def _constant(schedule: Schedule, progress: float) -> float:
    return schedule.peak


def _linear(schedule: Schedule, progress: float) -> float:
    return schedule.peak * (1.0 - progress)


def _cosine(schedule: Schedule, progress: float) -> float:
    return schedule.peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def _cosine_with_restarts(schedule: Schedule, progress: float) -> float:
    # `cycles` half waves, each starting again at the peak; the very end is the end of the last one, not a new start.
    phase = 1.0 if progress >= 1.0 else (schedule.cycles * progress) % 1.0
    return _cosine(schedule, phase)


def _sine(schedule: Schedule, progress: float) -> float:
    # Whole waves that begin and end at the peak, so that the rate is continuous with the warm-up and has no jumps. (The
    # guide's trainer takes the length of the warm-up as half a period and has no warm-up; that is not repeated.)
    return schedule.peak * 0.5 * (1.0 + math.sin(2.0 * math.pi * schedule.cycles * progress + 0.5 * math.pi))


def _polynomial(schedule: Schedule, progress: float) -> float:
    # A peak below lr_end stays where it is: decay never raises the rate.
    end = min(schedule.end, schedule.peak)
    return end + (schedule.peak - end) * (1.0 - progress) ** schedule.power


# Each shape maps (schedule, progress in 0..1 after the warm-up) to a learning rate.
SHAPES: dict[str, Callable[[Schedule, float], float]] = {
    "constant": _constant,
    "constant_with_warmup": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "sine": _sine,
    "polynomial": _polynomial,
}
