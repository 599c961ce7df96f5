"""Nodes and pods that only pretend: a control plane with a scheduler, and a player (KWOK) in the kubelets' place.

No root and no container: pods get bound, run, end and vanish as ../kwok/stages.yaml says, but nothing is executed.
Their addresses are of this machine's loopback, so that a server on it can answer in the name of any of them.
"""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import alone, binaries
from .client import Kubectl, ready
from .control_plane import ControlPlane
from .devices import AMD, NVIDIA
from .processes import Process, absent

POD_ADDRESSES = "127.96.0.1/12"
NODE_ADDRESS = "127.95.0.1"
STAGES = binaries.MODULES / "kwok" / "stages.yaml"


@dataclass
class Simulated:
    """A control plane whose nodes are simulated."""

    folder: Path
    processes: tuple[Process, ...]

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """One JSON object a request."""
        return self.folder / "audit.log"

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as administrator."""
        return Kubectl(self.kubeconfig)

    def add_nodes(self, names: Iterable[str], resource: str, labels: dict[str, str], count: int = 8) -> None:
        """Nodes that offer so many GPUs of a resource each, and wait until they are Ready."""
        nodes = [_node(name, {resource: str(count)}, labels) for name in names]
        self.kubectl("create", "-f", "-", manifest=nodes)
        self.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=120s", timeout=150)

    def add_claim(self, namespace: str, name: str = "data") -> None:
        """A claim that every pod of a namespace may mount, bound to a volume that is nowhere."""
        self.kubectl("create", "-f", "-", manifest=claim(namespace, name))
        bound = ("--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
        self.kubectl("wait", f"pvc/{name}", "-n", namespace, *bound)

    @contextlib.contextmanager
    def without_server(self) -> Iterator[None]:
        """etcd and the API server killed for the time of the body, then started again as they were."""
        down = [one for one in self.processes if one.name in ("etcd", "kube-apiserver")]
        with absent(down, alone.start_bound, self.folder / "logs", lambda: ready(self.kubectl)) as again:
            yield
        self.processes = tuple(again.get(each, each) for each in self.processes)

    def end(self) -> None:
        """End every process, the last started first. Idempotent."""
        for process in reversed(self.processes):
            process.end()


def bring_up(folder: Path, bound: bool = True, audit_bodies: bool = True) -> Simulated:
    """A control plane and its player in an empty folder, without any node yet.

    Args:
        bound: whether all of it ends with the calling thread.
        audit_bodies: whether the audit log holds what is written to trainings.

    Raises:
        Missing: there is no Go or no openssl.
        StartFailed: a part did not come up.
    """
    player = binaries.kwok()
    plane = alone.control_plane(folder, scheduler=True, bound=bound, audit_bodies=audit_bodies)
    try:
        plane.kubeconfig("admin")
        _start_player(plane, player)
    except BaseException:
        plane.end()
        raise
    return Simulated(folder, tuple(plane.processes))


def _start_player(plane: ControlPlane, program: Path) -> None:
    port = alone.free_ports(1)[0]
    arguments = [
        f"--kubeconfig={plane.kubeconfig('platform')}",
        f"--config={STAGES}",
        "--manage-all-nodes=true",
        f"--cidr={POD_ADDRESSES}",
        f"--node-ip={NODE_ADDRESS}",
        "--node-lease-duration-seconds=40",
        f"--server-address=127.0.0.1:{port}",
    ]
    plane.start("player", arguments, lambda: alone.answers(f"http://127.0.0.1:{port}/healthz"), program)


def _node(name: str, gpus: dict[str, str], labels: dict[str, str]) -> dict[str, Any]:
    offered = {"cpu": "96", "memory": "2Ti", "ephemeral-storage": "10Ti", "pods": "250", **gpus}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **labels}},
        "status": {"capacity": offered, "allocatable": offered},
    }


def claim(namespace: str, name: str) -> list[dict[str, Any]]:
    """A volume that is nowhere, and the claim that it is bound to."""
    size, modes = {"storage": "10Ti"}, ["ReadWriteMany"]
    volume = f"{namespace}-{name}"
    spec = {"accessModes": modes, "storageClassName": "", "volumeName": volume, "resources": {"requests": size}}
    source = {"capacity": size, "accessModes": modes, "claimRef": {"namespace": namespace, "name": name}}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {**source, "hostPath": {"path": f"/nowhere/{volume}"}, "persistentVolumeReclaimPolicy": "Retain"},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        },
    ]


# ---------------------------------------------------------------------------------------------- one that stays, by name


def folder_of(name: str) -> Path:
    """Where the simulated cluster of this name keeps its state."""
    return binaries.cache_folder() / "simulated" / name


def find(name: str) -> Simulated | None:
    """The one of this name that runs, if there is one."""
    folder = folder_of(name)
    try:
        known = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return None
    processes = tuple(Process(**one) for one in known)
    return Simulated(folder, processes) if all(one.alive for one in processes) else None


def up(name: str) -> Simulated:
    """Bring up one that outlives this process, with a node of NVIDIA GPUs and one of AMD GPUs.

    Raises:
        Missing, StartFailed: as `bring_up`; nothing is left.
    """
    down(name)
    folder = folder_of(name)
    folder.mkdir(parents=True)
    try:
        made = bring_up(folder, bound=False)
        (folder / "state.json").write_text(json.dumps([asdict(one) for one in made.processes]))
        for node, (resource, labels) in zip(("node-1", "node-2"), (NVIDIA, AMD), strict=True):
            made.add_nodes([node], resource, labels)
        made.add_claim("default")
    except BaseException:
        down(name)
        raise
    return made


def down(name: str) -> None:
    """End the one of this name, or what is left of it."""
    folder = folder_of(name)
    try:
        known = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        known = []
    for one in reversed(known):
        Process(**one).end()
    shutil.rmtree(folder, ignore_errors=True)
