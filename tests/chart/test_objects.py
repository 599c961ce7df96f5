"""What the chart makes: valid objects, a restricted Deployment, and rights that are just enough."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chart_cases import FULL, MINIMAL, NAMESPACES
from clients import rendered
from crdcheck_tool import judge

SCHEMAS = "1.36"
MONITORING = ("ServiceMonitor", "PodMonitor", "PrometheusRule")

Object = dict[str, Any]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def one(objects: list[Object], kind: str) -> Object:
    (found,) = of_kind(objects, kind)
    return found


def test_every_object_is_valid_for_kubernetes(major: int, values: dict[str, Any]) -> None:
    for obj in rendered(major, values):
        if obj["kind"] in MONITORING:
            continue  # Prometheus Operator's kinds are put before their own definitions in tests/cluster
        if obj["kind"] == "CustomResourceDefinition":
            continue  # judged by the server's own code below
        kubernetes_validate.validate(obj, SCHEMAS, strict=True)


def test_the_definition_passes_the_servers_code(major: int, tmp_path: Path) -> None:
    path = tmp_path / "crd.yaml"
    path.write_text(yaml.safe_dump(one(rendered(major), "CustomResourceDefinition")))
    assert judge(path, [])["crd"] == []


def test_both_helms_make_the_same(values: dict[str, Any]) -> None:
    def ordered(major: int) -> list[Object]:
        return sorted(rendered(major, values), key=lambda o: (o["kind"], o["metadata"]["name"]))

    assert ordered(3) == ordered(4)


def test_every_object_carries_the_labels(major: int, values: dict[str, Any]) -> None:
    for obj in rendered(major, values):
        labels = obj["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "ltx2", obj["metadata"]["name"]
        assert labels["app.kubernetes.io/part-of"] == "ltx2"
        for name, text in values.get("commonLabels", {}).items():
            assert labels[name] == text


def test_names_are_unique(major: int, values: dict[str, Any]) -> None:
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in rendered(major, values)]
    assert len(names) == len(set(names))


def test_minimal_values_leave_the_operator_alone(major: int) -> None:
    kinds = {obj["kind"] for obj in rendered(major, MINIMAL)}
    assert kinds == {"Deployment", "Service", "ConfigMap"}


# ---------------------------------------------------------------------------------------------------------- deployment


def test_the_deployment_is_restricted(major: int, values: dict[str, Any]) -> None:
    pod = one(rendered(major, values), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert container["resources"]["limits"]["memory"]


def test_the_operator_is_started_with_its_settings(major: int) -> None:
    objects = rendered(major)
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert [*container["command"], *container["args"]] == [
        "ltx2", "operator", "--settings", "/etc/ltx2-operator/settings.yaml",
    ]  # fmt: skip
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["settings"] == "/etc/ltx2-operator"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["settings"]["configMap"]["name"] == one(objects, "ConfigMap")["metadata"]["name"]
    assert pod["serviceAccountName"] == one(objects, "ServiceAccount")["metadata"]["name"]
    assert container["image"] == "ltx2/operator:0.1.0"
    assert (container["livenessProbe"]["httpGet"]["path"], container["readinessProbe"]["httpGet"]["path"]) == (
        "/healthz", "/readyz",
    )  # fmt: skip


def test_values_reach_the_deployment(major: int) -> None:
    made = one(rendered(major, FULL), "Deployment")
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert made["spec"]["replicas"] == 3
    assert container["image"] == f"registry.example.org:5000/ltx2/operator@sha256:{'0a' * 32}"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert container["imagePullPolicy"] == "Always"
    assert container["ports"] == [{"name": "http", "containerPort": 9090}]
    for field in ("priorityClassName", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"):
        assert pod[field] == FULL[field], field
    assert {"name": "TZ", "value": "UTC"} in container["env"]
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    metadata = made["spec"]["template"]["metadata"]
    assert metadata["labels"]["example.org/cost"] == "art" and metadata["annotations"]["example.org/note"] == "1"


def test_openshift_may_choose_the_user(major: int) -> None:
    values = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None}}
    context = one(rendered(major, values), "Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "ltx2/operator:0.1.0"),
        ({"tag": "edge"}, "ltx2/operator:edge"),
        ({"registry": "r.example.org", "repository": "a/b", "tag": "1"}, "r.example.org/a/b:1"),
        ({"tag": "edge", "digest": "sha256:" + "1" * 64}, "ltx2/operator@sha256:" + "1" * 64),
    ],
)
def test_the_image_by_tag_or_digest(image: dict[str, str], reference: str) -> None:
    pod = one(rendered(4, {"image": image}), "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == reference


def test_other_settings_are_another_pod(major: int) -> None:
    """Mutation caught: a changed value that the running operator never reads."""

    def checksum(values: dict[str, Any]) -> str:
        metadata = one(rendered(major, values), "Deployment")["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/settings"])

    assert checksum({}) == checksum({"commonLabels": {"a": "b"}})
    assert len({checksum({}), checksum({"workers": 5}), checksum({"rbac": {"nodeReader": False}})}) == 3


def test_selectors_hold_nothing_that_changes(major: int) -> None:
    objects = rendered(major, FULL)
    chosen = {"app.kubernetes.io/name": "ltx2-operator", "app.kubernetes.io/instance": "ltx2"}
    deployment = one(objects, "Deployment")
    assert deployment["spec"]["selector"]["matchLabels"] == chosen
    assert chosen.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert one(objects, "Service")["spec"]["selector"] == chosen
    assert one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == chosen


def test_without_a_lease_two_never_run_at_once(major: int) -> None:
    made = rendered(major, {"leaderElection": {"enabled": False}})
    assert one(made, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert not [obj for obj in made if obj["metadata"]["name"].endswith("-lease")]


# --------------------------------------------------------------------------------------------------------------- rights

NAMESPACED = {
    ("ltx2.dev", "ltx2trainings"): {"get", "list", "watch", "delete"},
    ("ltx2.dev", "ltx2trainings/status"): {"patch"},
    ("ltx2.dev", "ltx2trainings/finalizers"): {"update"},
    ("batch", "jobs"): {"get", "list", "watch", "create", "delete"},
    ("", "pods"): {"list", "watch", "delete"},
    ("", "configmaps"): {"get", "create"},
    ("", "services"): {"get", "create"},
    ("", "persistentvolumeclaims"): {"get", "create"},
    ("", "events"): {"list"},
    ("events.k8s.io", "events"): {"create", "get", "patch"},
    ("kueue.x-k8s.io", "workloads"): {"list"},
    ("", "secrets"): {"get"},
}
NODES = {("", "nodes"): {"list", "watch"}}


def granted(role: Object) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def operator_roles(objects: list[Object]) -> list[Object]:
    """The roles that are bound to the operator's service account, each by its binding."""
    roles = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects if "rules" in o}
    bound = []
    for binding in (o for o in objects if "roleRef" in o):
        (subject,) = binding["subjects"]
        assert subject["kind"] == "ServiceAccount" and subject["namespace"] == "ltx2-system"
        ref = binding["roleRef"]
        namespace = binding["metadata"].get("namespace") if ref["kind"] == "Role" else None
        bound.append(roles[ref["kind"], namespace, ref["name"]])
    return bound


def test_the_whole_cluster_by_default(major: int) -> None:
    """Exactly these rights: one more or one less is seen here, and then on the audit log of a real API server."""
    roles = {(o["kind"], o["metadata"]["name"]): granted(o) for o in operator_roles(rendered(major))}
    assert roles == {
        ("ClusterRole", "ltx2-ltx2-operator"): NAMESPACED,
        ("ClusterRole", "ltx2-ltx2-operator-nodes"): NODES,
        ("Role", "ltx2-ltx2-operator-lease"): {("coordination.k8s.io", "leases"): {"get", "create", "update"}},
    }


def test_watched_namespaces_only(major: int) -> None:
    """Without the readers nothing is bound to the cluster."""
    roles = operator_roles(rendered(major, NAMESPACES))
    assert {(o["kind"], o["metadata"]["namespace"]) for o in roles} == {
        ("Role", "art"), ("Role", "ml"), ("Role", "ltx2-system"),
    }  # fmt: skip
    for role in roles:
        if role["metadata"]["namespace"] != "ltx2-system":
            assert granted(role) == {key: verbs for key, verbs in NAMESPACED.items() if key != ("", "secrets")}


def test_each_reader_is_a_right_of_its_own(major: int) -> None:
    def all_rights(rbac: dict[str, bool]) -> set[tuple[str, str]]:
        roles = operator_roles(rendered(major, {"watchNamespaces": ["art"], "rbac": rbac}))
        return {key for role in roles for key in granted(role)}

    both = all_rights({})
    assert both - all_rights({"nodeReader": False}) == {("", "nodes")}
    assert both - all_rights({"secretReader": False}) == {("", "secrets")}


def test_the_lease_is_named(major: int) -> None:
    (role,) = (o for o in operator_roles(rendered(major, FULL)) if o["metadata"]["name"].endswith("-lease"))
    for rule in role["rules"]:
        assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["one"]


def test_no_right_is_a_star(major: int, values: dict[str, Any]) -> None:
    for role in (o for o in rendered(major, values) if "rules" in o and o["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_people_get_what_their_cluster_role_says(major: int) -> None:
    roles = {o["metadata"]["name"].rpartition("-")[2]: o for o in of_kind(rendered(major), "ClusterRole")}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"

    def aggregated(role: Object) -> set[str]:
        return {key.removeprefix(prefix) for key in role["metadata"]["labels"] if key.startswith(prefix)}

    assert aggregated(roles["viewer"]) == {"view", "edit", "admin"}
    assert aggregated(roles["editor"]) == {"edit", "admin"}
    assert {verb for verbs in granted(roles["viewer"]).values() for verb in verbs} == {"get", "list", "watch"}
    editor = granted(roles["editor"])
    assert {"create", "update", "patch", "delete"} <= editor["ltx2.dev", "ltx2trainings"]
    assert "create" in editor["", "pods"] and "create" in editor["", "pods/exec"], "ltx2 upload and fetch"
    assert editor["ltx2.dev", "ltx2trainings/status"] == {"get"}, "only the operator writes what became of a run"
    alone = of_kind(rendered(major, {"rbac": {"userRoles": {"aggregate": False}}}), "ClusterRole")
    assert not any(aggregated(role) for role in alone)
