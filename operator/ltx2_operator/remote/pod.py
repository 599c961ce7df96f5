"""A pod for a copy: it mounts a training's claim and waits; gone when the copy is over, or nobody copies any more."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ltx2_job.errors import AuthError, ConfigError, NoInputError, Problem, UnavailableError
from ltx2_job.exitcodes import USAGE
from ltx2_job.transfer import OtherVersionError
from ltx2_operator import gpus, pods
from ltx2_operator.fields import API_VERSION, GROUP, KIND
from ltx2_operator.pods import TRAINING_LABEL
from ltx2_operator.remote.access import Cluster, core
from ltx2_operator.runtime.client import Body, NotFound
from ltx2_operator.settings import Settings
from ltx2_operator.waiting import why_waiting

CONTAINER: Final = "transfer"
FOR_LABEL: Final = f"{GROUP}/transfer-for"  # never TRAINING_LABEL: the operator waits until such pods are gone
IDLE_SECONDS: Final = 600
CLAIM_SECONDS: Final = 60.0  # the operator makes a claim within seconds of the object
START_SECONDS: Final = 600.0
IMAGE_SECONDS: Final = 20.0  # a registry may fail once
POLL_SECONDS: Final = 0.5
TOLD_SECONDS: Final = 5.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """Where the pods of a training come from: what a pod for a copy takes over of theirs."""

    image: str
    pull_policy: str = ""
    pull_secrets: tuple[Mapping[str, Any], ...] = ()
    tolerations: tuple[Mapping[str, Any], ...] = ()


def source_of(cluster: Cluster, name: str | None, image: str | None) -> Source:
    """As the newest Job of the training, where there is one: it knows the installation's registry and its Secrets.
    Where the training is gone, or none is meant, any other's does.

    image: what --image names, in place of all others.
    """
    template: Mapping[str, Any] = {}
    path = f"/apis/batch/v1/namespaces/{cluster.namespace}/jobs"
    with contextlib.suppress(AuthError):
        for selector in ([f"{TRAINING_LABEL}={name}"] if name else []) + [TRAINING_LABEL]:
            jobs = cluster.get(path, {"labelSelector": selector})["items"]
            if jobs:
                template = max(jobs, key=lambda job: job["metadata"]["creationTimestamp"])["spec"]["template"]["spec"]
                break
    container = (template.get("containers") or [{}])[0]
    return Source(
        image or container.get("image") or Settings().images["cpu"],
        "" if image else container.get("imagePullPolicy") or "",
        tuple(template.get("imagePullSecrets") or ()),
        tuple(template.get("tolerations") or ()),
    )


def manifest(about: str, claim: str, source: Source, owner: Body | None, *, read_only: bool) -> Body:
    """The pod: restricted, without a token, and with next to no resources. It goes with its training's object.

    about: the training, or the claim if that is all there is; its name goes into the pod's.

    It tolerates the taints of GPU nodes: a volume may be bound to one.
    """
    taints = [{"key": key, "operator": "Exists"} for key in (gpus.NVIDIA_RESOURCE, gpus.AMD_RESOURCE)]
    limits = {"memory": "512Mi", "ephemeral-storage": "64Mi"}
    container: Body = {
        "name": CONTAINER,
        "image": source.image,
        "command": ["ltx2-job", "hold", "--idle", str(IDLE_SECONDS)],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi", "ephemeral-storage": "64Mi"}, "limits": limits},
        "env": [{"name": "TMPDIR", "value": pods.SCRATCH}],
        "volumeMounts": [
            {"name": "workspace", "mountPath": pods.WORKSPACE, "readOnly": read_only},
            {"name": "tmp", "mountPath": pods.SCRATCH},
        ],
    }
    if source.pull_policy:
        container["imagePullPolicy"] = source.pull_policy
    pod: Body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{about[:40].rstrip('-.')}-transfer-{secrets.token_hex(3)}",
            "labels": {
                "app.kubernetes.io/name": "ltx2-transfer",
                "app.kubernetes.io/part-of": "ltx2",
                "app.kubernetes.io/managed-by": "ltx2",
                FOR_LABEL: about[:63].rstrip("-."),
            },
        },
        "spec": {
            "containers": [container],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [*source.tolerations, *(taint for taint in taints if taint not in source.tolerations)],
            "volumes": [
                {"name": "workspace", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            ],
        },
    }
    if source.pull_secrets:
        pod["spec"]["imagePullSecrets"] = [dict(one) for one in source.pull_secrets]
    pods.restrict(pod)
    if owner is not None:
        named = {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        pod["metadata"]["ownerReferences"] = [{"apiVersion": API_VERSION, "kind": KIND, **named}]
    return pod


@contextlib.contextmanager
def running(cluster: Cluster, body: Body, say: Say) -> Iterator[str]:
    """Make the pod, wait until it runs, give its name, and delete it, whatever happens.

    Raises NoInputError (the claim does not come), ConfigError (the image), AuthError, UnavailableError,
    OtherVersionError.
    """
    claim = body["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    _require_claim(cluster, claim, say, awaited="ownerReferences" in body["metadata"])
    name = body["metadata"]["name"]
    try:
        cluster.create(core(cluster, "pods"), body)
        _wait(cluster, name, claim, say)
        yield name
    finally:
        cluster.delete(core(cluster, "pods", name), {"gracePeriodSeconds": 5, "propagationPolicy": "Background"})


def _require_claim(cluster: Cluster, claim: str, say: Say, *, awaited: bool) -> None:
    """See that the claim is there. awaited: the operator is about to make it; else a user has named it."""
    until, told = time.monotonic() + CLAIM_SECONDS, False
    while True:
        try:
            cluster.get(core(cluster, "persistentvolumeclaims", claim))
            return
        except NotFound:
            if not awaited:
                where = f"in namespace {cluster.namespace}; `kubectl get pvc -n {cluster.namespace}` lists what is"
                raise NoInputError(f"claim {claim}: there is none {where}") from None
            if time.monotonic() >= until:
                raise NoInputError(
                    f"claim {claim}: there is none in namespace {cluster.namespace}; the operator makes it where "
                    "spec.storage.claimName names none: see `kubectl describe ltx2`, and whether the operator runs"
                ) from None
        if not told:
            say(f"waits for claim {claim}, which the operator makes")
            told = True
        time.sleep(POLL_SECONDS)


def _wait(cluster: Cluster, name: str, claim: str, say: Say) -> None:
    start, told, unpulled = time.monotonic(), "", None
    while True:
        pod = cluster.get(core(cluster, "pods", name))
        status = pod.get("status") or {}
        if status.get("phase") == "Running":
            return
        if status.get("phase") in ("Failed", "Succeeded"):
            raise _ended(name, status)
        reason, why = why_waiting(pod, [pod], _events(cluster, name), None, None)
        why = why.removeprefix(f"{name}: ") + _unbound(cluster, claim)
        now = time.monotonic()
        unpulled = (unpulled or now) if reason == "ImagePull" else None
        if unpulled is not None and now - unpulled > IMAGE_SECONDS:
            raise ConfigError(Problem("--image", why, "name an image of ltx2-job that this cluster can pull"))
        if now - start > START_SECONDS:
            raise UnavailableError(f"pod {name} did not start within {START_SECONDS:.0f} s: {why}")
        if why != told and now - start > 2:
            say(f"pod {name}: {why}")
            told = why
        time.sleep(POLL_SECONDS)


def check_alive(cluster: Cluster, name: str) -> None:
    """Where the pod has ended, say so. The node tells of an end some moments later.

    Raises OtherVersionError, UnavailableError.
    """
    until = time.monotonic() + TOLD_SECONDS
    while time.monotonic() < until:
        status = cluster.get(core(cluster, "pods", name)).get("status") or {}
        if any("terminated" in (one.get("state") or {}) for one in status.get("containerStatuses") or []):
            raise _ended(name, status)
        time.sleep(POLL_SECONDS)


def _ended(name: str, status: Mapping[str, Any]) -> UnavailableError:
    """Why a pod that should wait has ended: its own words, its container's, or the last line of its log."""
    states = [one.get("state") or {} for one in status.get("containerStatuses") or []]
    last: Mapping[str, Any] = next((state["terminated"] for state in states if "terminated" in state), {})
    words = (last.get("message") or "").strip().rpartition("\n")[2]
    if last.get("exitCode") == USAGE:
        return OtherVersionError(words)
    why = status.get("message") or words or status.get("reason") or last.get("reason") or "?"
    return UnavailableError(f"pod {name} ended at once: {why}")


def _unbound(cluster: Cluster, claim: str) -> str:
    """Why a claim has no volume yet, as the end of a sentence; empty where it has one."""
    try:
        if cluster.get(core(cluster, "persistentvolumeclaims", claim))["status"].get("phase") != "Pending":
            return ""
    except NotFound:
        return f"; claim {claim} is gone"
    newest = [event.get("message") or "" for event in _events(cluster, claim)][-1:]
    return f"; claim {claim} is not bound yet" + (f": {newest[0]}" if newest else "")


def _events(cluster: Cluster, name: str) -> list[Body]:
    """Events about an object, oldest first; none where they may not be read."""
    with contextlib.suppress(AuthError):
        found = cluster.get(core(cluster, "events"), {"fieldSelector": f"involvedObject.name={name}"})["items"]
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return []
