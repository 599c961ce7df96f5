"""Operator processes beside a control plane, each under a service account with just the rights that it needs."""

import base64
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cluster.harness.certificates import write_kubeconfig

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"leaseSeconds": 3, "renewSeconds": 2, "retrySeconds": 1}


def rights() -> list[dict[str, Any]]:
    """The rules that docs/architecture.md lists."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("### What it asks the API server for")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w.-]*) ?\| ([\w/, ]+) \| ([\w, ]+) \|", table, re.MULTILINE)[1:]
    assert len(rows) > 8
    return [
        {"apiGroups": [group], "resources": resources.split(", "), "verbs": verbs.split(", ")}
        for group, resources, verbs in rows
    ]


def account(control_plane: Any, namespace: str, rules: list[dict[str, Any]], folder: Path) -> Path:
    """A kubeconfig of a new service account of that namespace with cluster-wide rules."""
    name = f"operator-{os.urandom(3).hex()}"
    meta = {"name": name, "namespace": namespace}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    control_plane.kubectl(
        "apply", "-f", "-",
        manifest=[
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {**kind, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
            {**kind, "kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": role, "subjects": [subject]},
        ],
    )  # fmt: skip
    return token_of(control_plane, namespace, name, folder)


def token_of(control_plane: Any, namespace: str, name: str, folder: Path) -> Path:
    """A kubeconfig of a service account that exists."""
    token = control_plane.kubectl("create", "token", name, "-n", namespace, "--duration=24h").strip()
    admin = json.loads(control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = folder / "ca.crt"
    authority.write_bytes(base64.b64decode(admin["certificate-authority-data"]))
    return write_kubeconfig(folder / f"{name}.kubeconfig", authority, admin["server"], name, token)


class Operator:
    """One `ltx2 operator` process."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path, **settings: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        # Only this test's namespace: tests on one control plane do not look at each other's trainings.
        document = {"watchNamespaces": [namespace], "leaderElection": QUICK, "port": self.port, **settings}
        name = f"operator-{self.port}"
        (folder / f"{name}.yaml").write_text(json.dumps(document))
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-m", "ltx2_operator.cli", "operator", "--kubeconfig", str(kubeconfig)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command, "--settings", str(folder / f"{name}.yaml")],
                stderr=log,
                env={**os.environ, "POD_NAMESPACE": namespace, "POD_NAME": name},
            )

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def said(self, words: str) -> bool:
        """Whether it logged that."""
        return any(words in line["message"] for line in self.lines())

    def ask(self, path: str) -> tuple[int, str]:
        """What its own port answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def leads(self) -> bool:
        """Whether it is the one that works."""
        return "ltx2_operator_leader 1.0" in self.ask("/metrics")[1]

    @property
    def identity(self) -> str:
        """Its name in the lease and in the audit log."""
        return next(line["message"].split()[-1] for line in self.lines() if " as " in line["message"])

    def end(self) -> int:
        """SIGTERM; returns its exit code."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(30)


class Road:
    """A way to the API server that can be cut."""

    def __init__(self, port: int) -> None:
        self._target, self._open = port, True
        self._ends: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Every connection breaks; new ones are refused."""
        self._open = False
        for end in self._ends:
            end.close() if end.fileno() < 0 else end.shutdown(socket.SHUT_RDWR)
        self._ends = []

    def mend(self) -> None:
        """It can be used again."""
        self._open = True

    def close(self) -> None:
        """The end."""
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if not self._open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [near, far]
            threading.Thread(target=_carry, args=(near, far), daemon=True).start()


def _carry(one: socket.socket, other: socket.socket) -> None:
    way = {one: other, other: one}
    try:
        while True:
            for source in select.select([one, other], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                way[source].sendall(data)
    except (OSError, ValueError):
        pass
    finally:
        one.close()
        other.close()
