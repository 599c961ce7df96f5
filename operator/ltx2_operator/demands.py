"""What a stage needs on a GPU: its memory plans, from the fastest to the smallest, each with the terms of its peak."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from ltx2_job import estimate, exitcodes
from ltx2_job.config import Resolved
from ltx2_job.errors import ConfigError, JobError, Problem
from ltx2_job.estimate import Form, Model, PlanName, Shape, Terms
from ltx2_operator.api import Gpu, Spec
from ltx2_operator.gpus import AUTO, CPU, GpuClass

Stage = Literal["cache", "train"]

KEEP: Final = (48, 24, 0)  # blocks that are not recomputed, from the fastest plan to the smallest
CACHE_LADDER: Final = ("device", "cpu")  # where VAE and text encoder run
HUB_OWNER: Final = "Lightricks/"  # its repositories hold models of known sizes


class NoFit(JobError):
    """Nothing that is offered can run this; the message says what would fit."""

    exit_code = exitcodes.CONFIG


@dataclass(frozen=True)
class Case:
    """One training on one GPU class: what every question about plans is asked of."""

    spec: Spec
    resolved: Resolved
    cls: GpuClass
    model: Model

    @staticmethod
    def of(spec: Spec, resolved: Resolved, cls: GpuClass, model: Model | None = None) -> "Case":
        """A case; `model` is the checkpoint's sizes where they are known (a file on this machine)."""
        return Case(spec, resolved, cls, model or model_of(resolved, cls))

    def on(self, cls: GpuClass) -> "Case":
        """The same training on another class."""
        return replace(self, cls=cls)

    @property
    def form(self) -> Form:
        """The built form of the base: fp32 on the class cpu and where mixed_precision is no, else bf16."""
        return "fp32" if self.cls.device == "cpu" or self.resolved.training.mixed_precision == "no" else "bf16"

    def fits(self, terms: Terms) -> bool:
        """Whether the class holds that. The class cpu has no device of its own: host memory is asked for instead."""
        return self.cls is CPU or sum(terms.values()) <= self.cls.usable_bytes


def gpu_of(spec: Spec, stage: Stage) -> Gpu:
    """The GPU choice of a stage."""
    return spec.cache_gpu if stage == "cache" else spec.gpu


def model_of(resolved: Resolved, cls: GpuClass) -> Model:
    """The sizes to plan with where the checkpoint cannot be looked at: it lies on a volume or a hub.

    The flavour's real sizes, except on the class cpu with a checkpoint of one's own: that class is for transformers
    below 1 GB, and the plan takes the largest such.
    """
    training = resolved.training
    own = not str(training.pretrained_model_name_or_path).startswith(HUB_OWNER)
    return estimate.known_model("small" if cls is CPU and own else training.model_flavour)


def batch_of(resolved: Resolved) -> Shape:
    """The largest batch of one process over all data sets that are trained on."""
    return max(
        (
            Shape(
                batch=resolved.training.train_batch_size,
                area=estimate.latent_area(data.resolution, data.resolution_type),
                frames=data.video.num_frames,
                audio_latents=estimate.audio_latents(data.video.num_frames) if data.audio.auto_split else 0,
            )
            for data in resolved.datasets
            if data.dataset_type in ("video", "eval")
        ),
        key=lambda shape: shape.video_tokens,
        default=estimate.shape(768, 512, 49, resolved.training.train_batch_size),
    )


def sample_of(resolved: Resolved) -> Shape | None:
    """The largest sample clip that validation makes, None if it makes none."""
    training = resolved.training
    if training.validation_disable or not training.validation_prompt:
        return None
    frames = training.validation_num_video_frames
    clips = [estimate.shape(width, height, frames) for width, height in training.validation_resolution]
    return max(clips, key=lambda shape: shape.area, default=None)


# ------------------------------------------------------------------------------------------------------------ training


def ladder(spec: Spec, resolved: Resolved, cls: GpuClass) -> list[str]:
    """The memory plans of training that the job can run, from the fastest to the smallest.

    `spec.memory` or `gradient_checkpointing` pin the plan; going below a pinned one needs `memory: auto` in writing.
    Raises ConfigError for a plan that is not built.
    """
    form = Case.of(spec, resolved, cls).form
    if spec.memory != AUTO:
        return [_checked(spec.memory, form)]
    rungs = [f"{form}/resident/keep:{keep}" for keep in KEEP]
    pinned = resolved.training.gradient_checkpointing
    if pinned is None:
        return rungs
    if pinned:
        return rungs[-1:]
    return rungs if "memory" in spec.model_fields_set else rungs[:1]


def require_built(name: str, form: str = "bf16") -> PlanName:
    """The plan of a name in spec.memory. Raises ConfigError for none, and for one that the job cannot run."""
    plan = PlanName.parse(name)
    if not plan.built:
        remedy = f"write {form}/resident/keep:<blocks not recomputed>, or auto; `ltx2 estimate` predicts this one"
        raise ConfigError(Problem("spec.memory", f"{name} is not supported yet", remedy))
    return plan


def _checked(name: str, form: str) -> str:
    plan = require_built(name, form)
    if plan.form != form:
        why = "the class cpu and mixed_precision: no compute in fp32, everything else in bf16"
        raise ConfigError(Problem("spec.memory", f"{name} does not go with this run: {why}", f"write {form}/..."))
    return name


def train_plans(case: Case) -> Iterator[tuple[str, Terms]]:
    """Each plan of the ladder with the terms of its peak."""
    for name in ladder(case.spec, case.resolved, case.cls):
        yield name, train_terms(case, PlanName.parse(name))


def train_terms(case: Case, plan: PlanName) -> Terms:
    """The terms of a plan's peak: a training step, or decoding a sample clip beside it."""
    peaks = [step_terms(case, plan, batch_of(case.resolved)), sample_terms(case, plan)]
    return max(peaks, key=lambda terms: sum(terms.values()))


def step_terms(case: Case, plan: PlanName, batch: Shape) -> Terms:
    """Terms of an optimizer step on such a batch."""
    return estimate.training_terms(case.model, batch, keep=plan.keep, **_shared(case, plan))


def sample_terms(case: Case, plan: PlanName) -> Terms:
    """Terms of decoding the largest sample clip, none where validation makes none."""
    sample = sample_of(case.resolved)
    return estimate.validation_terms(case.model, sample, **_shared(case, plan)) if sample is not None else {}


def _shared(case: Case, plan: PlanName) -> dict[str, Any]:
    training = case.resolved.training
    return {
        "form": plan.form, "resident": plan.resident, "rank": training.lora_rank, "optimizer": training.optimizer,
        "device": case.cls.device,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- cache


def cache_plans(case: Case) -> Iterator[tuple[str, Terms]]:
    """The cache ladder with the terms of each rung; on the rung "cpu" the device itself holds nothing."""
    for place in CACHE_LADDER[:1] if case.cls is CPU else CACHE_LADDER:
        yield place, cache_terms(case, case.cls.device) if place == "device" else {}


def cache_terms(case: Case, device: Literal["cuda", "cpu"]) -> Terms:
    """Terms of the largest pass of the cache stage, on the GPU or in host memory."""
    form: Form = "fp32" if device == "cpu" else "bf16"
    return estimate.cache_terms(case.model, batch_of(case.resolved), form=form, device=device)


def plans(case: Case, stage: Stage) -> list[tuple[str, Terms]]:
    """The plans of a stage that the job can run, from the fastest to the smallest."""
    return list(train_plans(case) if stage == "train" else cache_plans(case))
