"""What nodes and users do to a training, and what must follow: the table that test_interruptions.py causes for real."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltx2_job.exitcodes import SUPERSEDED

from . import deeds
from .ends import AGAIN, DONE, FAIL, RETRY, SAVE, WAIT
from .queue_stand_in import Queue
from .world import CONFIG, World, pod_template, training

LIVELY, MORTAL = "node-2", "node-1"  # whose kubelet is killed, and where everything else is meanwhile
HOST = "kubernetes.io/hostname"
PAUSE = ("Suspend", "SuspendedByUser")


def placed(**spec: Any) -> dict[str, Any]:
    """A pod template with more in the pod's spec."""
    patch = pod_template()
    patch["spec"].update(spec)
    return patch


def _likes(node: str) -> dict[str, Any]:
    """A pod template that prefers a node and can do with another."""
    term = {"weight": 100, "preference": {"matchExpressions": [{"key": HOST, "operator": "In", "values": [node]}]}}
    return placed(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}})


@dataclass(frozen=True)
class Interruption:
    """One cause and everything that must be seen of it.

    act: what nodes and users do, from when the training is made. verdict: of the first attempt's stage. starts: the
    steps from which the train stage went on, in order. attempts: the number of the last one. counted: how many attempts
    counted as failures. after: what has to be over before this one begins, as far as it is asked about at all.
    everyday: `make test` does it, too.
    """

    name: str
    cause: str
    act: Callable[[World, str], None]
    does: dict[str, Any] = field(default_factory=lambda: {"train-1": WAIT})
    verdict: tuple[str | None, str | None] = (AGAIN, "Preempted")
    pod: tuple[str, int] | None = ("Error", 85)
    job: str = ""
    starts: tuple[int, ...] = (0, 4)
    attempts: int = 2
    counted: int = 0
    final: tuple[str, str] = DONE
    events: tuple[str, ...] = ()
    spec: dict[str, Any] = field(default_factory=dict)
    stage: str = "train"
    claim: str = "data"
    after: tuple[str, ...] = ()
    everyday: bool = False


# -------------------------------------------------------------------------------------------------- nodes and evictions


def _drain(world: World, name: str) -> None:
    world.started(name)
    deeds.drain(world, name, world.pod(name)["spec"]["nodeName"])


def _evict(world: World, name: str) -> None:
    world.started(name)
    deeds.evict(world, world.pod(name)["metadata"]["name"])


def _crash_twice(world: World, name: str) -> None:
    world.over(name)
    ran = [world.pod(name, attempt=number)["spec"]["nodeName"] for number in (1, 2, 3)]
    assert ran == [MORTAL, MORTAL, LIVELY], ran
    assert world.status(name)["avoidNodes"] == [MORTAL]


def _kill_kubelet(world: World, name: str) -> None:
    """The container goes on writing while all think it dead; it is the fence on the volume that stops it."""
    world.started(name)
    pod = world.pod(name)
    node = next(node for node in world.cluster.nodes if node.name == pod["spec"]["nodeName"])
    zombie = world.first_process(name)
    assert node.kubelet is not None
    node.kubelet.kill()
    try:
        world.over(name)
        assert world.pod(name, attempt=2)["spec"]["nodeName"] != node.name
        log = node.home / "kubelet" / "pods" / pod["metadata"]["uid"] / "containers" / "job"
        world.operator.wait_for(lambda: not Path(f"/proc/{zombie}").exists(), "the cut-off container leaves")
        word = json.loads(next(log.iterdir()).read_text())
        assert (word["exitCode"], word["attempt"]) == (SUPERSEDED, 1), word
        page = json.loads((world.volume.folder / "runs" / name / "attempt").read_text())
        assert page["attempt"] == 2, page
    finally:
        world.cluster.start_kubelet(node)
        world.cluster.kubectl("wait", f"node/{node.name}", "--for=condition=Ready", "--timeout=60s")


NODES = (
    Interruption(
        "drained", "kubectl drain", _drain, job="DisruptionTarget", events=("Preempted",), everyday=True,
    ),
    Interruption("evicted", "eviction through the API", _evict, job="DisruptionTarget", events=("Preempted",)),
    Interruption(
        "node-avoided", "two crashes on one node", _crash_twice,
        {"train-1": [SAVE, ["exit", 1]], "train-2": [["exit", 1]]}, (RETRY, "AppError"), ("Error", 1), "exit code 1",
        (0, 3, 3), attempts=3, counted=2, events=("NodeAvoided",), spec={"podTemplate": _likes(MORTAL)},
    ),
    Interruption(
        "node-lost", "a kubelet is killed, its container goes on writing", _kill_kubelet,
        {"train-1": [SAVE, ["outlive"], ["checkpoint", 5]]}, pod=None, starts=(0, 3), events=("Preempted",),
        spec={"podTemplate": _likes(MORTAL)}, after=("drained", "node-avoided"),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ deletions


def _force_delete(world: World, name: str) -> None:
    world.started(name)
    deeds.force_delete_pod(world, world.pod(name)["metadata"]["name"])


def _delete_job(world: World, name: str) -> None:
    world.started(name)
    world.kubectl("delete", "job", f"{name}-train-1", "--cascade=background")


def _orphan(world: World, name: str) -> None:
    world.started(name)
    world.kubectl("delete", "job", f"{name}-train-1", "--cascade=orphan")
    world.over(name)
    assert not world.pod(name)["metadata"].get("ownerReferences")


def _recreate(world: World, name: str) -> None:
    """The old pod still has its grace period when its namesake comes."""
    world.started(name)
    old = world.uid(name)
    world.behave(name, {})
    new = deeds.recreate(world, name)
    assert new != old
    world.wait(name, lambda: "Restarting" in world.recorder.reasons(name, "Running", new), "waits for the old pod")
    said = world.recorder.reasons(name, "Running", new)["Restarting"]
    assert f"{name}-train-1" in said, said


def _repeat(world: World, name: str) -> None:
    """The equal run, made again: its result lies on the volume."""
    world.over(name)
    first = world.uid(name)
    again = deeds.recreate(world, name)
    assert again != first
    world.over(name, again)
    stages = {pod["metadata"]["labels"]["ltx2.dev/stage"] for pod in world.recorder.of("Pod", name, uid=again)}
    assert stages == {"look"}, stages


DELETIONS = (
    Interruption(
        "pod-forced", "a pod deleted by hand with --force", _force_delete,
        {"train-1": [SAVE, ["hang", 90]]}, (AGAIN, "PodDeleted"), ("Error", 137), starts=(0, 3), events=("Preempted",),
        everyday=True,
    ),
    Interruption(
        "job-deleted", "a Job deleted by hand", _delete_job, verdict=(AGAIN, "Stopped"), events=("Preempted",),
    ),
    Interruption(
        "job-orphaned", "a Job deleted by hand, its pod left alone", _orphan, {"train-1": [SAVE, ["wait", 6]]},
        ("Succeed", "Completed"), ("Completed", 0), starts=(0,), attempts=1, events=("Succeeded",),
    ),
    Interruption(
        "recreated", "deleted and made again at once under its name", _recreate, {"train-1": [SAVE, ["hang", 90]]},
        ("Succeed", "Completed"), ("Error", 86), starts=(0, 3), attempts=1, everyday=True,
    ),
    Interruption(
        "repeated", "an equal run made again after its end", _repeat, {}, ("Succeed", "Completed"), ("Completed", 0),
        "Completions", (0,), attempts=1,
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the pause


def _paused(world: World, name: str) -> None:
    world.patch(name, {"suspend": True})
    world.wait(name, lambda: world.reason(name, "Suspended") == "SuspendedByUser", "the pause")
    assert not [job for job in world.jobs(name) if not (job.get("status") or {}).get("conditions")]


def _pause(world: World, name: str) -> None:
    _paused(world, name)
    world.patch(name, {"suspend": False})


def _pause_first(world: World, name: str) -> None:
    world.wait(name, lambda: world.reason(name, "Suspended") == "SuspendedByUser", "the pause")
    assert not world.recorder.of("Job", name)
    world.patch(name, {"suspend": False})


def _pause_look(world: World, name: str) -> None:
    """No node is good enough for its first pod, until the pause is over."""
    world.wait(name, lambda: world.reason(name, "Running") == "WaitingForPods", "a pod that nobody takes")
    said = world.recorder.reasons(name, "Running")["WaitingForPods"]
    assert "no node has the labels that nodeSelector and affinity of spec.podTemplate ask for" in said, said
    _paused(world, name)
    world.cluster.kubectl("label", "node", LIVELY, "gate=open")
    try:
        world.patch(name, {"suspend": False})
        world.over(name)
    finally:
        world.cluster.kubectl("label", "node", LIVELY, "gate-")


def _pause_cache(world: World, name: str) -> None:
    world.started(name, stage="cache")
    _pause(world, name)


def _pause_train(world: World, name: str) -> None:
    """Its next pods are of the template of today."""
    world.started(name)
    patch = {**placed(nodeSelector={HOST: LIVELY}), "metadata": {"labels": {"team": "film"}}}
    world.refused(name, {"podTemplate": patch}, "set suspend: true first")
    _paused(world, name)
    world.patch(name, {"podTemplate": patch})
    world.patch(name, {"suspend": False})
    world.over(name)
    teams = [world.pod(name, attempt=number)["metadata"]["labels"].get("team") for number in (1, 2)]
    assert teams == [None, "film"], teams


def _pause_between(world: World, name: str) -> None:
    world.wait(name, lambda: "nextAttemptTime" in world.status(name), "the time between")
    _pause(world, name)


def _change_the_mind(world: World, name: str) -> None:
    """While its pod has its grace period: it ends all the same, and the next attempt waits for that."""
    world.started(name)
    world.patch(name, {"suspend": True})
    world.wait(name, lambda: world.reason(name, "Suspended") == "Suspending", "the beginning of the pause")
    world.patch(name, {"suspend": False})


PAUSES = (
    Interruption(
        "suspended-first", "suspended before anything", _pause_first, {}, ("Succeed", "Completed"), ("Completed", 0),
        "Completions", (0,), attempts=1, spec={"suspend": True},
    ),
    Interruption(
        "suspended-look", "suspended while the look waits for a node", _pause_look, {}, PAUSE, None, starts=(0,),
        stage="look", spec={"podTemplate": placed(nodeSelector={"gate": "open", HOST: LIVELY})}, events=("Resumed",),
    ),
    Interruption(
        "suspended-cache", "suspended in the cache stage", _pause_cache, {"cache-1": [["wait", 90]]}, PAUSE,
        starts=(0,), stage="cache", events=("Resumed",), everyday=True,
    ),
    Interruption(
        "suspended-train", "suspended in training, other pods afterwards", _pause_train, verdict=PAUSE,
        events=("Resumed",), everyday=True,
    ),
    Interruption(
        "suspended-between", "suspended between two attempts", _pause_between, {"train-1": [SAVE, ["exit", 1]]},
        (RETRY, "AppError"), ("Error", 1), "exit code 1", (0, 3), counted=1, events=("AttemptFailed", "Resumed"),
    ),
    Interruption(
        "suspended-not", "a suspend that is taken back at once", _change_the_mind, {"train-1": [SAVE, ["hang", 90]]},
        PAUSE, ("Error", 86), starts=(0, 3),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------- the operator is gone


def _kill_in_stage(world: World, name: str) -> None:
    world.started(name)
    deeds.kill_operator(world)


def _delete_between(world: World, name: str) -> None:
    world.wait(name, lambda: "nextAttemptTime" in world.status(name), "the time between")
    deeds.delete_operator(world)


QUIET = ("evicted", "pod-forced", "job-deleted", "recreated", "suspended-not", "suspended-train", "queued")
ABSENCES = (
    Interruption(
        "operator-killed", "kill -9 of the operator in the middle of a stage", _kill_in_stage,
        {"train-1": [SAVE, ["wait", 10]]}, ("Succeed", "Completed"), ("Completed", 0), "Completions", (0,), attempts=1,
        after=QUIET,
    ),
    Interruption(
        "operator-replaced", "the operator's pod deleted between two attempts", _delete_between,
        {"train-1": [SAVE, ["exit", 1]]}, (RETRY, "AppError"), ("Error", 1), "exit code 1", (0, 3), counted=1,
        after=(*QUIET, "operator-killed"),
    ),
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------- what users change


def _failed(world: World, name: str) -> None:
    world.wait(name, lambda: "InvalidConfig" in world.recorder.reasons(name, "Failed"), "the failure")


def _raise_retries(world: World, name: str) -> None:
    _failed(world, name)
    world.patch(name, {"retries": 4})
    world.wait(name, lambda: "Restarting" in world.recorder.reasons(name, "Failed"), "another attempt")


def _retry(world: World, name: str) -> None:
    _failed(world, name)
    world.retry(name)


def _fix(world: World, name: str) -> None:
    """What was refused can be repaired, since nothing has begun; what has begun is fixed."""
    world.wait(name, lambda: world.reason(name, "Accepted") == "InvalidConfig", "the refusal")
    world.patch(name, {"config": {**CONFIG, "max_train_steps": 6}})
    world.started(name)
    for spec, said in (
        ({"config": {**CONFIG, "max_train_steps": 9}}, "spec.config is fixed once the first attempt exists"),
        ({"nodes": 2}, "spec.nodes is fixed once the first attempt exists"),
        ({"queueName": "other"}, "set suspend: true first"),
        (
            {"podTemplate": pod_template({"limits": {"memory": "300Mi"}})},
            "spec.podTemplate changes only while the training is suspended or",
        ),
    ):
        world.refused(name, spec, said)
    world.patch(name, {"retries": 5, "ttlSecondsAfterFinished": 86400})


def _live_shortly(world: World, name: str) -> None:
    """A claim of its own, filled as `ltx2 upload` does; it stays when the object goes by itself."""
    world.wait(name, lambda: "WaitingForData" in world.recorder.reasons(name, "Cached"), "WaitingForData")
    folder = world.adopt(f"{name}-data")
    world.kubectl("annotate", "ltx2training", name, "ltx2.dev/data-uploaded=2026-11-22T10:00:00Z")
    world.over(name)
    gone = "--ignore-not-found"
    world.wait(name, lambda: not world.kubectl("get", "ltx2training", name, gone), "the object to go by itself")
    world.wait(name, lambda: not world.kubectl("get", "job", f"{name}-train-1", gone), "its Jobs to follow")
    assert world.kubectl("get", "pvc", f"{name}-data", "-o", "jsonpath={.status.phase}") == "Bound"
    assert (folder / "runs" / name / "lora.safetensors").is_file()


REFUSED = {"train-1": [SAVE, ["exit", 64]]}
CHANGES = (
    Interruption(
        "retries-raised", "spec.retries raised after the end", _raise_retries, REFUSED, (FAIL, "InvalidConfig"),
        ("Error", 64), "exit code 64", (0, 3), counted=1, events=("Failed", "Retried"),
    ),
    Interruption(
        "retried", "ltx2 retry after the end", _retry, REFUSED, (FAIL, "InvalidConfig"), ("Error", 64), "exit code 64",
        (0, 3), counted=1, events=("Failed", "Retried"), everyday=True,
    ),
    Interruption(
        "repaired", "a refused object repaired, and changes that are refused later", _fix,
        {"train-1": [SAVE, ["wait", 6]]}, ("Succeed", "Completed"), ("Completed", 0), "Completions", (0,), attempts=1,
        spec={"config": {**CONFIG, "max_train_steps": -1}},
    ),
    Interruption(
        "short-lived", "ttlSecondsAfterFinished", _live_shortly, {}, ("Succeed", "Completed"), ("Completed", 0),
        "Completions", (0,), attempts=1, claim="short-lived-data",
        spec={"storage": {"size": "64Mi", "storageClassName": "standard"}, "ttlSecondsAfterFinished": 3},
    ),
)  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- a queue


def _queue(world: World, name: str) -> None:
    """Held, admitted with a node selector, preempted in the middle, admitted again: all of it one attempt."""
    queue = Queue(world, name)
    world.wait(name, lambda: world.reason(name, "Admitted") == "WaitingForQuota", "the queue's word")
    for stage in ("look", "cache", "train"):
        queue.admit(stage, {HOST: LIVELY})
    world.started(name)
    before = world.status(name)
    world.behave(name, {})
    queue.preempt("train")
    world.wait(name, lambda: world.reason(name, "Admitted") == "Preempted", "the queue took its place back")
    time.sleep(2)  # the operator has all the time to do something of its own
    queue.admit("train", {HOST: LIVELY, "kubernetes.io/os": "linux"})
    world.over(name)
    after = world.status(name)
    assert (after["attempt"], after["execution"]) == (before["attempt"], before["execution"] + 1), (before, after)
    selectors = [pod["spec"].get("nodeSelector") for pod in world.recorder.of("Pod", name, stage="train")]
    assert selectors[0] == {HOST: LIVELY}, selectors
    assert selectors[-1] == {HOST: LIVELY, "kubernetes.io/os": "linux"}, selectors


QUEUES = (
    Interruption(
        "queued", "a queue holds, admits, preempts and admits again", _queue, verdict=("Succeed", "Completed"),
        pod=("Completed", 0), attempts=1, spec={"queueName": "gpus", "podTemplate": pod_template()}, everyday=True,
        events=("Preempted", "Resumed"),
    ),
)  # fmt: skip

INTERRUPTIONS = (*NODES, *DELETIONS, *PAUSES, *ABSENCES, *CHANGES, *QUEUES)


def manifest(world: World, one: Interruption) -> dict[str, Any]:
    """The training that is interrupted."""
    return training(one.name, world.image, **{"podTemplate": placed(nodeSelector={HOST: LIVELY}), **one.spec})
