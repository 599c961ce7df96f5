"""The draft of a status, and what a look at a training may ask for: children to create and delete, events to tell.

Everything here changes a draft that belongs to one reconcile; nothing is written anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ltx2_operator import conditions
from ltx2_operator.api import LTX2Training
from ltx2_operator.conditions import FALSE, UNKNOWN


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event to publish, before the status is written. kind: Normal or Warning."""

    reason: str
    message: str
    kind: str = "Normal"


@dataclass(frozen=True)
class Create:
    """Create an object. 409: read it; the same owner uid is success, anything else waits for the next look."""

    body: Mapping[str, Any]


@dataclass(frozen=True)
class CreateJob(Create):
    """Create an attempt's Job, last of all, and only if a fresh read finds no live pod and no unfinished Job of it.

    That fresh read is the writer's duty: reconcile may have looked at a stale view.
    """

    training: str = ""


@dataclass(frozen=True)
class DryRunJob:
    """Ask the API server whether it would take this Job (dryRun=All): nothing is made.

    The next look, which follows at once, finds the answer in Observed.dry_run. Needed before Accepted=True where a
    user's podTemplate is in the Job.
    """

    body: Mapping[str, Any]


@dataclass(frozen=True)
class Delete:
    """Delete an object with propagationPolicy Background; gone already is success.

    uid: a precondition, so that a namesake that came after it is not hit (None: not known). force: a pod whose node is
    lost.
    """

    kind: str
    name: str
    uid: str | None = None
    force: bool = False


@dataclass(frozen=True)
class DeleteTraining:
    """The time to live has passed: delete the LTX2Training itself; children go with it, claims stay."""


AnyAction = Create | DryRunJob | Delete | DeleteTraining


def copied(value: Any) -> Any:
    """A copy of JSON's values, containers and all: a fraction of the time that copy.deepcopy takes."""
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    if isinstance(value, list):
        return [copied(one) for one in value]
    return value


@dataclass
class Draft:
    """One reconcile under way: the object as it was read, the status to be, and what shall be done."""

    obj: Mapping[str, Any]
    training: LTX2Training
    now: datetime
    status: dict[str, Any]
    actions: list[AnyAction] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    requeue: float | None = None

    @classmethod
    def begin(cls, obj: Mapping[str, Any], training: LTX2Training, now: datetime) -> "Draft":
        """A draft that starts from what is stored."""
        status: dict[str, Any] = copied(obj.get("status") or {})
        for key, value in {"attempt": 0, "execution": 0, "failures": 0, "uncounted": 0, "waits": 0}.items():
            status.setdefault(key, value)
        status.setdefault("rung", {})
        for stage in ("train", "cache"):
            status["rung"].setdefault(stage, 0)
        status.setdefault("gpuSeconds", {})
        status.setdefault("conditions", [])
        draft = cls(obj, training, now, status)
        for kind, state, reason in (
            ("Accepted", UNKNOWN, None), ("Cached", FALSE, "Pending"), ("Admitted", UNKNOWN, "Pending"),
            ("Running", FALSE, "Pending"), ("Progressing", UNKNOWN, "Pending"), ("Suspended", FALSE, "NotSuspended"),
            ("Succeeded", UNKNOWN, "InProgress"), ("Failed", FALSE, "InProgress"),
        ):  # fmt: skip
            if reason is not None and conditions.get_condition(status["conditions"], kind) is None:
                draft.condition(kind, state, reason, "")
        return draft

    @property
    def generation(self) -> int:
        """The generation of the spec that is looked at."""
        return int(self.obj["metadata"].get("generation") or 0)

    def condition(self, kind: str, status: str, reason: str, message: str) -> None:
        """Set one condition."""
        self.status["conditions"] = conditions.set_condition(
            self.status["conditions"], kind, status, reason, message, self.now, self.generation
        )

    def true(self, kind: str) -> bool:
        """Whether a condition stands at True in the draft."""
        return conditions.is_true(self.status["conditions"], kind)

    def false(self, kind: str) -> bool:
        """Whether a condition stands at False in the draft."""
        return conditions.is_false(self.status["conditions"], kind)

    def reason(self, kind: str) -> str:
        """The reason of a condition in the draft."""
        return conditions.reason_of(self.status["conditions"], kind)

    def event(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people."""
        self.events.append(Event(reason, message[:1024], "Warning" if warning else "Normal"))

    def again_in(self, seconds: float) -> None:
        """Look again after so many seconds, at least 1 (clocks differ), or earlier if something else asks for it."""
        wait = max(1.0, seconds)
        self.requeue = wait if self.requeue is None else min(self.requeue, wait)

    def again_at_once(self) -> None:
        """Look again as soon as the status is stored."""
        self.requeue = 0.0
