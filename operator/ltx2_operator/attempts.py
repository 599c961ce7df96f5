"""How one attempt follows another: budgets, back-off, and the end of an attempt.

Numbers that decide (attempt, failures, rung, ...) live in the status alone, never in children, so that a child which
vanishes resets no budget.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from ltx2_job.exitcodes import Action
from ltx2_operator import conditions
from ltx2_operator.api import LAST_ATTEMPTS
from ltx2_operator.classify import Verdict
from ltx2_operator.clocks import stop_clock, stop_queue
from ltx2_operator.conditions import FALSE, TRUE, UNKNOWN, moment, stamp
from ltx2_operator.draft import Draft

BACKOFF_FIRST: Final = 10.0  # seconds after the first counted failure; doubles with each
BACKOFF_MOST: Final = 600.0
UNCOUNTED_IN_A_ROW: Final = 5  # uncounted ends without a newer checkpoint before one of them counts

LOOK: Final = "Look"  # is the data there? a pod without a GPU looks, before one with a GPU is asked for
CACHE: Final = "Cache"
TRAIN: Final = "Train"
_OPEN: Final = ("Training", "Caching", "Looking", "Starting", "WaitingForPods", "ImagePull", "Pending")
SUSPEND: Final = "Suspend"  # lastVerdict.action of an attempt that the user's pause ended


def ended(status: Mapping[str, Any]) -> bool:
    """Whether the newest attempt has ended (or none was made): a stage before training that succeeded ends nothing."""
    attempt, last = status.get("attempt") or 0, status.get("lastVerdict") or {}
    if attempt == 0:
        return True
    if last.get("attempt") != attempt:
        return False
    return not (last.get("stage") in (LOOK, CACHE) and last.get("action") == Action.SUCCEED)


def admit(draft: Draft) -> None:
    """No queue holds the newest Job (any more)."""
    queued = draft.training.spec.queue_name is not None
    draft.condition("Admitted", TRUE, "QuotaReserved" if queued else "NotQueued", "")


def terminal(status: Mapping[str, Any]) -> bool:
    """Whether the run has ended for good."""
    found = status.get("conditions") or []
    return conditions.is_true(found, "Succeeded") or conditions.is_true(found, "Failed")


def backoff(count: int) -> float:
    """Seconds before attempt number `count` of a row: 10, 20, 40 ... 600."""
    return min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(max(count, 1) - 1, 16))


def record(
    draft: Draft,
    action: str,
    reason: str,
    message: str,
    exit_code: int | None = None,
    nodes: Sequence[str] = (),
) -> None:
    """Write down how the newest stage ended; the last attempts stay listed."""
    entry = {
        "attempt": draft.status["attempt"],
        "stage": draft.status.get("stage") or CACHE,
        "action": str(action),
        "reason": reason,
        "message": message[:4096],
        "nodes": list(nodes),
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
    stage = status.get("stage") or CACHE
    suspending = draft.training.spec.suspend or draft.reason("Suspended") == "Suspending"
    note_checkpoint(draft, verdict.report)
    stop_clock(draft, ended_at, redone=stage == TRAIN and verdict.action is not Action.SUCCEED)
    stop_queue(draft)
    for key in ("pendingSince", "job", "jobUid"):
        status.pop(key, None)
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
    message, remedy = verdict.message, ""
    if stopped:
        action, message = _uncounted(draft, action, message)
    elif action is Action.LOWER_MEMORY_PLAN:
        status["rung"][stage.lower()] += 1
    elif action is Action.WAIT_FOR_DATA:
        status["waits"] += 1
        status["cacheReady"] = False
        _next_in(draft, backoff(status["waits"]))
        remedy = f"{message}; `ltx2 upload DIR {draft.training.metadata.name}` puts clips on the volume"
        draft.condition("Cached", FALSE, "WaitingForData", remedy)
        if status["waits"] == 1:
            draft.event("WaitingForData", remedy)
    record(draft, action, verdict.reason, message, verdict.exit_code, verdict.nodes)
    text = remedy if action is Action.WAIT_FOR_DATA else f"attempt {status['attempt']}: {message}"
    draft.condition("Running", FALSE, verdict.reason, text)
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
    stop_clock(draft, redone=status.get("stage") == TRAIN)
    stop_queue(draft)
    for key in ("pendingSince", "job", "jobUid", "nextAttemptTime", "eta", "etaTime"):
        status.pop(key, None)
    status["failedRetries"] = draft.training.spec.retries
    status["completionTime"] = stamp(draft.now)
    draft.condition("Failed", TRUE, reason, message)
    draft.condition("Succeeded", FALSE, "Failed", message)
    if draft.reason("Running") in _OPEN:
        draft.condition("Running", FALSE, "Stopped", message)
    if status.get("stage") == CACHE:
        draft.condition("Cached", FALSE, "CacheFailed", message)
    again = f"`ltx2 retry {draft.training.metadata.name}`"
    further = "" if again in message else f"; {again} gives it another attempt"
    draft.event("Failed", f"{reason}: {message}{further}", warning=True)


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


def open_next(draft: Draft, *, seen: bool) -> None:
    """Name the next attempt in the status. Its Job is created by a later look, which finds the number stored.

    seen: whoever runs this has looked at the volume itself. Otherwise an attempt without a ready cache begins with a
    look, and one after a Job that was complete without a proof, which may lie there.
    """
    status = draft.status
    resumed = draft.true("Suspended") or draft.reason("Suspended") == "Suspending"
    doubtful = not status.get("cacheReady") or (status.get("lastVerdict") or {}).get("reason") == "NoProof"
    status["attempt"] += 1
    enter(draft, LOOK if doubtful and not seen else after_look(status))
    for key in ("job", "jobUid", "nextAttemptTime", "progressText", "eta", "etaTime"):
        status.pop(key, None)
    status.setdefault("startTime", stamp(draft.now))
    if resumed:
        draft.condition("Suspended", FALSE, "Resumed", "")
        step = (status.get("checkpoint") or {}).get("step")
        draft.event("Resumed", f"attempt {status['attempt']}" + (f" continues from step {step}" if step else ""))
    draft.condition("Running", FALSE, "Starting", f"attempt {status['attempt']}")
    draft.again_at_once()


def look_again(draft: Draft) -> None:
    """Reopen the attempt whose look found no data: nothing was begun, so the number stays."""
    del draft.status["lastVerdict"]
    draft.status.pop("nextAttemptTime", None)
    enter(draft, LOOK)
    draft.condition("Running", FALSE, "Starting", "looks for data again")
    draft.again_at_once()


def after_look(status: Mapping[str, Any]) -> str:
    """The stage that follows a look."""
    return TRAIN if status.get("cacheReady") else CACHE


def enter(draft: Draft, stage: str) -> None:
    """Begin a stage: what was known of the Job before is no longer true."""
    status = draft.status
    status["stage"] = stage
    for key in ("pendingSince", "progressText", "eta", "etaTime"):
        status.pop(key, None)
    # The numbers of a training stay until there are newer ones; how long the stage before had left is over.
    if numbers := {key: value for key, value in (status.get("progress") or {}).items() if key != "etaSeconds"}:
        status["progress"] = numbers
    draft.condition("Admitted", UNKNOWN, "Pending", "")


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
    result = verdict.report.get("result")
    found = dict(result) if isinstance(result, Mapping) else {}
    if stage == LOOK and not found:
        enter(draft, after_look(status))
        draft.condition("Running", FALSE, "Starting", f"the data is there, the {status['stage'].lower()} stage follows")
        draft.again_at_once()
        return
    if stage == CACHE:
        _cached(draft, found)
        return
    if stage == LOOK:
        status["stage"], status["cacheReady"] = TRAIN, True
        draft.condition("Cached", TRUE, "CacheReused", "this very run lies finished on the volume")
    status["result"] = found
    status["completionTime"] = stamp(draft.now)
    for key in ("eta", "etaTime", "nextAttemptTime"):
        status.pop(key, None)
    words = "finished before, the volume holds its result" if stage == LOOK else "finished"
    draft.condition("Succeeded", TRUE, "Completed", words)
    draft.condition("Failed", FALSE, "Completed", "")
    draft.condition("Running", FALSE, "Completed", words)
    parts = [str(found["lora"])] if found.get("lora") else []
    parts += [f"final loss {found['finalLoss']:.4f}"] if isinstance(found.get("finalLoss"), float) else []
    hours = float(status.get("runningSeconds") or 0) / 3600
    draft.event("Succeeded", ", ".join([*parts, words if stage == LOOK else f"{hours:.2f} hours"]))


def _cached(draft: Draft, found: Mapping[str, Any]) -> None:
    """The cache stage is done: say what it holds; training follows."""
    status = draft.status
    status["cacheReady"], status["waits"] = True, 0
    clips, skipped = found.get("clips"), found.get("skipped")
    counts = f"{clips} clips, {skipped} skipped, " if isinstance(clips, int) and isinstance(skipped, int) else ""
    text = f"{counts}see report.json"
    draft.condition("Cached", TRUE, "CacheReused" if found.get("encoded") == 0 else "CacheReady", text)
    draft.event("CacheReady", text)
    enter(draft, TRAIN)
    draft.condition("Running", FALSE, "Starting", "the train stage follows")
    draft.again_at_once()


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
