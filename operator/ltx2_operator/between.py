"""Between two attempts: pause, wait, or name the next one."""

from typing import Final

from ltx2_operator import attempts
from ltx2_operator.classify import is_alive
from ltx2_operator.conditions import FALSE, TRUE, moment
from ltx2_operator.draft import Draft
from ltx2_operator.observed import Observed, job_finished, own_children

PODS_AGAIN: Final = 30.0  # seconds until the pods of an older attempt are looked at again, beside their own events


def between(draft: Draft, observed: Observed) -> None:
    """No attempt is open: pause, wait, or name the next one."""
    busy = [pod for pod in observed.pods if is_alive(pod)]
    unfinished = [job for job in observed.jobs if not job_finished(job)]
    if draft.training.spec.suspend:
        paused(draft, bool(busy or own_children(draft, unfinished)))
        return
    if busy or unfinished:
        names = ", ".join(sorted(one["metadata"]["name"] for one in [*busy, *unfinished])[:3])
        draft.condition("Running", FALSE, "Restarting", f"waits until {names} is gone")
        draft.again_in(PODS_AGAIN)
        return
    due = draft.status.get("nextAttemptTime")
    if due is not None and draft.now < moment(due) and draft.reason("Suspended") != "SuspendedByUser":
        draft.again_in((moment(due) - draft.now).total_seconds())
        return
    attempts.open_next(draft)


def paused(draft: Draft, busy: bool) -> None:
    """The user asked for a pause: it holds when no process is left."""
    if busy:
        draft.condition("Suspended", FALSE, "Suspending", "waits until the pods have written a checkpoint and are gone")
        draft.again_in(PODS_AGAIN)
        return
    draft.condition("Admitted", FALSE, "Suspended", "spec.suspend is true")
    draft.condition("Suspended", TRUE, "SuspendedByUser", "no pod is left; set spec.suspend to false to go on")
    draft.status.pop("pendingSince", None)
