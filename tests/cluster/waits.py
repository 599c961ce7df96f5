"""What keeps the pods of a training from starting, what is said of it, and that it goes on when that is mended."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from .ends import FAIL, End
from .world import World, pod_template

DONE = ("Succeed", "Completed")
PAUSE = ("Suspend", "SuspendedByUser")
LATE_IMAGE = f"localhost/late-{os.urandom(4).hex()}:1"  # no node has it from an earlier run
SCARCE = "scarce"  # of the priority class and the quotas here
AMD = "amd.com/gpu"


def _told(world: World, name: str, words: str, kind: str = "Running") -> None:
    world.wait(name, lambda: any(words in one for one in world.recorder.messages(name, kind)), words)


def _mended(words: str, mend: Callable[[World, str], None], kind: str = "Running") -> Callable[[World, str], None]:
    """Wait until it is said, and mend it."""

    def act(world: World, name: str) -> None:
        _told(world, name, words, kind)
        mend(world, name)

    return act


def _waits(name: str, cause: str, says: str, mend: Callable[[World, str], None], **more: Any) -> End:
    """A pod that does not start: the sentence that says why, and its start when that is mended."""
    kind = more.pop("kind", "Running")
    given = {
        "pod": ("Completed", 0), "job": "Completions", "verdict": DONE, "counted": False, "starts": (0,),
        "event": "Succeeded", "stage": "look",
    }  # fmt: skip
    return End(name, cause, says=says, act=_mended(says, mend, kind), **{**given, **more})


# ------------------------------------------------------------------------------------------------- what the mending is


def _free_quota(world: World, name: str) -> None:
    world.kubectl("delete", "resourcequota", f"{SCARCE}-pods")


def _free_claims(world: World, name: str) -> None:
    """The claim is made, and filled as `ltx2 upload` does."""
    world.kubectl("delete", "resourcequota", f"{SCARCE}-claims")
    world.wait(name, lambda: "WaitingForData" in world.recorder.reasons(name, "Cached"), "WaitingForData")
    world.adopt(f"{name}-data")
    world.kubectl("annotate", "ltx2training", name, "ltx2.dev/data-uploaded=2026-11-22T10:00:00Z")


def _load_image(world: World, name: str) -> None:
    world.cluster.load_image(LATE_IMAGE, world.image)


def _add_key(world: World, name: str) -> None:
    world.kubectl("patch", "secret", "half", "-p", '{"stringData": {"token": "x"}}')


def _make_secret(secret: str) -> Callable[[World, str], None]:
    def mend(world: World, name: str) -> None:
        world.kubectl("create", "secret", "generic", secret, "--from-literal=token=x")

    return mend


def _make_claim(world: World, name: str) -> None:
    """Its volume is the one that all share, so that the data is there as soon as the claim is."""
    shared = world.cluster.kubectl.get("pvc", "data", "-n", world.namespace)["spec"]["volumeName"]
    known = world.cluster.kubectl.get("pv", shared)
    kept = {key: known["spec"][key] for key in ("capacity", "accessModes", "local", "nodeAffinity")}
    volume = {
        **kept, "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
        "claimRef": {"namespace": world.namespace, "name": name},
    }  # fmt: skip
    claim = {
        "accessModes": kept["accessModes"], "storageClassName": "", "volumeName": lent(world),
        "resources": {"requests": {"storage": kept["capacity"]["storage"]}},
    }  # fmt: skip
    world.kubectl("create", "-f", "-", manifest=[
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": lent(world)}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": claim},
    ])  # fmt: skip


def lent(world: World) -> str:
    """Name of the volume of the claim that comes late."""
    return f"{world.namespace}-late"


def _add_gpus(world: World, name: str) -> None:
    """An autoscaler adds a larger node. Before that it was accepted, and told at once."""
    accepted = world.recorder.reasons(name, "Accepted")["Valid"]
    assert "no node of this cluster has 2 x amd.com/gpu of class mi300x, at most 1 each" in accepted, accepted
    world.cluster.set_gpus(world.cluster.nodes[1], AMD, 2, {})


def _ask_for_less(world: World, name: str) -> None:
    """What the message says: the template changes in a pause."""
    world.refused(name, {"podTemplate": pod_template()}, "set suspend: true first")
    world.patch(name, {"suspend": True})
    world.wait(name, lambda: world.reason(name, "Suspended") == "SuspendedByUser", "the pause")
    world.patch(name, {"podTemplate": pod_template()})
    world.patch(name, {"suspend": False})


# ------------------------------------------------------------------------------------------------------------ the table

HUGE = pod_template({part: {"memory": "900Gi"} for part in ("requests", "limits")})
WAITS = (
    _waits(
        "quota-pods", "a ResourceQuota forbids the pods", "have it raised: it follows by itself", _free_quota,
        spec={"priorityClassName": SCARCE}, everyday=True,
    ),
    _waits(
        "quota-claim", "a ResourceQuota forbids the claim", "PersistentVolumeClaim quota-claim-data was refused",
        _free_claims, spec={"storage": {"size": "64Mi", "storageClassName": "limited"}}, claim="quota-claim-data",
        verdict=("WaitForData", "WaitingForData"), pod=("Error", 66), job="exit code 66",
    ),
    _waits(
        "no-secret", "a Secret of spec.secrets is missing",
        "spec.secrets.hubToken.name: no Secret late in this namespace; create it with key token", _make_secret("late"),
        spec={"secrets": {"hubToken": {"name": "late"}}}, kind="Accepted",
    ),
    _waits(
        "no-key", "a Secret lacks the key", "add that key to it", _add_key,
        spec={"secrets": {"hubToken": {"name": "half"}}}, everyday=True,
    ),
    _waits(
        "no-secret-of-template", "a Secret that the pod template names is missing",
        "create what is missing in this namespace", _make_secret("nobody"),
        spec={"podTemplate": pod_template(envFrom=[{"secretRef": {"name": "nobody"}}])},
    ),
    _waits(
        "late-claim", "the claim is missing", "create the claim that spec.storage.claimName names", _make_claim,
        spec={"storage": {"claimName": "late-claim"}},
    ),
    _waits(
        "late-image", "the image is missing", f"image {LATE_IMAGE} cannot be pulled", _load_image,
        spec={"images": {"cache": LATE_IMAGE}},
    ),
    _waits(
        "too-many-gpus", "no node has so many GPUs", "at most 1 each: it waits for one to be added", _add_gpus,
        spec={"gpu": {"class": "mi300x", "count": 2}, "podTemplate": pod_template({"limits": {"memory": "1Gi"}})},
        stage="train", starts=None, everyday=True,  # of two processes: the later may find all done
    ),
    _waits(
        "too-much-memory", "no node has so much memory", "no node that would do has 900Gi of memory, at most",
        _ask_for_less, spec={"podTemplate": HUGE}, verdict=PAUSE, pod=None, job="",
    ),
    End(
        "start-deadline", "startDeadlineSeconds have passed", verdict=(FAIL, "StartDeadlineExceeded"), counted=False,
        final=("Failed", "StartDeadlineExceeded"), starts=(), event="Failed", stage="look", everyday=True,
        says="no pod started within 15 s: ",
        spec={"startDeadlineSeconds": 15, "images": {"cache": "localhost/nowhere:1"}},
    ),
)  # fmt: skip


@contextlib.contextmanager
def scarcity(world: World) -> Iterator[None]:
    """What is scarce in the namespace, and gone from the cluster afterwards."""
    core = {"apiVersion": "v1", "kind": "ResourceQuota"}
    only = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [SCARCE]}]}
    claims = "limited.storageclass.storage.k8s.io/persistentvolumeclaims"
    world.kubectl("create", "-f", "-", manifest=[
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": SCARCE}, "value": 1},
        {**core, "metadata": {"name": f"{SCARCE}-pods"}, "spec": {"hard": {"pods": "0"}, "scopeSelector": only}},
        {**core, "metadata": {"name": f"{SCARCE}-claims"}, "spec": {"hard": {claims: "1"}}},  # which is there already
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "half"}, "stringData": {"other": "x"}},
    ])  # fmt: skip
    world.cluster.set_gpus(world.cluster.nodes[1], AMD, 1, {})
    try:
        for quota in (f"{SCARCE}-pods", f"{SCARCE}-claims"):
            world.kubectl("wait", f"resourcequota/{quota}", "--for=jsonpath={.status.hard}", "--timeout=60s")
        yield
    finally:
        world.cluster.set_gpus(world.cluster.nodes[1], AMD, 8, {})
        world.cluster.kubectl("delete", "priorityclass", SCARCE)
        world.cluster.kubectl("delete", "pv", lent(world), "--ignore-not-found", "--wait=false")
