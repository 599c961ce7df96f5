"""Can this object run here? Parse, resolve, choose a GPU class, size: an answer before any pod exists.

`Rejected` carries the condition's reason and one sentence that names field and remedy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ltx2_job.config import Resolved, resolve
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.estimate import Model
from ltx2_job.same_run import UNNAMED_CHECKPOINTS
from ltx2_operator import children, gpus, sizing
from ltx2_operator.access import OBJECT_STORE_KEYS
from ltx2_operator.api import NAME_MAX, LTX2Training, Secrets, not_supported_yet, parse
from ltx2_operator.status import Plan

GIB: Final = 2**30
RESUME: Final = "resume_from_checkpoint"


class Rejected(Exception):
    """The object cannot run; `reason` is one of Accepted's."""

    def __init__(self, reason: str, message: str):
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class Accepted:
    """What was decided for an object that can run."""

    resolved: Resolved
    plan: Plan
    cache_plan: Plan
    warnings: tuple[str, ...]


def resolve_spec(training: LTX2Training) -> Resolved:
    """The configuration of a training, resolved.

    Raises ConfigError with every mistake; `not supported yet` counts as one.
    """
    problems = not_supported_yet(training.spec)
    if problems:
        raise ConfigError(problems)
    if training.spec.config_from is not None:  # config_source.py pastes them before anything is decided
        raise ConfigError(Problem("spec.configFrom", f"ConfigMap {training.spec.config_from.name} cannot be read"))
    config = configuration(training)
    try:
        resolved = resolve(config, training.spec.datasets)
        resolved.require_supported()
    except ConfigError as error:
        raise ConfigError([replace(problem, field=_place(problem.field)) for problem in error.problems]) from None
    return resolved


def configuration(training: LTX2Training) -> dict[str, Any]:
    """spec.config as the job reads it: spec.resumeFrom is its resume_from_checkpoint. Raises ConfigError."""
    config, reference = dict(training.spec.config or {}), training.spec.resume_from
    if reference is None:
        return config
    if reference == training.metadata.name:
        message = f"{reference!r} is this very run, which goes on from its own newest checkpoint by itself"
        raise ConfigError(Problem("spec.resumeFrom", message, "remove it, or name another run"))
    written = config.setdefault(RESUME, reference)
    if written not in (reference, *UNNAMED_CHECKPOINTS):
        message = f"{reference!r}, but spec.config.{RESUME} is {written!r}"
        raise ConfigError(Problem("spec.resumeFrom", message, "remove one of the two"))
    return {**config, RESUME: reference}


def accept(
    obj: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]] | None,
    claims: Sequence[Mapping[str, Any]],
    secrets: frozenset[str] | None,
    model: Model | None = None,
) -> Accepted:
    """Decide what an object gets.

    nodes: the cluster's nodes, None where they may not be read. secrets: names that exist, None where they may not be
    read. model: sizes of the checkpoint where it can be looked at, else sizing's knowledge of the flavour. Raises
    Rejected.
    """
    name = str(obj["metadata"].get("name", ""))
    if len(name) > NAME_MAX:
        raise Rejected(
            "NameTooLong", f"metadata.name: {len(name)} characters, at most {NAME_MAX}; choose a shorter name"
        )
    try:
        training = parse(obj)
        resolved = resolve_spec(training)
    except ConfigError as error:
        raise Rejected("InvalidConfig", _sentence(error)) from None
    for claim in claims:
        if claim["metadata"]["name"] == children.claim_name(training):
            problem = children.claim_problem(obj, claim)
            if problem is not None:
                raise Rejected("StorageNotShared", str(problem))
    if secrets is not None:
        _require_secrets(training.spec.secrets, secrets)
    try:
        plan = plan_stage(training, resolved, "train", 0, nodes, model=model)
        cache_plan = plan_stage(training, resolved, "cache", 0, nodes, model=model)
    except ConfigError as error:
        raise Rejected("UnsupportedGPU", _sentence(error)) from None
    except sizing.NoFit as error:
        raise Rejected("UnsupportedGPU", str(error)) from None
    return Accepted(resolved, plan, cache_plan, tuple(str(correction) for correction in resolved.corrections))


def _require_secrets(named: Secrets, there: frozenset[str]) -> None:
    """Raise Rejected for a Secret that is named and does not exist: its pods would wait for ever."""
    wanted = []
    if (token := named.hub_token) is not None:
        wanted.append(("hubToken.name", token.name, f"key {token.key}"))
    if named.object_store is not None:
        keys = [key for key, needed in OBJECT_STORE_KEYS.items() if needed]
        wanted.append(("objectStore", named.object_store, f"keys {' and '.join(keys)}"))
    for field, name, keys_text in wanted:
        if name not in there:
            message = f"spec.secrets.{field}: no Secret {name} in this namespace; create it with {keys_text}"
            raise Rejected("SecretNotFound", message)


def plan_stage(
    training: LTX2Training,
    resolved: Resolved,
    stage: sizing.Stage,
    rung: int,
    nodes: Sequence[Mapping[str, Any]] | None,
    chosen: str | None = None,
    model: Model | None = None,
) -> Plan:
    """The plan of one stage at one rung of its ladder.

    chosen: the GPU class that was stored at acceptance; a class is chosen once. Raises sizing.NoFit, ConfigError.
    """
    spec = training.spec
    gpu_class = gpus.find(chosen) if chosen else sizing.choose_class(spec, resolved, nodes, stage, model)
    return sizing.size(spec, resolved, gpu_class, rung, stage, model)


def plan_words(plan: Plan) -> str:
    """The plan as people read it: `1x h100-80g, bf16/resident/keep:48, predicted peak 41.2 GiB, 1.3 s/step`."""
    where = "cpu" if plan.gpu_class == "cpu" else f"{plan.gpu_count}x {plan.gpu_class}"
    parts = [f"{plan.nodes} nodes of {where}" if plan.nodes > 1 else where, plan.memory]
    parts.append(f"predicted peak {size_text(plan.predicted_peak_bytes)}")
    if plan.predicted_seconds_per_step:
        parts.append(f"{float(plan.predicted_seconds_per_step):.3g} s/step")
    return ", ".join(parts)


def size_text(size: int) -> str:
    """Bytes as people read them: 41.2 GiB, 93 MiB."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"


def _sentence(error: ConfigError) -> str:
    """All problems of an error in one sentence."""
    return " | ".join(map(str, error.problems))


def _place(field: str) -> str:
    """Where a field of the pasted files stands in the object."""
    return f"spec.{field}" if field == "config" or field.startswith("datasets") else f"spec.config.{field}"
