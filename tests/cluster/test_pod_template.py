"""spec.podTemplate against a real API server: its own strategic PATCH, its schemas, its Pod Security."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes
import pytest

from ltx2_operator import strategic, template
from ltx2_operator.settings import CertificateAuthority, Proxy, Settings
from pod_patches import MALFORMED, PATCHES
from trainings import amd_plan, context, cpu_plan, plan

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture
def core(control_plane: Any) -> kubernetes.client.CoreV1Api:
    return kubernetes.client.CoreV1Api(control_plane.api())


def test_the_merge_keys_are_the_servers(control_plane: Any) -> None:
    """The file is what its script makes of this server's own schemas."""
    schemas = control_plane.kubectl("get", "--raw", "/openapi/v3/apis/batch/v1")
    script = [sys.executable, str(ROOT / "scripts" / "merge_keys.py")]
    made = subprocess.run(script, input=schemas, capture_output=True, text=True, check=True).stdout
    assert json.loads(made) == strategic.KEYS


def stored(core: Any, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """A PodTemplate as the server keeps it, defaults included."""
    made = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": body}
    core.create_namespaced_pod_template(namespace, made)
    return read(core, namespace, name)


def read(core: Any, namespace: str, name: str) -> dict[str, Any]:
    answer = core.read_namespaced_pod_template(name, namespace, _preload_content=False)
    found: dict[str, Any] = json.loads(answer.data)["template"]
    return found


def patch(core: Any, namespace: str, change: dict[str, Any]) -> None:
    """The server's own strategic merge patch of the template that it stores."""
    core.patch_namespaced_pod_template("theirs", namespace, {"template": change}, _content_type=STRATEGIC)


def base() -> dict[str, Any]:
    """A whole template of ours, in a namespace's eyes: two nodes, AMD, a proxy, certificates."""
    settings = Settings(
        image_pull_secrets=("a",), proxy=Proxy(http="http://p:1"), ca=CertificateAuthority(config_map="ca")
    )
    pod = template.template(context(amd_plan(nodes=2), settings, avoid=["bad"], nodes=2))
    pod["metadata"]["annotations"]["note"] = "x"
    return pod


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_does_what_the_server_does(core: Any, namespace: str, name: str) -> None:
    """Both start from the stored template; ours is stored again, so that defaults are filled in on both sides."""
    before = stored(core, namespace, "theirs", base())
    ours = strategic.merge(before, PATCHES[name], "spec.podTemplate")
    patch(core, namespace, PATCHES[name])
    theirs = read(core, namespace, "theirs")
    assert stored(core, namespace, "ours", ours) == theirs
    assert (theirs == before) is (name in ("nothing", "a null that meets nothing", "a variable that is not there goes"))


@pytest.mark.parametrize("name", MALFORMED)
def test_the_server_refuses_what_we_refuse(core: Any, namespace: str, name: str) -> None:
    stored(core, namespace, "theirs", base())
    with pytest.raises(kubernetes.client.ApiException) as refused:
        patch(core, namespace, MALFORMED[name][0])
    assert refused.value.status in (400, 422, 500)


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("given", [plan, amd_plan, cpu_plan], ids=["nvidia", "amd", "cpu"])
@pytest.mark.parametrize("stage", ["cache", "train"])
def test_our_pods_pass_the_restricted_standard(
    control_plane: Any, namespace: str, given: Any, nodes: int, stage: str
) -> None:
    """The control: the same pod with one right more is refused, so the standard is enforced."""
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    settings = Settings(
        image_pull_secrets=("a",), proxy=Proxy(http="http://p:1"), ca=CertificateAuthority(config_map="ca"),
        hub_endpoint="https://hub.lan", hub_offline=True,
    )  # fmt: skip
    secrets = {"hubToken": {"name": "hub"}, "objectStore": "store"}
    body = template.template(context(given(nodes=nodes, stage=stage), settings, avoid=["bad"], secrets=secrets))
    pod = {"apiVersion": "v1", "kind": "Pod", **body, "metadata": {"name": "one", **body["metadata"]}}
    create = ("create", "-n", namespace, "--dry-run=server", "--validate=strict", "-f", "-")
    control_plane.kubectl.run("create", "serviceaccount", "default", "-n", namespace)  # the controller may be later
    accepted = control_plane.kubectl.run(*create, manifest=pod)
    assert (accepted.returncode, accepted.stderr) == (0, "")
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert "violates PodSecurity" in control_plane.kubectl.run(*create, manifest=pod).stderr
