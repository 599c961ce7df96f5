"""The one table of exit codes. It is total: every code from 0 to 255 has a meaning, a class and a verdict.

The operator imports this module (it holds no torch), so that a pod's code and the operator's verdict cannot drift
apart. Codes 64-78 follow BSD sysexits where one fits; 128+n is death by signal n.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Action(StrEnum):
    """What the operator does after an attempt has ended."""

    SUCCEED = "Succeed"
    FAIL = "Fail"  # terminal until spec.retries rises
    RETRY = "Retry"  # a new attempt that counts against spec.retries
    RETRY_UNCOUNTED = "RetryUncounted"  # a new attempt that does not count (bounded by the operator)
    LOWER_MEMORY_PLAN = "LowerMemoryPlan"  # a new, uncounted attempt with the next smaller plan; terminal if none
    WAIT_FOR_DATA = "WaitForData"  # uncounted, holds no GPU while waiting
    IGNORE = "Ignore"  # a newer attempt owns the run; nothing is decided from this one


@dataclass(frozen=True)
class ExitCode:
    """One row: the code, its verdict class, the condition reason it leads to, and a sentence for people."""

    code: int
    action: Action
    reason: str
    meaning: str


OK: Final = 0
GENERIC: Final = 1
USAGE: Final = 64
DATA: Final = 65
NO_INPUT: Final = 66
UNAVAILABLE: Final = 69
SOFTWARE: Final = 70
STORAGE: Final = 73
TEMPORARY: Final = 75
AUTH: Final = 77
CONFIG: Final = 78
HOST_OUT_OF_MEMORY: Final = 79
GPU_OUT_OF_MEMORY: Final = 80
LOSS_NOT_FINITE: Final = 81
STOPPED: Final = 85
STOPPED_UNSAVED: Final = 86
SUPERSEDED: Final = 87

_ROWS: Final = (
    ExitCode(OK, Action.SUCCEED, "Completed", "done"),
    ExitCode(USAGE, Action.FAIL, "InvalidConfig", "the command line is wrong"),
    ExitCode(DATA, Action.FAIL, "DataError", "no usable clip in the dataset"),
    ExitCode(NO_INPUT, Action.WAIT_FOR_DATA, "WaitingForData", "there is no input yet"),
    ExitCode(UNAVAILABLE, Action.RETRY, "NetworkError", "hub, volume or peer is not reachable"),
    ExitCode(SOFTWARE, Action.RETRY, "AppError", "unexpected exception"),
    ExitCode(STORAGE, Action.FAIL, "StorageError", "the volume is full or not writable"),
    ExitCode(TEMPORARY, Action.RETRY, "NetworkError", "a peer was lost or a collective timed out"),
    ExitCode(AUTH, Action.FAIL, "AuthError", "gated model or bad token"),
    ExitCode(CONFIG, Action.FAIL, "InvalidConfig", "the configuration is wrong"),
    ExitCode(HOST_OUT_OF_MEMORY, Action.FAIL, "HostOutOfMemory", "the host's memory limit was reached"),
    ExitCode(GPU_OUT_OF_MEMORY, Action.LOWER_MEMORY_PLAN, "GPUOutOfMemory", "the GPU's memory was exhausted"),
    ExitCode(LOSS_NOT_FINITE, Action.FAIL, "LossNotFinite", "loss or gradient is infinite or not a number"),
    ExitCode(STOPPED, Action.RETRY_UNCOUNTED, "Stopped", "told to stop, checkpoint written"),
    ExitCode(STOPPED_UNSAVED, Action.RETRY_UNCOUNTED, "StoppedUnsaved", "told to stop, no checkpoint in time"),
    ExitCode(SUPERSEDED, Action.IGNORE, "Superseded", "a newer attempt owns this run"),
    ExitCode(128, Action.FAIL, "InvalidImage", "the container could not start its command"),
    ExitCode(134, Action.RETRY, "AppError", "aborted (SIGABRT)"),
    ExitCode(135, Action.RETRY, "AppError", "bus error (SIGBUS): is /dev/shm full?"),
    ExitCode(137, Action.RETRY, "Killed", "killed (SIGKILL)"),
    ExitCode(139, Action.RETRY, "AppError", "segmentation fault (SIGSEGV)"),
    ExitCode(143, Action.RETRY, "Killed", "told to stop before the handlers stood (SIGTERM)"),
)

TABLE: Final[dict[int, ExitCode]] = {row.code: row for row in _ROWS}


def lookup(code: int) -> ExitCode:
    """The row of any exit code 0-255 (a negative code from subprocess means death by that signal).

    Codes without a row of their own are unexpected ends: a counted retry.
    """
    if code < 0:
        code = 128 - code
    if code in TABLE:
        return TABLE[code]
    if code > 128:
        return ExitCode(code, Action.RETRY, "AppError", f"killed by signal {code - 128}")
    return ExitCode(code, Action.RETRY, "AppError", f"unexpected exit code {code}")
