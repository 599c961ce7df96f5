"""A whole cluster in namespaces of its own: control plane, two nodes, DNS, services, images."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import binaries, cgroups, devices, images, provisioner, registry
from .client import Kubectl, ready
from .control_plane import ControlPlane, Place, bring_up
from .namespace import Namespace, open_namespace
from .node import BRIDGE, BRIDGE_ADDRESS, PAUSE_IMAGE, Node
from .processes import Process, absent, wait

API_PORT = 6443
BOX_IMAGE = "localhost/box:1"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_HARNESS = Path(__file__).resolve().parent
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "openssl": "openssl",
    "podman": "podman",
    "skopeo": "skopeo",
}
_COREFILE = """.:53 {{
  bind {address}
  errors
  ready {address}:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig} ltx2
    ttl 2
  }}
}}
"""


def check_machine() -> None:
    """Raises Missing, with all that is to be installed, if this machine cannot run nodes."""
    if os.geteuid() != 0:
        raise binaries.Missing("not root: nodes with real containers need it")
    packages = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not Path("/usr/lib/cni/bridge").exists():
        packages.add("containernetworking-plugins")
    if packages:
        raise binaries.Missing(f"nodes need the packages {' '.join(sorted(packages))}")


@dataclass
class Cluster:
    """A running cluster."""

    name: str
    namespace: Namespace
    nodes: list[Node]
    port: int = 0  # of the API server on this machine's loopback
    plane: ControlPlane | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """Everything of the cluster that lies on the disk, but for its nodes' images."""
        return folder_of(self.name)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, good on this machine (not inside the namespace)."""
        return self.folder / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """One JSON object a request."""
        return self.folder / "audit.log"

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as administrator."""
        return Kubectl(self.kubeconfig)

    def load_image(self, name: str, local_name: str = "") -> None:
        """Give both nodes an image of podman's storage, as `name`; `local_name` is podman's name for it, if other."""
        images.from_podman(self.folder / "images", name, local_name)
        for node in self.nodes:
            node.pull(name)

    def set_gpus(self, node: Node, resource: str, count: int, labels: dict[str, str | None]) -> None:
        """Let a node offer so many (fake) GPUs of a resource under these labels (None removes one)."""
        devices.set_gpus(self.kubectl, node.name, resource, count, labels)

    def claim_folder(self, namespace: str, claim: str) -> Path:
        """Where this machine sees what lies in a bound claim."""
        volume = self.kubectl.get("pvc", claim, "-n", namespace)["spec"]["volumeName"]
        path: str = self.kubectl.get("pv", volume)["spec"]["local"]["path"]
        return Path(f"/proc/{self.namespace.first.pid}/root{path}")

    def start_kubelet(self, node: Node) -> None:
        """Start a node's kubelet again after it was killed."""
        assert self.plane is not None
        node.start_kubelet(self.plane)
        self._save()

    @contextlib.contextmanager
    def without_server(self) -> Iterator[None]:
        """etcd and the API server killed for the time of the body, then started again as they were."""
        plane = self.plane
        assert plane is not None, "only by who has brought the cluster up"
        down = [one for one in plane.processes if one.name in ("etcd", "kube-apiserver")]
        with absent(down, self.namespace.start, self.folder / "logs", lambda: ready(self.kubectl)) as again:
            yield
        plane.processes = [again.get(each, each) for each in plane.processes]

    def forward(self, port: int, name: str) -> tuple[Process, int]:
        """Let this machine's loopback reach a port of the namespace's; returns the forwarder and the port here."""
        announced = self.folder / f"{name}.port"
        announced.unlink(missing_ok=True)
        log = self.folder / "logs" / f"{name}.log"
        process = self.namespace.start(name, _python("forward", str(port), str(announced)), log, ("mount", "pid"))
        wait("the forwarder", announced.exists, log, process)
        return process, int(announced.read_text())

    def _save(self) -> None:
        state = {
            "first": asdict(self.namespace.first),
            "port": self.port,
            "tokens": self.plane.tokens if self.plane else {},
            "nodes": [
                {
                    "number": node.number,
                    "store": str(node.store),
                    "containerd": asdict(node.containerd) if node.containerd else None,
                    "kubelet": asdict(node.kubelet) if node.kubelet else None,
                }
                for node in self.nodes
            ],
        }
        file = self.folder / "state.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(state, indent=1))


def folder_of(name: str) -> Path:
    """Where a cluster of this name keeps its state."""
    return binaries.cache_folder() / "clusters" / name


def control_group_of(name: str) -> str:
    """The control group above all pods of a cluster of this name."""
    return f"ltx2-kube-{name}"


def find(name: str) -> Cluster | None:
    """The running cluster of this name, if there is one."""
    try:
        state = json.loads((folder_of(name) / "state.json").read_text())
    except FileNotFoundError:
        return None
    namespace = Namespace(Process(**state["first"]))
    if not namespace.first.alive:
        return None
    nodes = []
    for known in state["nodes"]:
        node = Node(known["number"], namespace, folder_of(name), Path(known["store"]), control_group_of(name))
        node.containerd = Process(**known["containerd"]) if known["containerd"] else None
        node.kubelet = Process(**known["kubelet"]) if known["kubelet"] else None
        nodes.append(node)
    cluster = Cluster(name, namespace, nodes, state["port"])
    cluster.plane = ControlPlane(_place(cluster), state["tokens"])
    return cluster


def up(name: str, bound: bool = False) -> Cluster:
    """Bring up a cluster with an empty etcd and two Ready nodes.

    Args:
        bound: whether all of it ends with the calling thread, at the latest.

    Raises:
        Missing: this machine cannot run it; says what to install.
        StartFailed: a part did not come up; nothing is left running.
    """
    check_machine()
    for program in (binaries.kube, binaries.dns, binaries.box):
        program()
    if not _NAME.fullmatch(name):
        raise ValueError(f"cluster name {name!r}: at most 30 of a-z, 0-9 and -, a letter first")
    down(name)
    sweep()
    folder_of(name).mkdir(parents=True)
    images.forget_old_blobs()
    slot, lock = _free_store()
    try:
        namespace = open_namespace(folder_of(name) / "logs" / "namespace.log", keep=(lock,), bound=bound)
    finally:
        os.close(lock)
    nodes = [
        Node(number, namespace, folder_of(name), slot / f"node-{number}", control_group_of(name)) for number in (1, 2)
    ]
    cluster = Cluster(name, namespace, nodes)
    try:
        cluster._save()
        _start(cluster)
        cluster._save()
    except BaseException:
        down(name, keep_logs=True)
        raise
    return cluster


def down(name: str, keep_logs: bool = False) -> None:
    """End a cluster of this name, or what is left of one: processes, mounts, links, control groups, files."""
    cluster = find(name)
    if cluster is not None:
        cluster.namespace.end()
    cgroups.remove(control_group_of(name))
    folder = folder_of(name)
    if not folder.exists():
        return
    for entry in folder.iterdir():
        if keep_logs and entry.name == "logs":
            continue
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if not keep_logs:
        folder.rmdir()


def sweep() -> None:
    """Remove what clusters left that ended without `down`: their control groups and files."""
    for state in (binaries.cache_folder() / "clusters").glob("*/state.json"):
        if find(state.parent.name) is None:
            down(state.parent.name)


def _start(cluster: Cluster) -> None:
    namespace = cluster.namespace
    for command in (
        ("ip", "link", "add", BRIDGE, "type", "bridge"),
        ("ip", "address", "add", f"{BRIDGE_ADDRESS}/32", "dev", BRIDGE),
        ("ip", "link", "set", BRIDGE, "up"),
    ):
        namespace.must(*command)
    registries = _start_registry(cluster)
    for node in cluster.nodes:
        node.prepare(registries)
    plane = cluster.plane = bring_up(_place(cluster), [node.name for node in cluster.nodes], namespace.answers)
    cluster.port = cluster.forward(API_PORT, "forward")[1]
    plane.kubeconfig("admin", f"https://127.0.0.1:{cluster.port}").rename(cluster.kubeconfig)
    for node in cluster.nodes:
        node.start_kubelet(plane)
    _start_dns(plane, namespace)
    _start_proxy(plane, namespace)
    for node in cluster.nodes:
        node.pull(PAUSE_IMAGE)
        node.pull(BOX_IMAGE)
    for name in (*(f"node/{node.name}" for node in cluster.nodes), "serviceaccount/default"):
        cluster.kubectl("wait", name, "--for=create", "--timeout=60s")
    cluster.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=60s")
    _start_provisioner(cluster)
    for node, (resource, labels) in zip(cluster.nodes, (devices.NVIDIA, devices.AMD), strict=True):
        cluster.set_gpus(node, resource, 8, dict(labels))


def _place(cluster: Cluster) -> Place:
    return Place(
        cluster.folder,
        BRIDGE_ADDRESS,
        "0.0.0.0",
        API_PORT,
        (2379, 2380),
        10257,
        10259,
        launch=cluster.namespace.start,
    )


def _start_registry(cluster: Cluster) -> Path:
    """Start the registry; returns the folder that tells containerd to ask it for every image."""
    folder = cluster.folder / "images"
    folder.mkdir()
    images.from_program(folder, PAUSE_IMAGE, binaries.box(), ["/box", "pause"])
    images.from_program(folder, BOX_IMAGE, binaries.box(), ["/box"])
    log = cluster.folder / "logs" / "registry.log"
    address = f"http://127.0.0.1:{registry.PORT}"
    process = cluster.namespace.start("registry", _python("registry", str(folder)), log)
    wait("the registry", lambda: cluster.namespace.answers(f"{address}/v2/"), log, process)
    hosts = cluster.folder / "registries" / "_default" / "hosts.toml"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(f'server = "{address}"\n[host."{address}"]\n  capabilities = ["pull", "resolve"]\n')
    return hosts.parents[1]


def _python(module: str, *arguments: str) -> list[str]:
    tests = _HARNESS.parents[1]
    code = f"import sys; sys.path.insert(0, {str(tests)!r}); import runpy; sys.argv = {[module, *arguments]!r}; "
    return [sys.executable, "-c", code + f"runpy.run_module('cluster.harness.{module}', run_name='__main__')"]


def _start_provisioner(cluster: Cluster) -> None:
    assert cluster.plane is not None
    cluster.kubectl("create", "-f", "-", manifest=provisioner.storage_classes())
    volumes = cluster.folder / "volumes"
    names = [node.name for node in cluster.nodes]
    command = _python("provisioner", str(cluster.plane.kubeconfig("platform")), str(volumes), *names)
    cluster.namespace.start("provisioner", command, cluster.folder / "logs" / "provisioner.log")


def _start_dns(plane: ControlPlane, namespace: Namespace) -> None:
    corefile = plane.place.folder / "Corefile"
    corefile.write_text(_COREFILE.format(address=BRIDGE_ADDRESS, kubeconfig=plane.kubeconfig("dns")))
    ready = f"http://{BRIDGE_ADDRESS}:8181/ready"
    plane.start("dns", ["-conf", str(corefile)], lambda: namespace.answers(ready), binaries.dns())


def _start_proxy(plane: ControlPlane, namespace: Namespace) -> None:
    # Both nodes' pods reach services through this one network: one proxy serves both nodes.
    arguments = [
        f"--kubeconfig={plane.kubeconfig('proxy')}",
        "--hostname-override=node-1",
        "--proxy-mode=iptables",
        "--masquerade-all",
        "--cluster-cidr=10.98.0.0/16",
        "--conntrack-max-per-core=0",
    ]
    plane.start("kube-proxy", arguments, lambda: namespace.answers("http://127.0.0.1:10256/livez"))


def _free_store() -> tuple[Path, int]:
    """A folder of nodes' images that no running cluster uses, and the open file that holds it.

    Images stay in it between clusters, so that they are not unpacked again.
    """
    stores = binaries.cache_folder() / "stores"
    slot = 0
    while True:
        folder = stores / str(slot)
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return folder, lock
        except BlockingIOError:
            os.close(lock)
            slot += 1
