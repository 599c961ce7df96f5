"""A pod template after one modifier, and what tests look at in it."""

from collections.abc import Callable
from typing import Any

from ltx2_operator.pods import Context

Modifier = Callable[[dict[str, Any], Context], None]


def applied(modify: Modifier, given: Context) -> dict[str, Any]:
    """The empty pod after one modifier."""
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "job"}]}}
    modify(pod, given)
    return pod


def container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def env(pod: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(pod).get("env", [])}


def mounts(pod: dict[str, Any]) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in container(pod)["volumeMounts"]}
