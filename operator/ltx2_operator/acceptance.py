"""The condition Accepted: may this object run, and with which plans? Decided before its first attempt, then kept."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ltx2_job.errors import ConfigError
from ltx2_operator import accept, children, conditions, config_source, pod_template
from ltx2_operator.api import parse
from ltx2_operator.conditions import FALSE, TRUE, UNKNOWN
from ltx2_operator.draft import Draft, DryRunJob, Event
from ltx2_operator.observed import Observed, Outcome
from ltx2_operator.scheduling import short_of_gpus
from ltx2_operator.settings import Settings
from ltx2_operator.status import Status

NODES_AGAIN: Final = 60.0  # seconds until nodes, claims and Secrets are looked at again for an object they refuse

WARNINGS_MOST: Final = 50  # as the status takes them
MENDED_ELSEWHERE: Final = ("UnsupportedGPU", "SecretNotFound", "StorageNotShared", "ConfigMapNotFound")


def unreadable(obj: Mapping[str, Any], observed: Observed, now: datetime) -> Outcome:
    """An object that even its own model refuses (a client without validation wrote it): rejected, nothing else
    touched.
    """
    try:
        accept.accept(obj, observed.nodes, observed.claims, observed.secrets)
        raise AssertionError("parse refused what accept takes")
    except accept.Rejected as error:
        status = dict(obj.get("status") or {})
        generation = int(obj["metadata"].get("generation") or 0)
        found = status.get("conditions") or []
        known = conditions.get_condition(found, "Accepted")
        status["conditions"] = conditions.set_condition(
            found, "Accepted", FALSE, error.reason, str(error), now, generation
        )
        status.update(observedGeneration=generation, reason=error.reason)
        status["state"] = conditions.state_word(status["conditions"], ended=True)
        told = known is not None and known.get("message") == str(error)[:1024]
        status = Status.model_validate(status).dump()
        return Outcome(status, events=[] if told else [Event("Rejected", str(error)[:1024], "Warning")])


def accepted(draft: Draft, observed: Observed, settings: Settings) -> bool:
    """Whether the object may run. Decided for each generation until the first attempt exists, then kept."""
    status = draft.status
    if status["attempt"] > 0 and status.get("plan"):
        return draft.true("Accepted")
    seen = status.get("observedGeneration") == draft.generation
    if seen and draft.true("Accepted") and status.get("plan") and not _edited(draft):
        return True
    try:
        found = accept.accept(draft.obj, observed.nodes, observed.claims, observed.secrets, observed.model)
        warnings = _tried(draft, found, observed, settings)
    except accept.Rejected as error:
        reject(draft, error)
        return False
    if warnings is None:
        draft.condition("Accepted", UNKNOWN, "Pending", "asks the API server whether it takes spec.podTemplate")
        return False
    status["plan"], status["cachePlan"] = found.plan.dump(), found.cache_plan.dump()
    status["configHash"], status["warnings"] = found.resolved.digest, [*found.warnings, *warnings][:WARNINGS_MOST]
    lacking = short_of_gpus(status["plan"], observed.nodes) or short_of_gpus(status["cachePlan"], observed.nodes)
    words = "; ".join(filter(None, (accept.plan_words(found.plan), lacking)))
    draft.condition("Accepted", TRUE, "Valid", words)
    corrected = f"; corrected: {'; '.join(found.warnings)}" if found.warnings else ""
    draft.event("Accepted", words + corrected)
    return True


def reject(draft: Draft, error: accept.Rejected) -> None:
    """Accepted=False, told once; what somebody else may mend is looked at again."""
    status = draft.status
    known = conditions.get_condition(status["conditions"], "Accepted")
    if known is None or known.get("message") != str(error)[:1024]:
        draft.event("Rejected", str(error), warning=True)
    draft.condition("Accepted", FALSE, error.reason, str(error))
    for key in ("plan", "cachePlan", "configHash"):
        status.pop(key, None)
    if error.reason in MENDED_ELSEWHERE or str(error).startswith(pod_template.FIELD):
        draft.again_in(NODES_AGAIN)


def _edited(draft: Draft) -> bool:
    """Whether files of a ConfigMap have changed since they were accepted: that raises no generation."""
    try:
        return accept.resolve_spec(draft.training).digest != draft.status.get("configHash")
    except ConfigError:
        return True


def _tried(draft: Draft, found: accept.Accepted, observed: Observed, settings: Settings) -> tuple[str, ...] | None:
    """What the API server warns of in a Job with spec.podTemplate; None until it has been asked.

    Raises accept.Rejected where it refuses the Job, or would refuse its pods.
    """
    if draft.training.spec.pod_template is None:
        return ()
    try:
        job = children.job(draft.obj, found.plan, "train", 0, settings, digest=found.resolved.digest)
    except ConfigError as error:
        raise accept.Rejected("InvalidConfig", " | ".join(map(str, error.problems))) from None
    return asked(draft, job, observed)


def asked(draft: Draft, job: Mapping[str, Any], observed: Observed) -> tuple[str, ...] | None:
    """What the API server warns of in a Job; None until it has been asked. Raises accept.Rejected."""
    answer = observed.dry_run
    if answer is None or answer.generation != draft.generation:
        draft.actions.append(DryRunJob(job))
        draft.again_at_once()
        return None
    if not answer.ok:
        raise accept.Rejected("InvalidConfig", f"{pod_template.FIELD}: {answer.message}")
    for warning in answer.warnings:
        if "would violate PodSecurity" in warning:
            remedy = "remove what it names, or use a namespace that allows it (label pod-security.kubernetes.io/warn)"
            raise accept.Rejected("InvalidConfig", f"{pod_template.FIELD}: {warning}; {remedy}")
        if "unknown field" in warning:
            raise accept.Rejected("InvalidConfig", f"{pod_template.FIELD}: {warning}; remove it or mend its name")
    return answer.warnings


DRIFTED: Final = "spec.configFrom: the ConfigMap has changed since the first attempt; this run keeps what it began with"


def tell_drift(draft: Draft, obj: Mapping[str, Any], observed: Observed) -> None:
    """A warning while the files of spec.configFrom say something else than the attempts were given.

    obj: the object as its user wrote it.
    """
    status = draft.status
    if not status["attempt"] or not status.get("configHash") or not observed.configmaps:
        return
    try:
        today = accept.resolve_spec(parse(config_source.of_today(obj, observed.configmaps)))
        drifted = today.digest != status["configHash"]
    except ConfigError:
        drifted = True
    others = [warning for warning in status.get("warnings") or [] if warning != DRIFTED]
    if drifted and len(others) == len(status.get("warnings") or []):
        draft.event("ConfigMapChanged", DRIFTED, warning=True)
    status["warnings"] = [DRIFTED, *others][:WARNINGS_MOST] if drifted else others
