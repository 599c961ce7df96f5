"""The chart on a real API server, with both helms: install, upgrade, uninstall, rights, and what is kept."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pytest

from chart_cases import FULL
from clients import CHART, run_helm
from ltx2_operator.api import API_VERSION, KIND

pytestmark = pytest.mark.cluster

NAMESPACE, RELEASE = "ltx2-system", "ltx2-operator"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
DEFINITION = "crd/ltx2trainings.ltx2.dev"
EVERYTHING = {key: value for key, value in FULL.items() if key not in ("fullnameOverride", "image")}


class Release:
    """One release of the chart on one API server."""

    def __init__(self, plane: Any, major: int) -> None:
        self.kubectl = plane.kubectl
        self.plane, self.major = plane, major

    def helm(self, *arguments: str, major: int | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run helm there; `major` for another one than the release's own."""
        where = ("--namespace", NAMESPACE, "--kubeconfig", str(self.plane.kubeconfig))
        return run_helm(major or self.major, *arguments, *where, **options)

    def install(self, values: dict[str, Any] | None = None) -> None:
        self.helm("install", RELEASE, str(CHART), "--create-namespace", values=values or {})
        self.established()

    def upgrade(self, values: dict[str, Any] | None = None, chart: Path = CHART, major: int | None = None) -> None:
        self.helm("upgrade", RELEASE, str(chart), values=values or {}, major=major)

    def established(self) -> None:
        self.kubectl("wait", "--for=condition=Established", DEFINITION, "--timeout=30s")

    def settings(self) -> str:
        return str(self.kubectl.get("configmap", f"{RELEASE}-settings", "-n", NAMESPACE)["data"]["settings.yaml"])

    def deployment(self) -> dict[str, Any]:
        return dict(self.kubectl.get("deployment", RELEASE, "-n", NAMESPACE))


@pytest.fixture(params=[3, 4], ids=["helm3", "helm4"])
def release(request: pytest.FixtureRequest, fresh_control_plane: Any) -> Iterator[Release]:
    """A release that can be installed, and nothing of it afterwards."""
    made = Release(fresh_control_plane, request.param)
    yield made
    made.helm("uninstall", RELEASE, "--wait", check=False)
    made.kubectl("delete", DEFINITION, "--ignore-not-found", "--timeout=60s")


@pytest.fixture(scope="module")
def prometheus_operator(fresh_control_plane: Any) -> None:
    """The real definitions of PodMonitor, ServiceMonitor and PrometheusRule."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go: Prometheus Operator's definitions cannot be downloaded")
    command = [go, "mod", "download", "-json", PROMETHEUS_OPERATOR]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"Prometheus Operator's definitions cannot be downloaded: {done.stdout[-300:]}{done.stderr[-300:]}")
    folder = Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    kubectl = fresh_control_plane.kubectl
    for name in ("podmonitors", "servicemonitors", "prometheusrules"):
        kubectl("apply", "--server-side", "-f", str(folder / f"monitoring.coreos.com_{name}.yaml"))
        kubectl("wait", "--for=condition=Established", f"crd/{name}.monitoring.coreos.com", "--timeout=30s")


def training(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    spec = {"config": {"max_train_steps": 5}, **spec}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


# ------------------------------------------------------------------------------------------------------------- install


def test_everything_is_taken_by_the_server(release: Release, prometheus_operator: None) -> None:
    """All options on. What the server drops or changes of our monitors would be a key that its definition lacks."""
    for namespace in ("art", "ml"):
        release.kubectl("apply", "-f", "-", manifest={
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})  # fmt: skip
    release.install(EVERYTHING)
    found = release.helm("get", "manifest", RELEASE).stdout
    strict = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-f", "-")
    release.kubectl(*strict, manifest=found)
    for kind in ("servicemonitor", "podmonitor", "prometheusrule"):
        assert release.kubectl.get(kind, "-n", NAMESPACE)["items"], kind
    assert len(release.kubectl.get("networkpolicy", "-A")["items"]) == 3


def test_notes_say_how_to_go_on(release: Release) -> None:
    done = release.helm("install", RELEASE, str(CHART), "--create-namespace", values={"rbac": {"nodeReader": False}})
    assert f"kubectl rollout status deployment/{RELEASE} -n {NAMESPACE}" in done.stdout
    assert "name a GPU class in every training" in done.stdout


# ------------------------------------------------------------------------------------------------------------- upgrade


def test_an_upgrade_changes_the_settings_and_rolls_the_pods(release: Release) -> None:
    release.install()
    before = release.deployment()["spec"]["template"]["metadata"]["annotations"]
    release.upgrade({"workers": 7})
    assert "workers: 7" in release.settings()
    assert release.deployment()["spec"]["template"]["metadata"]["annotations"] != before
    release.upgrade({"workers": 7, "replicaCount": 2})
    assert release.deployment()["spec"]["replicas"] == 2


@pytest.mark.parametrize("other", [3, 4], ids=["by helm3", "by helm4"])
def test_either_helm_upgrades_what_either_has_installed(release: Release, other: int) -> None:
    """Helm 4 applies on the server, under a field manager of its own: Helm 3's fields must not be in its way."""
    release.install()
    release.kubectl("create", "-f", "-", manifest=training("fox"))
    status = {**training("fox"), "status": {"state": "Waiting"}}
    release.kubectl("apply", "--server-side", "--subresource=status", "--field-manager=ltx2-operator", "-f", "-",
                    manifest=status)  # fmt: skip
    release.upgrade({"workers": 9}, major=other)
    release.upgrade({"workers": 5}, major=other)
    assert "workers: 5" in release.settings()
    release.upgrade({"workers": 6})
    assert "workers: 6" in release.settings()
    assert release.kubectl.get("ltx2training", "fox")["status"]["state"] == "Waiting"


def test_a_stricter_definition_leaves_old_objects_editable(release: Release, tmp_path: Path) -> None:
    release.install()
    release.kubectl("create", "-f", "-", manifest=training("old", retries=10))
    stricter = tmp_path / "chart"
    shutil.copytree(CHART, stricter)
    path = stricter / "templates" / "crd.yaml"
    text = path.read_text()
    head, mark, rest = text.partition("retries:\n")
    assert mark and "maximum: 1000" in rest
    path.write_text(head + mark + rest.replace("maximum: 1000", "maximum: 5", 1))
    release.upgrade(chart=stricter)
    refused = release.kubectl.run("create", "-f", "-", manifest=training("new", retries=10))
    for _ in range(100):  # a new schema comes into force within seconds
        if refused.returncode:
            break
        release.kubectl("delete", "ltx2training", "new")
        refused = release.kubectl.run("create", "-f", "-", manifest=training("new", retries=10))
    assert "less than or equal to 5" in refused.stderr
    release.kubectl("patch", "ltx2training", "old", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    assert release.kubectl.get("ltx2training", "old")["spec"]["retries"] == 10
    worse = release.kubectl.run("patch", "ltx2training", "old", "--type=merge", "-p", '{"spec": {"retries": 11}}')
    assert "less than or equal to 5" in worse.stderr


# ----------------------------------------------------------------------------------------------------------- uninstall


def test_uninstall_keeps_definition_objects_and_claims_and_install_finds_them(release: Release) -> None:
    release.install()
    release.kubectl("create", "-f", "-", manifest=training("fox"))
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
             "metadata": {"name": f"fox-data-{release.major}", "namespace": "default"},
             "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    release.kubectl("create", "-f", "-", manifest=claim)
    uid = release.kubectl.get("ltx2training", "fox")["metadata"]["uid"]
    release.helm("uninstall", RELEASE, "--wait")
    assert release.kubectl.get("ltx2training", "fox")["metadata"]["uid"] == uid
    assert release.kubectl.get("pvc", claim["metadata"]["name"])["metadata"].get("deletionTimestamp") is None
    left = release.kubectl.get("all,configmap,serviceaccount,role,rolebinding,pdb", "-n", NAMESPACE)["items"]
    assert not [one["metadata"]["name"] for one in left if RELEASE in one["metadata"]["name"]]
    for kind in ("clusterrole", "clusterrolebinding", "validatingadmissionpolicy", "validatingadmissionpolicybinding"):
        names = [one["metadata"]["name"] for one in release.kubectl.get(kind)["items"]]
        assert not [name for name in names if "ltx2" in name], kind
    release.install()
    assert release.kubectl.get("ltx2training", "fox")["metadata"]["uid"] == uid


def test_without_keep_the_definition_goes_and_claims_stay(release: Release) -> None:
    release.install({"crds": {"keep": False}})
    release.kubectl("create", "-f", "-", manifest=training("fox"))
    claim = f"kept-{release.major}"
    release.kubectl("create", "-f", "-", manifest={
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})  # fmt: skip
    release.helm("uninstall", RELEASE, "--wait")
    release.kubectl("wait", "--for=delete", DEFINITION, "--timeout=60s")
    assert release.kubectl.get("pvc", claim)["metadata"].get("deletionTimestamp") is None


# -------------------------------------------------------------------------------------------------------------- rights

NAMESPACED = {
    "ltx2trainings.ltx2.dev": {"get", "list", "watch", "delete"},
    "ltx2trainings.ltx2.dev/status": {"patch"},
    "ltx2trainings.ltx2.dev/finalizers": {"update"},
    "jobs.batch": {"get", "list", "watch", "create", "delete"},
    "pods": {"list", "watch", "delete"},
    "configmaps": {"get", "create"},
    "services": {"get", "create"},
    "persistentvolumeclaims": {"get", "create"},
    "events": {"list"},
    "events.events.k8s.io": {"create", "get", "patch"},
    "workloads.kueue.x-k8s.io": {"list"},
    "secrets": {"get"},
}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
FURTHER = ("pods/exec", "pods/log", "pods/eviction", "serviceaccounts/token", "nodes/proxy", "nodes/status")


class Rights:
    """What an account may do, by the server's own word."""

    def __init__(self, release: Release) -> None:
        api = release.plane.api()
        self._reviews = kubernetes.client.AuthorizationV1Api(api)
        listed = release.kubectl("api-resources", "-o", "name").split()
        self.resources = {*listed, *NAMESPACED, *FURTHER}

    def of(self, account: str, namespace: str) -> dict[str, set[str]]:
        """Resource -> verbs."""
        found: dict[str, set[str]] = {}
        for resource in sorted(self.resources):
            plain, _, sub = resource.partition("/")
            name, _, group = plain.partition(".")
            for verb in VERBS:
                attributes = {"verb": verb, "resource": name, "group": group, "subresource": sub,
                              "namespace": namespace}  # fmt: skip
                body = {"spec": {"user": account, "groups": ["system:authenticated", "system:serviceaccounts"],
                                 "resourceAttributes": attributes}}  # fmt: skip
                if self._reviews.create_subject_access_review(body).status.allowed:
                    found.setdefault(resource, set()).add(verb)
        return found


def test_the_account_may_do_exactly_what_the_operator_does(release: Release) -> None:
    """Every resource of the server with every verb, less what everybody may."""
    release.install()
    rights = Rights(release)
    account, nobody = (f"system:serviceaccount:{NAMESPACE}:{name}" for name in (RELEASE, "nobody"))
    everybody = rights.of(nobody, "default")
    found = {key: verbs - everybody.get(key, set()) for key, verbs in rights.of(account, "default").items()}
    assert {key: verbs for key, verbs in found.items() if verbs} == {**NAMESPACED, "nodes": {"list", "watch"}}
    home = rights.of(account, NAMESPACE)
    assert home["leases.coordination.k8s.io"] == {"create"}  # the others only for the Lease's own name


def test_watched_namespaces_are_all_that_is_seen(release: Release) -> None:
    for namespace in ("art", "ml"):
        release.kubectl("apply", "-f", "-", manifest={
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})  # fmt: skip
    release.install({"watchNamespaces": ["art"], "rbac": {"nodeReader": False, "secretReader": False}})
    rights = Rights(release)
    rights.resources = {*NAMESPACED, "nodes"}
    account = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
    assert rights.of(account, "art") == {key: verbs for key, verbs in NAMESPACED.items() if key != "secrets"}
    assert rights.of(account, "ml") == {}


def test_people_with_edit_make_trainings_and_people_with_view_look(release: Release) -> None:
    """Aggregation is a controller's work: it is seen on the cluster's own roles."""
    release.install()
    rights = Rights(release)
    rights.resources = {"ltx2trainings.ltx2.dev", "ltx2trainings.ltx2.dev/status"}
    for role in ("view", "edit"):
        release.kubectl.run("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er", "-n", "default")
    look = {"get", "list", "watch"}
    for _ in range(100):
        if rights.of("viewer", "default"):
            break
    assert rights.of("viewer", "default") == dict.fromkeys(rights.resources, look)
    editor = rights.of("editer", "default")
    assert editor["ltx2trainings.ltx2.dev"] == set(VERBS)
    assert editor["ltx2trainings.ltx2.dev/status"] == look
