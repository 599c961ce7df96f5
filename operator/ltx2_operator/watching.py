"""An attempt is open: create its Job, or watch it in a queue, waiting for pods, running."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltx2_operator import attempts
from ltx2_operator.attempts import CACHE
from ltx2_operator.between import paused
from ltx2_operator.classify import job_condition
from ltx2_operator.clocks import running_seconds, stop_clock
from ltx2_operator.conditions import FALSE, TRUE, UNKNOWN, stamp
from ltx2_operator.creating import create, start_deadline
from ltx2_operator.draft import Delete, Draft
from ltx2_operator.observed import Observed, current
from ltx2_operator.progress import absorb
from ltx2_operator.settings import Settings
from ltx2_operator.waiting import why_waiting


def watch(draft: Draft, observed: Observed, settings: Settings) -> None:
    """An attempt is open: create its Job, or watch it."""
    job, own = current(draft, observed)
    if job is None:
        create(draft, observed, settings)
        return
    if draft.training.spec.suspend:
        draft.actions.append(Delete("Job", job["metadata"]["name"]))
        paused(draft, True)
        return
    if draft.reason("Suspended") == "Suspending":  # taken back before anything was deleted
        draft.condition("Suspended", FALSE, "NotSuspended", "")
    if job["spec"].get("suspend"):
        stop_clock(draft)
        draft.status.pop("pendingSince", None)
        preempted = job_condition(job, "Suspended") is not None and int(draft.status["execution"]) > 0
        draft.condition("Admitted", FALSE, "Preempted" if preempted else "WaitingForQuota", "the queue holds this run")
        draft.condition("Running", FALSE, "WaitingForPods", "the queue holds this run")
        return
    queued = draft.training.spec.queue_name is not None
    draft.condition("Admitted", TRUE, "QuotaReserved" if queued else "NotQueued", "")
    needed = int(job["spec"].get("parallelism") or 1)
    if sum((pod.get("status") or {}).get("phase") == "Running" for pod in own) >= needed:
        _running(draft, observed)
    else:
        _pending(draft, job, own, observed)


def _running(draft: Draft, observed: Observed) -> None:
    """All pods run: clocks, progress, the deadline."""
    status, caching = draft.status, draft.status["stage"] == CACHE
    if status.get("runningSince") is None:
        status["runningSince"] = stamp(draft.now)
        status["execution"] += 1
    status.pop("pendingSince", None)
    draft.condition("Running", TRUE, "Caching" if caching else "Training", f"attempt {status['attempt']}")
    if caching:
        draft.condition("Cached", FALSE, "CacheRunning", f"attempt {status['attempt']}")
    limit = draft.training.spec.active_deadline_seconds
    if limit is not None:
        left = limit - running_seconds(draft)
        if left <= 0:
            attempts.fail(draft, "DeadlineExceeded", f"ran for {limit} s, spec.activeDeadlineSeconds")
            draft.again_at_once()
            return
        draft.again_in(left)
    absorb(draft, observed.progress)


def _pending(draft: Draft, job: Mapping[str, Any], own: Sequence[Mapping[str, Any]], observed: Observed) -> None:
    """The Job waits for its pods: say why, and not for ever."""
    stop_clock(draft)
    reason, message = why_waiting(job, own, observed.events, observed.nodes, draft.status.get("plan"))
    draft.condition("Running", FALSE, reason, message)
    draft.condition("Progressing", UNKNOWN, "Pending", "")
    draft.status.setdefault("pendingSince", stamp(draft.now))
    start_deadline(draft)
