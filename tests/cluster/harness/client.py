"""How tests and people talk to a cluster: kubectl and the official client, as the cluster's administrator."""

import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
import urllib3

from patience import until

from . import binaries


class RequestFailed(AssertionError):
    """The API server refused, or did not answer; the message is what was said."""


class KubectlFailed(RequestFailed):
    """kubectl ended with another code than 0; the message is what it said."""

    def __init__(self, arguments: tuple[str, ...], code: int, said: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: exit code {code}: {said}")
        self.code = code
        self.said = said


# Where the API server has what tests look at.
_GROUPS = {
    **dict.fromkeys(("configmaps", "persistentvolumeclaims", "pods", "secrets", "services"), "api/v1"),
    "deployments": "apis/apps/v1",
    "events": "apis/events.k8s.io/v1",
    "jobs": "apis/batch/v1",
    "leases": "apis/coordination.k8s.io/v1",
    "ltx2trainings": "apis/ltx2.dev/v1alpha1",
    "roles": "apis/rbac.authorization.k8s.io/v1",
}


class Server:
    """The API server, asked from this process: who waits asks often, and each kubectl takes a tenth of a second of a
    core.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._api = api_client(kubeconfig)

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """One object; kind: a key of _GROUPS. Raises RequestFailed."""
        return self._read(f"/{_GROUPS[kind]}/namespaces/{namespace}/{kind}/{name}")

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a namespace, of all labels or of those selected. Raises RequestFailed."""
        found = self._read(f"/{_GROUPS[kind]}/namespaces/{namespace}/{kind}", labelSelector=selector)
        kind_of_one = found["kind"].removesuffix("List")  # the items of a list do not say it
        return [{"kind": kind_of_one, **one} for one in found["items"]]

    def _read(self, path: str, **query: str) -> dict[str, Any]:
        request = self._api.param_serialize("GET", path, query_params=[*query.items()], auth_settings=["BearerToken"])
        try:
            answer = self._api.call_api(*request, _request_timeout=30)
            text = answer.read()
        except (urllib3.exceptions.HTTPError, kubernetes.client.ApiException) as why:
            raise RequestFailed(f"GET {path}: {why}") from why
        if answer.status != 200:
            raise RequestFailed(f"GET {path}: {answer.status}: {text.decode(errors='replace')}")
        return dict(json.loads(text))

    @contextlib.contextmanager
    def namespace(self, **labels: str) -> Iterator[str]:
        """A namespace with a name of its own for the time of the body; nobody waits until it has gone."""
        core = kubernetes.client.CoreV1Api(self._api)
        name = f"test-{os.urandom(4).hex()}"
        core.create_namespace({"metadata": {"name": name, "labels": labels}})
        try:
            yield name
        finally:
            core.delete_namespace(name)


@dataclass(frozen=True)
class Kubectl:
    """kubectl of the cluster's own version."""

    kubeconfig: Path

    @functools.cached_property
    def server(self) -> Server:
        """Where it sends its requests, without it."""
        return Server(self.kubeconfig)

    def __call__(self, *arguments: str, manifest: Any = None, timeout: float = 120) -> str:
        """Run it; a manifest (text, an object or a list of them) goes to its standard input, for `-f -`.

        Raises:
            KubectlFailed: it refused.
        """
        done = self.run(*arguments, manifest=manifest, timeout=timeout)
        if done.returncode:
            raise KubectlFailed(arguments, done.returncode, done.stderr)
        return done.stdout

    def run(self, *arguments: str, manifest: Any = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run it whatever it ends with."""
        if isinstance(manifest, list):
            manifest = {"apiVersion": "v1", "kind": "List", "items": manifest}
        text = manifest if manifest is None or isinstance(manifest, str) else json.dumps(manifest)
        return subprocess.run(
            [str(binaries.kube()), "kubectl", *arguments],
            input=text,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def get(self, *arguments: str) -> Any:
        """What `kubectl get ARGUMENTS` knows, as an object."""
        return json.loads(self("get", *arguments, "-o", "json"))


def established(kubectl: Kubectl, definition: str) -> None:
    """Wait until the API server serves a kind. At first it has no conditions: `kubectl wait` calls that an error."""
    wait = ("wait", f"crd/{definition}", "--for=condition=Established", "--timeout=30s")
    until(lambda: kubectl.run(*wait).returncode == 0, f"{definition} is served", 60)


def undefined(kubectl: Kubectl, definition: str) -> None:
    """Wait until a definition that was deleted is gone.

    Deleted while its storage begins, it may be left to the next event by the API server's finalizer, whose own writes
    have met each other (409): so it gets one every ten seconds. Raises AssertionError.
    """
    for wake in range(9):
        if kubectl.run("wait", "--for=delete", f"crd/{definition}", "--timeout=10s").returncode == 0:
            return
        kubectl.run("annotate", f"crd/{definition}", f"wake={wake}", "--overwrite")
    raise AssertionError(f"{definition} was deleted and is still there")


def ready(kubectl: Kubectl) -> bool:
    """Whether the API server says that it is ready."""
    return kubectl.run("get", "--raw", "/readyz").returncode == 0


def api_client(kubeconfig: Path) -> kubernetes.client.ApiClient:
    """The official client with a connection pool of its own."""
    return kubernetes.config.new_client_from_config(str(kubeconfig))
