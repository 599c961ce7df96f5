"""How tests and people talk to a cluster: kubectl and the official client, as the cluster's administrator."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes

from patience import until

from . import binaries


class KubectlFailed(AssertionError):
    """kubectl ended with another code than 0; the message is what it said."""

    def __init__(self, arguments: tuple[str, ...], code: int, said: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: exit code {code}: {said}")
        self.code = code
        self.said = said


@dataclass(frozen=True)
class Kubectl:
    """kubectl of the cluster's own version."""

    kubeconfig: Path

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


def ready(kubectl: Kubectl) -> bool:
    """Whether the API server says that it is ready."""
    return kubectl.run("get", "--raw", "/readyz").returncode == 0


def api_client(kubeconfig: Path) -> kubernetes.client.ApiClient:
    """The official client with a connection pool of its own."""
    return kubernetes.config.new_client_from_config(str(kubeconfig))
