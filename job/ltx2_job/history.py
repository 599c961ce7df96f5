"""What happened to a run, on its volume: runs/<name>/history.jsonl, a JSON object a line, in order. Torch-free.

It outlives events, Jobs and the training's object. A stage appends what it sees itself: that it began, from which step
it goes on, how it ended. How a pod ended that could say nothing (killed, drained, lost with its node) only the operator
knows, and it reaches no volume: it hands its verdicts on the attempts before to the next Job, in a variable, and that
one's stage writes them down before its own first line. Only the owner of the run's fence writes.

Every entry has time, event, uid (of the training), attempt and stage. What else it has goes with its event:

    CacheStarted, TrainingStarted   gpuClass, nodes, processes, and memory (training) or cacheMemory
    Resumed                         step
    Ended                           exitCode, reason, message, and the step that training has reached
    Verdict                         action, reason, message, and where known exitCode and the nodes it crashed on
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ltx2_job.progress import MESSAGE_LENGTH, clean, ending_fields, timestamp
from ltx2_job.workspace import RunFolder, naming, read_page, sync

VERDICTS: Final = "LTX2JOB_VERDICTS"  # the variable that hands verdicts on
HANDED_LENGTH: Final = 400  # characters of a verdict's message there: ten verdicts stand in one Job

RESUMED: Final = "Resumed"
ENDED: Final = "Ended"
VERDICT: Final = "Verdict"
STARTED: Final = {"cache": "CacheStarted", "train": "TrainingStarted"}  # by stage, as the operator's events say it

Entry = dict[str, Any]


def entry(event: str, uid: str, attempt: int, stage: str, **more: Any) -> Entry:
    """An entry of this moment."""
    return {"time": timestamp(), "event": event, "uid": uid, "attempt": attempt, "stage": stage, **more}


def ended(uid: str, attempt: int, stage: str, code: int, message: str, step: object = None) -> Entry:
    """The entry of an end; `step` counts where it is a step."""
    reached = {"step": step} if isinstance(step, int) and step > 0 else {}
    return entry(ENDED, uid, attempt, stage, **ending_fields(code, message), **reached)


def verdict(told: Mapping[str, Any], uid: str) -> Entry:
    """The entry of an element of status.attempts of the training `uid`."""
    optional = {key: told[key] for key in ("exitCode", "nodes") if told.get(key) not in (None, [])}
    return {
        "time": str(told.get("time") or ""),
        "event": VERDICT,
        "uid": uid,
        "attempt": told.get("attempt"),
        "stage": str(told.get("stage") or "").lower(),
        "action": str(told.get("action") or ""),
        "reason": str(told.get("reason") or ""),
        **optional,
        "message": clean(str(told.get("message") or ""), MESSAGE_LENGTH),
    }


def handed_on(attempts: Iterable[Mapping[str, Any]]) -> str:
    """The value of VERDICTS from status.attempts: JSON without a dollar, which Kubernetes would take for a variable."""
    short = [{**told, "message": clean(str(told.get("message") or ""), HANDED_LENGTH)} for told in attempts]
    return json.dumps(short, separators=(",", ":")).replace("$", "\\u0024")


def handed(value: str, uid: str) -> list[Entry]:
    """The entries that a value of VERDICTS stands for. None of what is no verdict: a history never ends a training."""
    try:
        found = json.loads(value or "[]")
    except ValueError:
        return []
    return [verdict(told, uid) for told in found if isinstance(told, dict)] if isinstance(found, list) else []


def append(run: RunFolder, entries: Iterable[Entry]) -> None:
    """Write entries at the end of the history, but for those that stand there already. Call as the run's owner.

    They are on the disk when this returns. Raises OSError, which names the file, if the volume refuses.
    """
    known, fresh = [identity(one) for one in read(run)], []
    for one in entries:
        if identity(one) not in known:
            known.append(identity(one))
            fresh.append(one)
    if not fresh:
        return
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in fresh)
    new = not run.history.exists()
    with naming(run.history), run.history.open("a+b") as file:
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read(1) != b"\n":  # a writer that was killed left half a line, which stays alone
                lines = "\n" + lines
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync(run.root)


def read(run: RunFolder) -> list[Entry]:
    """The entries on the volume; half a line is none."""
    try:
        lines = run.history.read_bytes().splitlines()
    except OSError:
        return []
    return [one for line in lines if (one := _entry(line)) is not None]


def _entry(line: bytes) -> Entry | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def identity(one: Entry) -> Entry:
    """What tells an entry from others: all but its message, which may be cut."""
    return {key: value for key, value in one.items() if key != "message"}


def words(run: RunFolder) -> list[dict[str, Any]]:
    """What each attempt last said of itself (attempts/<n>.json), in their order."""
    paths = [path for path in run.attempts.glob("*.json") if path.stem.isdigit()]
    return [page for path in sorted(paths, key=lambda path: int(path.stem)) if (page := read_page(path))]


def told(run: RunFolder) -> list[Entry]:
    """All that the volume tells: the history, after the ends of attempts from before there was one."""
    entries = read(run)
    known = {(one.get("uid"), one.get("attempt")) for one in entries}
    older = [
        {**{key: page.get(key) for key in ("time", "uid", "attempt", "stage", "exitCode", "reason", "message")},
         "event": ENDED}
        for page in words(run)
        if "exitCode" in page and (page.get("uid"), page.get("attempt")) not in known
    ]  # fmt: skip
    return [*older, *entries]


def with_verdicts(entries: Iterable[Entry], attempts: Iterable[Mapping[str, Any]], uid: str) -> list[Entry]:
    """Entries with the verdicts of status.attempts that no Job has written down, each after what is told of its
    attempt.
    """
    found = list(entries)
    known = [identity(one) for one in found]
    for one in (verdict(told, uid) for told in attempts):
        if identity(one) not in known:
            before = [at for at, other in enumerate(found) if _is_before(other, one)]
            found.insert(before[-1] + 1 if before else len(found), one)
    return found


def _is_before(other: Entry, one: Entry) -> bool:
    return other.get("uid") == one["uid"] and int(other.get("attempt") or 0) <= int(one["attempt"] or 0)
