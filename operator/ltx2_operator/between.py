"""Between two attempts: pause, wait, or name the next one."""

from typing import Final

from ltx2_job.exitcodes import Action
from ltx2_operator import attempts
from ltx2_operator.api import GROUP
from ltx2_operator.classify import is_alive
from ltx2_operator.clocks import stop_queue
from ltx2_operator.conditions import FALSE, TRUE, moment
from ltx2_operator.draft import Draft
from ltx2_operator.observed import Observed, current, job_finished, own_children

UPLOADED: Final = f"{GROUP}/data-uploaded"  # `ltx2 upload` writes the time here: look at once
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
    waiting = (draft.status.get("lastVerdict") or {}).get("action") == Action.WAIT_FOR_DATA
    uploaded = (draft.obj["metadata"].get("annotations") or {}).get(UPLOADED)
    arrived = waiting and uploaded is not None and uploaded[:64] != draft.status.get("dataUploaded")
    due = draft.status.get("nextAttemptTime")
    resumed = draft.reason("Suspended") == "SuspendedByUser"
    if due is not None and draft.now < moment(due) and not resumed and not arrived:
        draft.again_in((moment(due) - draft.now).total_seconds())
        return
    if arrived:
        draft.status["waits"] = 0
        draft.status.pop("nextAttemptTime", None)
    if uploaded is not None:
        draft.status["dataUploaded"] = uploaded[:64]
    if waiting and draft.status.get("stage") == attempts.LOOK and not draft.true("Suspended"):
        _look_again(draft, observed)
    else:
        attempts.open_next(draft, seen=observed.volume_seen)


def _look_again(draft: Draft, observed: Observed) -> None:
    """The same attempt looks once more, under the same Job name: the old Job has to be gone."""
    job, pods = current(draft, observed)
    if job is not None or pods:
        draft.again_in(PODS_AGAIN)
        return
    attempts.look_again(draft)


def paused(draft: Draft, busy: bool) -> None:
    """The user asked for a pause: it holds when no process is left."""
    if busy:
        draft.condition("Suspended", FALSE, "Suspending", "waits until the pods have written a checkpoint and are gone")
        draft.again_in(PODS_AGAIN)
        return
    draft.condition("Admitted", FALSE, "Suspended", "spec.suspend is true")
    draft.condition("Suspended", TRUE, "SuspendedByUser", "no pod is left; set spec.suspend to false to go on")
    draft.status.pop("pendingSince", None)
    stop_queue(draft)
