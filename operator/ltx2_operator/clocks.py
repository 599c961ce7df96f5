"""The clocks of a run: how long its pods have run."""

from datetime import datetime

from ltx2_operator.conditions import moment
from ltx2_operator.draft import Draft


def stop_clock(draft: Draft, at: datetime | None = None) -> None:
    """Add the time since runningSince to runningSeconds."""
    since = draft.status.pop("runningSince", None)
    if since is not None:
        end = min(draft.now, at) if at else draft.now
        gone = int((end - moment(since)).total_seconds())
        draft.status["runningSeconds"] = int(draft.status.get("runningSeconds") or 0) + max(0, gone)


def running_seconds(draft: Draft) -> float:
    """Seconds of running over all attempts up to now."""
    since = draft.status.get("runningSince")
    current = (draft.now - moment(since)).total_seconds() if since else 0.0
    return float(draft.status.get("runningSeconds") or 0) + max(0.0, current)
