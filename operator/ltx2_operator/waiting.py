"""Why a Job has no running pod yet, in one sentence with a remedy where there is one.

Quota, Pod Security and webhook refusals leave no trace on the Job but Events; a missing Secret, claim or image leaves
the pod pending for ever with active 1. So all of them are asked, the nearest to the process first.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ltx2_operator.scheduling import Unplaced, why_unplaced

_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)

# What follows only once volumes are mounted and earlier trouble of the pod is over.
_SETTLED: Final = frozenset({"Scheduled", "Pulling", "Pulled", "Created", "Started"})

_CLAIM: Final = "persistentvolumeclaim"
# Patterns of what the API server, the scheduler and the kubelet say, in small letters -> what helps; the first that is
# found.
_REMEDIES: Final = (
    ("exceeded quota", "free some of the namespace's quota or have it raised: it follows by itself"),
    ("violates podsecurity", "remove from spec.podTemplate what it names, or have the namespace allow it"),
    ("couldn't find key", "add that key to it: the pod starts by itself"),
    ("createcontainerconfigerror", "create what is missing in this namespace: the pod starts by itself"),
    ("unbound immediate persistentvolumeclaims", "a storage class or volume is missing: see `kubectl describe pvc`"),
    (
        f'{_CLAIM} "[^"]*" is being deleted',
        "once it is gone, create it anew: the pod starts by itself; what lies on its volume stays only where the "
        "volume's reclaim policy is Retain",
    ),
    (
        f'{_CLAIM} "[^"]*" bound to non-existent',
        "the claim's volume is gone, and what lay on it: have the volume restored, or delete the claim and create it "
        "anew",
    ),
    (f'{_CLAIM} "[^"]*" not found', "create the claim that spec.storage.claimName names: the pod starts by itself"),
    ("multi-attach", "another node still holds the volume: it lets go when its pod has ended"),
    ("failedmount", "see `kubectl describe pvc`: the pod starts once its volumes can be mounted"),
)


def why_waiting(
    job: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    nodes: Sequence[Mapping[str, Any]] | None,
    plan: Mapping[str, Any] | None,
) -> tuple[str, str]:
    """(reason, message) for Running=False: reason is Starting, WaitingForPods or ImagePull."""
    for pod in pods:
        status = pod.get("status") or {}
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason")
            if reason in _IMAGE:
                image, text = container.get("image", ""), waiting.get("message", "")
                return "ImagePull", f"{pod['metadata']['name']}: image {image} cannot be pulled ({reason}): {text}"
            if reason and reason not in ("ContainerCreating", "PodInitializing"):
                return "WaitingForPods", with_remedy(
                    f"{pod['metadata']['name']}: {reason}: {waiting.get('message', '')}"
                )
        for condition in status.get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                text = condition.get("message") or condition.get("reason") or ""
                # A claim that is missing or not bound is not helped by another node.
                found = with_remedy(text) if _CLAIM in text.lower() else why_unplaced(Unplaced(pod, text, nodes, plan))
                return "WaitingForPods", f"{pod['metadata']['name']}: {found}"
    complaint = _complaint(job, pods, events)
    if complaint is not None:
        text = f"{complaint['reason']}: {complaint.get('message') or complaint.get('note') or ''}"
        return "WaitingForPods", with_remedy(text)
    if any((pod.get("status") or {}).get("phase") == "Pending" for pod in pods):
        return "Starting", "the pods are being started"
    return (
        "WaitingForPods" if not pods else "Starting",
        "waits for its pods" if not pods else "the pods are being started",
    )


def _complaint(
    job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The newest event that says why something does not come and has not been settled since.

    A Job that has all of its pods has nothing to complain of. Its SuccessfulCreate is no sign of that: one pod of two
    may have been made in the second in which the other one was refused.
    """
    unsettled: dict[Any, tuple[str, ...]] = {
        pod["metadata"]["name"]: ("FailedAttachVolume", "FailedMount") for pod in pods
    }
    if len(pods) < int((job.get("spec") or {}).get("parallelism") or 1):
        unsettled[job["metadata"]["name"]] = ("FailedCreate",)
    for event in reversed(events):
        about = (event.get("involvedObject") or event.get("regarding") or {}).get("name")
        if event.get("reason") in unsettled.get(about, ()):
            return event
        if event.get("reason") in _SETTLED:
            unsettled.pop(about, None)
    return None


def with_remedy(text: str) -> str:
    """The cluster's words, and what helps where they are known."""
    found = next((remedy for words, remedy in _REMEDIES if re.search(words, text.lower())), None)
    return f"{text}; {found}" if found else text


def why_queued(
    job: Mapping[str, Any], workloads: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
) -> str:
    """Why a queue holds a Job: the Workload's own words where it may be read, else the newest event about the Job."""
    uid = job["metadata"].get("uid")
    for workload in workloads:
        owners = workload["metadata"].get("ownerReferences") or []
        if not any(owner.get("uid") == uid for owner in owners):
            continue
        found = {one.get("type"): one for one in (workload.get("status") or {}).get("conditions") or []}
        for kind, wanted in (("QuotaReserved", "False"), ("Evicted", "True"), ("Admitted", "False")):
            entry = found.get(kind) or {}
            if entry.get("status") == wanted and entry.get("message"):
                return f"{entry.get('reason') or kind}: {entry['message']}"
    for event in reversed(events):
        about = event.get("involvedObject") or event.get("regarding") or {}
        if about.get("name") == job["metadata"]["name"] and event.get("reason") in ("Stopped", "Suspended"):
            return f"{event['reason']}: {event.get('message') or event.get('note') or ''}"
    return "the queue holds this run"
