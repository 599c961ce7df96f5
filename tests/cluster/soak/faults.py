"""What happens to a soak's trainings: everything of the tables of ends.py and interruptions.py, to jobs that train."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clients import CHART
from ltx2_operator.children import QUEUE_LABEL

from .. import deeds
from ..installed import RELEASE
from ..world import World, ends
from .runs import QUEUE

POD, TRAINING, JOB, QUEUED, OPERATOR, CLUSTER = "pod", "training", "job", "queued", "operator", "cluster"
_LEASE_SECONDS = 15  # the chart's: an operator that stands still for longer has lost it
_WORKERS = """
import os, sys
def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
found = [int(name) for name in os.listdir("/proc") if name.isdigit() and name not in ("1", str(os.getpid()))]
workers = [pid for pid in found if parent(pid) == 1]
for pid in workers[: int(sys.argv[2]) or None]:
    os.kill(pid, int(sys.argv[1]))
print(len(workers))
"""
# The kernel is to end the job, not the one that takes its memory.
_HOG = """
import os
for name in os.listdir("/proc"):
    if name.isdigit() and name != str(os.getpid()):
        try:
            open(f"/proc/{name}/oom_score_adj", "w").write("1000")
        except OSError:
            pass  # it has ended
held = []
while True:
    held.append(bytearray(50_000_000))
"""
_FILL = "open('/tmp/filled', 'wb').write(bytes(200_000_000))"


class Missed(Exception):
    """What was to be broken has ended meanwhile, or there was nothing of its kind."""


@dataclass(frozen=True)
class Target:
    """What is broken: a pod, a Job or a training, as the server has them now."""

    training: str
    claim: str
    stage: str = ""
    name: str = ""  # of the pod or the Job
    node: str = ""

    def __str__(self) -> str:
        """In words."""
        where = f"{self.stage} of " if self.stage else ""
        return f"{where}{self.training}" + (f" on {self.node}" if self.node else "")


@dataclass(frozen=True)
class Fault:
    """One kind. act: breaks the target (None for the operator and the cluster). excuses: reasons of a failure that it
    may bring about, after which `ltx2 retry` is due."""

    name: str
    needs: str
    act: Callable[[World, Target, random.Random], None]
    excuses: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------ inside the pod


def _inside(world: World, target: Target, code: str, *words: str) -> str:
    return world.kubectl("exec", target.name, "-c", "job", "--", "python", "-c", code, *words)


def _kill_worker(world: World, target: Target, _: random.Random) -> None:
    if _inside(world, target, _WORKERS, "9", "1").strip() == "0":
        raise Missed("no worker yet")


def _kill_first(world: World, target: Target, _: random.Random) -> None:
    try:
        os.kill(world.first_process(target.training, target.stage), 9)
    except (AssertionError, ProcessLookupError):
        raise Missed("no first process") from None


def _deafen(world: World, target: Target, _: random.Random) -> None:
    _inside(world, target, _WORKERS, "19", "0")
    deeds.delete_pod(world, target.name)


def _hog(world: World, target: Target, _: random.Random) -> None:
    world.cluster.kubectl.run(
        "exec", "-n", world.namespace, target.name, "-c", "job", "--", "python", "-c", _HOG, timeout=60
    )


def _fill_scratch(world: World, target: Target, _: random.Random) -> None:
    """The kubelet measures volumes once a minute, and acts within ten seconds: until then nothing may end by itself."""
    _inside(world, target, _WORKERS, "19", "0")
    _inside(world, target, _FILL)
    failed = "--for=jsonpath={.status.phase}=Failed"
    world.kubectl("wait", f"pod/{target.name}", failed, "--timeout=110s")


def _fill_volume(world: World, target: Target, _: random.Random) -> None:
    """Not a byte is free, until the training has said so, or has ended before it had to write."""
    volume = world.volumes.get(target.claim)
    if volume is None or not volume.folder.is_mount():
        raise Missed("its volume has no size")
    filler = volume.folder / "filler"
    try:
        with filler.open("wb") as file:
            while True:
                try:
                    file.write(bytes(1 << 20))
                    file.flush()
                except OSError:
                    break
        _until(lambda: bool(ends(world.status(target.training))), 45)
    finally:
        filler.unlink(missing_ok=True)


def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Until it holds, or for so long: a training may have nothing more to write."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.25)


# ------------------------------------------------------------------------------------------------------ through the API


def _suspend(world: World, target: Target, chance: random.Random) -> None:
    world.patch(target.training, {"suspend": True})
    time.sleep(chance.uniform(0.2, 12))
    world.patch(target.training, {"suspend": False})


def _preempt(world: World, target: Target, _: random.Random) -> None:
    """A queue takes the place of a Job back; whoever plays it admits it again."""
    world.kubectl("patch", "job", target.name, "--type=merge", "-p", '{"spec": {"suspend": true}}')


def _delete_job(how: str) -> Callable[[World, Target, random.Random], None]:
    return lambda world, target, _: _said(world.kubectl("delete", "job", target.name, f"--cascade={how}"))


def _said(_: str) -> None:
    """kubectl's words are nobody's business."""


def _lose_node(world: World, target: Target, _: random.Random) -> None:
    """Its kubelet is gone until the cluster has given its pods up; the containers go on writing."""
    node = next(node for node in world.cluster.nodes if node.name == target.node)
    assert node.kubelet is not None
    node.kubelet.kill()
    time.sleep(40)
    world.cluster.start_kubelet(node)
    world.cluster.kubectl("wait", f"node/{node.name}", "--for=condition=Ready", "--timeout=90s")


def _upgrade(world: World, chance: random.Random) -> None:
    """Another version of the chart's values: other pods of the operator."""
    values = {**world.operator.values, "logLevel": chance.choice(["debug", "info"])}
    world.operator.helm("upgrade", RELEASE, str(CHART), values=values)
    world.operator.ready()


def _freeze_operator(world: World) -> None:
    frozen = list(deeds.operators(world))
    for process in frozen:
        process.kill(signal.SIGSTOP)
    time.sleep(_LEASE_SECONDS + 10)
    for process in frozen:
        process.kill(signal.SIGCONT)


def _without_server(world: World, chance: random.Random) -> None:
    with world.cluster.without_server():
        time.sleep(chance.uniform(10, 60))


FAULTS = (
    Fault("a worker killed", POD, _kill_worker),
    Fault("process 1 killed", POD, _kill_first),
    Fault("workers stand still, pod deleted", POD, _deafen),
    Fault("memory limit reached", POD, _hog, ("HostOutOfMemory",)),
    Fault("scratch disk full", POD, _fill_scratch, ("EphemeralStorageExceeded",)),
    Fault("volume full", POD, _fill_volume, ("StorageError",)),
    Fault("pod deleted", POD, lambda world, target, _: deeds.delete_pod(world, target.name)),
    Fault("pod deleted with --force", POD, lambda world, target, _: deeds.force_delete_pod(world, target.name)),
    Fault("pod evicted", POD, lambda world, target, _: deeds.evict(world, target.name)),
    Fault("node drained", POD, lambda world, target, _: deeds.drain(world, target.training, target.node)),
    Fault("kubelet killed for 40 s", POD, _lose_node),
    Fault("another owner on the volume", POD,
          lambda world, target, _: deeds.supersede(world, target.training, target.claim)),
    Fault("Job deleted", JOB, _delete_job("background")),
    Fault("Job deleted, its pods left", JOB, _delete_job("orphan")),
    Fault("preempted by its queue", QUEUED, _preempt),
    Fault("suspended and resumed", TRAINING, _suspend),
    Fault("deleted and made again", TRAINING, lambda world, target, _: _said(deeds.recreate(world, target.training))),
    Fault("operator killed", OPERATOR, lambda world, target, _: deeds.kill_operator(world)),
    Fault("operator's pod deleted", OPERATOR, lambda world, target, _: deeds.delete_operator(world)),
    Fault("operator stopped past its lease", OPERATOR, lambda world, target, _: _freeze_operator(world)),
    Fault("operator upgraded", OPERATOR, lambda world, target, chance: _upgrade(world, chance)),
    Fault("API server and etcd gone", CLUSTER, lambda world, target, chance: _without_server(world, chance)),
)  # fmt: skip


def targets(world: World, needs: str) -> list[Target]:
    """What there is to break now of a kind."""
    if needs in (OPERATOR, CLUSTER):
        return [Target("", "")]
    if needs == TRAINING:
        return [
            Target(one["metadata"]["name"], world.claim_of(one["metadata"]["name"]))
            for one in world.operator.objects("ltx2trainings", world.namespace)
            if not ends(one.get("status") or {})
        ]
    kind = "pods" if needs == POD else "jobs"
    found = world.operator.objects(kind, world.namespace, "ltx2.dev/training,ltx2.dev/stage")
    return [
        Target(
            _training(one), world.claim_of(_training(one)),
            one["metadata"]["labels"]["ltx2.dev/stage"], one["metadata"]["name"], one["spec"].get("nodeName", ""),
        )
        for one in found
        if _running(one) and (needs != QUEUED or "queueName" in world.manifests[_training(one)]["spec"])
    ]  # fmt: skip


def _training(obj: dict[str, Any]) -> str:
    return str(obj["metadata"]["labels"]["ltx2.dev/training"])


def _running(obj: dict[str, Any]) -> bool:
    status = obj.get("status") or {}
    if obj["kind"] == "Pod":
        return status.get("phase") == "Running" and "deletionTimestamp" not in obj["metadata"]
    return bool(status.get("active")) and not obj["spec"].get("suspend")


def admit(world: World) -> None:
    """What a queue does that has room for all: every Job of its own may go on."""
    waiting = [
        one["metadata"]["name"]
        for one in world.operator.objects("jobs", world.namespace, f"{QUEUE_LABEL}={QUEUE}")
        if one["spec"].get("suspend") and "deletionTimestamp" not in one["metadata"]
    ]
    for name in waiting:
        world.kubectl("patch", "job", name, "--type=merge", "-p", json.dumps({"spec": {"suspend": False}}))
