"""The operator is upgraded and rolled back while a training runs: its pod goes on, and nothing counts as an attempt."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from clients import CHART
from cluster.harness import build_images
from cluster.harness.cluster import Cluster
from cluster.installed import DEPLOYMENT, NAMESPACE, RELEASE, Installed
from cluster.recording import Recorder
from cluster.volumes import make_volume
from cluster.world import World, training

pytestmark = pytest.mark.cluster

PREVIOUS = "0.0.9"


@pytest.fixture
def previous(cluster: Cluster, tmp_path: Path) -> Path:
    """The chart of a release before this one, whose operator has an image of its own."""
    cluster.load_image(f"ltx2/operator:{PREVIOUS}", build_images.build("operator"))
    chart = tmp_path / "previous"
    shutil.copytree(CHART, chart)
    path = chart / "Chart.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"version": PREVIOUS, "appVersion": PREVIOUS}))
    return chart


@pytest.fixture(params=[pytest.param(3, id="helm3", marks=pytest.mark.full), pytest.param(4, id="helm4")])
def installed(request: pytest.FixtureRequest, operator: Installed) -> Iterator[Installed]:
    """The session's installation in the hands of either Helm; afterwards as the other tests want it."""
    yield dataclasses.replace(operator, major=request.param)
    operator.install()


def version(installed: Installed) -> str:
    """The version of the operator's pods that are ready."""
    installed.ready()
    pods = installed.get("deployments", DEPLOYMENT, NAMESPACE)["spec"]["template"]["spec"]
    return str(pods["containers"][0]["image"].rpartition(":")[2])


def test_a_training_goes_on_through_an_upgrade_and_a_rollback(
    cluster: Cluster, installed: Installed, previous: Path, stand_in: str, inputs: Path, restricted: str
) -> None:
    installed.helm("upgrade", RELEASE, str(previous), values=installed.values)
    assert version(installed) == PREVIOUS
    with Recorder(cluster.kubeconfig, restricted).running() as recorder:
        volumes = {"data": make_volume(cluster, restricted, inputs)}
        world = World(cluster, installed, restricted, volumes, recorder, stand_in)
        world.manifests["fox"] = training("fox", stand_in)
        world.behave("fox", {"train-1": [["checkpoint", 3], ["until", "rolled-back"]]})
        world.make("fox")
        world.started("fox")
        pod, jobs, plan = world.pod("fox"), world.jobs("fox"), world.status("fox")["plan"]

        installed.helm("upgrade", RELEASE, str(CHART), values=installed.values)
        current = version(installed)
        assert current != PREVIOUS
        assert world.pod("fox")["metadata"]["uid"] == pod["metadata"]["uid"]
        assert world.status("fox")["plan"] == plan

        installed.helm("rollback", RELEASE)
        assert version(installed) == PREVIOUS
        (world.volume.folder / "rolled-back").touch()
        world.over("fox")
        installed.wait_for(lambda: world.status("fox")["progress"]["step"] == 6, "the last step's number")
        status = world.status("fox")
    assert (status["attempt"], status.get("failures") or 0) == (1, 0), status
    assert status["plan"] == plan
    assert world.pod("fox")["metadata"]["uid"] == pod["metadata"]["uid"]
    assert [job["metadata"]["uid"] for job in world.jobs("fox")] == [job["metadata"]["uid"] for job in jobs]
    assert recorder.most_alive("fox") == 1
