"""What happens between two steps: reports, measurements, checkpoints, validation, leaving."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ltx2_job import checkpoint, exitcodes
from ltx2_job.errors import JobError, Stopped
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.stage import Stage
from ltx2_job.storage import writing
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.course import Course
from ltx2_job.training.held_out import HeldOut
from ltx2_job.training.optimizers import Optimizer
from ltx2_job.training.processes import Processes
from ltx2_job.training.schedules import Schedule

Validate = Callable[[LTX2Transformer, int], list[Path]]


class NotFiniteError(JobError):
    """A gradient was infinite or not a number: the weights after it are lost, the last checkpoint is good.

    Ends the run until its configuration is changed: training is deterministic, another attempt would end the same way.
    """

    exit_code = exitcodes.LOSS_NOT_FINITE


class Late:
    """The numbers of one step, on their way from the device."""

    def __init__(self, step: int, values: Tensor, rate: float, seconds: float, waited: float):
        self.step, self.rate, self.seconds, self.waited = step, rate, seconds, waited
        self._values = values.to("cpu", non_blocking=True) if values.is_cuda else values
        self._arrived = torch.cuda.Event() if values.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def read(self) -> list[float]:
        """The five numbers that Step returns; waits for that step alone."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values.tolist()


class Between:
    """Reports, measurements, checkpoints, validation and leaving; each method may be called between two steps."""

    def __init__(
        self,
        stage: Stage,
        processes: Processes,
        model: LTX2Transformer,
        adapters: AdapterSet,
        optimizer: Optimizer,
        schedule: Schedule,
        held_out: HeldOut,
        course: Course,
        total: int,
        validate: Validate | None,
    ):
        self.stage, self.processes, self.model = stage, processes, model
        self.adapters, self.optimizer, self.schedule = adapters, optimizer, schedule
        self.held_out, self.course, self.total, self.validate = held_out, course, total, validate
        self.saved = course.step if course.step else None  # the newest step that is on disk
        self.told = False  # whether any process was told to stop, as all of them know it
        self.cut_short = False  # whether a stop came in the middle of making videos

    def announce(self) -> None:
        """Say what is about to be trained."""
        config, reporter, clips = self.stage.config, self.stage.reporter, len(self.held_out.samples)
        clip = f"by {config.grad_clip_method} at {config.max_grad_norm:g}" if config.max_grad_norm else "off"
        reporter.resumed(self.course.step, self.course.held_out, config.checkpoint_step_interval)
        size = config.train_batch_size * config.gradient_accumulation_steps * self.processes.world
        reporter.info(
            f"LoRA rank {self.adapters.rank}, alpha {self.adapters.alpha:g}: {self.adapters.weight.numel():,} weights "
            f"in {len(self.adapters.views) // 2} layers; {self.total} steps of {size} clips; clipping {clip}"
        )
        kind = "training clips, with noise that training never uses" if self.held_out.borrowed else "held-out clips"
        reporter.info(f"held-out loss: over {clips} {kind}")

    def observe(self, late: Late | None) -> None:
        """Read and report a step. Raises NotFiniteError."""
        if late is None:
            return
        video, audio, sounding, stopping, norm = late.read()
        loss = video + self.stage.config.audio_loss_weight * audio
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NotFiniteError(
                f"step {late.step}: loss {loss}, gradient norm {norm}; lower learning_rate or max_grad_norm, then go "
                f"on from the last checkpoint (step {self.saved or 0})"
            )
        self.told = stopping > 0
        self.course.saw(loss, late.seconds)
        values = {
            "loss": loss,
            "loss_video": video,
            "learning_rate": late.rate,
            "grad_norm": norm,
            "seconds_per_step": late.seconds,
            "data_wait_seconds": late.waited,
        }
        # A step of silent clips has no audio loss; 0 would look like a perfect one.
        self.stage.reporter.step(late.step, self.total, values | ({"loss_audio": audio} if sounding > 0 else {}))

    def leave_if_told(self, late: Late | None) -> None:
        """After a wish to stop: checkpoint, then raise Stopped; on every process at the same step.

        Alone, a process looks at its own flag. Several learn of each other's from the exchange of the step before, so
        that one signal to one of them is enough and nobody waits for a peer that has left.
        """
        if not (self.stage.stop.requested if self.processes.world == 1 else self.told):
            return
        self.observe(late)
        if self.course.step:
            self.save()
        self._leave(f"told to stop: step {self.course.step} of {self.total} is done and on disk")

    def leave_if_cut_short(self) -> None:
        """After the last step: raise Stopped where a stop kept it from being measured or shown.

        Its checkpoint is on disk; the next attempt makes up for what is missing and finishes.
        """
        if self.course.step not in self.course.held_out or self.cut_short:
            self._leave(f"told to stop: all {self.total} steps are done and on disk, the last is not measured or shown")

    def _leave(self, message: str) -> NoReturn:
        self.stage.reporter.leaving(message)
        raise Stopped(message)

    def boundary(self) -> bool:
        """Whether anything is due after this step; alike on every process, or they would learn of a stop at different
        steps.
        """
        return self._measuring() or self._saving() or self._validating()

    def measure_if_due(self) -> None:
        """The held-out loss at the start, at its interval and at the end."""
        step = self.course.step
        if step in self.course.held_out or not self._measuring():
            return
        self.stage.reporter.state("validating")
        found = self.held_out.measure(self.model)
        if found is None:
            # Every process knows it from the same sums: all leave at this step, and the next attempt measures it.
            self.told = True
            return
        self.course.held_out[step] = found
        self.stage.reporter.held_out(step, found.total, {"loss_video": found.video, "loss_audio": found.audio})

    def save_if_due(self) -> None:
        """A checkpoint at its interval and at the end."""
        if self._saving():
            self.save()

    def save(self) -> None:
        """Write a checkpoint (rank 0) and remove surplus ones; nothing where this step is on disk already."""
        if self.saved == self.course.step:
            return
        if self.processes.first:
            self.stage.reporter.state("saving")
            began = time.monotonic()
            moments = {
                f"{name}.{key}": view
                for name, flat in self.optimizer.moments().items()
                for key, view in self.adapters.split(flat).items()
            }
            folder, step = self.stage.run.checkpoints, self.course.step
            size = sum(tensor.nbytes for tensor in (*moments.values(), *self.adapters.views.values()))
            with writing(self.stage, folder, lambda: size):
                path = checkpoint.save(
                    folder, step, self.adapters.views, moments, self._state(), self.stage.fence.check
                )
            checkpoint.purge(folder, self.stage.config.checkpoints_total_limit, step, self.course.origin)
            self.stage.reporter.checkpoint(step, path, time.monotonic() - began)
        self.saved = self.course.step

    def validate_if_due(self) -> None:
        """Videos at their interval and at the end."""
        if self._validating():
            self._make_videos(wanted=True)

    def validate_at_start(self) -> None:
        """Videos of the untrained model; or of the step resumed from, where a kill came before they were made."""
        if self._validating():
            made = self.stage.run.validation / checkpoint.name_of(self.course.step)
            self._make_videos(wanted=not made.exists())

    def _make_videos(self, wanted: bool) -> None:
        if self.processes.first and self.validate is not None and wanted:
            self.stage.reporter.state("validating")
            self.model.eval()
            try:
                with torch.no_grad():
                    files = self.validate(self.model, self.course.step)
                self.stage.reporter.validation(self.course.step, files)
            except Stopped:
                self.cut_short = True
            self.model.train()
        # The others make no videos, but have to leave at this step too: the next attempt makes up for what is missing.
        self.cut_short = self.processes.any(self.cut_short)
        self.told |= self.cut_short

    def _measuring(self) -> bool:
        return self.course.step == 0 or self._due(self.stage.config.eval_steps_interval)

    def _saving(self) -> bool:
        return self._due(self.stage.config.checkpoint_step_interval)

    def _validating(self) -> bool:
        config = self.stage.config
        due = not config.disable_benchmark if self.course.step == 0 else self._due(config.validation_step_interval)
        return due and not config.validation_disable

    def _due(self, interval: int) -> bool:
        """At every multiple of an interval (0: none) after step 0, and always at the end."""
        step = self.course.step
        return step == self.total or bool(interval and step and step % interval == 0)

    def _state(self) -> dict[str, Any]:
        config = self.stage.config
        return {
            **self.course.dump(),
            "uid": self.stage.uid,
            "configDigest": self.stage.digest,
            "config": config.model_dump(mode="json"),
            "datasets": [dataset.model_dump(mode="json") for dataset in self.stage.datasets],
            "optimizer": config.optimizer,
            "rank": self.adapters.rank,
            "alpha": self.adapters.alpha,
            "schedule": asdict(self.schedule) | {"rate": self.schedule.rate(self.course.step)},
            "random": {"generator": "philox", "seed": config.seed, "position": self.course.step},
        }
