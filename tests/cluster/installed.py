"""The operator as the chart installs it, from the image of the shipped Dockerfile, under its own service account."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients import CHART, run_helm
from ltx2_operator import __version__

from .harness.client import Kubectl

RELEASE = "ltx2-operator"
NAMESPACE = "ltx2-system"
DEPLOYMENT = "ltx2-operator"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{DEPLOYMENT}"
# What pods call the images of the Dockerfile's targets: the names that chart and operator have by default.
IMAGES = {"operator": f"ltx2/operator:{__version__}", "job-cpu": f"ltx2/job-cpu:{__version__}"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PATIENCE = 300.0  # seconds before something that is waited for counts as lost, on a busy machine too


@dataclass
class Installed:
    """One installation: helm's values, and how a user asks the cluster."""

    kubectl: Kubectl
    kubeconfig: Path
    values: dict[str, Any] = field(default_factory=dict)
    major: int = 4
    taken: set[str] = field(default_factory=set)  # namespaces whose rights a test has taken from it

    def helm(self, *arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run helm against this cluster. Raises AssertionError with what it said if it fails."""
        where = ["--namespace", NAMESPACE, "--kubeconfig", str(self.kubeconfig)]
        if arguments[0] == "upgrade":
            where.append("--reset-values")  # without values it would keep those of the release before
        return run_helm(self.major, *arguments, *where, values=None if values is None else dict(values))

    def install(self) -> None:
        """helm install (or upgrade, where an earlier session has left it), and wait until the operator is ready.

        The release's namespace enforces the restricted Pod Security standard.
        """
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}}
        self.kubectl("apply", "-f", "-", manifest=namespace)
        self.helm("upgrade", "--install", RELEASE, str(CHART), "--create-namespace", values=self.values)
        self.ready()

    def uninstall(self) -> None:
        """helm uninstall; the definition and the objects stay (crds.keep)."""
        self.helm("uninstall", RELEASE)

    def ready(self) -> None:
        """Wait until every replica of the newest version answers /readyz. AssertionError: what is in the way."""
        asked = ("rollout", "status", f"deployment/{DEPLOYMENT}", "-n", NAMESPACE, f"--timeout={PATIENCE:.0f}s")
        done = self.kubectl.run(*asked, timeout=PATIENCE + 30)
        assert done.returncode == 0, "\n".join([done.stderr.strip(), *self._in_the_way()])

    def _in_the_way(self) -> list[str]:
        """What nodes lack, and what the operator's pods that are not ready wait for."""
        said = []
        for node in self.kubectl.get("nodes")["items"]:
            for each in node["status"]["conditions"]:
                if (each["type"] == "Ready") != (each["status"] == "True"):
                    said.append(f"{node['metadata']['name']}: {each['type']} {each['status']}: {each['message']}")
        for pod in self.objects("pods", NAMESPACE):
            states = [each.get("state") or {} for each in pod["status"].get("containerStatuses") or []]
            told = [each.get("message") for each in pod["status"].get("conditions") or []]
            told += [each.get("message") or each.get("reason") for state in states for each in state.values()]
            said += [f"{pod['metadata']['name']}: {words}" for words in dict.fromkeys(filter(None, told))]
        return said

    @contextlib.contextmanager
    def upgraded(self, change: Mapping[str, Any]) -> Iterator[None]:
        """helm upgrade with other values, and back."""
        try:
            self.helm("upgrade", RELEASE, str(CHART), values={**self.values, **change})
            self.ready()
            yield
        finally:
            self.helm("upgrade", RELEASE, str(CHART), values=self.values)
            self.ready()

    # ------------------------------------------------------------------------------------------------------- looking

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """One object; kind: its plural, as in the API server's addresses."""
        return self.kubectl.server.get(kind, name, namespace)

    def objects(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Objects of a namespace."""
        return self.kubectl.server.list(kind, namespace, selector)

    def names(self, kind: str, namespace: str) -> list[str]:
        """Their names."""
        return [one["metadata"]["name"] for one in self.objects(kind, namespace)]

    def events(self, name: str, namespace: str) -> list[str]:
        """Reasons of the events about a training, in the order they were told."""
        found = [one for one in self.objects("events", namespace) if one["regarding"].get("name") == name]
        return [one["reason"] for one in sorted(found, key=lambda one: one.get("eventTime") or "")]

    def status(self, name: str, namespace: str) -> dict[str, Any]:
        """The status of a training, empty before the operator has looked."""
        return dict(self.get("ltx2trainings", name, namespace).get("status") or {})

    def condition(self, name: str, namespace: str, kind: str, *, status: str = "True") -> dict[str, Any]:
        """Wait for a condition of a training to take a value."""
        found: dict[str, Any] = {}

        def there() -> bool:
            for one in self.status(name, namespace).get("conditions") or []:
                if one["type"] == kind:
                    found.update(one)
            return found.get("status") == status

        self.wait_for(there, f"{name}: {kind}={status}", lambda: json.dumps(self.status(name, namespace), indent=1))
        return found

    def wait_for(self, holds: Callable[[], bool], what: str, story: Callable[[], str] = str, most: float = 0) -> None:
        """Ask until it holds. Raises AssertionError with the story when patience is over."""
        until = time.monotonic() + (most or PATIENCE)
        while not holds():
            assert time.monotonic() < until, f"waited {most or PATIENCE:.0f} s for {what}\n{story()}"
            time.sleep(0.1)


def requests_of(account: str, audit_log: Path, since: int = 0) -> list[dict[str, Any]]:
    """What an account asked of the API server, from the audit log: verb, object, code, words, in order.

    since: size of the log, in bytes, when what is asked about began.
    """
    log = audit_log.read_bytes()
    assert len(log) >= since, f"{audit_log} has been replaced: what was asked before is lost"
    found = []
    for line in log[since:].splitlines():
        if account.encode() not in line:
            continue  # soon read: a log grows by 100 MB an hour
        entry = json.loads(line)
        if entry["user"]["username"] != account:
            continue
        about = entry.get("objectRef") or {}
        group = about.get("apiGroup", "")
        resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
        answer = entry.get("responseStatus") or {}
        where = "/".join(filter(None, (about.get("namespace"), about.get("name"))))
        found.append(
            {
                "verb": entry["verb"],
                "group": group,
                "resource": resource,
                "what": "/".join(filter(None, (group, resource))),
                "where": where,
                "code": answer.get("code"),
                "said": answer.get("message", ""),
            }
        )
    return found


def refusals(account: str, audit_log: Path, since: int, taken: Collection[str] = ()) -> list[dict[str, Any]]:
    """The requests that were refused for lack of a right. A full quota, a namespace that goes, and a definition that
    the server's owner check does not know yet (it looks every 30 s) answer 403, too.

    taken: namespaces that are not looked at.
    """
    answers = [request for request in requests_of(account, audit_log, since) if request["code"] == 403]
    answers = [request for request in answers if request["where"].partition("/")[0] not in taken]
    others = ("is being terminated", "exceeded quota", "cannot find RESTMapping")
    return [request for request in answers if not any(words in request["said"] for words in others)]


def pod_namespace(kubectl: Kubectl) -> contextlib.AbstractContextManager[str]:
    """A namespace that enforces the restricted Pod Security standard, deleted afterwards."""
    return kubectl.server.namespace(**RESTRICTED)
