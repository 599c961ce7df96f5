"""Claims get volumes that pods of both nodes write; limits and growth are real; GPUs are counted."""

import time
from typing import Any

import pytest

from cluster.boxes import container, pod
from cluster.harness.cluster import Cluster

pytestmark = pytest.mark.cluster


def claim(name: str, size: str, mode: str = "ReadWriteMany", storage_class: str | None = None) -> dict[str, Any]:
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": size}}, "storageClassName": storage_class}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def writer(name: str, claim_name: str, *arguments: str, **more: Any) -> dict[str, Any]:
    box = container(*arguments, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}
    return pod(name, box, volumes=[volume], **more)


def run(cluster: Cluster, namespace: str, manifest: dict[str, Any], phase: str) -> None:
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=manifest)
    name = manifest["metadata"]["name"]
    wanted = f"--for=jsonpath={{.status.phase}}={phase}"
    cluster.kubectl("wait", f"pod/{name}", wanted, "-n", namespace, "--timeout=60s")


def test_pods_of_both_nodes_write_into_one_claim(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=claim("shared", "1Gi"))
    for node in ("node-1", "node-2"):
        box = writer(node, "shared", "write", f"/data/{node}", node, nodeName=node)
        run(cluster, namespace, box, "Succeeded")
    folder = cluster.claim_folder(namespace, "shared")
    assert {file.name: (file.read_text(), file.stat().st_uid) for file in folder.iterdir()} == {
        "node-1": ("node-1", 65532),
        "node-2": ("node-2", 65532),
    }
    cluster.kubectl("delete", "pod", "node-1", "node-2", "-n", namespace)
    cluster.kubectl("delete", "pvc", "shared", "-n", namespace)
    end = time.monotonic() + 20
    while folder.exists():
        assert time.monotonic() < end, "the volume of a deleted claim stays"
        time.sleep(0.1)


def test_a_limited_claim_is_full_until_it_grows(cluster: Cluster, namespace: str) -> None:
    text = "x" * 100_000
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=claim("tight", "64Ki", storage_class="limited"))
    run(cluster, namespace, writer("full", "tight", "write", "/data/a", text), "Failed")
    assert "no space left on device" in cluster.kubectl("logs", "full", "-n", namespace)
    grown = '{"spec":{"resources":{"requests":{"storage":"1Mi"}}}}'
    cluster.kubectl("patch", "pvc", "tight", "-n", namespace, "-p", grown)
    wanted = "--for=jsonpath={.status.capacity.storage}=1Mi"
    cluster.kubectl("wait", "pvc/tight", wanted, "-n", namespace, "--timeout=20s")
    run(cluster, namespace, writer("fits", "tight", "write", "/data/a", text), "Succeeded")


def test_gpus_are_given_once(cluster: Cluster, namespace: str) -> None:
    node = cluster.nodes[0]
    offered = cluster.kubectl.get("node", node.name)["status"]["allocatable"]["nvidia.com/gpu"]
    cluster.set_gpus(node, "nvidia.com/gpu", 1, {})
    try:
        for name in ("first", "second"):
            box = container("sleep", "600", resources={"limits": {"nvidia.com/gpu": "1"}})
            cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=pod(name, box))
            wanted = "{.status.phase}=Running" if name == "first" else "{.status.conditions[0].reason}=Unschedulable"
            cluster.kubectl("wait", f"pod/{name}", f"--for=jsonpath={wanted}", "-n", namespace, "--timeout=60s")
        placed = cluster.kubectl.get("pod", "first", "-n", namespace)["spec"]["nodeName"]
        assert placed == node.name
    finally:
        cluster.set_gpus(node, "nvidia.com/gpu", int(offered), {})
