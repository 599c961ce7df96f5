"""The condition Accepted: may this object run, and with which plans? Decided before its first attempt, then kept."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ltx2_operator import accept, conditions
from ltx2_operator.conditions import FALSE, TRUE
from ltx2_operator.draft import Draft, Event
from ltx2_operator.observed import Observed, Outcome
from ltx2_operator.status import Status

NODES_AGAIN: Final = 60.0  # seconds until nodes, claims and Secrets are looked at again for an object they refuse


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


def accepted(draft: Draft, observed: Observed) -> bool:
    """Whether the object may run. Decided for each generation until the first attempt exists, then kept."""
    status = draft.status
    if status["attempt"] > 0 and status.get("plan"):
        return draft.true("Accepted")
    seen = status.get("observedGeneration") == draft.generation
    if seen and draft.true("Accepted") and status.get("plan"):
        return True
    try:
        found = accept.accept(draft.obj, observed.nodes, observed.claims, observed.secrets, observed.model)
    except accept.Rejected as error:
        known = conditions.get_condition(status["conditions"], "Accepted")
        if known is None or known.get("message") != str(error)[:1024]:
            draft.event("Rejected", str(error), warning=True)
        draft.condition("Accepted", FALSE, error.reason, str(error))
        for key in ("plan", "cachePlan", "configHash"):
            status.pop(key, None)
        if error.reason in ("UnsupportedGPU", "SecretNotFound", "StorageNotShared"):
            draft.again_in(NODES_AGAIN)
        return False
    status["plan"], status["cachePlan"] = found.plan.dump(), found.cache_plan.dump()
    status["configHash"], status["warnings"] = found.resolved.digest, list(found.warnings)
    draft.condition("Accepted", TRUE, "Valid", accept.plan_words(found.plan))
    corrected = f"; corrected: {'; '.join(found.warnings)}" if found.warnings else ""
    draft.event("Accepted", accept.plan_words(found.plan) + corrected)
    return True
