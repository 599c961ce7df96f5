"""What an ended attempt means: (Job, its pods) -> Verdict.

The Job is the durable record. The last status of a deleted or evicted pod lives for less than a second, so one
podFailurePolicy rule per class of exit codes writes the code into the Job's Failed condition ("... failed with exit
code 80 matching FailJob rule at index 6"), and the pods, where they still exist, only refine that.

Precedence: the Job's DeadlineExceeded > a pod's own reason (Evicted, admission) > OOMKilled in any container >
decisive codes (64-66, 73, 77-80, init containers too) > DisruptionTarget > any other code > nothing left = PodDeleted.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final

from ltx2_job.exitcodes import Action, lookup
from ltx2_operator.conditions import moment
from ltx2_operator.pods import ATTEMPT_LABEL, CONTAINER, STAGE_LABEL, TRAINING_LABEL, UID_LABEL

DECISIVE: Final = frozenset({64, 65, 66, 73, 77, 78, 79, 80, 81})
# Ends that another pod's end causes: the peer was lost, told to stop, or killed.
CONSEQUENCES: Final = frozenset({69, 75, 85, 86, 137, 143})
# A node that is lost keeps its pods terminating for ever; deletionTimestamp already includes the grace period.
STUCK_AFTER: Final = timedelta(seconds=60)
# Verdicts over a limit of the pod -> its name among the container's resources.
_LIMITED: Final = {"HostOutOfMemory": "memory", "EphemeralStorageExceeded": "ephemeral-storage"}
MESSAGE_LIMIT: Final = 4096  # the kubelet's own limit of a termination message

_EXIT_CODE = re.compile(r"failed with exit code (-?\d+) matching")
_POD_CONDITION = re.compile(r"has condition (\w+) matching")
_FULL_VOLUME = re.compile(r'EmptyDir volume "([^"]+)" exceeds the limit')
_FULL_CONTAINER = re.compile(r"Container (\S+) exceeded its local ephemeral storage limit")
_EPHEMERAL = re.compile(r"ephemeral|emptydir", re.IGNORECASE)


@dataclass(frozen=True)
class Verdict:
    """What an ended attempt means and what follows from it.

    report: the termination message of the job's launcher, parsed ({} when lost). It is the pod's word, never a cause
    by itself. nodes: where it crashed, if the end says something against a node.
    """

    action: Action
    reason: str
    message: str
    exit_code: int | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()


def classify(job: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]], now: datetime) -> Verdict | None:
    """The verdict over one Job and its pods, or None while it has not ended.

    job: the batch/v1 Job as a dict, None when it no longer exists. pods: every pod that carries its labels.
    """
    verdict = _verdict(job, pods, now)
    return verdict and replace(verdict, nodes=_crashed_on(verdict, pods), message=_with_remedy(verdict, pods))


def _verdict(job: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]], now: datetime) -> Verdict | None:
    report = last_word(pods)
    if job is not None:
        failed = job_condition(job, "Failed")
        if failed is not None:
            return _failed(failed, pods, report)
        if job_condition(job, "Complete") is not None:
            late = [pod for pod in pods if is_alive(pod) and not is_stuck(pod, now)]
            # A Job is complete when its pods are: where they are seen alive, their last words are on their way.
            return None if late and not _proof(report) else _complete(pods, report)
    alive = [pod for pod in pods if is_alive(pod)]
    if alive:
        return _lost_node(alive, report) if all(is_stuck(pod, now) for pod in alive) else None
    if job is not None:
        return None
    if any(_codes(pods)) or any(_has_condition(pod, "DisruptionTarget") for pod in pods):
        return _from_pods(None, pods, report)
    if _proof(report):
        return Verdict(Action.SUCCEED, "Completed", "finished", 0, report)
    return Verdict(Action.RETRY_UNCOUNTED, "PodDeleted", "the Job and its pods were deleted from outside", None, report)


def job_condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The Job's condition of that type if it stands at True."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") == kind and condition.get("status") == "True":
            return condition
    return None


def is_alive(pod: Mapping[str, Any]) -> bool:
    """Whether processes of the pod may still run: every phase but Succeeded and Failed, terminating or not."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def is_stuck(pod: Mapping[str, Any], now: datetime) -> bool:
    """Whether a deleted pod outlived its grace period by a minute: its node is lost."""
    deleted = pod["metadata"].get("deletionTimestamp")
    return bool(deleted) and moment(deleted) + STUCK_AFTER <= now


def _failed(condition: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> Verdict:
    if condition.get("reason") == "DeadlineExceeded":
        return Verdict(Action.FAIL, "DeadlineExceeded", "active for longer than activeDeadlineSeconds", None, report)
    return _from_pods(condition, pods, report)


def _from_pods(
    condition: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]], report: Mapping[str, Any]
) -> Verdict:
    text = (condition or {}).get("message") or ""
    for pod in pods:
        refused = _pod_reason(pod, report)
        if refused is not None:
            return refused
    killed = _killed_for_memory(pods)
    if killed is not None:
        name, pod, code = killed
        text = f"container {name} of pod {pod['metadata']['name']} was killed at its memory limit"
        return Verdict(Action.FAIL, "HostOutOfMemory", text, code, report)
    found = _EXIT_CODE.search(text)
    recorded = int(found.group(1)) if found else None
    codes = ([recorded] if recorded is not None else []) + list(_codes(pods))
    decisive = next((code for code in codes if code in DECISIVE), None)
    if decisive is not None:
        return _by_code(decisive, report)
    disrupted = _POD_CONDITION.search(text)
    if (disrupted and disrupted.group(1) == "DisruptionTarget") or any(
        _has_condition(pod, "DisruptionTarget") for pod in pods
    ):
        return Verdict(Action.RETRY_UNCOUNTED, "Preempted", _disruption(pods), next(iter(codes), None), report)
    cause = next((code for code in codes if code not in CONSEQUENCES), None)
    if cause is not None:
        return _by_code(cause, report)
    # Without a recorded code the Job saw a pod vanish, and with that of a pod which somebody deleted while it ran, the
    # kubelet saw no end of it in time. 137 and 143 are then how the deletion ended the process, not a fault.
    if recorded is not None and not _killed_by_deletion(pods, recorded):
        return _by_code(recorded, report)
    told = next((code for code in codes if code not in (137, 143)), None)
    if told is not None:
        return _by_code(told, report)
    undeleted = next(iter(_codes([pod for pod in pods if not pod["metadata"].get("deletionTimestamp")])), None)
    if undeleted is not None:
        return _by_code(undeleted, report)
    return Verdict(Action.RETRY_UNCOUNTED, "PodDeleted", "a pod was deleted from outside", None, report)


def _killed_by_deletion(pods: Sequence[Mapping[str, Any]], code: int) -> bool:
    """Whether every pod that left with this code was killed because somebody had deleted it."""
    if code not in (137, 143):
        return False
    ends = [
        (pod["metadata"], _terminated(status).get("finishedAt"))
        for pod in pods
        for status in _container_statuses(pod)
        if _terminated(status).get("exitCode") == code
    ]
    return bool(ends) and all(_deleted_before(metadata, end) for metadata, end in ends)


def _deleted_before(metadata: Mapping[str, Any], end: str | None) -> bool:
    """Whether a pod was deleted at the latest when its container ended; what has ended is deleted by tidy people."""
    deleted = metadata.get("deletionTimestamp")
    if not deleted or not end:
        return False
    grace = timedelta(seconds=int(metadata.get("deletionGracePeriodSeconds") or 0))
    return moment(deleted) - grace <= moment(end)


def _by_code(code: int, report: Mapping[str, Any]) -> Verdict:
    row = lookup(code)
    word = report.get("message")
    told = word if isinstance(word, str) and word != row.meaning and report.get("exitCode") == code else ""
    story = f": {told[:600]}" if told else ""
    named = f"exit code {code}"
    text = row.meaning if row.meaning.endswith(named) else f"{named}, {row.meaning}"
    return Verdict(row.action, row.reason, f"{text}{story}", code, report)


def _pod_reason(pod: Mapping[str, Any], report: Mapping[str, Any]) -> Verdict | None:
    """The verdict of a pod that the kubelet refused or evicted; such a pod has no container statuses to ask."""
    status = pod.get("status") or {}
    reason, text = status.get("reason") or "", (status.get("message") or "")[:600]
    if reason == "Evicted":
        if _has_condition(pod, "DisruptionTarget"):
            return Verdict(Action.RETRY_UNCOUNTED, "Preempted", f"evicted by its node: {text}", None, report)
        if _EPHEMERAL.search(text):
            return Verdict(Action.FAIL, "EphemeralStorageExceeded", f"evicted: {text}", None, report)
        return Verdict(Action.RETRY, "Evicted", f"evicted: {text}", None, report)
    if reason == "DeadlineExceeded":
        return Verdict(Action.FAIL, "DeadlineExceeded", f"the pod's own deadline has passed: {text}", None, report)
    if reason in ("UnexpectedAdmissionError", "NodeAffinity") or reason.startswith("OutOf"):
        return Verdict(Action.RETRY_UNCOUNTED, "AdmissionRefused", f"{reason}: {text}", None, report)
    return None


def _complete(pods: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> Verdict:
    if _proof(report):
        return Verdict(Action.SUCCEED, "Completed", "finished", 0, report)
    return Verdict(
        Action.RETRY_UNCOUNTED,
        "NoProof",
        "the Job is complete but nothing proves the last step (a deleted pod may leave with 0); the volume is asked",
        0 if any(True for _ in _codes(pods, zero=True)) else None,
        report,
    )


def _proof(report: Mapping[str, Any]) -> bool:
    """Whether the last word proves the work: exit code 0, and for training a result or the last step."""
    if report.get("exitCode") != 0:
        return False
    if report.get("stage") in ("look", "cache"):
        return True
    step, last = report.get("step"), report.get("maxSteps")
    reached = isinstance(step, int) and isinstance(last, int) and step >= last > 0
    return reached or bool(report.get("result"))


def _lost_node(pods: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> Verdict:
    names = ", ".join(pod["metadata"]["name"] for pod in pods)
    if any(_has_condition(pod, "DisruptionTarget") for pod in pods):
        return Verdict(Action.RETRY_UNCOUNTED, "Preempted", f"the node of {names} is lost", None, report)
    return Verdict(
        Action.RETRY_UNCOUNTED, "PodDeleted", f"{names} was deleted and its node does not answer", None, report
    )


def _with_remedy(verdict: Verdict, pods: Sequence[Mapping[str, Any]]) -> str:
    """The message of a verdict; where a limit of the pod was reached, with that number and the key that raises it."""
    resource = _LIMITED.get(verdict.reason)
    names = ((pod["metadata"].get("labels") or {}).get(TRAINING_LABEL) for pod in pods)
    text = verdict.message.rstrip(" .")
    again = f"then `ltx2 retry {next(filter(None, names), 'NAME')}`"
    if resource and (full := _FULL_VOLUME.search(verdict.message)):
        key = f"spec.podTemplate.spec.volumes[name={full[1]}].emptyDir.sizeLimit"
        return f"{text}; raise {key}, {again}"
    name = _that_reached_its_limit(verdict, pods)
    for pod, group in product(pods if resource else (), ("containers", "initContainers")):
        for container in (pod.get("spec") or {}).get(group) or []:
            limit = ((container.get("resources") or {}).get("limits") or {}).get(resource)
            if container.get("name") == name and limit:
                key = f"spec.podTemplate.spec.{group}[name={name}].resources.limits.{resource}"
                return f"{text}; the limit is {limit}: raise {key}, {again}"
    return verdict.message


def _that_reached_its_limit(verdict: Verdict, pods: Sequence[Mapping[str, Any]]) -> str:
    """The container that a verdict over a limit is about: the one that was killed or named, else the job's."""
    killed = _killed_for_memory(pods) if verdict.reason == "HostOutOfMemory" else None
    named = _FULL_CONTAINER.search(verdict.message)
    return killed[0] if killed else named[1] if named else CONTAINER


def _crashed_on(verdict: Verdict, pods: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The nodes that a counted crash, or their own loss, speaks against. A lost peer speaks against nobody."""
    if verdict.action is Action.RETRY and verdict.reason in ("AppError", "Killed"):
        found = [pod for pod in pods if verdict.exit_code in _codes([pod])]
    elif verdict.action is Action.RETRY and verdict.reason == "Evicted":
        found = [pod for pod in pods if (pod.get("status") or {}).get("reason") == "Evicted"]
    else:
        found = [pod for pod in pods if _lost_with_its_node(pod)]
    names = [str((pod.get("spec") or {}).get("nodeName") or "") for pod in found]
    return tuple(sorted({name for name in names if name}))[:16]


def _lost_with_its_node(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return is_alive(pod) and any(
        condition.get("type") == "DisruptionTarget" and condition.get("reason") == "DeletionByTaintManager"
        for condition in conditions
    )


def _disruption(pods: Iterable[Mapping[str, Any]]) -> str:
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or []:
            if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
                return f"{condition.get('reason', 'DisruptionTarget')}: {condition.get('message', '')}"[:600]
    return "a pod was preempted, evicted or drained"


def _has_condition(pod: Mapping[str, Any], kind: str) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(condition.get("type") == kind and condition.get("status") == "True" for condition in conditions)


def _container_statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _terminated(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return (status.get("state") or {}).get("terminated") or {}


def _killed_for_memory(pods: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, Any], int | None] | None:
    """The first container that was killed at its memory limit: (name, its pod, exit code)."""
    for pod in pods:
        for status in _container_statuses(pod):
            end = _terminated(status)
            if end.get("reason") == "OOMKilled":
                return str(status.get("name")), pod, end.get("exitCode")
    return None


def _codes(pods: Sequence[Mapping[str, Any]], zero: bool = False) -> list[int]:
    """Exit codes other than 0 (with `zero`: only 0): first of pods nobody deleted, then in the order of their ends."""

    def order(pod: Mapping[str, Any]) -> tuple[bool, str]:
        ends = [str(_terminated(status).get("finishedAt") or "") for status in _container_statuses(pod)]
        return bool(pod["metadata"].get("deletionTimestamp")), max(ends, default="")

    codes = [
        _terminated(status).get("exitCode") for pod in sorted(pods, key=order) for status in _container_statuses(pod)
    ]
    return [code for code in codes if isinstance(code, int) and (code == 0) == zero]


def last_word(pods: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The launcher's last word: the message of rank 0 where there is one, else any that parses.

    A word that names another training, attempt or stage than the labels of its pod is nobody's.
    """
    best: Mapping[str, Any] = {}
    for pod in pods:
        for status in _container_statuses(pod):
            raw = _terminated(status).get("message")
            if not isinstance(raw, str) or len(raw) > MESSAGE_LIMIT:
                continue
            try:
                word = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if not isinstance(word, dict) or not _says_its_own(word, pod):
                continue
            if not best or word.get("result") or word.get("exitCode") in DECISIVE:
                best = word
    return best


def _says_its_own(word: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    labels = pod["metadata"].get("labels") or {}
    named = ((UID_LABEL, "uid"), (ATTEMPT_LABEL, "attempt"), (STAGE_LABEL, "stage"))
    return all(str(word.get(key)) == labels[label] for label, key in named if label in labels)
