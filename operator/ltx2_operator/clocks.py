"""The clocks of a run: running, held by a queue or by missing nodes, and what both cost in GPU-seconds.

Every clock is one stored time (`runningSince`, `queuedSince`) that is added to a sum when it stops, so that an operator
that restarts loses nothing and a run at rest changes nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ltx2_operator.conditions import moment, stamp
from ltx2_operator.draft import Draft


def start_running(draft: Draft, at: datetime | None = None) -> None:
    """All pods run: the queue's clock stops, the other one starts, and an execution begins.

    at: since when, if that is not now.
    """
    status, since = draft.status, at or draft.now
    stop_queue(draft, since)
    if status.get("runningSince") is None:
        status["runningSince"] = stamp(since)
        status["execution"] += 1


def start_missed(draft: Draft, pods: Sequence[Mapping[str, Any]]) -> bool:
    """Count what ran and ended while no operator looked: containers of the newest attempt's pods that began after the
    wait for them. Says whether there were any.
    """
    waited = draft.status.get("pendingSince")
    ended = [
        (one.get("state") or {}).get("terminated") or {}
        for pod in pods
        for one in (pod.get("status") or {}).get("containerStatuses") or []
    ]
    begun = [moment(one["startedAt"]) for one in ended if one.get("startedAt")]
    if draft.status.get("stage") == "Look" or waited is None or draft.status.get("runningSince") or not begun:
        return False
    if max(begun) < moment(waited):
        return False
    start_running(draft, min(draft.now, max(begun)))
    return True


def stop_clock(draft: Draft, at: datetime | None = None, *, redone: bool = False) -> None:
    """Add the time since runningSince to runningSeconds and to the GPU-seconds used.

    at: when the pods ended, if it is known. redone: the attempt did not finish, so that what came after its newest
    checkpoint (which the caller has noted) has to be done again.
    """
    since = draft.status.pop("runningSince", None)
    if since is None:
        return
    end = min(draft.now, at) if at else draft.now
    gone = _seconds(moment(since), end)
    draft.status["runningSeconds"] = int(draft.status.get("runningSeconds") or 0) + gone
    _spend(draft, "used", gone)
    if redone:
        saved = moment((draft.status.get("checkpoint") or {}).get("time") or since)
        _spend(draft, "lost", _seconds(max(moment(since), saved), end))


def start_queue(draft: Draft) -> None:
    """A queue holds the run, or its pods wait for nodes."""
    draft.status.setdefault("queuedSince", stamp(draft.now))


def stop_queue(draft: Draft, at: datetime | None = None) -> None:
    """Add the time since queuedSince, until now or an earlier moment, to the GPU-seconds queued."""
    since = draft.status.pop("queuedSince", None)
    if since is not None:
        _spend(draft, "queued", _seconds(moment(since), at or draft.now))


def running_seconds(draft: Draft) -> float:
    """Seconds of running over all attempts up to now."""
    since = draft.status.get("runningSince")
    current = (draft.now - moment(since)).total_seconds() if since else 0.0
    return float(draft.status.get("runningSeconds") or 0) + max(0.0, current)


def _spend(draft: Draft, kind: str, seconds: int) -> None:
    spent = draft.status.setdefault("gpuSeconds", {})
    spent[kind] = int(spent.get(kind) or 0) + seconds * _gpus(draft.status)


def _gpus(status: Mapping[str, Any]) -> int:
    """GPUs of the stage at hand, over all nodes."""
    key = {"Cache": "cachePlan", "Train": "plan"}.get(str(status.get("stage")))
    plan = (status.get(key) if key else None) or {}
    return int(plan.get("gpuCount") or 0) * int(plan.get("nodes") or 1)


def _seconds(since: datetime, end: datetime) -> int:
    return max(0, int((end - since).total_seconds()))
