"""Rank 0's progress page: read it, check it, take its numbers over.

The page comes from a pod that runs a user's training: untrusted input. It is cut at 4 KiB, each value is checked for
type and range, and it may set numbers, a checkpoint and the condition Progressing, never anything that decides. A
page that cannot be read says nothing about the run: no error follows from it.
"""

import http.client
import json
import math
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from ltx2_operator.attempts import note_checkpoint
from ltx2_operator.conditions import FALSE, TRUE, UNKNOWN, duration_text, get_condition, moment, stamp
from ltx2_operator.draft import Draft

PAGE_LIMIT: Final = 4096  # bytes
TIMEOUT: Final = 2.0  # seconds, for the whole exchange
PATH: Final = "/progress"
READ_EVERY: Final = 15.0  # seconds between two reads of a running training
STALL_LEAST: Final = 900.0  # seconds without a step before a run counts as stalled; at least ten steps' time
MOST_WARNINGS: Final = 50  # as the status has room for
LOST_AFTER: Final = 120.0  # seconds without a readable page before nothing is known


class PageError(ValueError):
    """The page cannot be read or is no progress page; the message says why."""


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


Number = Annotated[float | None, AfterValidator(_finite)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class _Checkpoint(_Part):
    step: Count
    path: Annotated[str, Field(max_length=1024)] = ""
    time: Annotated[str, Field(max_length=40)] | None = None


class _Items(_Part):
    done: Count = 0
    total: Count = 0
    skipped: Count = 0


class _Page(_Part):
    uid: Annotated[str, Field(max_length=64)]
    attempt: Count
    stage: Annotated[str, Field(max_length=16)]
    state: Annotated[str, Field(max_length=32)] = ""
    step: Count = 0
    max_steps: Count = 0
    loss: Number = None
    held_out_loss: Number = None
    seconds_per_step: Number = None
    eta_seconds: Number = None
    checkpoint: _Checkpoint | None = None
    items: _Items | None = None
    warnings: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=16)] = []


class _Timed(socket.socket):
    """A connection that brings nothing after `end` (time.monotonic): a time-out alone begins anew with each byte."""

    end: float

    def recv_into(self, *arguments: Any) -> int:
        """As socket.recv_into. Raises TimeoutError."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(*arguments)


def fetch(host: str, port: int, timeout: float = TIMEOUT) -> bytes:
    """GET http://host:port/progress, at most `timeout` seconds in all, header and body, and 4 KiB.

    Raises PageError: not reachable, not 200, too long or too slow.
    """
    end = time.monotonic() + timeout
    connection = http.client.HTTPConnection(host, port)
    try:
        connection.sock = timed = _Timed(fileno=socket.create_connection((host, port), timeout).detach())
        timed.end = end
        timed.settimeout(timeout)
        connection.request("GET", PATH, headers={"Accept": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise PageError(f"{host}:{port}{PATH} answered {response.status}")
        page = b""
        while chunk := response.read1(PAGE_LIMIT + 1 - len(page)):
            page += chunk
            if len(page) > PAGE_LIMIT:
                raise PageError(f"{host}:{port}{PATH} is longer than {PAGE_LIMIT} bytes")
        return page
    except TimeoutError:
        raise PageError(f"{host}:{port}{PATH} took longer than {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise PageError(f"{host}:{port}{PATH}: {error or type(error).__name__}") from None
    finally:
        connection.close()


def parse(page: bytes | str | Mapping[str, Any]) -> dict[str, Any]:
    """The page with every value checked (camelCase; numbers that are not finite become None).

    Raises PageError: no JSON object, a missing field, a wrong type or range.
    """
    try:
        if isinstance(page, bytes | str):
            if len(page) > PAGE_LIMIT:
                raise PageError(f"longer than {PAGE_LIMIT} bytes")
            page = json.loads(page)
        return _Page.model_validate(page).model_dump(by_alias=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PageError(f"{'.'.join(str(part) for part in first['loc']) or 'page'}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise PageError(f"no JSON: {error}") from None


def absorb(draft: Draft, page: Mapping[str, Any] | None) -> None:
    """Take a checked page over into the draft: progress, checkpoint, ready strings, Progressing.

    A page of another object or another attempt is ignored, as one that could not be read.
    """
    status = draft.status
    old = status.get("progress") or {}
    if page is None or page["uid"] != draft.training.metadata.uid or page["attempt"] != status["attempt"]:
        read = old.get("time")
        silent = LOST_AFTER if read is None else (draft.now - moment(read)).total_seconds()
        if silent >= LOST_AFTER:
            draft.condition("Progressing", UNKNOWN, "Unknown", "the progress page cannot be read; the run goes on")
        else:
            draft.again_in(LOST_AFTER - silent)
        return
    text, doing = _text(page), "" if page["state"] == "training" else page["state"]
    known = get_condition(status["conditions"], "Progressing") or {}
    told = known.get("message") if known.get("reason") == "Stepping" else ""
    moved = text != status.get("progressText") or old.get("time") is None or told != doing
    window = max(STALL_LEAST, 10 * (page["secondsPerStep"] or 0.0))
    still = 0.0 if moved else (draft.now - moment(old["time"])).total_seconds()
    if not doing and still < window:
        draft.again_in(window - still)
    if moved or doing:
        draft.condition("Progressing", TRUE, "Stepping", doing)
    elif still >= window:
        draft.condition("Progressing", FALSE, "Stalled", f"no step since {old['time']}, longer than {window:.0f} s")
    elif known.get("reason") == "Unknown":
        draft.condition("Progressing", TRUE, "Stepping", "")
    if text:
        status["progressText"] = text
    progress: dict[str, Any] = {key: old[key] for key in ("step", "maxSteps") if key in old}
    if page["stage"] == "train" or (page["stage"] == "look" and page["maxSteps"]):
        names = ("step", "maxSteps", "loss", "heldOutLoss", "secondsPerStep")
        progress = {name: page[name] for name in names if page[name] is not None}
    eta = page["etaSeconds"]
    if eta is not None and 0 <= eta < 2**31:
        progress["etaSeconds"] = int(eta)
        if moved or int(eta) != old.get("etaSeconds"):
            status["eta"] = duration_text(eta)
            status["etaTime"] = stamp(draft.now + timedelta(seconds=int(eta)))
    # The time of the newest movement: with it, a run that stands still is seen, and a quiet page changes nothing
    # stored.
    progress["time"] = stamp(draft.now) if moved else old["time"]
    status["progress"] = progress
    known_warnings = list(status.get("warnings") or [])
    if new := [one for one in page.get("warnings") or [] if one and one not in known_warnings]:
        status["warnings"] = [*known_warnings, *new][:MOST_WARNINGS]
    note_checkpoint(draft, page)


def _text(page: Mapping[str, Any]) -> str:
    """The PROGRESS column: steps of steps, or in the cache stage items of items, GiB of GiB while it downloads."""
    if page["stage"] != "cache":
        return f"{page['step']}/{page['maxSteps']}" if page["maxSteps"] else ""
    items = page["items"]
    if items and items["total"] and page["state"] == "downloading":  # counted in MiB
        return f"{items['done'] / 1024:.1f}/{items['total'] / 1024:.1f} GiB"
    return f"{items['done']}/{items['total']}" if items and items["total"] else ""
