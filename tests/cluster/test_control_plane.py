"""The control plane that other tests rely on: real admission, real controllers, real permissions, an audit log."""

import json
from base64 import b64decode
from typing import Any

import kubernetes
import pytest

from cluster.harness.certificates import write_kubeconfig
from cluster.harness.client import Kubectl

pytestmark = pytest.mark.cluster


def test_versions_and_kinds_are_those_of_the_pinned_release(control_plane: Any) -> None:
    version = json.loads(control_plane.kubectl("version", "-o", "json"))
    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"] == "v1.36.3"


def test_controllers_make_the_pods_of_a_job_and_collect_them(control_plane: Any, namespace: str) -> None:
    kubectl: Kubectl = control_plane.kubectl
    kubectl("create", "job", "sum", "--image=none", "-n", namespace)
    kubectl("wait", "job/sum", "--for=jsonpath={.status.active}=1", "-n", namespace, "--timeout=20s")
    assert len(kubectl.get("pods", "-n", namespace, "-l", "job-name=sum")["items"]) == 1
    kubectl("delete", "job", "sum", "-n", namespace, "--cascade=foreground")
    assert kubectl.get("pods", "-n", namespace)["items"] == []


def test_an_owner_reference_that_blocks_needs_the_right_to_finalize(control_plane: Any, namespace: str) -> None:
    kubectl: Kubectl = control_plane.kubectl
    kubectl("create", "serviceaccount", "plain", "-n", namespace)
    kubectl("create", "role", "maps", "--verb=create", "--resource=configmaps", "-n", namespace)
    kubectl("create", "rolebinding", "maps", "--role=maps", f"--serviceaccount={namespace}:plain", "-n", namespace)
    owner = kubectl.get("serviceaccount", "plain", "-n", namespace)
    reference = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "plain", "uid": owner["metadata"]["uid"]}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [reference]}}
    as_plain = ("create", "-n", namespace, f"--as=system:serviceaccount:{namespace}:plain", "-f", "-")
    kubectl(*as_plain, manifest=child)
    child["metadata"] = {"name": "blocking", "ownerReferences": [{**reference, "blockOwnerDeletion": True}]}
    refused = kubectl.run(*as_plain, manifest=child)
    assert "cannot set blockOwnerDeletion" in refused.stderr


def test_a_token_of_nobody_is_refused_and_the_audit_log_says_so(control_plane: Any, tmp_path: Any) -> None:
    admin = json.loads(control_plane.kubeconfig.read_text())
    authority = tmp_path / "ca.crt"
    authority.write_bytes(b64decode(admin["clusters"][0]["cluster"]["certificate-authority-data"]))
    server = admin["clusters"][0]["cluster"]["server"]
    nobody = write_kubeconfig(tmp_path / "nobody", authority, server, "nobody", "no-such-token")
    core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(nobody)))
    with pytest.raises(kubernetes.client.ApiException) as refused:
        core.list_namespaced_secret("kube-system")
    assert refused.value.status == 401
    requests = [json.loads(line) for line in control_plane.audit_log.read_text().splitlines()]
    secrets = [entry for entry in requests if entry["requestURI"] == "/api/v1/namespaces/kube-system/secrets"]
    assert 401 in {entry["responseStatus"]["code"] for entry in secrets}
