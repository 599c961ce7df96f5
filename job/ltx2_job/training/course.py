"""Where a training stands, how it begins and how it goes on: its state beside weights and optimizer."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ltx2_job import checkpoint
from ltx2_job.checkpoint import Loaded
from ltx2_job.config import TrainingConfig
from ltx2_job.errors import ConfigError
from ltx2_job.resumption import find_origin, keep, mismatches, require_fitting
from ltx2_job.same_run import UNNAMED_CHECKPOINTS
from ltx2_job.stage import Stage
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.held_out import Measurement
from ltx2_job.training.optimizers import Optimizer

RECENT = 50  # steps whose mean is the final loss that a run reports


@dataclass
class Course:
    """How far a run is. `step` optimizer steps are done; `seconds` of training over all attempts.

    `held_out`: step -> measurement. `losses`: of the last steps. `origin`: identity of the checkpoint that
    `resume_from_checkpoint` named when this course began, empty for one that began at its own step 0.
    """

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    held_out: dict[int, Measurement] = field(default_factory=dict)
    origin: str = ""

    def saw(self, loss: float, seconds: float) -> None:
        """Count a step's loss and duration."""
        self.losses = [*self.losses[1 - RECENT :], loss]
        self.seconds += seconds

    @property
    def final_loss(self) -> float | None:
        """Mean training loss of the last 50 steps; None before the first."""
        return sum(self.losses) / len(self.losses) if self.losses else None

    def dump(self) -> dict[str, Any]:
        """As JSON, for state.json."""
        measured = {str(step): asdict(value) for step, value in self.held_out.items()}
        return {"origin": self.origin, "seconds": self.seconds, "losses": self.losses, "heldOut": measured}

    @staticmethod
    def of(state: dict[str, Any]) -> "Course":
        """The course in a state.json."""
        measured = {int(step): Measurement(**value) for step, value in state["heldOut"].items()}
        return Course(state["step"], state["seconds"], state["losses"], measured, state["origin"])


def choose_checkpoint(stage: Stage) -> tuple[Loaded | None, str]:
    """The checkpoint to go on from, and the origin of the course; (None, "") to begin at step 0.

    `latest` is the newest complete one of this run. A named one is where a course begins; once that course has
    checkpoints of its own, later attempts go on from the newest of those. Raises ConfigError where the named one is not
    there, not intact, or of another adapter.
    """
    folder, reference = stage.run.checkpoints, stage.config.resume_from_checkpoint
    if reference in UNNAMED_CHECKPOINTS:
        newest = checkpoint.newest_complete(folder, stage.reporter.warn)
        if newest is None:
            return None, ""
        loaded = checkpoint.load(newest)
        return loaded, loaded.state["origin"]
    origin = find_origin(reference, stage.run, stage.workspace)
    newest = checkpoint.newest_complete(folder, stage.reporter.warn, origin.identity)
    if newest is None and origin.of_run:
        require_fitting(origin.path, stage.config)
        stage.fence.check()
        keep(reference, stage.run, origin)
    return checkpoint.load(newest or origin.path), origin.identity


def resume(loaded: Loaded, origin: str, adapters: AdapterSet, optimizer: Optimizer, config: TrainingConfig) -> Course:
    """Put a checkpoint into adapter and optimizer; returns where it stood.

    Raises ConfigError where rank, alpha, optimizer or layers differ from the configuration's.
    """
    problems = mismatches(loaded.state, loaded.path.name, config)
    if problems:
        raise ConfigError(problems)
    adapters.load(loaded.adapter, str(loaded.path))
    for name, flat in optimizer.moments().items():
        prefix = f"{name}."
        moments = {key.removeprefix(prefix): value for key, value in loaded.optimizer.items() if key.startswith(prefix)}
        adapters.fill(flat, moments, str(loaded.path))
    course = Course.of(loaded.state)
    course.origin = origin
    return course
