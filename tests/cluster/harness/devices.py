"""GPUs that are not there: a node's capacity and labels as a vendor's device plugin and labeller would set them."""

import json
from typing import Any

from .client import Kubectl

NVIDIA = ("nvidia.com/gpu", {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"})
AMD = ("amd.com/gpu", {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"})


def set_gpus(kubectl: Kubectl, node: str, resource: str, count: int, labels: dict[str, str | None]) -> None:
    """Let a node offer so many GPUs of a resource, under these labels (None removes one), and wait until it does.

    The scheduler gives them to pods; there is no device in them.
    """
    path = f"/status/capacity/{resource.replace('/', '~1')}"
    patch = json.dumps([{"op": "add", "path": path, "value": str(count)}])
    kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", patch)
    words = [f"{key}-" if value is None else f"{key}={value}" for key, value in labels.items()]
    if words:
        kubectl("label", "--overwrite", "node", node, *words)
    escaped = resource.replace(".", r"\.")
    kubectl("wait", f"node/{node}", rf"--for=jsonpath={{.status.allocatable.{escaped}}}={count}", "--timeout=30s")


def allocatable(kubectl: Kubectl, node: str) -> dict[str, Any]:
    """What the node can give to pods."""
    offered: dict[str, Any] = kubectl.get("node", node)["status"]["allocatable"]
    return offered
