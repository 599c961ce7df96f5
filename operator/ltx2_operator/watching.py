"""An attempt is open: create its Job, or watch it in a queue, waiting for pods, running."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltx2_operator import attempts
from ltx2_operator.attempts import CACHE, LOOK
from ltx2_operator.between import paused
from ltx2_operator.clocks import running_seconds, start_queue, start_running, stop_clock, stop_queue
from ltx2_operator.conditions import FALSE, TRUE, UNKNOWN, stamp
from ltx2_operator.creating import create, plan_of, start_deadline
from ltx2_operator.draft import Delete, Draft
from ltx2_operator.observed import Observed, current, stage_and_attempt
from ltx2_operator.progress import absorb
from ltx2_operator.settings import Settings
from ltx2_operator.waiting import why_queued, why_waiting


def watch(draft: Draft, observed: Observed, settings: Settings) -> None:
    """An attempt is open: create its Job, or watch it."""
    job, own = current(draft, observed)
    if job is None:
        create(draft, observed, settings)
        return
    if draft.training.spec.suspend:
        draft.actions.append(Delete("Job", job["metadata"]["name"], job["metadata"].get("uid")))
        paused(draft, True)
        return
    if draft.reason("Suspended") == "Suspending":  # taken back before anything was deleted
        draft.condition("Suspended", FALSE, "NotSuspended", "")
    if job["spec"].get("suspend"):
        _queued(draft, job, observed)
        return
    if draft.reason("Admitted") == "Preempted":
        draft.event("Resumed", f"the queue admits attempt {draft.status['attempt']} again")
    attempts.admit(draft)
    needed = int(job["spec"].get("parallelism") or 1)
    phases = [(pod.get("status") or {}).get("phase") for pod in own]
    # A rank that is done while others still finish is no pod that is waited for.
    if "Running" in phases and sum(phase in ("Running", "Succeeded") for phase in phases) >= needed:
        _running(draft, observed)
    else:
        _pending(draft, job, own, observed)


def _queued(draft: Draft, job: Mapping[str, Any], observed: Observed) -> None:
    """A queue holds the Job, or has taken its place back: no deadline runs, and its own words say why."""
    preempted = draft.status.get("runningSince") is not None
    stop_clock(draft)
    start_queue(draft)
    draft.status.pop("pendingSince", None)
    taken = preempted or draft.reason("Admitted") == "Preempted"
    message = why_queued(job, observed.workloads, observed.events)
    draft.condition("Admitted", FALSE, "Preempted" if taken else "WaitingForQuota", message)
    draft.condition("Running", FALSE, "WaitingForPods", "the queue holds this run")
    draft.condition("Progressing", UNKNOWN, "Pending", "")
    if preempted:
        draft.event("Preempted", f"attempt {draft.status['attempt']}: {message}", warning=True)


def _running(draft: Draft, observed: Observed) -> None:
    """All pods run: clocks, progress, the deadline. A look is too short for any of them."""
    status, caching = draft.status, draft.status["stage"] == CACHE
    status.pop("pendingSince", None)
    if status["stage"] == LOOK:
        stop_queue(draft)
        draft.condition("Running", FALSE, "Looking", "looks whether the data is there")
        return
    start_running(draft)
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
    if not observed.page_awaited:
        absorb(draft, observed.progress)


def _pending(draft: Draft, job: Mapping[str, Any], own: Sequence[Mapping[str, Any]], observed: Observed) -> None:
    """The Job waits for its pods: say why, and not for ever."""
    stop_clock(draft)
    start_queue(draft)
    plan = plan_of(draft.status, stage_and_attempt(draft)[0])
    reason, message = why_waiting(job, own, observed.events, observed.nodes, plan.dump())
    draft.condition("Running", FALSE, reason, message)
    draft.condition("Progressing", UNKNOWN, "Pending", "")
    draft.status.setdefault("pendingSince", stamp(draft.now))
    start_deadline(draft)
