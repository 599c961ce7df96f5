"""How the tests' own installation tells what is in its way. No cluster."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.installed import Installed

PRESSURE = "kubelet has disk pressure"
TAINTED = "0/1 nodes are available: 1 node(s) had untolerated taint(s)"


class Answers:
    """kubectl on a cluster whose only node has no disk left."""

    def __init__(self, code: int) -> None:
        self._code = code

    def run(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, self._code, "", "error: timed out waiting for the condition")

    def get(self, *arguments: str) -> Any:
        conditions = [
            {"type": "DiskPressure", "status": "True", "message": PRESSURE},
            {"type": "PIDPressure", "status": "False", "message": "enough"},
            {"type": "Ready", "status": "True", "message": "kubelet is posting ready status"},
        ]
        return {"items": [{"metadata": {"name": "node-1"}, "status": {"conditions": conditions}}]}

    @property
    def server(self) -> "Answers":
        return self

    def list(self, kind: str, namespace: str, selector: str) -> list[dict[str, Any]]:
        told = [{"type": "PodScheduled", "status": "False", "message": TAINTED}]
        return [{"metadata": {"name": "operator-x"}, "status": {"conditions": told}}]


def installed(code: int) -> Installed:
    return Installed(Answers(code), Path("/nowhere"))  # type: ignore[arg-type]  # what it asks of kubectl


def test_a_full_disk_is_named_where_the_operator_does_not_start() -> None:
    with pytest.raises(AssertionError) as told:
        installed(1).ready()
    assert str(told.value).splitlines()[:3] == [
        "error: timed out waiting for the condition",
        f"node-1: DiskPressure True: {PRESSURE}",
        f"operator-x: {TAINTED}",
    ]


def test_an_operator_that_is_ready_is_no_trouble() -> None:
    installed(0).ready()
