"""The training loop: one loop for one process or many, read from top to bottom.

    load -> attach the LoRA -> resume -> [step, report, measure, save, validate] ... -> export

The parts: data.plan says which samples, draw which noise, objective what the loss is, step how an update is made,
held_out how training is judged, checkpoint what is kept. Everything that a step needs follows from (configuration, step
number), so a run that was killed and resumed ends with the same bits as one that was not.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltx2_job import checkpoint
from ltx2_job.data.index import Index
from ltx2_job.data.plan import Planner, total_steps
from ltx2_job.errors import GPUOutOfMemoryError, JobError, Stopped
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.stage import Stage
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.batches import Batches, Noise, Reader
from ltx2_job.training.course import Course, choose_checkpoint, resume
from ltx2_job.training.draw import generator
from ltx2_job.training.held_out import HeldOut
from ltx2_job.training.optimizers import Optimizer, build, weight_dtype
from ltx2_job.training.outcome import finish
from ltx2_job.training.processes import Processes, join
from ltx2_job.training.schedules import Schedule
from ltx2_job.training.step import Step

Validate = Callable[[LTX2Transformer, int], list[Path]]


class NotFiniteError(JobError):
    """A gradient was infinite or not a number: the weights after it are lost, the last checkpoint is good."""


def run_training(stage: Stage, validate: Validate | None = None) -> None:
    """Train the LoRA of a stage to its end: checkpoints, held-out losses, LoRA files, loss.png and result.json.

    `validate` makes videos with the model as it is at a step and returns their files; only rank 0 calls it.

    Raises Stopped after a checkpoint when told to stop; GPUOutOfMemoryError naming the memory plan; NotFiniteError;
    Superseded when a newer attempt owns the run; PeerLostError; ConfigError, DataError, NoInputError and StorageError
    as the parts do.
    """
    with (
        _out_of_memory_named(stage),
        join(stage.rank, stage.world, stage.local_rank, stage.plan.device) as processes,
    ):
        _train(stage, processes, validate)


def _train(stage: Stage, processes: Processes, validate: Validate | None) -> None:
    config, reporter = stage.config, stage.reporter
    reporter.state("loading")
    index = Index.load(stage.run.index)
    base = Checkpoint.open(stage.workspace.resolve(config.pretrained_model_name_or_path))
    model = _load(stage, base, processes)
    adapters = _adapt(stage, model)
    optimizer = build(config, adapters)
    planner = Planner(index.samples, config, stage.world)
    total = total_steps(config, index.samples, stage.world)
    schedule = Schedule(
        config.lr_scheduler, config.learning_rate, total, config.lr_warmup_steps,
        end=config.lr_end, power=config.lr_power, cycles=config.lr_num_cycles,
    )  # fmt: skip
    reader = Reader(index.store(), (model.config["in_channels"], model.config["audio_in_channels"]))
    noise = Noise(config.seed, config.ltx2_first_frame_conditioning_probability, config.flow_schedule_shift)
    held_out = HeldOut(
        index.samples, reader, config.seed, config.audio_loss_weight, processes, lambda: stage.stop.requested
    )
    step = Step(
        model, adapters, optimizer, processes,
        audio_loss_weight=config.audio_loss_weight, clip=(config.grad_clip_method, config.max_grad_norm),
    )  # fmt: skip
    course = _begin(stage, processes, adapters, optimizer)
    run = _Run(stage, processes, model, adapters, optimizer, schedule, held_out, course, total, validate)
    run.announce()

    run.measure_if_due()
    run.validate_at_start()
    reporter.state("training")
    model.train()
    with Batches(planner, reader, noise, stage.rank, processes.device, course.step, total) as batches:
        late: _Late | None = None
        began = time.monotonic()  # of the step, or rather of the stretch from one read-out to the next
        while course.step < total:
            run.leave_if_told(late)
            asked = time.monotonic()
            work = batches.next()
            waited = time.monotonic() - asked
            _seed_dropout(config.seed, course.step, stage.rank, config.lora_dropout)
            rate = schedule.rate(course.step)
            values = step(course.step + 1, rate, work, stage.stop.requested)
            course.step += 1
            # Read the step before while this one is still being computed: the GPU never waits for the host.
            run.observe(late)
            now = time.monotonic()
            late, began = _Late(course.step, values, rate, now - began, waited), now
            if run.boundary():
                # Nothing is measured, saved or shown before this step's own numbers are known to be finite.
                run.observe(late)
                late = None
                run.measure_if_due()
                run.save_if_due()
                run.validate_if_due()
                reporter.state("training")
                began = time.monotonic()
        run.observe(late)
    run.leave_if_cut_short()
    if processes.first:
        finish(stage, base, adapters, course, index)
    reporter.state("done")


class _Late:
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


class _Run:
    """What happens around the steps: reports, measurements, checkpoints, validation, leaving."""

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
        self.stage, self.processes, self.model, self.adapters, self.optimizer = (
            stage,
            processes,
            model,
            adapters,
            optimizer,
        )
        self.schedule, self.held_out, self.course, self.total = schedule, held_out, course, total
        self.validate = None if stage.config.validation_disable else validate
        self.saved = course.step if course.step else None  # the newest step that is on disk
        self.told = False  # whether any process was told to stop, as all of them know it
        self.cut_short = False  # whether a stop came in the middle of making videos

    def announce(self) -> None:
        """Say what is about to be trained."""
        config, reporter, clips = self.stage.config, self.stage.reporter, len(self.held_out.samples)
        clip = f"by {config.grad_clip_method} at {config.max_grad_norm:g}" if config.max_grad_norm else "off"
        reporter.resumed(self.course.step)
        size = config.train_batch_size * config.gradient_accumulation_steps * self.processes.world
        reporter.info(
            f"LoRA rank {self.adapters.rank}, alpha {self.adapters.alpha:g}: {self.adapters.weight.numel():,} weights "
            f"in {len(self.adapters.views) // 2} layers; {self.total} steps of {size} clips; clipping {clip}"
        )
        kind = "training clips, with noise that training never uses" if self.held_out.borrowed else "held-out clips"
        reporter.info(f"held-out loss: over {clips} {kind}")

    def observe(self, late: _Late | None) -> None:
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

    def leave_if_told(self, late: _Late | None) -> None:
        """After a wish to stop: checkpoint, then raise Stopped; on every process at the same step.

        Alone, a process looks at its own flag. Several learn of each other's from the exchange of the step before, so
        that one signal to one of them is enough and nobody waits for a peer that has left.
        """
        if not (self.stage.stop.requested if self.processes.world == 1 else self.told):
            return
        self.observe(late)
        if self.course.step:
            self.save()
        raise Stopped(f"told to stop: step {self.course.step} of {self.total} is done and on disk")

    def leave_if_cut_short(self) -> None:
        """After the last step: raise Stopped where a stop kept it from being measured or shown.

        Its checkpoint is on disk; the next attempt makes up for what is missing and finishes.
        """
        if self.course.step not in self.course.held_out or self.cut_short:
            raise Stopped(
                f"told to stop: all {self.total} steps are done and on disk, the last is not measured or shown"
            )

    def boundary(self) -> bool:
        """Whether anything is due after this step."""
        return self._measuring() or self._saving() or self._validating()

    def measure_if_due(self) -> None:
        """The held-out loss at the start, at its interval and at the end."""
        step = self.course.step
        if step in self.course.held_out or not self._measuring():
            return
        self.stage.reporter.state("validating")
        found = self.held_out.measure(self.model)
        if found is not None:
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
            path = checkpoint.save(folder, step, self.adapters.views, moments, self._state(), self.stage.fence.check)
            checkpoint.purge(folder, self.stage.config.checkpoints_total_limit, self.course.origin)
            self.stage.reporter.checkpoint(step, path, time.monotonic() - began)
        self.saved = self.course.step

    def validate_if_due(self) -> None:
        """Videos at their interval and at the end."""
        if self._validating():
            self._make_videos()

    def validate_at_start(self) -> None:
        """Videos of the untrained model; or of the step resumed from, where a kill came before they were made."""
        made = self.stage.run.validation / checkpoint.name_of(self.course.step)
        if self._validating() and not made.exists():
            self._make_videos()

    def _make_videos(self) -> None:
        if self.processes.first and self.validate is not None:
            self.stage.reporter.state("validating")
            self.model.eval()
            try:
                with torch.no_grad():
                    files = self.validate(self.model, self.course.step)
                self.stage.reporter.validation(self.course.step, files)
            except Stopped:
                # The loop sees the stop too, and leaves with a checkpoint, together with the other processes.
                self.cut_short = True
            self.model.train()

    def _measuring(self) -> bool:
        return self.course.step == 0 or self._due(self.stage.config.eval_steps_interval)

    def _saving(self) -> bool:
        return self._due(self.stage.config.checkpoint_step_interval)

    def _validating(self) -> bool:
        if self.validate is None:
            return False
        if self.course.step == 0:
            return not self.stage.config.disable_benchmark
        return self._due(self.stage.config.validation_step_interval)

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


def _load(stage: Stage, base: Checkpoint, processes: Processes) -> LTX2Transformer:
    """The frozen transformer in the plan's form, on this process's device."""
    model = base.transformer(MemoryPlan.parse(stage.plan.memory), processes.device)
    # A recomputed block must drop the same inputs again.
    model.runner.dropout = stage.config.lora_dropout > 0
    return model


def _adapt(stage: Stage, model: LTX2Transformer) -> AdapterSet:
    """The LoRA on the transformer: new, or starting from the file that `init_lora` names."""
    config = stage.config
    alpha = float(config.lora_alpha or config.lora_rank)
    adapters = AdapterSet.create(
        model,
        rank=config.lora_rank,
        alpha=alpha,
        seed=config.seed,
        dropout=config.lora_dropout,
        dtype=weight_dtype(config.optimizer),
    )
    if config.init_lora:
        from ltx2_job.export import load_lora

        path = stage.workspace.resolve(config.init_lora)
        scale = alpha / config.lora_rank
        # The file's B holds its scale; ours is multiplied by alpha / rank in every forward.
        start = {key: tensor / scale if ".lora_B." in key else tensor for key, tensor in load_lora(path).items()}
        adapters.load(start, f"init_lora ({path.name})")
    return adapters


def _begin(stage: Stage, processes: Processes, adapters: AdapterSet, optimizer: Optimizer) -> Course:
    """Step 0, or where the chosen checkpoint stood; the same on every process."""
    if processes.first:
        checkpoint.sweep(stage.run.checkpoints)
    loaded, origin = choose_checkpoint(stage) if processes.first else (None, "")
    path, origin = processes.share((loaded.path if loaded else None, origin))
    if path is None:
        return Course()
    return resume(loaded or checkpoint.load(path), origin, adapters, optimizer, stage.config)


def _seed_dropout(seed: int, step: int, rank: int, dropout: float) -> None:
    """Dropout is the only user of torch's own generator: seeded per step, it needs no place in a checkpoint."""
    if dropout > 0:
        torch.manual_seed(int(generator(seed, step, "dropout", rank, "mask").integers(0, 1 << 63)))


@contextmanager
def _out_of_memory_named(stage: Stage) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        detail = str(error).splitlines()[0]
        raise GPUOutOfMemoryError(
            f"GPU memory exhausted under memory plan {stage.plan.memory}: {detail}; a plan with a smaller keep:<n>, a "
            "smaller resolution or fewer frames needs less"
        ) from error
