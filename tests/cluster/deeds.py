"""What nodes, administrators and users do to the pods and Jobs of a training, and to its operator."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from .harness.processes import Process
from .installed import DEPLOYMENT, NAMESPACE
from .world import World


def drain(world: World, training: str, node: str) -> None:
    """kubectl drain, for one training's pods."""
    try:
        world.cluster.kubectl("drain", node, f"--pod-selector=ltx2.dev/training={training}", "--delete-emptydir-data")
    finally:
        world.cluster.kubectl("uncordon", node)


def evict(world: World, pod: str) -> None:
    """An eviction through the API."""
    wish = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": world.namespace}}
    path = f"/api/v1/namespaces/{world.namespace}/pods/{pod}/eviction"
    world.cluster.kubectl("create", "--raw", path, "-f", "-", manifest=wish)


def delete_pod(world: World, pod: str, *flags: str) -> None:
    """By hand, without waiting for its end."""
    world.kubectl("delete", "pod", pod, "--wait=false", *flags)


def force_delete_pod(world: World, pod: str) -> None:
    """By hand, its name free at once."""
    delete_pod(world, pod, "--force", "--grace-period=0")


def supersede(world: World, training: str, claim: str = "data") -> None:
    """Another owner takes the run on the volume."""
    page = {"uid": "another", "attempt": 9, "podUid": "another", "startTime": "2026-11-22T10:00:00.000000+00:00"}
    (world.volumes[claim].folder / "runs" / training / "attempt").write_text(json.dumps(page))


def recreate(world: World, training: str) -> str:
    """Delete a training and make it again at once under its name; returns the new one's uid."""
    world.kubectl("delete", "ltx2training", training)
    world.make(training)
    return world.uid(training)


def operators(world: World) -> Iterator[Process]:
    """The operator's processes on the nodes."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            ours = b"operator" in words and any(word.endswith(b"/ltx2") for word in words)
            if ours and world.namespace_of(int(folder.name)):
                yield Process.of("operator", int(folder.name))


def kill_operator(world: World) -> None:
    """kill -9 of its process on the node; the kubelet starts another in the same pod."""
    process = next(operators(world), None)
    assert process, "no process of the operator"
    os.kill(process.pid, signal.SIGKILL)


def delete_operator(world: World) -> None:
    """Its pod, by hand; the Deployment makes another."""
    label = f"--selector=app.kubernetes.io/name={DEPLOYMENT}"
    world.cluster.kubectl("delete", "pod", "-n", NAMESPACE, label, "--force", "--grace-period=0", "--wait=false")
