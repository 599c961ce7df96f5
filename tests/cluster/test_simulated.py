"""Simulated nodes: the real scheduler and controllers, the chart's objects, the operator as a process beside them."""

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from patience import until

from .harness import simulated
from .harness.simulated import Simulated
from .installed import ACCOUNT, DEPLOYMENT, NAMESPACE, RELEASE, Installed, refusals
from .operators import Operator, token_of

pytestmark = pytest.mark.cluster

ASK = "simulated.test/"
TESTS = Path(__file__).resolve().parents[1]


def training(name: str, **asked: str) -> dict[str, Any]:
    """A training of one H100 whose pods do as asked."""
    clips = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}
    config = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "max_train_steps": 1000, "validation_disable": True}
    spec: dict[str, Any] = {
        "gpu": {"class": "h100-80g"}, "storage": {"claimName": "data"}, "config": config, "datasets": [clips],
        "podTemplate": {"metadata": {"annotations": {f"{ASK}{key.replace('_', '-')}": asked[key] for key in asked}}},
    }  # fmt: skip
    return {"apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def installed(simulated_nodes: Simulated) -> Installed:
    """The chart's objects. Its Deployment's pod pretends, as all pods here."""
    made = Installed(simulated_nodes.kubectl, simulated_nodes.kubeconfig)
    made.install()
    simulated_nodes.kubectl("create", "namespace", "ml")
    simulated_nodes.add_claim("ml")
    return made


@pytest.fixture(scope="module")
def pages(simulated_nodes: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port on which simulated pods show their progress."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "cluster.simulated_pages", str(simulated_nodes.kubeconfig), str(port)]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], cwd=TESTS)
    yield port
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def operator(
    simulated_nodes: Simulated, installed: Installed, pages: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """The operator with the chart's settings and the token of its service account; it is refused nothing."""
    folder = tmp_path_factory.mktemp("operator")
    kubeconfig = token_of(simulated_nodes, NAMESPACE, DEPLOYMENT, folder)
    written = simulated_nodes.kubectl.get("configmap", f"{RELEASE}-settings", "-n", NAMESPACE)
    settings = yaml.safe_load(written["data"]["settings.yaml"])
    settings["jobs"]["metricsPort"] = pages
    del settings["port"]
    began = simulated_nodes.audit_log.stat().st_size
    process = Operator(kubeconfig, NAMESPACE, folder, **settings)
    yield process
    assert process.end() == 0
    assert refusals(ACCOUNT, simulated_nodes.audit_log, began) == []


def test_a_training_goes_from_apply_to_succeeded(
    simulated_nodes: Simulated, operator: Operator, installed: Installed
) -> None:
    simulated_nodes.kubectl("apply", "-n", "ml", "-f", "-", manifest=training("fox"))
    done = installed.condition("fox", "ml", "Succeeded")
    assert done["reason"] == "Completed"
    found = installed.status("fox", "ml")
    assert (found["attempt"], found["state"], found["progressText"]) == (1, "Succeeded", "1000/1000")
    events = installed.events("fox", "ml")
    assert [one for one in events if one in ("Accepted", "CacheReady", "Succeeded")] == [
        events[0],
        "CacheReady",
        events[-1],
    ]
    pods = {one["metadata"]["labels"]["ltx2.dev/stage"]: one for one in installed.objects("pods", "ml")}
    assert set(pods) == {"cache", "train"}
    assert {one["status"]["phase"] for one in pods.values()} == {"Succeeded"}
    assert {one["spec"]["nodeName"] for one in pods.values()} == {"gpu-1"}  # the scheduler's choice


def test_an_exit_code_is_a_verdict_and_another_attempt(
    simulated_nodes: Simulated, operator: Operator, installed: Installed
) -> None:
    simulated_nodes.kubectl("apply", "-n", "ml", "-f", "-", manifest=training("owl", exit_code="65"))
    assert installed.condition("owl", "ml", "Failed")["reason"] == "DataError"


@pytest.mark.full
def test_a_page_is_read_while_a_pod_runs_until_it_is_told_to_end(
    simulated_nodes: Simulated, operator: Operator, installed: Installed, pages: int
) -> None:
    kubectl = simulated_nodes.kubectl
    kubectl("apply", "-n", "ml", "-f", "-", manifest=training("bear", train="24h"))
    until(lambda: installed.status("bear", "ml").get("progressText") == "1000/100000", "the page's step", 60)
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{pages}/move", method="POST"), timeout=10)
    until(lambda: installed.status("bear", "ml")["progress"]["step"] > 1000, "further steps", 90)
    chosen = "ltx2.dev/training=bear,ltx2.dev/stage=train"
    kubectl("annotate", "pod", "-n", "ml", "-l", chosen, f"{ASK}end=80")
    event = until(lambda: [one for one in installed.events("bear", "ml") if one == "GPUOutOfMemory"], "the verdict", 60)
    assert event == ["GPUOutOfMemory"]


def test_a_pod_that_fits_nowhere_waits_and_says_why(
    simulated_nodes: Simulated, operator: Operator, installed: Installed
) -> None:
    big = training("whale")
    big["spec"]["gpu"] = {"class": "mi300x"}
    simulated_nodes.kubectl("apply", "-n", "ml", "-f", "-", manifest=big)
    chosen = "ltx2.dev/training=whale"
    until(
        lambda: [one for one in installed.objects("pods", "ml", chosen) if _unscheduled(one)], "a pod in no place", 60
    )
    until(lambda: installed.status("whale", "ml").get("state") == "Waiting", "a training that waits", 60)
    pods = [one for one in installed.objects("pods", "ml", chosen) if one["status"]["phase"] == "Running"]
    assert pods == []


def _unscheduled(pod: dict[str, Any]) -> bool:
    found = {one["type"]: one for one in pod["status"].get("conditions") or []}
    return str(found.get("PodScheduled", {}).get("reason")) == "Unschedulable"


@pytest.mark.full
def test_one_that_outlives_its_command_is_found_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make cluster` where nodes cannot run."""
    monkeypatch.setattr(simulated, "folder_of", lambda name: tmp_path / name)
    made = simulated.up("test")
    try:
        found = simulated.find("test")
        assert found is not None
        listed = found.kubectl.get("nodes")["items"]
        offered = [one["status"]["allocatable"] for one in listed]
        assert [one.get("nvidia.com/gpu") or one.get("amd.com/gpu") for one in offered] == ["8", "8"]
        before = found.kubectl.get("leases", "-n", "kube-node-lease")["items"]
        until(lambda: found.kubectl.get("leases", "-n", "kube-node-lease")["items"] != before, "renewed leases", 60)
    finally:
        simulated.down("test")
    assert not any(process.alive for process in made.processes)
    assert simulated.find("test") is None
    assert not (tmp_path / "test").exists()
