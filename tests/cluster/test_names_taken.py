"""Names that a training needs and somebody else has: told, told again by counting, and waited for."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.harness.cluster import Cluster
from cluster.installed import Installed
from cluster.recording import Recorder
from cluster.volumes import make_volume
from cluster.world import World, training

pytestmark = pytest.mark.cluster


def told(world: World, words: str) -> dict[str, Any]:
    """The event that says it, empty without one."""
    found = world.operator.objects("events", world.namespace)
    return next((one for one in found if one["reason"] == "NameTaken" and words in one["note"]), {})


@pytest.mark.full
def test_a_job_and_a_service_of_somebody_else_are_waited_for(
    cluster: Cluster, operator: Installed, stand_in: str, inputs: Path, restricted: str
) -> None:
    """A run on two nodes whose files lie in a ConfigMap. Mutation caught: a namesake taken for one's own."""
    volumes = {"data": make_volume(cluster, restricted, inputs)}
    obj = training("fox", stand_in, nodes=2, configFrom={"name": "files", "datasetsKey": "datasets.json"})
    files = {f"{key}.json": json.dumps(obj["spec"].pop(key)) for key in ("config", "datasets")}
    container = {"name": "c", "image": "none"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    others = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": files},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fox-peers"}, "spec": {"ports": [{"port": 80}]}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "fox-look-1"},
         "spec": {"suspend": True, "template": template}},
    ]  # fmt: skip
    with Recorder(cluster.kubeconfig, restricted).running() as recorder:
        world = World(cluster, operator, restricted, volumes, recorder, stand_in, {"fox": obj})
        world.kubectl("create", "-f", "-", manifest=others)
        world.make("fox")
        job = "Job fox-look-1 exists and is not of this training; delete or rename it"
        world.wait("fox", lambda: told(world, job), "a word about the Job")
        world.patch("fox", {"suspend": True})  # a pause forgets what was told
        world.wait("fox", lambda: world.reason("fox", "Suspended") == "SuspendedByUser", "the pause")
        world.patch("fox", {"suspend": False})
        world.wait("fox", lambda: (told(world, job).get("series") or {}).get("count", 0) >= 2, "the same word, counted")
        assert world.jobs("fox") == []
        world.kubectl("delete", "job", "fox-look-1")
        world.wait("fox", lambda: told(world, "Service fox-peers exists"), "a word about the Service")
        assert recorder.of("Pod", "fox", stage="train") == []
        world.kubectl("delete", "service", "fox-peers")
        world.over("fox")
        assert world.reason("fox", "Succeeded") == "Completed", world.status("fox")
        assert len({pod["metadata"]["name"] for pod in recorder.of("Pod", "fox", stage="train")}) == 2
