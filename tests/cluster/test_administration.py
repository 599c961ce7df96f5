"""What an administrator does to an installation, with trainings in it: two releases, namespaces that come and go, a
drain, other values.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import CHART, run_helm
from cluster.harness.cluster import Cluster
from cluster.installed import (
    ACCOUNT,
    DEPLOYMENT,
    NAMESPACE,
    RELEASE,
    RESTRICTED,
    Installed,
    pod_namespace,
    refusals,
    requests_of,
)  # fmt: skip
from cluster.recording import Recorder
from cluster.volumes import make_volume
from cluster.world import World, training

pytestmark = pytest.mark.cluster

QUICK = {"leaseSeconds": 3, "renewSeconds": 2, "retrySeconds": 1}
APART = [
    {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": RELEASE}},
        "matchLabelKeys": ["pod-template-hash"],
    }
]


@pytest.fixture
def two(cluster: Cluster, operator: Installed) -> Iterator[tuple[str, str]]:
    """Two namespaces for trainings, which the operator's list has and has not in turn.

    helm takes its rights there before the old pod has ended, which may look once more.
    """
    with pod_namespace(cluster.kubectl) as one, pod_namespace(cluster.kubectl) as other:
        operator.taken.update((one, other))
        yield one, other


def make(operator: Installed, name: str, namespace: str, **spec: Any) -> None:
    """A training that no stage of is ever seen: its operator looks at it, and rejects it."""
    obj = training(name, "none", **{"config": {"max_train_steps": 5, "num_train_epochs": 2}, **spec})
    operator.kubectl("create", "-n", namespace, "-f", "-", manifest=obj)


def seen(operator: Installed, name: str, namespace: str) -> None:
    """An operator has looked at it."""
    operator.condition(name, namespace, "Accepted", status="False")


@pytest.mark.full
def test_two_releases_share_a_cluster(cluster: Cluster, operator: Installed, two: tuple[str, str]) -> None:
    """Each looks after its namespaces, with its own account; the second goes and the first does not notice."""
    mine, theirs = two
    second, account = "ltx2-second", "system:serviceaccount:{0}:{0}-ltx2-operator".format("ltx2-second")
    where = ("--namespace", second, "--kubeconfig", str(cluster.kubeconfig))
    values = {"watchNamespaces": [theirs], "crds": {"enabled": False}, "admissionPolicy": {"enabled": False}}
    cluster.kubectl("apply", "-f", "-", manifest={
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": second, "labels": RESTRICTED}})  # fmt: skip
    begun = cluster.audit_log.stat().st_size
    with operator.upgraded({"watchNamespaces": [mine]}):
        refused = run_helm(4, "install", second, str(CHART), *where, values={"watchNamespaces": [theirs]}, check=False)
        assert "cannot be imported into the current release" in refused.stderr and "ltx2trainings" in refused.stderr
        try:
            run_helm(4, "upgrade", "--install", second, str(CHART), *where, values=values)
            cluster.kubectl("rollout", "status", f"deployment/{second}-ltx2-operator", "-n", second, "--timeout=240s",
                            timeout=250)  # fmt: skip
            for namespace in two:
                make(operator, "fox", namespace)
                seen(operator, "fox", namespace)
            for who, namespace in ((ACCOUNT, mine), (account, theirs)):
                asked = requests_of(who, cluster.audit_log, begun)
                written = [each for each in asked if each["verb"] == "patch"]
                assert {each["where"].partition("/")[0] for each in written} == {namespace}, who
                assert refusals(who, cluster.audit_log, begun) == []
        finally:
            run_helm(4, "uninstall", second, *where, "--wait")
        make(operator, "bear", mine)
        seen(operator, "bear", mine)
    cluster.kubectl("delete", "namespace", second, "--wait=false")


@pytest.mark.full
def test_the_list_of_namespaces_changes(operator: Installed, two: tuple[str, str]) -> None:
    """One more, and one less: what is left alone stays as it is, and is looked at when it is back."""
    one, other = two
    with operator.upgraded({"watchNamespaces": [one]}):
        for namespace in two:
            make(operator, "fox", namespace)
        seen(operator, "fox", one)
        assert operator.status("fox", other) == {}
        with operator.upgraded({"watchNamespaces": [other]}):
            seen(operator, "fox", other)
            make(operator, "bear", one)
            assert RELEASE not in operator.names("roles", one) and RELEASE in operator.names("roles", other)
        with operator.upgraded({"watchNamespaces": [one, other]}):
            seen(operator, "bear", one)


@pytest.mark.full
def test_a_namespace_of_the_list_that_is_deleted_stops_no_other(
    cluster: Cluster, operator: Installed, two: tuple[str, str]
) -> None:
    """With the namespace went the operator's rights there; a new pod must not wait for them."""
    one, _ = two
    with pod_namespace(cluster.kubectl) as gone, operator.upgraded({"watchNamespaces": [one, gone]}):
        make(operator, "fox", gone)
        seen(operator, "fox", gone)
        operator.taken.add(gone)
        cluster.kubectl("delete", "namespace", gone, "--timeout=120s", timeout=150)
        begun = cluster.audit_log.stat().st_size
        cluster.kubectl("rollout", "restart", f"deployment/{DEPLOYMENT}", "-n", NAMESPACE)
        operator.ready()
        make(operator, "fox", one)
        seen(operator, "fox", one)
        told = refusals(ACCOUNT, cluster.audit_log, begun)
        assert {each["where"] for each in told} == {gone}, told
        said = operator.kubectl("logs", f"deployment/{DEPLOYMENT}", "-n", NAMESPACE)
        assert f"the operator may not list and watch pods in namespace {gone}" in said
        with pytest.raises(AssertionError, match=f'namespaces "{gone}" not found'):
            operator.helm("upgrade", RELEASE, str(CHART), values={"watchNamespaces": [one, gone], "workers": 5})
        again = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": gone, "labels": RESTRICTED}}
        cluster.kubectl("create", "-f", "-", manifest=again)
        make(operator, "fox", gone)
        with operator.upgraded({"watchNamespaces": [one, gone]}):
            seen(operator, "fox", gone)


def test_without_the_rights_that_may_be_refused_it_asks_for_neither(operator: Installed, restricted: str) -> None:
    """Without nodes the class auto is refused by name; without Secrets a missing one is left to the pods."""
    with operator.upgraded({"rbac": {"nodeReader": False, "secretReader": False}}):
        for verb, what in (("list", "nodes"), ("get", "secrets")):
            may = operator.kubectl.run("auth", "can-i", verb, what, "-n", restricted, f"--as={ACCOUNT}")
            assert may.stdout.strip() == "no", "a request would be refused, and fail the session"
        make(operator, "auto", restricted, gpu={"class": "auto"}, config={"max_train_steps": 5})
        said = operator.condition("auto", restricted, "Accepted", status="False")["message"]
        assert said.startswith("spec.gpu.class: auto") and "install with rbac.nodeReader" in said, said
        token = {"hubToken": {"name": "nowhere"}}
        make(operator, "token", restricted, suspend=True, secrets=token, config={"max_train_steps": 5})
        operator.condition("token", restricted, "Accepted")


def holder(operator: Installed) -> str:
    """The pod that works."""
    found = operator.get("leases", DEPLOYMENT, NAMESPACE)["spec"].get("holderIdentity") or ""
    return str(found).partition("_")[0]


@pytest.fixture
def drained(cluster: Cluster) -> Iterator[Any]:
    """Drain nodes of the operator's pods, and open them again afterwards."""
    nodes: list[str] = []

    def drain(node: str) -> None:
        nodes.append(node)
        ours = f"--pod-selector=app.kubernetes.io/name={RELEASE}"
        cluster.kubectl("drain", node, ours, "--delete-emptydir-data", "--timeout=120s", timeout=150)

    yield drain
    for node in nodes:
        cluster.kubectl("uncordon", node)


@pytest.mark.full
def test_the_leaders_node_is_drained_and_the_other_replica_goes_on(
    cluster: Cluster, operator: Installed, restricted: str, drained: Any
) -> None:
    """Never two on one node: the pod that is made for the drained one waits, and only the other can take its place."""
    with operator.upgraded({"replicaCount": 2, "leaderElection": QUICK, "topologySpreadConstraints": APART}):
        pods = {one["metadata"]["name"]: one for one in operator.objects("pods", NAMESPACE) if is_operator(one)}
        assert len({one["spec"]["nodeName"] for one in pods.values()}) == 2, "spread over the nodes"
        operator.wait_for(lambda: holder(operator) in pods, "a leader")
        first = holder(operator)
        (other,) = set(pods) - {first}
        drained(pods[first]["spec"]["nodeName"])
        operator.wait_for(lambda: holder(operator) not in ("", first), "another leader")
        assert holder(operator) == other
        make(operator, "fox", restricted)
        seen(operator, "fox", restricted)
        assert operator.get("pods", other, NAMESPACE)["status"]["containerStatuses"][0]["restartCount"] == 0


def is_operator(pod: dict[str, Any]) -> bool:
    """Whether a pod is one of the operator's that is to stay."""
    labels = pod["metadata"]["labels"]
    return labels.get("app.kubernetes.io/name") == RELEASE and "deletionTimestamp" not in pod["metadata"]


@pytest.mark.full
def test_other_values_in_the_middle_of_a_run_leave_it_alone(
    cluster: Cluster, operator: Installed, stand_in: str, inputs: Path, restricted: str
) -> None:
    """Another grace, another port of the jobs' pages, another image: the pod that runs keeps what it began with."""
    change = {
        "jobs": {"graceSeconds": 7, "metricsPort": 9999, "images": {"cpu": "nowhere/else:1"}},
        "logLevel": "debug", "workers": 2, "commonLabels": {"team": "art"},
    }  # fmt: skip
    with Recorder(cluster.kubeconfig, restricted).running() as recorder:
        volumes = {"data": make_volume(cluster, restricted, inputs)}
        world = World(cluster, operator, restricted, volumes, recorder, stand_in)
        world.manifests["fox"] = training("fox", stand_in)
        world.behave("fox", {"train-1": [["checkpoint", 3], ["until", "upgraded"]]})
        world.make("fox")
        world.started("fox")
        pod, job = world.pod("fox"), world.jobs("fox")
        with operator.upgraded(change):
            (world.volume.folder / "upgraded").touch()
            world.over("fox")
            status = world.status("fox")
        assert (status["attempt"], status.get("failures") or 0) == (1, 0), status
        assert [one["metadata"]["uid"] for one in world.jobs("fox")] == [one["metadata"]["uid"] for one in job]
        assert world.pod("fox")["metadata"]["uid"] == pod["metadata"]["uid"]
        assert recorder.most_alive("fox") == 1
        assert world.status("fox")["progress"]["step"] == 6
