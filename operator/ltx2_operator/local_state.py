"""What a command leaves of a training on this machine, and what the next one makes of it.

runs/<name>/training.json holds the object with its status and the processes that belong to it, training.lock keeps a
second command out.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ltx2_job import exitcodes
from ltx2_job.errors import JobError, UsageError
from ltx2_job.workspace import read_json
from ltx2_operator import attempts, conditions
from ltx2_operator.standin import NAMESPACE

STATE_FILE: Final = "training.json"
LOCK_FILE: Final = "training.lock"
POLL_SECONDS: Final = 0.05


class AlreadyRunningError(UsageError):
    """Another `ltx2 run` of this name works on this folder."""


class StateError(JobError):
    """runs/<name>/training.json cannot be read as what a command stored there."""

    exit_code = exitcodes.CONFIG


def load_state(folder: Path) -> dict[str, Any] | None:
    """What the last command left in runs/<name>/training.json, None if there was none. Raises StateError."""
    path = folder / STATE_FILE
    try:
        state = read_json(path)
        if not isinstance(state["metadata"]["uid"], str) or int(state["metadata"]["generation"]) < 1:
            raise ValueError("no uid and generation")
        return dict(state)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"{path}: is no stored training ({error}); remove it: attempts are counted anew, checkpoints stay"
        ) from None


def same_run(state: Mapping[str, Any] | None, digest: str) -> Mapping[str, Any] | None:
    """The stored state if it is of this configuration and not finished; else None, and a new object begins.

    The job itself refuses a run folder that another configuration has trained in.
    """
    status = (state or {}).get("status") or {}
    if status.get("configHash") != digest or conditions.is_true(status.get("conditions") or [], "Succeeded"):
        return None
    return state


def new_object(manifest: Mapping[str, Any], old: Mapping[str, Any] | None, now: datetime) -> dict[str, Any]:
    """The object as an API server would hold it: with uid and generation, going on from the old state if there is one.

    A run that has failed gets another attempt: typing the command again is what `ltx2 retry` is on a cluster.
    """
    metadata = {**(manifest.get("metadata") or {}), "namespace": NAMESPACE}
    spec = {**(manifest.get("spec") or {}), "suspend": False}
    if old is None:
        metadata |= {"uid": str(uuid.uuid4()), "generation": 1}
        return {**manifest, "metadata": metadata, "spec": spec}
    metadata |= {"uid": old["metadata"]["uid"], "generation": int(old["metadata"]["generation"]) + 1}
    status = dict(old.get("status") or {})
    status.pop("nextAttemptTime", None)
    if (status.get("plan") or {}).get("gpuClass") != (spec.get("gpu") or {}).get("class"):
        status.pop("plan", None)  # the folder has moved to another machine: plan anew
    if not attempts.ended(status) and status.get("job"):
        # The last command was killed before it saw how the attempt ended: a pause, nobody's fault.
        status["conditions"] = conditions.set_condition(
            status["conditions"],
            "Suspended",
            conditions.FALSE,
            "Suspending",
            "the command was killed",
            now,
            metadata["generation"],
        )
    if conditions.is_true(status.get("conditions") or [], "Failed"):
        spec["retries"] = max(int(spec.get("retries", 3)), int(status.get("failedRetries", 0)) + 1)
    return {**manifest, "metadata": metadata, "spec": spec, "status": status}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One command per run folder. Raises AlreadyRunningError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunningError(
                f"{folder}: another `ltx2 run` (process {file.read().strip() or '?'}) works on it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def start_time(pid: int) -> str:
    """When a process was started, in clock ticks since boot: with the pid it names one process. Empty if unknown."""
    return _stat(pid, 19, unknown="")


def end_orphans(
    state: Mapping[str, Any], grace: float, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> None:
    """End processes that a killed command left behind: two attempts must never write to one run folder.

    The folders in which they ran are removed, too.
    """
    for entry in state.get("processes") or []:
        _end_orphan(int(entry["pid"]), str(entry["start"]), str(entry["pod"]), grace, say, sleep)
        folder = Path(str(entry.get("folder") or ""))
        if folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith(f"{entry['pod']}-"):
            shutil.rmtree(folder, ignore_errors=True)


def _end_orphan(
    pid: int, start: str, pod: str, grace: float, say: Callable[[str], None], sleep: Callable[[float], None]
) -> None:
    if not start or start_time(pid) != start:
        return
    say(f"ending {pod} (process {pid}), left by a command that was killed")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    waited = 0.0
    while start_time(pid) == start and _state(pid) != "Z":
        if waited >= grace:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS


def _state(pid: int) -> str:
    return _stat(pid, 0, unknown="Z")


def _stat(pid: int, field: int, unknown: str) -> str:
    """A field of /proc/PID/stat, counted behind the command's name, which may hold blanks and parentheses."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[field]
    except (OSError, IndexError):
        return unknown
