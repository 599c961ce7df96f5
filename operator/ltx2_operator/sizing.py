"""Spec + resolved configuration + GPU class -> Plan: memory plan, processes, CPU, memory, /dev/shm, disk.

Pure arithmetic over ltx2_job.estimate. Plans of a ladder are tried from the fastest to the smallest; a rung counts from
the first that is predicted to fit, so that after a GPU out-of-memory "one rung down" is always a smaller plan. Only
plans that the job can run are ever chosen; prospects.py predicts the others. Where nothing fits, the error says what
would (remedies.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ltx2_job import estimate
from ltx2_job.config import Resolved
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.estimate import Host, Model, PlanName, Terms
from ltx2_job.places import repository_of
from ltx2_operator import demands, gpus, prospects, remedies
from ltx2_operator.api import Plan, Spec
from ltx2_operator.demands import CACHE_LADDER, Case, NoFit, Stage, batch_of, gpu_of, ladder, model_of
from ltx2_operator.gpus import AUTO, CPU, GpuClass

__all__ = [
    "NoFit", "NotOffered", "Resources", "Stage", "batch_of", "choose_class", "class_field", "class_of_machine",
    "fitting_class", "gpu_of", "ladder", "look_plan", "model_of", "predict", "resources", "size",
]  # fmt: skip

LOOK_MEMORY: Final = 512 * 2**20  # a Python that lists folders, and hashes one checkpoint in pieces
SMALL_TRANSFORMER: Final = 10**9  # bytes below which a machine without GPU trains by itself


class NotOffered(NoFit):
    """No node offers a known GPU class in that number: it may come, with a larger pool."""


# --------------------------------------------------------------------------------------------------------------- sizes


def size(
    spec: Spec, resolved: Resolved, cls: GpuClass, rung: int = 0, stage: Stage = "train", model: Model | None = None
) -> Plan:
    """The plan of one stage on a GPU class, `rung` steps below the first that is predicted to fit.

    `model`: the checkpoint's sizes where they are known (a file on this machine). Raises NoFit if no plan fits or none
    is left, ConfigError for a pinned plan that is not built and for a class that cannot train.
    """
    refused = gpus.refusal(cls)
    if refused is not None:
        raise ConfigError(refused)
    case = Case.of(spec, resolved, cls, model)
    found = demands.plans(case, stage)
    fitting = [(name, terms) for name, terms in found if case.fits(terms)]
    if not fitting:
        raise NoFit(remedies.what_would_fit(case, stage, *found[-1]))
    if rung >= len(fitting):
        raise NoFit(f"no memory plan below {fitting[-1][0]} on {cls.name}; {remedies.SMALLER}")
    name, terms = fitting[rung]
    return _plan(case, stage, name, terms)


def look_plan(plan: Plan) -> Plan:
    """The plan of a pod that only looks whether a run's data is there: no device, the smallest image.

    plan: of the stage that follows; its GPU class stays, so that a claim which is bound by its first pod is bound near
    those GPUs.
    """
    return plan.model_copy(
        update={
            "stage": "look", "device": "cpu", "vendor": "none", "resource_name": None, "gpu_count": 0, "nodes": 1,
            "processes": 1, "flavour": "cpu", "cpu_milli": 250, "memory_bytes": LOOK_MEMORY, "shm_bytes": 2**20,
            "ephemeral_bytes": 2**28, "predicted_peak_bytes": 0, "predicted_seconds_per_step": None, "terms": {},
        }
    )  # fmt: skip


def predict(spec: Spec, resolved: Resolved, cls: GpuClass, model: Model | None = None) -> Plan | None:
    """The train stage as predicted with a memory plan that is not built yet; None where none of those fits either.

    For people to look at, never for a run.
    """
    case = Case.of(spec, resolved, cls, model)
    found = prospects.best(case) if cls.bf16 else None
    return None if found is None else _plan(case, "train", str(found[0]), found[1])


@dataclass(frozen=True)
class Resources:
    """What a stage needs beside the device, by named terms in bytes, and the seconds of a step by what bounds it."""

    host: Host
    volume: dict[str, int]
    seconds: dict[str, float]


def resources(case: Case, stage: Stage, name: str, terms: Terms) -> Resources:
    """The pod and the volume around a plan. The cache stage is one process on one node."""
    training, cls = case.resolved.training, case.cls
    extra = _train_extra(case, name, terms) if stage == "train" else _cache_extra(case, name)
    volume = estimate.volume_terms(
        case.model,
        batch_of(case.resolved),
        rank=training.lora_rank,
        checkpoints=training.checkpoints_total_limit,
        downloads=repository_of(training.pretrained_model_name_or_path) is not None,
    )
    seconds = {} if stage == "cache" else prospects.step_seconds(case, PlanName.parse(name))
    return Resources(estimate.host(cls.device, case.spec.gpu.count if stage == "train" else 1, extra), volume, seconds)


def _train_extra(case: Case, name: str, terms: Terms) -> dict[str, int]:
    """What a process of training holds beside its own start: copies, streamed weights; on a CPU all of it."""
    if case.cls is CPU:
        return {"what a GPU would hold": sum(terms.values())}
    training, plan = case.resolved.training, PlanName.parse(name)
    state = sum(estimate.OPTIMIZER_BYTES[training.optimizer]) * case.model.adapter(training.lora_rank)
    pinned = estimate.streamed_bytes(case.model, plan.form, plan.resident)
    return {"copies for a checkpoint": state} | ({"streamed weights, pinned": pinned} if pinned else {})


def _cache_extra(case: Case, place: str) -> dict[str, int]:
    """What the cache stage holds beside its own start: media workers, their clips, and models that run on the CPU."""
    in_host = place == "cpu" or case.cls is CPU
    extra = estimate.media_terms(case.cls.device, batch_of(case.resolved), "fp32" if in_host else "bf16")
    return extra | demands.cache_terms(case, "cpu") if in_host else extra


def _plan(case: Case, stage: Stage, name: str, terms: Terms) -> Plan:
    spec, cls = case.spec, case.cls
    needs = resources(case, stage, name, terms)
    processes = spec.gpu.count if stage == "train" else 1
    place: Any = CACHE_LADDER[0] if stage == "train" else name
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
        memory=name if stage == "train" else ladder(spec, case.resolved, cls)[0],
        cache_memory=place,
        cpu_milli=needs.host.cpu_milli,
        memory_bytes=needs.host.memory,
        shm_bytes=needs.host.shm,
        ephemeral_bytes=needs.host.scratch,
        volume_bytes=estimate.with_spare(needs.volume),
        predicted_peak_bytes=sum(terms.values()),
        predicted_seconds_per_step=max(needs.seconds.values(), default=None),  # type: ignore[arg-type]  # it becomes text
        terms=terms,
        corrections=[str(correction) for correction in case.resolved.corrections][:50],
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
    field = class_field(spec, stage)
    if wanted.class_ != AUTO:
        return gpus.find(wanted.class_, field)
    if nodes is None:
        message = "auto needs to read the cluster's nodes, which this operator may not"
        raise ConfigError(Problem(field, message, "name a class of `ltx2 gpus`, or install with rbac.nodeReader"))
    count = 1 if stage == "cache" else wanted.count
    return fitting_class(spec, resolved, _offered(list(nodes), count, field), stage, model)


def class_field(spec: Spec, stage: Stage) -> str:
    """The field that chooses the GPU class of a stage."""
    return "spec.cache.gpu.class" if stage == "cache" and spec.cache.gpu else "spec.gpu.class"


def _offered(nodes: Sequence[Mapping[str, Any]], count: int, field: str) -> list[GpuClass]:
    found = gpus.offered(nodes, count)
    if found:
        return found
    fewer = gpus.offered(nodes, 1)
    if fewer:
        most = max(entry.on(node) for entry in fewer for node in nodes)
        remedy = f"set {field.removesuffix('class')}count: {most}"
        raise NotOffered(f"{field}: no node offers {count} GPUs of one known class, at most {most}; {remedy}")
    others = gpus.unknown(nodes)
    if others:
        raise NotOffered(
            f"{field}: auto, but no node offers a GPU of a class that can train: {', '.join(others)}; the labels come "
            "from NVIDIA's GPU feature discovery or AMD's node labeller, `ltx2 gpus` lists the classes"
        )
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
    wanted, field = gpu_of(spec, stage).class_, class_field(spec, stage)
    if wanted != AUTO:
        return gpus.find(wanted, field)
    if found:
        return fitting_class(spec, resolved, found, stage, model)
    if model is not None and model.transformer * estimate.FORM_BYTES["bf16"] < SMALL_TRANSFORMER:
        return CPU
    message = "no GPU on this machine, and the transformer is not known to be below 1 GB"
    remedy = "run it on a cluster or a machine with a GPU, or with class cpu in a manifest if it may take very long"
    raise ConfigError(Problem(field, message, remedy))
