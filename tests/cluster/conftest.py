"""A Kubernetes for the tests here: `control_plane` (API server and controllers) and `cluster` (with nodes)."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes
import pytest

from clips import demo_clips
from cluster import rights
from cluster import stand_in as stand_in_image
from cluster.harness import alone, build_images, simulated
from cluster.harness import cluster as clusters
from cluster.harness.binaries import Missing
from cluster.harness.client import Kubectl, api_client
from cluster.harness.cluster import Cluster
from cluster.harness.devices import NVIDIA
from cluster.harness.simulated import Simulated
from cluster.installed import ACCOUNT, IMAGES, Installed, pod_namespace, refusals, requests_of
from cluster.required import missing
from cluster.volumes import Volume, make_volume


@pytest.hookimpl(tryfirst=True)  # before pytest reads -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on the cluster with nodes: `make test` has a process for it, and another for the rest."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.nodes)


class ControlPlaneHandle:
    """What a test needs of a control plane."""

    def __init__(self, kubeconfig: Path, audit_log: Path) -> None:
        self.kubeconfig = kubeconfig
        self.audit_log = audit_log
        self.kubectl = Kubectl(kubeconfig)

    def api(self) -> kubernetes.client.ApiClient:
        """The official client as administrator."""
        return api_client(self.kubeconfig)


def _control_plane(folder: Path) -> Iterator[ControlPlaneHandle]:
    try:
        plane = alone.control_plane(folder)
    except Missing as why:
        missing(why)
    try:
        yield ControlPlaneHandle(plane.kubeconfig("admin"), plane.audit_log)
    finally:
        plane.end()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlaneHandle]:
    """etcd, API server and controllers without any node: pods stay Pending. Needs Go the first time, never root."""
    yield from _control_plane(tmp_path_factory.mktemp("control-plane"))


@pytest.fixture(scope="module")
def fresh_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlaneHandle]:
    """Another one, with nothing in it: for tests that install what belongs to the whole cluster."""
    yield from _control_plane(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def simulated_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """A control plane with one simulated node of eight H100: pods run and end, nothing is executed."""
    try:
        made = simulated.bring_up(tmp_path_factory.mktemp("simulated"))
    except Missing as why:
        missing(why)
        raise
    try:
        made.add_nodes(["gpu-1"], *NVIDIA)
        yield made
    finally:
        made.end()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with real containers, DNS, services. Needs Go the first time, root, containerd and friends.

    TEST_CLUSTER=NAME uses the cluster that `make cluster NAME=...` has brought up, and leaves it running.
    """
    wanted = os.environ.get("TEST_CLUSTER")
    if wanted:
        running = clusters.find(wanted)
        assert running is not None, f"TEST_CLUSTER={wanted}: no such cluster runs; make cluster NAME={wanted}"
        yield running
        return
    name = f"test-{os.getpid()}"
    try:
        running = clusters.up(name, bound=True)
    except Missing as why:
        missing(why)
    yield running
    clusters.down(name)


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, in its `cluster` if it has one, else in its `control_plane`; then deleted."""
    where = "cluster" if "cluster" in request.fixturenames else "control_plane"
    with request.getfixturevalue(where).kubectl.server.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def operator(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The operator as the chart installs it, from the shipped Dockerfile's images, under its own service account.

    A single request of it that is refused for lack of a right (403) fails the session. With TEST_RIGHTS_OUT=FILE the
    rights that it has used are written there.
    """
    _load(cluster, IMAGES["operator"], lambda: build_images.build("operator"))
    installed = Installed(cluster.kubectl, cluster.kubeconfig)
    begun = cluster.audit_log.stat().st_size
    installed.install()
    yield installed
    asked = requests_of(ACCOUNT, cluster.audit_log, begun)
    assert asked, "the audit log knows nothing of the operator"
    refused = refusals(ACCOUNT, cluster.audit_log, begun, installed.taken)
    version = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    rights.write_down(asked, version, request.session.testscollected)
    installed.uninstall()
    assert not refused, f"the operator lacks a right: {refused}"


def _load(cluster: Cluster, name: str, build: Callable[[], str]) -> None:
    try:
        cluster.load_image(name, build())
    except Missing as why:
        missing(why)


@pytest.fixture(scope="session")
def job_image(cluster: Cluster) -> None:
    """What trains without a GPU, under the name that pods call it by. Large: 13 GB in the nodes' store."""
    _load(cluster, IMAGES["job-cpu"], lambda: build_images.build("job-cpu"))


@pytest.fixture(scope="session")
def stand_in(cluster: Cluster) -> str:
    """The image of jobs that end as a test wants, for spec.images."""
    _load(cluster, stand_in_image.IMAGE, stand_in_image.build)
    return stand_in_image.IMAGE


@pytest.fixture
def restricted(operator: Installed) -> Iterator[str]:
    """A namespace of the test's own under the restricted Pod Security standard."""
    with pod_namespace(operator.kubectl) as name:
        yield name


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Path:
    """A workspace with three real clips and a tiny model."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(tiny20.parent, folder / "models")
    shutil.copytree(demo_clips(), folder / "datasets" / "videos")
    return folder


@pytest.fixture
def volume(cluster: Cluster, restricted: str, inputs: Path) -> Volume:
    """A claim that both nodes write, with the inputs in it."""
    return make_volume(cluster, restricted, inputs)
