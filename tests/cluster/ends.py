"""Every way in which a pod ends, and what must follow: the table that test_ends.py causes for real."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import deeds
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
    starts: the steps that the attempts of the train stage went on from, None where that depends on the machine's pace.
    says: what a condition must say. memory: the plans of the stage's attempts. everyday: `make test` causes it, too.
    """

    name: str
    cause: str
    does: dict[str, Any] = field(default_factory=dict)
    pod: tuple[str, int | None] | None = None
    job: str = ""
    verdict: tuple[str, str] = (RETRY, "AppError")
    counted: bool = True
    final: tuple[str, str] = DONE
    starts: tuple[int, ...] | None = (0, 3)
    event: str = "AttemptFailed"
    says: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    act: Callable[[World, str], None] | None = None
    stage: str = "train"
    claim: str = "data"
    memory: tuple[str, ...] = ()
    everyday: bool = False


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
    _left(1, "AppError", everyday=True),
    _left(3, "AppError", cause="an unknown exit code"),
    _left(64, "InvalidConfig", FAIL),
    _left(65, "DataError", FAIL, ["raise", "DataError", "no clip"], cause="no clip can be used", everyday=True),
    _left(69, "NetworkError", how=["raise", "UnavailableError", "the hub"], cause="the hub is not reachable"),
    _left(70, "AppError", how=["raise", "RuntimeError", "a defect"], cause="an unexpected exception"),
    _left(75, "NetworkError", how=["raise", "DistNetworkError", "gone"], cause="a peer was lost"),
    _left(77, "AuthError", FAIL, ["raise", "AuthError", "the model is gated"], cause="a gated model"),
    _left(78, "InvalidConfig", FAIL, ["raise", "ConfigError", "is wrong"], cause="a wrong configuration"),
    _left(79, "HostOutOfMemory", FAIL, ["raise", "MemoryError", "none is left"], cause="the host refuses memory"),
    _left(81, "LossNotFinite", FAIL, cause="a loss that is no number"),
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
    deeds.delete_pod(world, world.pod(name)["metadata"]["name"])


def _supersede(world: World, name: str) -> None:
    world.started(name)
    deeds.supersede(world, name)


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


def _more_memory(world: World, name: str) -> None:
    """What the message says: raise the limit of the failed run, and try again."""
    _failed(world, name, "HostOutOfMemory")
    world.patch(name, {"podTemplate": pod_template({"limits": {"memory": "1Gi"}})})
    world.retry(name)


def _more_scratch(world: World, name: str) -> None:
    _failed(world, name, "EphemeralStorageExceeded")
    world.patch(name, {"podTemplate": _scratch("128Mi")})
    world.retry(name)


def _scratch(size: str) -> dict[str, Any]:
    patch = pod_template()
    patch["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {"sizeLimit": size}}]
    return patch


def _grow(world: World, name: str) -> None:
    _failed(world, name, "StorageError")
    world.grow("small", "128Mi")
    _again(world, name, {})


HANDS = (
    End(
        "worker-killed", "kill -9 of a worker from inside the container", {"train-1": WAIT}, ("Error", 137),
        "exit code 137", (RETRY, "Killed"), says="exit code 137", act=_kill_worker, everyday=True,
    ),
    End(
        "first-killed", "kill -9 of process 1 from the host", {"train-1": WAIT}, ("Error", 137),
        "exit code 137", (RETRY, "Killed"), says="exit code 137", act=_kill_first,
    ),
    End(
        "stopped", "SIGTERM with grace: the pod is deleted", {"train-1": WAIT}, ("Error", 85), "", (AGAIN, "Stopped"),
        counted=False, starts=(0, 4), event="Preempted", says="checkpoint written", act=_delete_pod, everyday=True,
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
        spec={"clips": "datasets/late"}, act=_upload, stage="look", everyday=True,
    ),
)  # fmt: skip

LIMITS = (
    End(
        "memory", "the memory limit is reached, then raised",
        {"train-1": [SAVE, ["hog", 400]], "train-2": [["hog", 400]]}, ("OOMKilled", 79), "exit code 79",
        (FAIL, "HostOutOfMemory"), event="Retried", act=_more_memory, everyday=True,
        says="the limit is 256Mi: raise spec.podTemplate.spec.containers[name=job].resources.limits.memory, then `ltx2 "
        "retry memory`",
    ),
    End(
        "volume", "the volume is full, then it grows", {"train-1": [SAVE, ["fill", ".", 300]]}, ("Error", 73),
        "exit code 73", (FAIL, "StorageError"), event="Failed", says="grow the claim", act=_grow, claim="small",
        everyday=True, spec={"storage": {"claimName": "small"}},
    ),
    End(
        "ephemeral", "the scratch disk is full", {"train-1": [SAVE, ["fill", "/tmp", 48], ["hang", 200]]},
        ("Evicted", 137), "exit code 137", (FAIL, "EphemeralStorageExceeded"),
        final=("Failed", "EphemeralStorageExceeded"), starts=(0,), event="Failed",
        says="the limit is 16Mi: raise spec.podTemplate",
        spec={"podTemplate": pod_template({p: {"ephemeral-storage": "16Mi"} for p in ("requests", "limits")})},
    ),
    End(
        "scratch", "the volume /tmp is full, then raised",
        {"train-1": [SAVE, ["fill", "/tmp", 48], ["hang", 200]], "train-2": [["fill", "/tmp", 48]]}, ("Evicted", 137),
        "exit code 137", (FAIL, "EphemeralStorageExceeded"), event="Retried", act=_more_scratch,
        says="raise spec.podTemplate.spec.volumes[name=tmp].emptyDir.sizeLimit, then `ltx2 retry scratch`",
        spec={"podTemplate": _scratch("16Mi")},
    ),
    End(
        "no-binary", "the image has no ltx2-job", {}, ("StartError", 128), "exit code 128", (FAIL, "InvalidImage"),
        final=("Failed", "InvalidImage"), starts=(), event="Failed", says="exit code 128",
        spec={"images": {"train": BOX_IMAGE}},
    ),
    End(
        "deadline", "activeDeadlineSeconds have passed", {"train-1": [SAVE, ["wait", 300]]}, ("Error", 85), "",
        (FAIL, "DeadlineExceeded"), counted=False, final=("Failed", "DeadlineExceeded"), starts=None, event="Failed",
        says="spec.activeDeadlineSeconds", spec={"activeDeadlineSeconds": 60},
    ),
)  # fmt: skip


GPU_FULL = ["raise", "OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"]
GONE = ["raise", "UnavailableError", "the peer is gone"]
H100 = {"gpu": {"class": "h100-80g"}}
TWO = {"nodes": 2}
NO_PLAN = "Tried to allocate 2.00 GiB; no smaller memory plan is left: no memory plan below {} on "


def _full_gpu(name: str, cause: str, **more: Any) -> End:
    given = {
        "pod": ("Error", 80), "job": "exit code 80", "verdict": (LOWER, "GPUOutOfMemory"), "counted": False,
        "event": "GPUOutOfMemory",
    }  # fmt: skip
    return End(name, cause, **{**given, **more})


GPUS = (
    _full_gpu("gpu-cache", "the GPU's memory is exhausted in the cache stage", does={"cache-1": [GPU_FULL]}, spec=H100,
              stage="cache", starts=(0,), says="cache: device → cpu", memory=("device", "cpu")),
    _full_gpu("gpu-cache-end", "the same, whatever the plan", does={"cache": [GPU_FULL]}, spec=H100, stage="cache",
              starts=(), says=NO_PLAN.format("cpu"), final=("Failed", "GPUOutOfMemory"),
              memory=("device", "cpu")),
    _full_gpu("gpu-train", "the GPU's memory is exhausted in training", does={"train-1": [SAVE, GPU_FULL]}, spec=H100,
              says="keep:24, continues from step 3", memory=("keep:48", "keep:24"), everyday=True),
    _full_gpu("gpu-train-end", "in training, whatever the plan", does={"train": [SAVE, GPU_FULL]}, spec=H100,
              starts=(0, 3, 3), says=NO_PLAN.format("bf16/resident/keep:0"), final=("Failed", "GPUOutOfMemory"),
              memory=("keep:48", "keep:24", "keep:0")),
    _full_gpu("two-nodes", "two nodes: one leaves with 80 after the other has lost it (69)", spec=TWO,
              does={"train-1.0": [SAVE, GONE],
                    "train-1.1": [["after", 3], ["hang", 2], GPU_FULL]},
              says="keep:24, continues from step 3", memory=("keep:48", "keep:24"), everyday=True),
    _full_gpu("two-nodes-first", "two nodes: the first leaves with 80, then the other loses it (69)", spec=TWO,
              does={"train-1.0": [SAVE, GPU_FULL], "train-1.1": [["after", 3], ["hang", 2], GONE]},
              says="keep:24, continues from step 3", memory=("keep:48", "keep:24")),
    _full_gpu("two-nodes-end", "two nodes: the second leaves with 80, whatever the plan", spec=TWO,
              does={f"train-{n}.{node}": [SAVE, GONE] if node == 0 else [["after", 3], GPU_FULL]
                    for n in (1, 2, 3) for node in (0, 1)},
              starts=(0, 3, 3), says=NO_PLAN.format("fp32/resident/keep:0"), final=("Failed", "GPUOutOfMemory"),
              memory=("keep:48", "keep:24", "keep:0")),
)  # fmt: skip

ENDS = (*HANDS, *LIMITS, *GPUS, *CODES)
