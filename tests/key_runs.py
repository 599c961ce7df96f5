"""Trainings of a few steps for the tests of single keys, with all that they left behind and all that the model saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from safetensors.torch import load_file
from torch import Tensor

from ltx2_job import checkpoint
from ltx2_job.data.index import Sample
from ltx2_job.stage import Stage
from ltx2_job.training import outcome
from ltx2_job.training import step as step_module
from ltx2_job.training.between import Validate
from ltx2_job.training.draw import Draw
from ltx2_job.training.objective import Batch, losses
from ltx2_job.training.trainer import run_training
from training_runs import Recorder, clip, make_stage


@dataclass
class Trained:
    """A finished training: its stage, its reports, and each micro-batch with its draw in the order of the steps."""

    stage: Stage
    seen: Recorder
    work: list[tuple[Batch, Draw]] = field(default_factory=list)

    def adapter(self, step: int) -> dict[str, Tensor]:
        """The LoRA weights in the checkpoint of a step."""
        return load_file(self._at(step) / checkpoint.ADAPTER)

    def moments(self, step: int, name: str) -> dict[str, Tensor]:
        """One of AdamW's moments in the checkpoint of a step, by the keys of `adapter`."""
        state = load_file(self._at(step) / checkpoint.OPTIMIZER)
        return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}

    def reported(self, name: str) -> list[float]:
        """One value of every step's report."""
        return [values[name] for _, values in self.seen.steps]

    @property
    def done(self) -> list[int]:
        """The steps that were done this time."""
        return [step for step, _ in self.seen.steps]

    @property
    def saved(self) -> list[str]:
        """The checkpoints on disk."""
        return [path.name for path in checkpoint.listed(self.stage.run.checkpoints)]

    def _at(self, step: int) -> Path:
        return self.stage.run.checkpoints / checkpoint.name_of(step)


@dataclass(frozen=True)
class Trainings:
    """Makes trainings of one model, each in a workspace of its own unless `root` names one."""

    model: Path
    folder: Callable[[], Path]

    def __call__(
        self,
        *samples: Sample,
        root: Path | None = None,
        validate: Validate | None = None,
        **settings: Any,
    ) -> Trained:
        """Train on these samples (one clip with sound by default) with these settings; one step by default."""
        wanted = {"max_train_steps": 1, "checkpoint_step_interval": 1, "model": self.model, **settings}
        stage = make_stage(root or self.folder(), samples=list(samples) or [clip("a")], **wanted)
        assert isinstance(stage.reporter, Recorder)
        trained = Trained(stage, stage.reporter)

        def watched(model: Any, batch: Batch, draw: Draw, weight: float) -> Any:
            trained.work.append((batch, draw))
            return losses(model, batch, draw, weight)

        with (
            mock.patch.object(step_module, "losses", watched),
            mock.patch.object(outcome, "write_loss_plot"),  # no key changes the picture, and drawing takes longest
            mock.patch("os.fsync"),  # durability is test_checkpoint's; here it only costs
        ):
            run_training(stage, validate)
        return trained
