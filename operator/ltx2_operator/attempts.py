"""How one attempt follows another: budgets, back-off, and the end of an attempt.

Numbers that decide (attempt, failures, rung, ...) live in the status alone, never in children, so that a child which
vanishes resets no budget.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from ltx2_job.exitcodes import Action
from ltx2_operator import conditions
from ltx2_operator.api import LAST_ATTEMPTS
from ltx2_operator.classify import Verdict
from ltx2_operator.clocks import stop_clock
from ltx2_operator.conditions import FALSE, TRUE, UNKNOWN, moment, stamp
from ltx2_operator.draft import Draft

BACKOFF_FIRST: Final = 10.0  # seconds after the first counted failure; doubles with each
BACKOFF_MOST: Final = 600.0
UNCOUNTED_IN_A_ROW: Final = 5  # uncounted ends without a newer checkpoint before one of them counts

CACHE: Final = "Cache"
TRAIN: Final = "Train"
SUSPEND: Final = "Suspend"  # lastVerdict.action of an attempt that the user's pause ended


def ended(status: Mapping[str, Any]) -> bool:
    """Whether the newest attempt has ended (or none was made): a cache stage that succeeded ends nothing."""
    attempt, last = status.get("attempt") or 0, status.get("lastVerdict") or {}
    if attempt == 0:
        return True
    if last.get("attempt") != attempt:
        return False
    return not (last.get("stage") == CACHE and last.get("action") == Action.SUCCEED)


def terminal(status: Mapping[str, Any]) -> bool:
    """Whether the run has ended for good."""
    found = status.get("conditions") or []
    return conditions.is_true(found, "Succeeded") or conditions.is_true(found, "Failed")


def backoff(count: int) -> float:
    """Seconds before attempt number `count` of a row: 10, 20, 40 ... 600."""
    return min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(max(count, 1) - 1, 16))


def record(draft: Draft, action: str, reason: str, message: str, exit_code: int | None = None) -> None:
    """Write down how the newest stage ended; the last attempts stay listed."""
    entry = {
        "attempt": draft.status["attempt"],
        "stage": draft.status.get("stage") or CACHE,
        "action": str(action),
        "reason": reason,
        "message": message[:4096],
        "time": stamp(draft.now),
    }
    if exit_code is not None:
        entry["exitCode"] = exit_code
    draft.status["lastVerdict"] = entry
    if ended(draft.status) and draft.status["attempt"]:
        others = [old for old in draft.status.get("attempts") or [] if old.get("attempt") != entry["attempt"]]
        draft.status["attempts"] = [*others, entry][-LAST_ATTEMPTS:]


def close(draft: Draft, verdict: Verdict, ended_at: datetime | None = None) -> None:
    """End the newest attempt (or its cache stage) by a verdict: counters, back-off, terminal state, events.

    LOWER_MEMORY_PLAN moves the rung; whether a plan fits there is reconcile's question (it may call `fail`).
    """
    status = draft.status
    stop_clock(draft, ended_at)
    note_checkpoint(draft, verdict.report)
    status.pop("pendingSince", None)
    status.pop("job", None)
    stage, suspending = (
        status.get("stage") or CACHE,
        draft.training.spec.suspend or draft.reason("Suspended") == "Suspending",
    )
    stopped = verdict.action in (Action.RETRY_UNCOUNTED, Action.IGNORE)
    if stopped and suspending:
        record(draft, SUSPEND, "SuspendedByUser", "paused", verdict.exit_code)
        draft.condition("Running", FALSE, "Stopped", "paused")
        return
    draft.condition("Progressing", UNKNOWN, "Stopped", "")
    if verdict.action is Action.SUCCEED:
        record(draft, verdict.action, "Completed", verdict.message, verdict.exit_code)
        _succeed(draft, stage, verdict)
        return
    action: Action = verdict.action
    message = verdict.message
    if stopped:
        action, message = _uncounted(draft, action, message)
    elif action is Action.LOWER_MEMORY_PLAN:
        status["rung"][stage.lower()] += 1
    elif action is Action.WAIT_FOR_DATA:
        status["waits"] += 1
        status["cacheReady"] = False
        _next_in(draft, backoff(status["waits"]))
        draft.condition("Cached", FALSE, "WaitingForData", message)
        if status["waits"] == 1:
            draft.event("WaitingForData", message)
    record(draft, action, verdict.reason, message, verdict.exit_code)
    draft.condition("Running", FALSE, verdict.reason, f"attempt {status['attempt']}: {message}")
    if action in (Action.RETRY, Action.FAIL):
        status["failures"] += 1
        retries = draft.training.spec.retries
        if action is Action.FAIL:
            fail(draft, verdict.reason, message)
        elif status["failures"] > retries:
            fail(
                draft,
                "RetriesExhausted",
                f"{status['failures']} failed attempts, spec.retries is {retries}; last: {message}",
            )
        else:
            wait = backoff(status["failures"])
            _next_in(draft, wait)
            text = f"attempt {status['attempt']}: {message}; attempt {status['attempt'] + 1} follows in {int(wait)} s"
            draft.event("AttemptFailed", f"{text} ({status['failures']} of {retries} retries)", warning=True)


def fail(draft: Draft, reason: str, message: str) -> None:
    """The run has failed until spec.retries rises."""
    status = draft.status
    if not ended(status):
        record(draft, Action.FAIL, reason, message)
    stop_clock(draft)
    for key in ("pendingSince", "job", "nextAttemptTime", "eta", "etaTime"):
        status.pop(key, None)
    status["failedRetries"] = draft.training.spec.retries
    status["completionTime"] = stamp(draft.now)
    draft.condition("Failed", TRUE, reason, message)
    draft.condition("Succeeded", FALSE, "Failed", message)
    if draft.reason("Running") in ("Training", "Caching", "Starting", "WaitingForPods", "ImagePull", "Pending"):
        draft.condition("Running", FALSE, "Stopped", message)
    if status.get("stage") == CACHE:
        draft.condition("Cached", FALSE, "CacheFailed", message)
    draft.event("Failed", f"{reason}: {message}; a higher spec.retries gives it another attempt", warning=True)


def reopen(draft: Draft) -> bool:
    """Give a failed run another attempt if spec.retries has risen since it failed; say whether it was."""
    status, retries = draft.status, draft.training.spec.retries
    if not draft.true("Failed") or retries <= int(status.get("failedRetries") or 0):
        return False
    if draft.reason("Failed") == "DeadlineExceeded":
        status["runningSeconds"] = 0  # otherwise the new attempt would end before it begins
    for key in ("failedRetries", "completionTime", "nextAttemptTime"):
        status.pop(key, None)
    draft.condition("Failed", FALSE, "Restarting", f"spec.retries was raised to {retries}")
    draft.condition("Succeeded", UNKNOWN, "InProgress", "")
    draft.event("Retried", f"spec.retries was raised to {retries}: attempt {status['attempt'] + 1} follows")
    return True


def open_next(draft: Draft) -> None:
    """Name the next attempt in the status. Its Job is created by a later look, which finds the number stored."""
    status = draft.status
    resumed = draft.true("Suspended") or draft.reason("Suspended") == "Suspending"
    status["attempt"] += 1
    status["stage"] = TRAIN if status.get("cacheReady") else CACHE
    for key in ("job", "pendingSince", "nextAttemptTime", "progressText", "eta", "etaTime"):
        status.pop(key, None)
    status.setdefault("startTime", stamp(draft.now))
    if resumed:
        draft.condition("Suspended", FALSE, "Resumed", "")
        step = (status.get("checkpoint") or {}).get("step")
        draft.event("Resumed", f"attempt {status['attempt']}" + (f" continues from step {step}" if step else ""))
    draft.condition("Running", FALSE, "Starting", f"attempt {status['attempt']}")
    draft.again_at_once()


def note_checkpoint(draft: Draft, page: Mapping[str, Any]) -> None:
    """Take a newer checkpoint over from a progress page or a last word; steps only rise."""
    found = page.get("checkpoint")
    step = found.get("step") if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(step, int) or isinstance(step, bool) or not 0 < step < 2**31:
        return
    if step > int((draft.status.get("checkpoint") or {}).get("step") or 0):
        entry: dict[str, Any] = {"step": step, "path": str(found.get("path") or "")[:1024]}
        try:
            entry["time"] = stamp(moment(str(found.get("time"))))
        except ValueError:
            entry["time"] = stamp(draft.now)
        draft.status["checkpoint"] = entry
        draft.event("Checkpoint", f"step {step}" + (f": {entry['path']}" if entry["path"] else ""))


def _succeed(draft: Draft, stage: str, verdict: Verdict) -> None:
    status = draft.status
    if stage == CACHE:
        status["cacheReady"], status["stage"], status["waits"] = True, TRAIN, 0
        items = verdict.report.get("items")
        counts = items if isinstance(items, Mapping) else {}
        text = (
            f"{counts.get('done', 0)} items, {counts.get('skipped', 0)} skipped, see report.json"
            if counts
            else "see report.json"
        )
        reused = isinstance(verdict.report.get("result"), Mapping) and verdict.report["result"].get("encoded") == 0
        draft.condition("Cached", TRUE, "CacheReused" if reused else "CacheReady", text)
        draft.event("CacheReady", text)
        draft.condition("Running", FALSE, "Starting", "the train stage follows")
        draft.again_at_once()
        return
    result = verdict.report.get("result")
    status["result"] = dict(result) if isinstance(result, Mapping) else {}
    status["completionTime"] = stamp(draft.now)
    for key in ("eta", "etaTime", "nextAttemptTime"):
        status.pop(key, None)
    draft.condition("Succeeded", TRUE, "Completed", "finished")
    draft.condition("Failed", FALSE, "Completed", "")
    draft.condition("Running", FALSE, "Completed", "finished")
    hours = float(status.get("runningSeconds") or 0) / 3600
    found = status["result"]
    parts = [str(found["lora"])] if found.get("lora") else []
    parts += [f"final loss {found['finalLoss']:.4f}"] if isinstance(found.get("finalLoss"), float) else []
    draft.event("Succeeded", ", ".join([*parts, f"{hours:.2f} hours"]))


def _uncounted(draft: Draft, action: Action, message: str) -> tuple[Action, str]:
    """An end that is nobody's fault; the fifth in a row without a newer checkpoint counts after all."""
    status = draft.status
    newest = int((status.get("checkpoint") or {}).get("step") or 0)
    if newest > int(status.get("uncountedStep") or 0):
        status["uncounted"] = 0
    status["uncountedStep"] = newest
    status["uncounted"] += 1
    if status["uncounted"] >= UNCOUNTED_IN_A_ROW:
        status["uncounted"] = 0
        return (
            Action.RETRY,
            f"{UNCOUNTED_IN_A_ROW} interrupted attempts in a row without a newer checkpoint; last: {message}",
        )
    _next_in(draft, backoff(status["uncounted"]))
    draft.event("Preempted" if action is Action.RETRY_UNCOUNTED else "Superseded", message, warning=True)
    return action, message


def _next_in(draft: Draft, seconds: float) -> None:
    draft.status["nextAttemptTime"] = stamp(draft.now + timedelta(seconds=seconds))
