"""What a run says about itself: the progress page, the termination message and each attempt's last word.

All three are one JSON object of at most 4,096 bytes (the size Kubernetes keeps of a termination message). Clip names,
captions and error texts flow into it, so every string is cleaned and cut, and the whole is cut until it fits.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ltx2_job import exitcodes
from ltx2_job.workspace import RunFolder, write_atomic

VERSION: Final = 1
LIMIT: Final = 4096  # bytes, of the progress page and of a termination message
KEPT_WARNINGS: Final = 5
WARNING_LENGTH: Final = 240
MESSAGE_LENGTH: Final = 1600
TEXT_LENGTH: Final = 240
RESULT_KEYS: Final = 16


@dataclass
class Progress:
    """The state of a stage, kept by the reporter of rank 0. Losses are plain floats, times are in seconds."""

    run: str
    uid: str
    attempt: int
    stage: str
    state: str = "loading"
    step: int = 0
    max_steps: int = 0
    loss: float | None = None
    held_out_loss: float | None = None
    seconds_per_step: float | None = None
    checkpoint: dict[str, Any] | None = None
    done: int = 0  # items; MiB while the state is downloading
    total: int = 0
    skipped: int = 0
    transfer_eta: float | None = None
    warnings: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    def saw_step(self, seconds: float) -> None:
        """Take the duration of one step into the running mean that the remaining time is made from.

        An exponential mean over about 20 steps: one slow step (a new bucket's shapes) does not double the estimate.
        """
        if self.seconds_per_step is None:
            self.seconds_per_step = seconds
        else:
            self.seconds_per_step += 0.05 * (seconds - self.seconds_per_step)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last step (while downloading: the last byte) at the present pace; None if unknown."""
        if self.state == "downloading":
            return self.transfer_eta
        if self.seconds_per_step is None or self.max_steps <= 0:
            return None
        return max(0, self.max_steps - self.step) * self.seconds_per_step

    def page(self) -> dict[str, Any]:
        """The progress page as the contract with the operator names it; not yet cut to size (see encode)."""
        return {
            "version": VERSION,
            "run": self.run,
            "uid": self.uid,
            "attempt": self.attempt,
            "stage": self.stage,
            "state": self.state,
            "step": self.step,
            "maxSteps": self.max_steps,
            "loss": self.loss,
            "heldOutLoss": self.held_out_loss,
            "secondsPerStep": self.seconds_per_step,
            "etaSeconds": self.eta_seconds,
            "checkpoint": self.checkpoint,
            "items": {"done": self.done, "total": self.total, "skipped": self.skipped},
            "warnings": [clean(warning, WARNING_LENGTH) for warning in self.warnings[-KEPT_WARNINGS:]],
            "time": timestamp(),
        }

    def last_word(self, code: int, message: str) -> dict[str, Any]:
        """The page plus how the attempt ended: the termination message and attempts/<n>.json."""
        return self.page() | ending_fields(code, message) | {"result": dict(list(self.result.items())[:RESULT_KEYS])}


def ending_fields(code: int, message: str) -> dict[str, Any]:
    """Exit code, its verdict's reason and the one line for people."""
    return {"exitCode": code, "reason": exitcodes.lookup(code).reason, "message": clean(message, MESSAGE_LENGTH)}


def timestamp() -> str:
    """Now in RFC 3339, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clean(text: str, limit: int) -> str:
    """One printable line of at most `limit` characters; undecodable bytes of file names become question marks."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def encode(page: Mapping[str, Any], limit: int = LIMIT) -> bytes:
    """The page as JSON of at most `limit` bytes.

    Numbers that JSON cannot hold (a loss of NaN) become null. Too long a page loses first its older warnings, then most
    of its result and message: the numbers and the exit code always survive.
    """
    length = TEXT_LENGTH
    page = {key: _plain(value, MESSAGE_LENGTH if key == "message" else length) for key, value in page.items()}
    while len(raw := _dump(page)) > limit:
        if page.get("warnings"):
            page["warnings"] = page["warnings"][1:]
        elif page.get("result"):
            page["result"] = dict(list(page["result"].items())[:-1])
        elif len(page.get("message") or "") > TEXT_LENGTH:
            page["message"] = clean(page["message"], len(page["message"]) // 2)
        else:
            length //= 2
            page = {key: _plain(value, length) for key, value in page.items()}
    return raw


def write_last_word(page: Mapping[str, Any], termination_log: Path | None, run: RunFolder | None, attempt: int) -> None:
    """Write the last word to the termination log and to the run folder, whichever is given.

    The termination log is a single mounted file, so it is written in place; the volume's copy is complete or absent.
    Raises OSError if the volume refuses; the termination log is written first, since it needs no volume.
    """
    raw = encode(page)
    if termination_log is not None:
        termination_log.write_bytes(raw)
    if run is not None:
        write_atomic(run.attempts / f"{attempt}.json", raw + b"\n")


def _dump(page: Mapping[str, Any]) -> bytes:
    return json.dumps(page, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any, length: int) -> Any:
    """The value in terms of JSON, its strings cleaned and at most `length` characters long."""
    if isinstance(value, Mapping):
        return {clean(str(key), 64): _plain(item, length) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, length) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return clean(str(value), length)
