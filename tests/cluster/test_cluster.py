"""The cluster that other tests rely on: two nodes, names, services, identities and limits are those of a real one."""

import json
from typing import Any

import pytest

from cluster.boxes import container, pod, pod_spec
from cluster.harness.client import Kubectl, KubectlFailed
from cluster.harness.cluster import Cluster

pytestmark = pytest.mark.cluster
SPREAD = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"job-name": "pair"}}}
        ]
    }
}


def ended(kubectl: Kubectl, namespace: str, name: str) -> dict[str, Any]:
    """The state that the pod's first container ended in."""
    ready = "--for=jsonpath={.status.containerStatuses[0].state.terminated}"
    kubectl("wait", f"pod/{name}", ready, "-n", namespace, "--timeout=60s")
    state: dict[str, Any] = kubectl.get("pod", name, "-n", namespace)["status"]["containerStatuses"][0]["state"]
    return state["terminated"]


def test_two_nodes_of_the_pinned_release_are_ready(cluster: Cluster) -> None:
    nodes = cluster.kubectl.get("nodes")["items"]
    assert {node["metadata"]["name"] for node in nodes} == {"node-1", "node-2"}
    assert {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes} == {"v1.36.3"}
    conditions = [each for node in nodes for each in node["status"]["conditions"] if each["type"] == "Ready"]
    assert [each["status"] for each in conditions] == ["True", "True"]


def test_the_pods_of_an_indexed_job_meet_by_name_across_the_nodes(cluster: Cluster, namespace: str) -> None:
    kubectl = cluster.kubectl
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    first = container("serve", "8000", "from index 0", ports=[{"containerPort": 8000}])
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "pair"},
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "template": {"spec": pod_spec(first, subdomain="pair", affinity=SPREAD)},
        },
    }
    headless = {"clusterIP": "None", "selector": {"job-name": "pair"}}
    virtual = {"selector": {"job-name": "pair"}, "ports": [{"port": 80, "targetPort": 8000}]}
    services = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        for name, spec in (("pair", headless), ("web", virtual))
    ]
    kubectl("create", "-n", namespace, "-f", "-", manifest=[*services, job])
    kubectl("wait", "job/pair", "--for=jsonpath={.status.ready}=2", "-n", namespace, "--timeout=60s")
    pods = kubectl.get("pods", "-n", namespace, "-l", "job-name=pair")["items"]
    assert {each["spec"]["nodeName"] for each in pods} == {"node-1", "node-2"}
    names = ["pair-0.pair", f"pair-1.pair.{namespace}.svc.cluster.local", "web"]
    askers = [
        container("fetch", f"http://{name}{':8000' * (name != 'web')}", name=f"ask-{n}") for n, name in enumerate(names)
    ]
    for node in cluster.nodes:
        kubectl("create", "-n", namespace, "-f", "-", manifest=pod(f"ask-{node.name}", *askers, nodeName=node.name))
    for node in cluster.nodes:
        phase = "--for=jsonpath={.status.phase}=Succeeded"
        kubectl("wait", f"pod/ask-{node.name}", phase, "-n", namespace, "--timeout=60s")
        for n, name in enumerate(names):
            assert "from index 0" in kubectl("logs", f"ask-{node.name}", "-c", f"ask-{n}", "-n", namespace), name


def test_the_restricted_profile_is_enforced(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    loose = pod("loose", container("exit", "0"))
    loose["spec"]["securityContext"].pop("seccompProfile")
    with pytest.raises(KubectlFailed, match="violates PodSecurity"):
        cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=loose)


def test_a_pod_calls_the_api_server_with_its_own_token_and_certificate(cluster: Cluster, namespace: str) -> None:
    kubectl = cluster.kubectl
    kubectl("create", "serviceaccount", "reader", "-n", namespace)
    kubectl("create", "role", "reader", "--verb=list", "--resource=pods", "-n", namespace)
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader", "-n", namespace)
    base = f"/api/v1/namespaces/{namespace}"
    asker = pod("asker", container("api", f"{base}/pods"), container("api", f"{base}/secrets", name="beyond"))
    asker["spec"]["serviceAccountName"] = "reader"
    kubectl("create", "-n", namespace, "-f", "-", manifest=asker)
    kubectl("wait", "pod/asker", "--for=jsonpath={.status.phase}=Succeeded", "-n", namespace, "--timeout=60s")
    allowed = kubectl("logs", "asker", "-c", "box", "-n", namespace)
    assert allowed.startswith("200 OK") and '"kind":"PodList"' in allowed
    assert kubectl("logs", "asker", "-c", "beyond", "-n", namespace).startswith("403 Forbidden")
    entries = map(json.loads, cluster.audit_log.read_text().splitlines())
    mine = [entry for entry in entries if entry["user"]["username"] == f"system:serviceaccount:{namespace}:reader"]
    assert {(entry["objectRef"]["resource"], entry["responseStatus"]["code"]) for entry in mine} == {
        ("pods", 200),
        ("secrets", 403),
    }


def test_a_container_beyond_its_memory_limit_is_killed_and_named(cluster: Cluster, namespace: str) -> None:
    limits = {"limits": {"memory": "32Mi"}}
    for name, mebibytes in (("small", "8"), ("big", "100")):
        box = container("hog", mebibytes, resources=limits)
        cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=pod(name, box))
    assert ended(cluster.kubectl, namespace, "big")["reason"] == "OOMKilled"
    small = cluster.kubectl.get("pod", "small", "-n", namespace)["status"]["containerStatuses"][0]
    assert "terminated" not in small["state"]


def test_exit_codes_and_last_words_arrive(cluster: Cluster, namespace: str) -> None:
    talker = container("write", "/dev/termination-log", "the last word")
    for each in (pod("code", container("exit", "66")), pod("word", talker)):
        cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=each)
    assert ended(cluster.kubectl, namespace, "code")["exitCode"] == 66
    assert ended(cluster.kubectl, namespace, "word")["message"] == "the last word"
