"""etcd, the API server, the controller manager and the scheduler."""

import json
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import binaries
from .certificates import make_authority, make_users, write_kubeconfig
from .processes import Process, start, wait

SERVICE_RANGE = "10.99.0.0/24"
SERVICE_ADDRESS = "10.99.0.1"  # of the API server, the first of the range
# When a node counts as lost: a tenth of Kubernetes' defaults, so that tests need not wait for minutes.
NODE_GRACE_SECONDS = 12
TOLERATION_SECONDS = 10

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "RequestResponse",
            "verbs": ["create", "update", "patch", "delete"],
            "resources": [{"group": "ltx2.dev"}],
        },
        {"level": "None", "users": ["platform"], "verbs": ["list"]},  # looks twice a second
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Place:
    """Where the processes run and listen."""

    folder: Path
    address: str  # what the API server tells the cluster about itself
    bind: str
    api_port: int
    etcd_ports: tuple[int, int]
    controllers_port: int
    scheduler_port: int
    # Starts a command with this log: in a namespace, or bound to the life of a parent.
    launch: Callable[[str, list[str], Path], Process] = start
    # Whether the audit log holds what is written to trainings, too: many times the size.
    audit_bodies: bool = True

    @property
    def pki(self) -> Path:
        """The folder of certificates and keys."""
        return self.folder / "pki"

    @property
    def server(self) -> str:
        """The API server's address from beside it."""
        return f"https://127.0.0.1:{self.api_port}"


@dataclass
class ControlPlane:
    """A running control plane; `processes` are those that it consists of, the first started first."""

    place: Place
    tokens: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    def kubeconfig(self, user: str, server: str = "") -> Path:
        """A kubeconfig for one of the parts or nodes, written on the first demand."""
        path = self.place.folder / f"{user}.kubeconfig"
        authority = self.place.pki / "ca.crt"
        return write_kubeconfig(path, authority, server or self.place.server, user, self.tokens[user])

    @property
    def audit_log(self) -> Path:
        """One JSON object a request: verb, user, object, response code."""
        return self.place.folder / "audit.log"

    def start(self, part: str, arguments: list[str], ready: Callable[[], bool], program: Path | None = None) -> Process:
        """Start a part of the cluster and wait until it is ready."""
        log = self.place.folder / "logs" / f"{part}.log"
        command = [str(program or binaries.kube()), *([] if program else [part]), *arguments]
        process = self.place.launch(part, command, log)
        self.processes.append(process)
        wait(part, ready, log, process)
        return process

    def end(self) -> None:
        """End every process, the last started first. Idempotent."""
        for process in reversed(self.processes):
            process.end()
        self.processes.clear()


def bring_up(place: Place, nodes: list[str], answers: Callable[[str], bool], scheduler: bool = True) -> ControlPlane:
    """Start an empty control plane in `place`, whose folder holds nothing of an earlier one.

    Args:
        nodes: the names whose kubelets may join.
        answers: whether an address (URL) answers with status 200; called from where the caller can reach it.
        scheduler: whether to run the scheduler as well.

    Raises:
        Missing: the programs cannot be built here.
        StartFailed: a part did not come up.
    """
    names = ["localhost", *(f"kubernetes{tail}" for tail in ("", ".default", ".default.svc"))]
    names.append("kubernetes.default.svc.cluster.local")
    make_authority(place.pki, names, sorted({"127.0.0.1", place.address, SERVICE_ADDRESS}))
    plane = ControlPlane(place, make_users(place.pki, nodes))
    try:
        _start_parts(plane, answers, scheduler)
    except BaseException:
        plane.end()
        raise
    return plane


def _start_parts(plane: ControlPlane, answers: Callable[[str], bool], scheduler: bool) -> None:
    place = plane.place
    etcd, peers = (f"http://127.0.0.1:{port}" for port in place.etcd_ports)
    plane.start("etcd", _etcd(place, etcd, peers), lambda: answers(f"{etcd}/readyz"))
    plane.start("kube-apiserver", _api_server(place, etcd), lambda: answers(f"{place.server}/readyz"))
    controllers = [*_component(plane, "controllers", place.controllers_port), *_controllers(place)]
    healthy = f"https://127.0.0.1:{place.controllers_port}/healthz"
    plane.start("kube-controller-manager", controllers, lambda: answers(healthy))
    if scheduler:
        healthy_too = f"https://127.0.0.1:{place.scheduler_port}/healthz"
        plane.start(
            "kube-scheduler", _component(plane, "scheduler", place.scheduler_port), lambda: answers(healthy_too)
        )


def _etcd(place: Place, clients: str, peers: str) -> list[str]:
    return [
        f"--data-dir={place.folder / 'etcd'}",
        f"--quota-backend-bytes={8 * 2**30}",
        "--unsafe-no-fsync",  # the data are thrown away: a crash of the machine may lose them
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--log-level=warn",
    ]


def _api_server(place: Place, etcd: str) -> list[str]:
    policy = place.folder / "audit-policy.json"
    rules = _AUDIT_POLICY["rules"] if place.audit_bodies else [{"level": "Metadata"}]
    policy.write_text(json.dumps({**_AUDIT_POLICY, "rules": rules}))
    loopback = place.address.startswith("127.")
    return [
        f"--etcd-servers={etcd}",
        f"--bind-address={place.bind}",
        f"--secure-port={place.api_port}",
        f"--advertise-address={place.address}",
        # The address of a loopback server is no endpoint that pods could use, and is refused as one.
        *(["--endpoint-reconciler-type=none"] if loopback else []),
        f"--tls-cert-file={place.pki / 'api.crt'}",
        f"--tls-private-key-file={place.pki / 'api.key'}",
        f"--cert-dir={place.pki}",
        f"--token-auth-file={place.pki / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-signing-key-file={place.pki / 'sa.key'}",
        f"--service-account-key-file={place.pki / 'sa.pub'}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--default-not-ready-toleration-seconds={TOLERATION_SECONDS}",
        f"--default-unreachable-toleration-seconds={TOLERATION_SECONDS}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={place.folder / 'audit.log'}",
        "--audit-log-maxsize=100000",  # MB: never another file, in which nobody looks
    ]


def _component(plane: ControlPlane, user: str, port: int) -> list[str]:
    kubeconfig = plane.kubeconfig(user)
    return [
        *(f"--{what}={kubeconfig}" for what in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")),
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={plane.place.pki / user}",
        "--leader-elect=false",
        # Tests bring in a minute what a cluster sees in a day.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _controllers(place: Place) -> list[str]:
    return [
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={place.pki / 'sa.key'}",
        f"--root-ca-file={place.pki / 'ca.crt'}",
        "--allocate-node-cidrs=false",
        "--node-monitor-period=1s",
        f"--node-monitor-grace-period={NODE_GRACE_SECONDS}s",
    ]


def answers(url: str) -> bool:
    """Whether the address answers with status 200, whatever its certificate."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unchecked)
    )
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
