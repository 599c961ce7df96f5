"""Every way in which a pod ends, and what must follow: the table that test_ends.py causes for real."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .harness.cluster import BOX_IMAGE
from .world import World, pod_template

SAVE = ["checkpoint", 3]
WAIT = [SAVE, ["wait", 90]]
RETRY, FAIL, AGAIN, LOWER = "Retry", "Fail", "RetryUncounted", "LowerMemoryPlan"
DONE = ("Succeeded", "Completed")


@dataclass(frozen=True)
class End:
    """One cause and everything that must be seen of it.

    does: what the stages do. act: what a hand does meanwhile. pod: (reason, exit code) of the pod that decides. job: a
    part of the Job's own condition. verdict: (action, reason) of the first attempt. final: the condition at the end.
    starts: the steps that the attempts of the train stage went on from.
    """

    name: str
    cause: str
    does: dict[str, Any] = field(default_factory=dict)
    pod: tuple[str, int | None] | None = None
    job: str = ""
    verdict: tuple[str, str] = (RETRY, "AppError")
    counted: bool = True
    final: tuple[str, str] = DONE
    starts: tuple[int, ...] = (0, 3)
    event: str = "AttemptFailed"
    says: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    act: Callable[[World, str], None] | None = None
    stage: str = "train"
    claim: str = "data"
    memory: tuple[str, ...] = ()


def _left(code: int, reason: str, action: str = RETRY, how: list[Any] | None = None, **more: Any) -> End:
    """A worker that leaves with a code; how: the step that brings it about."""
    given = {
        "job": f"exit code {code}", "verdict": (action, reason), "says": f"exit code {code}",
        "does": {"train-1": [SAVE, how or ["exit", code]]},
    }  # fmt: skip
    if action == FAIL:
        given |= {"final": ("Failed", reason), "event": "Failed", "starts": (0,)}
    return End(f"exit-{code}", more.pop("cause", f"exit code {code}"), pod=("Error", code), **{**given, **more})


def _signal(number: int, code: int, reason: str, name: str) -> End:
    return _left(code, reason, how=["signal", number], cause=f"a worker dies of {name}")


CODES = (
    _left(1, "AppError"),
    _left(3, "AppError", cause="an unknown exit code"),
    _left(64, "InvalidConfig", FAIL),
    _left(65, "DataError", FAIL, ["raise", "DataError", "no clip"], cause="no clip can be used"),
    _left(69, "NetworkError", how=["raise", "UnavailableError", "the hub"], cause="the hub is not reachable"),
    _left(70, "AppError", how=["raise", "RuntimeError", "a defect"], cause="an unexpected exception"),
    _left(75, "NetworkError", how=["raise", "DistNetworkError", "gone"], cause="a peer was lost"),
    _left(77, "AuthError", FAIL, ["raise", "AuthError", "the model is gated"], cause="a gated model"),
    _left(78, "InvalidConfig", FAIL, ["raise", "ConfigError", "is wrong"], cause="a wrong configuration"),
    _left(79, "HostOutOfMemory", FAIL, ["raise", "MemoryError", "none is left"], cause="the host refuses memory"),
    _signal(6, 134, "AppError", "SIGABRT"),
    _signal(7, 135, "AppError", "SIGBUS"),
    _signal(9, 137, "Killed", "SIGKILL"),
    _signal(11, 139, "AppError", "SIGSEGV"),
    _left(143, "Killed", cause="SIGTERM before the handlers stand"),
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- hands


def _kill_worker(world: World, name: str) -> None:
    pid = world.started(name)["pid"]
    world.kubectl("exec", world.pod(name)["metadata"]["name"], "--", "python", "-c", f"import os; os.kill({pid}, 9)")


def _kill_first(world: World, name: str) -> None:
    world.started(name)
    os.kill(world.first_process(name), 9)


def _delete_pod(world: World, name: str) -> None:
    world.started(name)
    world.kubectl("delete", "pod", world.pod(name)["metadata"]["name"], "--wait=false")


def _supersede(world: World, name: str) -> None:
    world.started(name)
    page = {"uid": "another", "attempt": 9, "podUid": "another", "startTime": "2026-11-22T10:00:00.000000+00:00"}
    (world.volume.folder / "runs" / name / "attempt").write_text(json.dumps(page))


def _upload(world: World, name: str) -> None:
    world.wait(name, lambda: "WaitingForData" in world.recorder.reasons(name, "Cached"), "WaitingForData")
    world.put_clips("datasets/late")
    world.kubectl("annotate", "ltx2training", name, "ltx2.dev/data-uploaded=2026-11-22T10:00:00Z")


def _failed(world: World, name: str, reason: str) -> None:
    world.wait(name, lambda: reason in world.recorder.reasons(name, "Failed"), reason)


def _again(world: World, name: str, spec: dict[str, Any]) -> None:
    """The cause is gone: another attempt."""
    world.patch(name, {"retries": 4, **spec})
    world.wait(name, lambda: "Restarting" in world.recorder.reasons(name, "Failed"), "another attempt")


def _grow(world: World, name: str) -> None:
    _failed(world, name, "StorageError")
    world.grow("small", "128Mi")
    _again(world, name, {})


HANDS = (
    End(
        "worker-killed", "kill -9 of a worker from inside the container", {"train-1": WAIT}, ("Error", 137),
        "exit code 137", (RETRY, "Killed"), says="exit code 137", act=_kill_worker,
    ),
    End(
        "first-killed", "kill -9 of process 1 from the host", {"train-1": WAIT}, ("Error", 137),
        "exit code 137", (RETRY, "Killed"), says="exit code 137", act=_kill_first,
    ),
    End(
        "stopped", "SIGTERM with grace: the pod is deleted", {"train-1": WAIT}, ("Error", 85), "", (AGAIN, "Stopped"),
        counted=False, starts=(0, 4), event="Preempted", says="checkpoint written", act=_delete_pod,
    ),
    End(
        "deaf", "SIGTERM with grace, and the worker does not listen", {"train-1": [SAVE, ["hang", 90]]}, ("Error", 86),
        "", (AGAIN, "StoppedUnsaved"), counted=False, event="Preempted", says="no checkpoint in time", act=_delete_pod,
    ),
    End(
        "superseded", "another owner takes the run on the volume", {"train-1": WAIT}, ("Error", 87), "exit code 87",
        ("Ignore", "Superseded"), counted=False, event="Superseded", says="a newer attempt", act=_supersede,
    ),
    End(
        "no-clips", "the dataset is not there yet", {}, ("Error", 66), "exit code 66",
        ("WaitForData", "WaitingForData"), counted=False, starts=(0,), event="WaitingForData", says="ltx2 upload",
        spec={"clips": "datasets/late"}, act=_upload, stage="look",
    ),
)  # fmt: skip

LIMITS = (
    End(
        "memory", "the memory limit is reached", {"train-1": [SAVE, ["hog", 400]]}, ("OOMKilled", 79), "exit code 79",
        (FAIL, "HostOutOfMemory"), final=("Failed", "HostOutOfMemory"), starts=(0,), event="Failed",
        says="the limit is 256Mi: raise spec.podTemplate",
    ),
    End(
        "volume", "the volume is full, then it grows", {"train-1": [SAVE, ["fill", ".", 300]]}, ("Error", 73),
        "exit code 73", (FAIL, "StorageError"), event="Failed", says="grow the claim", act=_grow, claim="small",
        spec={"storage": {"claimName": "small"}},
    ),
    End(
        "ephemeral", "the scratch disk is full", {"train-1": [SAVE, ["fill", "/tmp", 48], ["hang", 200]]},
        ("Evicted", 137), "exit code 137", (FAIL, "EphemeralStorageExceeded"),
        final=("Failed", "EphemeralStorageExceeded"), starts=(0,), event="Failed",
        says="the limit is 16Mi: raise spec.podTemplate",
        spec={"podTemplate": pod_template({p: {"ephemeral-storage": "16Mi"} for p in ("requests", "limits")})},
    ),
    End(
        "no-binary", "the image has no ltx2-job", {}, ("StartError", 128), "exit code 128", (FAIL, "InvalidImage"),
        final=("Failed", "InvalidImage"), starts=(), event="Failed", says="exit code 128",
        spec={"images": {"train": BOX_IMAGE}},
    ),
    End(
        "deadline", "activeDeadlineSeconds have passed", {"train-1": WAIT}, ("Error", 85), "",
        (FAIL, "DeadlineExceeded"), counted=False, final=("Failed", "DeadlineExceeded"), starts=(0,), event="Failed",
        says="spec.activeDeadlineSeconds", spec={"activeDeadlineSeconds": 45},
    ),
)  # fmt: skip


def _waits(name: str, cause: str, says: str, stage: str = "look", **spec: Any) -> End:
    """A pod that never starts: the sentence that says why, and the end of the patience."""
    late = "StartDeadlineExceeded"
    return End(
        name, cause, verdict=(FAIL, late), counted=False, final=("Failed", late), starts=(), event="Failed",
        says=says, spec={"startDeadlineSeconds": 15, **spec}, stage=stage,
    )  # fmt: skip


WAITS = (
    _waits("no-image", "the image is nowhere", "image localhost/nowhere:1 cannot be pulled",
           images={"cache": "localhost/nowhere:1"}),
    _waits("no-key", "the Secret lacks the key", "add that key to it", secrets={"hubToken": {"name": "hub"}}),
    _waits("no-secret", "a Secret that the pod template names is missing", "create what is missing in this namespace",
           podTemplate=pod_template(envFrom=[{"secretRef": {"name": "nobody"}}])),
    _waits("no-claim", "the claim is missing", "create the claim that spec.storage.claimName names",
           storage={"claimName": "nowhere"}),
    _waits("too-many-gpus", "no node has so many GPUs", "at most 8 each; set gpu.count: 8", "train",
           gpu={"class": "h100-80g", "count": 16}, startDeadlineSeconds=60),
)  # fmt: skip

GPU_FULL = ["raise", "OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"]
H100 = {"gpu": {"class": "h100-80g"}}


def _full_gpu(name: str, cause: str, **more: Any) -> End:
    given = {
        "pod": ("Error", 80), "job": "exit code 80", "verdict": (LOWER, "GPUOutOfMemory"), "counted": False,
        "event": "GPUOutOfMemory",
    }  # fmt: skip
    return End(name, cause, **{**given, **more})


GPUS = (
    _full_gpu("gpu-cache", "the GPU's memory is exhausted in the cache stage", does={"cache-1": [GPU_FULL]}, spec=H100,
              stage="cache", starts=(0,), says="cache: device → cpu", memory=("device", "cpu")),
    _full_gpu("gpu-cache-end", "the same with every plan", does={"cache": [GPU_FULL]}, spec=H100, stage="cache",
              starts=(), says="no smaller memory plan is left", final=("Failed", "GPUOutOfMemory"),
              memory=("device", "cpu")),
    _full_gpu("gpu-train", "the GPU's memory is exhausted in training", does={"train-1": [SAVE, GPU_FULL]}, spec=H100,
              says="keep:24, continues from step 3", memory=("keep:48", "keep:24")),
    _full_gpu("gpu-train-end", "the same with every plan", does={"train": [SAVE, GPU_FULL]}, spec=H100,
              starts=(0, 3, 3), says="no smaller memory plan is left", final=("Failed", "GPUOutOfMemory"),
              memory=("keep:48", "keep:24", "keep:0")),
    _full_gpu("two-nodes", "two nodes: one leaves with 80 after the other has lost it (69)", spec={"nodes": 2},
              does={"train-1.0": [SAVE, ["raise", "UnavailableError", "the peer is gone"]],
                    "train-1.1": [["after", 3], ["hang", 2], GPU_FULL]},
              says="keep:24, continues from step 3", memory=("keep:48", "keep:24")),
)  # fmt: skip

ENDS = (*HANDS, *LIMITS, *GPUS, *CODES, *WAITS)
