"""The training loop: one loop for one process or many, read from top to bottom.

    load -> attach the LoRA -> resume -> [step, report, measure, save, validate] ... -> export

The parts: data.plan says which samples, draw which noise, objective what the loss is, step how an update is made,
held_out how training is judged, checkpoint what is kept. Everything that a step needs follows from (configuration, step
number), so a run that was killed and resumed ends with the same bits as one that was not.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ltx2_job import checkpoint
from ltx2_job.data.index import Index
from ltx2_job.data.plan import Planner, total_steps
from ltx2_job.errors import ConfigError, GPUOutOfMemoryError, Problem
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.stage import Stage
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.batches import Batches, Noise, Reader
from ltx2_job.training.between import Between, Late, Validate
from ltx2_job.training.course import Course, choose_checkpoint, resume
from ltx2_job.training.draw import generator
from ltx2_job.training.held_out import HeldOut
from ltx2_job.training.optimizers import Optimizer, build, weight_dtype
from ltx2_job.training.outcome import finish
from ltx2_job.training.processes import Processes, join
from ltx2_job.training.schedules import Schedule
from ltx2_job.training.step import Step

# How libraries that allocate beside torch say that the GPU's memory is exhausted, and torch that the CPU's is.
_EXHAUSTED = ("CUDA error: out of memory", "HIP error: out of memory", "STATUS_ALLOC_FAILED")
_EXHAUSTED_CPU = "DefaultCPUAllocator"


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
    base = Checkpoint.find(config, stage.workspace, stage.run)
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
    course = _begin(stage, processes, adapters, optimizer, total)
    run = Between(stage, processes, model, adapters, optimizer, schedule, held_out, course, total, validate)
    run.announce()

    run.measure_if_due()
    run.validate_at_start()
    reporter.state("training")
    model.train()
    with Batches(planner, reader, noise, stage.rank, processes.device, course.step, total) as batches:
        late: Late | None = None
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
            late, began = Late(course.step, values, rate, now - began, waited), now
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


def _begin(stage: Stage, processes: Processes, adapters: AdapterSet, optimizer: Optimizer, total: int) -> Course:
    """Step 0, or where the chosen checkpoint stood; the same on every process.

    Raises ConfigError for a checkpoint that is beyond the last of `total` steps.
    """
    if processes.first:
        checkpoint.sweep(stage.run.checkpoints)
    loaded, origin = choose_checkpoint(stage) if processes.first else (None, "")
    path, origin = processes.share((loaded.path if loaded else None, origin))
    if path is None:
        return Course()
    course = resume(loaded or checkpoint.load(path), origin, adapters, optimizer, stage.config)
    if course.step > total:
        key = "max_train_steps" if stage.config.max_train_steps else "num_train_epochs"
        remedy = f"raise {key}, or name an earlier checkpoint in resume_from_checkpoint"
        raise ConfigError(Problem(key, f"makes {total} steps, but checkpoint {path.name} has done more", remedy))
    if processes.first:  # a kill may have come between a checkpoint and the removal of the surplus one
        checkpoint.purge(stage.run.checkpoints, stage.config.checkpoints_total_limit, course.step, course.origin)
    return course


def _seed_dropout(seed: int, step: int, rank: int, dropout: float) -> None:
    """Dropout is the only user of torch's own generator: seeded per step, it needs no place in a checkpoint."""
    if dropout > 0:
        torch.manual_seed(int(generator(seed, step, "dropout", rank, "mask").integers(0, 1 << 63)))


@contextmanager
def _out_of_memory_named(stage: Stage) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        device = (_EXHAUSTED_CPU,) if stage.plan.device == "cpu" else ()
        said = any(words in str(error) for words in (*_EXHAUSTED, *device))
        if not (isinstance(error, torch.OutOfMemoryError) or said):
            raise
        detail = str(error).splitlines()[0]
        memory = "memory" if stage.plan.device == "cpu" else "GPU memory"
        raise GPUOutOfMemoryError(
            f"{memory} exhausted under memory plan {stage.plan.memory}: {detail}; a plan with a smaller keep:<n>, a "
            "smaller resolution or fewer frames needs less"
        ) from error
