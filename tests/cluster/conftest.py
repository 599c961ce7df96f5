"""A Kubernetes for the tests here: `control_plane` (API server and controllers) and `cluster` (with nodes)."""

import os
from collections.abc import Iterator
from pathlib import Path

import kubernetes
import pytest

from cluster.harness import alone
from cluster.harness import cluster as clusters
from cluster.harness.binaries import Missing
from cluster.harness.client import Kubectl, api_client
from cluster.harness.cluster import Cluster


def _missing(why: Missing) -> None:
    """Skip what needs a cluster; where one must be had (LTX2_REQUIRE_CLUSTER=1, as in CI) that is a failure."""
    if os.environ.get("LTX2_REQUIRE_CLUSTER"):
        pytest.fail(f"LTX2_REQUIRE_CLUSTER is set and there is no cluster: {why}")
    pytest.skip(str(why))


class ControlPlaneHandle:
    """What a test needs of a control plane."""

    def __init__(self, kubeconfig: Path, audit_log: Path) -> None:
        self.kubeconfig = kubeconfig
        self.audit_log = audit_log
        self.kubectl = Kubectl(kubeconfig)

    def api(self) -> kubernetes.client.ApiClient:
        """The official client as administrator."""
        return api_client(self.kubeconfig)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlaneHandle]:
    """etcd, API server and controllers without any node: pods stay Pending. Needs Go the first time, never root."""
    try:
        plane = alone.control_plane(tmp_path_factory.mktemp("control-plane"))
    except Missing as why:
        _missing(why)
        raise
    try:
        yield ControlPlaneHandle(plane.kubeconfig("admin"), plane.audit_log)
    finally:
        plane.end()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with real containers, DNS, services. Needs Go the first time, root, containerd and friends.

    LTX2_CLUSTER=NAME uses the cluster that `make cluster NAME=...` has brought up, and leaves it running.
    """
    wanted = os.environ.get("LTX2_CLUSTER")
    if wanted:
        running = clusters.find(wanted)
        assert running is not None, f"LTX2_CLUSTER={wanted}: no such cluster runs; make cluster NAME={wanted}"
        yield running
        return
    name = f"test-{os.getpid()}"
    try:
        running = clusters.up(name, bound=True)
    except Missing as why:
        _missing(why)
        raise
    yield running
    clusters.down(name)


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, in its `cluster` if it has one, else in its `control_plane`; then deleted."""
    where = "cluster" if "cluster" in request.fixturenames else "control_plane"
    kubectl = request.getfixturevalue(where).kubectl
    name = f"test-{os.urandom(4).hex()}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
