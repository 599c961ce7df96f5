"""The chart on a real API server, with both helms: install, upgrade, uninstall, rights, and what is kept."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chart_cases import FULL
from clients import CHART, run_helm
from ltx2_operator.api import API_VERSION, KIND
from patience import until

from .harness.binaries import Missing
from .harness.client import established, undefined
from .harness.prometheus import define_monitors
from .installed import Installed
from .required import missing

pytestmark = pytest.mark.cluster

NAMESPACE, RELEASE = "ltx2-system", "ltx2-operator"
DEFINITION = "ltx2trainings.ltx2.dev"
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
        established(self.kubectl, DEFINITION)

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
    made.kubectl("delete", f"crd/{DEFINITION}", "--ignore-not-found", "--wait=false")
    undefined(made.kubectl, DEFINITION)


@pytest.fixture(scope="module")
def prometheus_operator(fresh_control_plane: Any) -> None:
    """The real definitions of PodMonitor, ServiceMonitor and PrometheusRule."""
    try:
        define_monitors(fresh_control_plane.kubectl)
    except Missing as why:
        missing(why)


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


def test_either_helm_upgrades_what_the_other_has_installed(release: Release) -> None:
    """Helm 4 applies on the server, under a field manager of its own: Helm 3's fields must not be in its way."""
    other = {3: 4, 4: 3}[release.major]
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
    undefined(release.kubectl, DEFINITION)
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
# The same objects from either Helm (tests/chart): what the server makes of them is asked once.
once = pytest.mark.parametrize("release", [4], ids=["helm4"], indirect=True)
VERBS = {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}


def rights(release: Release, account: str, namespace: str) -> dict[str, set[str]]:
    """Resource -> verbs of a user, as `kubectl auth can-i --list` says; names of single objects in brackets."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
              "spec": {"namespace": namespace}}  # fmt: skip
    done = release.kubectl("create", "--validate=false", "-f", "-", "-o", "json", f"--as={account}", manifest=review)
    status = json.loads(done)["status"]
    assert not status["incomplete"], status
    found: dict[str, set[str]] = {}
    for rule in status["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                name, slash, sub = resource.partition("/")
                place = f"{name}.{group}{slash}{sub}" if group else resource
                place += f"[{', '.join(rule['resourceNames'])}]" if rule.get("resourceNames") else ""
                found.setdefault(place, set()).update(rule["verbs"])
    return found


@once
def test_the_account_may_do_exactly_what_the_operator_does(release: Release) -> None:
    """All that the server knows of the account, less what everybody may."""
    release.install()
    account, nobody = (f"system:serviceaccount:{NAMESPACE}:{name}" for name in (RELEASE, "nobody"))
    everybody = rights(release, nobody, "default")
    assert set(everybody) == {
        f"selfsubject{kind}.{group}.k8s.io"
        for kind, group in (("accessreviews", "authorization"), ("rulesreviews", "authorization"),
                            ("reviews", "authentication"))
    }  # fmt: skip
    everywhere = {**everybody, **NAMESPACED, "nodes": {"list", "watch"}}
    assert rights(release, account, "default") == everywhere
    assert rights(release, account, NAMESPACE) == {
        **everywhere,
        "leases.coordination.k8s.io": {"create"},
        f"leases.coordination.k8s.io[{RELEASE}]": {"get", "update"},
    }


@once
def test_watched_namespaces_are_all_that_is_seen(release: Release) -> None:
    for namespace in ("art", "ml"):
        release.kubectl("apply", "-f", "-", manifest={
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})  # fmt: skip
    release.install({"watchNamespaces": ["art"], "rbac": {"nodeReader": False, "secretReader": False}})
    account, nobody = (f"system:serviceaccount:{NAMESPACE}:{name}" for name in (RELEASE, "nobody"))
    everybody = rights(release, nobody, "ml")
    given = {key: verbs for key, verbs in NAMESPACED.items() if key != "secrets"}
    assert rights(release, account, "art") == {**everybody, **given}
    assert rights(release, account, "ml") == everybody


@once
def test_the_right_to_finalizers_lets_children_hold_their_owner(release: Release) -> None:
    """No request of its own ever uses it: the API server asks for it when a child is made."""
    release.install()
    release.kubectl("create", "-f", "-", manifest=training("fox"))
    uid = release.kubectl.get("ltx2training", "fox")["metadata"]["uid"]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": "fox", "uid": uid, "blockOwnerDeletion": True}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [owner]}}
    account = f"--as=system:serviceaccount:{NAMESPACE}:{RELEASE}"
    send = ("create", "--dry-run=server", "-n", "default", "-f", "-", account)
    # The server's check of owners learns of a new kind within ten seconds or so.
    until(lambda: release.kubectl.run(*send, manifest=child).returncode == 0, "a child is let in", 60)
    role = release.kubectl.get("clusterrole", RELEASE)
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["ltx2trainings/finalizers"]]
    release.kubectl("replace", "-f", "-", manifest=role)
    refused = ""
    for _ in range(100):  # a role comes into force within seconds
        refused = release.kubectl.run(*send, manifest=child).stderr
        if refused:
            break
    assert "cannot set blockOwnerDeletion" in refused


@once
def test_people_with_edit_make_trainings_and_people_with_view_look(release: Release) -> None:
    """Aggregation is a controller's work: it is seen on the cluster's own roles."""
    release.install()
    for role in ("view", "edit"):
        release.kubectl.run("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er", "-n", "default")
    objects, status = "ltx2trainings.ltx2.dev", "ltx2trainings.ltx2.dev/status"
    for _ in range(100):
        if objects in rights(release, "viewer", "default") and objects in rights(release, "editer", "default"):
            break
    look = {"get", "list", "watch"}
    viewer, editor = rights(release, "viewer", "default"), rights(release, "editer", "default")
    assert (viewer[objects], viewer[status]) == (look, look)
    assert (editor[objects], editor[status]) == (VERBS, look)


# ----------------------------------------------------------------------------------------------------------- with nodes


@pytest.mark.full
def test_helm_test_asks_the_running_operator(operator: Installed) -> None:
    """Once with what is there, once with a port where nothing listens: a test that cannot fail says nothing."""
    done = operator.helm("test", RELEASE, "--logs")
    assert "/readyz 200" in done.stdout
    service = f"service/{RELEASE}"
    port = operator.kubectl("get", service, "-n", NAMESPACE, "-o", "jsonpath={.spec.ports[0].port}")
    patch = '[{"op": "replace", "path": "/spec/ports/0/port", "value": %s}]'
    operator.kubectl("patch", service, "-n", NAMESPACE, "--type=json", "-p", patch % 1)
    try:
        with pytest.raises(AssertionError, match="test"):
            operator.helm("test", RELEASE)
    finally:
        operator.kubectl("patch", service, "-n", NAMESPACE, "--type=json", "-p", patch % port)
