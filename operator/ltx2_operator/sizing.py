"""Spec + resolved configuration + GPU class -> Plan: memory plan, processes, CPU, memory, /dev/shm, disk.

Pure arithmetic over ltx2_job.estimate. Plans of a ladder are tried from the fastest to the smallest; a rung counts from
the first that is predicted to fit, so that after a GPU out-of-memory "one rung down" is always a smaller plan. Where
nothing fits, the error says what would: fewer frames, a smaller batch, or another class.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from ltx2_job import estimate, exitcodes
from ltx2_job.config import Resolved
from ltx2_job.errors import ConfigError, JobError, Problem
from ltx2_job.estimate import GIB, Model, Shape, Terms
from ltx2_operator import gpus
from ltx2_operator.api import Gpu, Plan, Spec
from ltx2_operator.gpus import AUTO, CPU, GpuClass

Stage = Literal["cache", "train"]

GPUS: Final = tuple(gpus.cheapest_first(entry for entry in gpus.CLASSES if entry is not CPU))
KEEP: Final = (48, 24, 0)  # blocks that are not recomputed, from the fastest plan to the smallest
CACHE_LADDER: Final = ("device", "cpu")  # where VAE and text encoder run
SMALL_TRANSFORMER: Final = 10**9  # bytes below which a machine without GPU trains by itself
HUB_OWNER: Final = "Lightricks/"  # its repositories hold models of known sizes


class NoFit(JobError):
    """Nothing that is offered can run this; the message says what would fit."""

    exit_code = exitcodes.CONFIG


class NotOffered(NoFit):
    """No node offers a known GPU class in that number: it may come, with a larger pool."""


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


# ------------------------------------------------------------------------------------------------------------- ladders


def ladder(spec: Spec, resolved: Resolved, cls: GpuClass) -> list[str]:
    """The memory plans of training, from the fastest to the smallest.

    `spec.memory` or `gradient_checkpointing` pin the plan; going below a pinned one needs `memory: auto` in writing.
    Raises ConfigError for a plan that is not built.
    """
    form = "fp32" if cls.device == "cpu" or resolved.training.mixed_precision == "no" else "bf16"
    if spec.memory != AUTO:
        return [_checked(spec.memory, form)]
    rungs = [f"{form}/resident/keep:{keep}" for keep in KEEP]
    pinned = resolved.training.gradient_checkpointing
    if pinned is None:
        return rungs
    if pinned:
        return rungs[-1:]
    return rungs if "memory" in spec.model_fields_set else rungs[:1]


def _checked(name: str, form: str) -> str:
    parts = name.split("/")
    if parts[0] not in estimate.FORM_BYTES or parts[1] != "resident":
        remedy = f"write {form}/resident/keep:<blocks not recomputed>, or auto"
        raise ConfigError(Problem("spec.memory", f"{name} is not supported yet", remedy))
    if parts[0] != form:
        why = "the class cpu and mixed_precision: no compute in fp32, everything else in bf16"
        raise ConfigError(Problem("spec.memory", f"{name} does not go with this run: {why}", f"write {form}/..."))
    return name


def keep_of(memory: str) -> int:
    """The number of blocks that a plan does not recompute."""
    return int(memory.rpartition(":")[2])


# --------------------------------------------------------------------------------------------------------------- sizes


def size(
    spec: Spec, resolved: Resolved, cls: GpuClass, rung: int = 0, stage: Stage = "train", model: Model | None = None
) -> Plan:
    """The plan of one stage on a GPU class, `rung` steps below the first that is predicted to fit.

    `model`: the checkpoint's sizes where they are known (a file on this machine). Raises NoFit if no plan fits or none
    is left, ConfigError for a pinned plan that is not built.
    """
    model = model or model_of(resolved, cls)
    candidates = _train_plans(spec, resolved, cls, model) if stage == "train" else _cache_plans(resolved, cls, model)
    fitting = [(name, terms) for name, terms in candidates if _fits(terms, cls)]
    if not fitting:
        name, terms = candidates[-1]
        raise NoFit(_what_would_fit(spec, resolved, cls, stage, model, name, terms))
    if rung >= len(fitting):
        raise NoFit(f"no memory plan below {fitting[-1][0]} on {cls.name}; {_SMALLER}")
    name, terms = fitting[rung]
    return (_train_plan if stage == "train" else _cache_plan)(spec, resolved, cls, model, name, terms)


def _fits(terms: Terms, cls: GpuClass) -> bool:
    return cls is CPU or sum(terms.values()) <= cls.memory_bytes


def _form(memory: str) -> estimate.Form:
    return "fp32" if memory.startswith("fp32") else "bf16"


def _train_plans(spec: Spec, resolved: Resolved, cls: GpuClass, model: Model) -> list[tuple[str, Terms]]:
    """Each plan of the ladder with the terms of its peak: a training step, or decoding a sample clip beside it."""
    plans = []
    for name in ladder(spec, resolved, cls):
        peaks = [_step_terms(resolved, cls, model, name, batch_of(resolved)), _sample_terms(resolved, cls, model, name)]
        plans.append((name, max(peaks, key=lambda terms: sum(terms.values()))))
    return plans


def _step_terms(resolved: Resolved, cls: GpuClass, model: Model, name: str, batch: Shape) -> Terms:
    return estimate.training_terms(model, batch, keep=keep_of(name), **_shared(resolved, cls, name))


def _sample_terms(resolved: Resolved, cls: GpuClass, model: Model, name: str) -> Terms:
    """Terms of decoding the largest sample clip, none where validation makes none."""
    sample = sample_of(resolved)
    return estimate.validation_terms(model, sample, **_shared(resolved, cls, name)) if sample is not None else {}


def _shared(resolved: Resolved, cls: GpuClass, name: str) -> dict[str, Any]:
    training = resolved.training
    return {
        "form": _form(name), "rank": training.lora_rank, "optimizer": training.optimizer, "device": cls.device,
    }  # fmt: skip


def _cache_plans(resolved: Resolved, cls: GpuClass, model: Model) -> list[tuple[str, Terms]]:
    """The cache ladder with the terms of each rung; on the rung "cpu" the device itself holds nothing."""
    terms = _cache_terms(resolved, cls, model)
    return [(place, terms if place == "device" else {}) for place in (CACHE_LADDER[:1] if cls is CPU else CACHE_LADDER)]


def _cache_terms(resolved: Resolved, cls: GpuClass, model: Model, device: str = "") -> Terms:
    where: Literal["cpu", "cuda"] = "cpu" if device == "cpu" or cls is CPU else "cuda"
    form: estimate.Form = "fp32" if where == "cpu" else "bf16"
    return estimate.cache_terms(model, batch_of(resolved), form=form, device=where)


def _train_plan(spec: Spec, resolved: Resolved, cls: GpuClass, model: Model, memory: str, terms: Terms) -> Plan:
    training, batch = resolved.training, batch_of(resolved)
    # Beside its own start a process holds what a checkpoint copies from the device; on a CPU it holds everything.
    copies = sum(estimate.OPTIMIZER_BYTES[training.optimizer]) * model.adapter(training.lora_rank)
    extra = sum(terms.values()) if cls is CPU else copies
    seconds = None
    if cls is not CPU:
        seconds = estimate.seconds_per_step(
            model,
            batch,
            keep=keep_of(memory),
            accumulation=training.gradient_accumulation_steps,
            tflops=cls.bf16_tflops,
        )
    return _plan(spec, resolved, cls, model, "train", memory, "device", terms, extra, seconds)


def _cache_plan(spec: Spec, resolved: Resolved, cls: GpuClass, model: Model, place: str, terms: Terms) -> Plan:
    in_host = place == "cpu" or cls is CPU
    extra = estimate.decoded_clips(batch_of(resolved), "fp32" if in_host else "bf16")
    if in_host:
        extra += sum(_cache_terms(resolved, cls, model, "cpu").values())
    memory = ladder(spec, resolved, cls)[0]
    return _plan(spec, resolved, cls, model, "cache", memory, place, terms, extra, None)


def _plan(
    spec: Spec,
    resolved: Resolved,
    cls: GpuClass,
    model: Model,
    stage: Stage,
    memory: str,
    cache_memory: Any,
    terms: Terms,
    extra: int,
    seconds: float | None,
) -> Plan:
    """The pod's resources around the device's. The cache stage is one process on one node."""
    training = resolved.training
    processes = spec.gpu.count if stage == "train" else 1
    needs = estimate.host(cls.device, processes, extra)
    return Plan(
        stage=stage,
        gpu_class=cls.name,
        device=cls.device,
        vendor=cls.vendor,
        resource_name=cls.resource,
        gpu_count=0 if cls is CPU else processes,
        nodes=spec.nodes if stage == "train" else 1,
        processes=processes,
        flavour=spec.flavour or cls.flavour,
        memory=memory,
        cache_memory=cache_memory,
        cpu_milli=needs.cpu_milli,
        memory_bytes=needs.memory,
        shm_bytes=needs.shm,
        ephemeral_bytes=needs.scratch,
        volume_bytes=estimate.volume(
            model,
            batch_of(resolved),
            rank=training.lora_rank,
            checkpoints=training.checkpoints_total_limit,
            downloads=str(training.pretrained_model_name_or_path).startswith(HUB_OWNER),
        ),
        predicted_peak_bytes=sum(terms.values()),
        predicted_seconds_per_step=seconds,  # type: ignore[arg-type]  # a figure becomes text on the way in
        terms=terms,
        corrections=[str(correction) for correction in resolved.corrections][:50],
    )


# -------------------------------------------------------------------------------------------------------------- choice


def choose_class(
    spec: Spec,
    resolved: Resolved,
    nodes: Iterable[Mapping[str, Any]] | None,
    stage: Stage = "train",
    model: Model | None = None,
) -> GpuClass:
    """The class that a stage runs on: the one named, or for `auto` the cheapest that nodes offer and that fits.

    `nodes`: None where the operator may not read them. Raises ConfigError for an unknown name and for `auto` without
    nodes, NotOffered if no node has such GPUs, NoFit if none of those offered is large enough.
    """
    wanted = gpu_of(spec, stage)
    field = "spec.cache.gpu.class" if stage == "cache" and spec.cache.gpu else "spec.gpu.class"
    if wanted.class_ != AUTO:
        return gpus.find(wanted.class_, field)
    if nodes is None:
        message = "auto needs to read the cluster's nodes, which this operator may not"
        raise ConfigError(Problem(field, message, "name a class of `ltx2 gpus`, or install with rbac.nodeReader"))
    count = 1 if stage == "cache" else wanted.count
    return fitting_class(spec, resolved, _offered(list(nodes), count, field), stage, model)


def _offered(nodes: Sequence[Mapping[str, Any]], count: int, field: str) -> list[GpuClass]:
    found = gpus.offered(nodes, count)
    if found:
        return found
    fewer = gpus.offered(nodes, 1)
    if fewer:
        most = max(entry.on(node) for entry in fewer for node in nodes)
        remedy = f"set {field.removesuffix('class')}count: {most}"
        raise NotOffered(f"{field}: no node offers {count} GPUs of one known class, at most {most}; {remedy}")
    raise NotOffered(
        f"{field}: auto, but no node offers a GPU of a known class now; a pool that grows from zero offers nothing "
        "until it has a node: name its class (`ltx2 gpus`)"
    )


def fitting_class(
    spec: Spec, resolved: Resolved, classes: Sequence[GpuClass], stage: Stage = "train", model: Model | None = None
) -> GpuClass:
    """The cheapest of some classes on which a plan fits. Raises NoFit of the largest if there is none.

    For the cache stage one that holds the text encoder is preferred to a cheaper one that would leave it to the CPU.
    """
    ordered = gpus.cheapest_first(classes)
    plans = {}
    for cls in ordered:
        try:
            plans[cls.name] = size(spec, resolved, cls, 0, stage, model)
        except NoFit:
            if cls is ordered[-1] and not plans:
                raise
    best = [name for name, plan in plans.items() if plan.cache_memory == CACHE_LADDER[0]] or list(plans)
    return gpus.BY_NAME[best[0]]


def class_of_machine(
    spec: Spec, resolved: Resolved, found: Sequence[GpuClass], stage: Stage = "train", model: Model | None = None
) -> GpuClass:
    """The class of a run on this machine, which has the GPUs `found`.

    The class cpu is taken by itself only where there is no GPU and the transformer is known to be below 1 GB. Raises
    ConfigError where a GPU is needed and none is there, NoFit where none is large enough.
    """
    wanted = gpu_of(spec, stage).class_
    if wanted != AUTO:
        return gpus.find(wanted)
    if found:
        return fitting_class(spec, resolved, found, stage, model)
    if model is not None and model.transformer * estimate.FORM_BYTES["bf16"] < SMALL_TRANSFORMER:
        return CPU
    message = "no GPU on this machine, and the transformer is not known to be below 1 GB"
    raise ConfigError(Problem("spec.gpu.class", message, "run it on a cluster, or write cpu if it may take very long"))


# ------------------------------------------------------------------------------------------------------ what would fit

_SMALLER: Final = "take fewer frames, a lower resolution, a smaller batch or a larger GPU class"


def _what_would_fit(
    spec: Spec, resolved: Resolved, cls: GpuClass, stage: Stage, model: Model, name: str, terms: Terms
) -> str:
    """One sentence: what is needed, what is there, and the nearest changes that are predicted to fit."""
    need, have = sum(terms.values()) / GIB, cls.memory_bytes / GIB
    sentence = f"{stage} with {name} needs {need:.1f} GiB, {cls.name} has {have:.1f} GiB"
    ideas = []
    if stage == "train":
        trains = _fits(_step_terms(resolved, cls, model, name, batch_of(resolved)), cls)
        ideas = [] if trains else _smaller_clips(resolved, cls, model, name)
        if not _fits(_sample_terms(resolved, cls, model, name), cls):
            silent = "validation_disable: true"
            ideas = [silent] if trains else [f"{idea} with {silent}" for idea in ideas]
    larger = [entry.name for entry in GPUS if _runs(spec, resolved, entry, stage, model)]
    if larger:
        ideas.append(f"gpu.class: {larger[0]}")
    return (
        f"{sentence}; what would fit: {', or '.join(ideas)}"
        if ideas
        else f"{sentence}; no known class fits: {_SMALLER}"
    )


def _runs(spec: Spec, resolved: Resolved, cls: GpuClass, stage: Stage, model: Model) -> bool:
    plans = _train_plans(spec, resolved, cls, model) if stage == "train" else _cache_plans(resolved, cls, model)
    return any(_fits(terms, cls) for _, terms in plans)


def _smaller_clips(resolved: Resolved, cls: GpuClass, model: Model, name: str) -> list[str]:
    """The largest batch and the most frames (8k+1) that fit, where they are smaller than what is asked for."""
    asked = batch_of(resolved)

    def fits(batch: int, frames: int) -> bool:
        smaller = Shape(batch, asked.area, frames, estimate.audio_latents(frames) if asked.audio_latents else 0)
        return _fits(_step_terms(resolved, cls, model, name, smaller), cls)

    ideas = []
    for batch in range(asked.batch - 1, 0, -1):
        if fits(batch, asked.frames):
            ideas.append(f"train_batch_size: {batch}")
            break
    for frames in range(asked.frames - 8, 0, -8):
        if fits(asked.batch, frames):
            ideas.append(f"video.num_frames: {frames}")
            break
    return ideas
