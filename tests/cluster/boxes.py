"""Pods of the cluster's own tests: containers of one static program, as the `restricted` profile wants them."""

from typing import Any

from cluster.harness.cluster import BOX_IMAGE

LOCKED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def container(*arguments: str, name: str = "box", **more: Any) -> dict[str, Any]:
    """A container that runs the box with these arguments."""
    return {"name": name, "image": BOX_IMAGE, "args": list(arguments), "securityContext": LOCKED, **more}


def pod_spec(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pod's spec of these containers."""
    security = {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": security,
        "containers": list(containers),
        **more,
    }


def pod(name: str, *containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pod of these containers."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod_spec(*containers, **more)}
