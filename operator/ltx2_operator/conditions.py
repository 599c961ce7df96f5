"""Conditions of an LTX2Training, its one-word state and the strings that kubectl prints.

Conditions follow the Kubernetes API conventions: one entry per type, written at first sight, `lastTransitionTime`
moves only when `status` flips, `observedGeneration` says which spec was looked at. Types and reasons are a closed
vocabulary, so that tools and people can grep for them; an unknown one is a defect and raises.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"

# Reasons that an ended attempt can carry into Running=False while the next one is prepared (classify.py's verdicts).
_ATTEMPT_ENDS: Final = frozenset(
    {
        "AdmissionRefused", "AppError", "AuthError", "Completed", "DataError", "DeadlineExceeded",
        "EphemeralStorageExceeded", "Evicted", "GPUOutOfMemory", "HostOutOfMemory", "InvalidConfig", "InvalidImage",
        "Killed", "LossNotFinite", "MemoryPlanLowered", "NetworkError", "NoProof", "PodDeleted", "Preempted",
        "StorageError", "Stopped", "StoppedUnsaved", "Superseded", "WaitingForData",
    }
)  # fmt: skip

REASONS: Final[Mapping[str, frozenset[str]]] = {
    "Accepted": frozenset(
        {
            "Valid",
            "InvalidConfig",
            "UnsupportedGPU",
            "StorageNotShared",
            "SecretNotFound",
            "ConfigMapNotFound",
            "NameTooLong",
            "Pending",
        }
    ),
    "Cached": frozenset({"CacheReady", "CacheReused", "Pending", "CacheRunning", "CacheFailed", "WaitingForData"}),
    "Admitted": frozenset({"NotQueued", "QuotaReserved", "Pending", "WaitingForQuota", "Suspended", "Preempted"}),
    "Running": frozenset(
        {
            "Training",
            "Caching",
            "Looking",
            "Pending",
            "Starting",
            "WaitingForPods",
            "ImagePull",
            "Restarting",
            "Stopped",
        }
    )
    | _ATTEMPT_ENDS,
    "Progressing": frozenset({"Stepping", "Pending", "Stalled", "Unknown", "Stopped"}),
    "Suspended": frozenset({"SuspendedByUser", "NotSuspended", "Suspending", "Resumed"}),
    "Succeeded": frozenset({"Completed", "InProgress", "Failed"}),
    "Failed": frozenset({"RetriesExhausted", "StartDeadlineExceeded", "InProgress", "Restarting"}) | _ATTEMPT_ENDS,
}
TYPES: Final = tuple(REASONS)

Condition = dict[str, Any]


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as every Kubernetes object has it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """The time of an RFC 3339 string.

    Raises:
        ValueError: the text is no such time.
    """
    value = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def get_condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def is_true(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether a condition stands at True."""
    condition = get_condition(conditions, kind)
    return condition is not None and condition.get("status") == TRUE


def is_false(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether a condition stands at False."""
    condition = get_condition(conditions, kind)
    return condition is not None and condition.get("status") == FALSE


def reason_of(conditions: Sequence[Condition], kind: str) -> str:
    """The reason of a condition, or an empty string."""
    condition = get_condition(conditions, kind)
    return condition.get("reason", "") if condition else ""


def set_condition(
    conditions: Sequence[Condition],
    kind: str,
    status: str,
    reason: str,
    message: str,
    now: datetime,
    generation: int,
) -> list[Condition]:
    """The list with one condition set; order stays that of TYPES, other conditions stay as they are.

    Raises:
        ValueError: type, status or reason is not of the closed vocabulary.
    """
    if kind not in REASONS:
        raise ValueError(f"condition type {kind!r} is not one of {', '.join(TYPES)}")
    if reason not in REASONS[kind]:
        raise ValueError(f"condition {kind}: reason {reason!r} is not one of {', '.join(sorted(REASONS[kind]))}")
    if status not in (TRUE, FALSE, UNKNOWN):
        raise ValueError(f"condition {kind}: status {status!r} is not True, False or Unknown")
    old = get_condition(conditions, kind)
    flipped = old is None or old.get("status") != status
    new = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:1024],
        "observedGeneration": generation,
        "lastTransitionTime": stamp(now) if flipped or old is None else old["lastTransitionTime"],
    }
    others = {condition["type"]: condition for condition in conditions if condition.get("type") != kind}
    others[kind] = new
    known = [others[name] for name in TYPES if name in others]
    return known + [condition for name, condition in others.items() if name not in REASONS]


# Every word of state_word.
STATES: Final = (
    "Pending", "Queued", "Waiting", "Starting", "Running", "Restarting", "Suspending", "Suspended", "Succeeded",
    "Failed", "Rejected",
)  # fmt: skip


def state_word(conditions: Sequence[Condition], ended: bool) -> str:
    """The one word that `kubectl get` prints, derived from the conditions alone; never an input of a decision.

    ended: whether the last attempt has ended and the next one has not begun.
    """
    if is_true(conditions, "Succeeded"):
        return "Succeeded"
    if is_true(conditions, "Failed"):
        return "Failed"
    accepted = get_condition(conditions, "Accepted")
    if accepted is not None and accepted.get("status") == FALSE:
        return "Rejected"
    if is_true(conditions, "Suspended"):
        return "Suspended"
    if reason_of(conditions, "Suspended") == "Suspending":
        return "Suspending"
    if is_true(conditions, "Running"):
        return "Running"
    admitted = get_condition(conditions, "Admitted")
    if admitted is not None and admitted.get("status") == FALSE:
        return "Queued"
    reason = reason_of(conditions, "Running")
    if reason in ("WaitingForData", "Looking"):
        return "Waiting"
    if ended:
        return "Restarting"
    return {"Starting": "Starting", "WaitingForPods": "Waiting", "ImagePull": "Waiting"}.get(reason, "Pending")


def duration_text(seconds: float) -> str:
    """A length of time as kubectl writes ages: 45s, 6m, 2h10m, 3d4h."""
    total = max(0, int(seconds))
    if total < 60:
        return f"{total}s"
    minutes = total // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if hours else f"{days}d"


def gpu_text(plan: Mapping[str, Any] | None, gpu_spec: Mapping[str, Any]) -> str:
    """The GPU column: `1x h100-80g`, `2x4x mi300x` for 2 nodes of 4, `cpu`; without a plan what was asked for."""
    name = str((plan or {}).get("gpuClass") or gpu_spec.get("class") or "auto")
    if name == "cpu":
        return "cpu"
    count = int((plan or {}).get("gpuCount") or gpu_spec.get("count") or 1)
    nodes = int((plan or {}).get("nodes") or 1)
    return f"{nodes}x{count}x {name}" if nodes > 1 else f"{count}x {name}"
