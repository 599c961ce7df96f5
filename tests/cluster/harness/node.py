"""One node: a containerd and a kubelet of its own, with an address, a pod network and a control group of its own."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import binaries, cgroups
from .control_plane import ControlPlane
from .namespace import Namespace
from .processes import Process, wait

BRIDGE = "cluster0"
BRIDGE_ADDRESS = "10.97.0.1"  # of the API server, DNS and everything else that is no node
PAUSE_IMAGE = "localhost/pause:1"
_LEASE_SECONDS = 6

_CONTAINERD = """version = 2
root = "{store}"
state = "/run/{name}/state"
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    discard_unpacked_layers = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{registries}"
"""


@dataclass
class Node:
    """A node of a running cluster."""

    number: int
    namespace: Namespace
    folder: Path  # of the cluster
    store: Path  # of the node's images, kept between clusters
    control_group: str  # of the cluster
    containerd: Process | None = None
    kubelet: Process | None = None

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        """Its address on the cluster's bridge."""
        return f"10.97.0.{10 + self.number}"

    @property
    def socket(self) -> str:
        """containerd's socket, inside the cluster's mounts."""
        return f"/run/{self.name}/containerd.sock"

    @property
    def home(self) -> Path:
        """Configuration, the kubelet's root and logs of pods."""
        return self.folder / self.name

    def log(self, part: str) -> Path:
        """The log of `kubelet` or `containerd`."""
        return self.folder / "logs" / f"{self.name}-{part}.log"

    def prepare(self, registries: Path) -> None:
        """Write the configuration, make address and control group, start containerd without containers of before."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.store.mkdir(parents=True, exist_ok=True)
        (self.home / "cni").mkdir(exist_ok=True)
        (self.home / "cni" / "10-pods.conflist").write_text(json.dumps(self._pod_network()))
        (self.home / "containerd.toml").write_text(
            _CONTAINERD.format(
                store=self.store,
                name=self.name,
                socket=self.socket,
                pause=PAUSE_IMAGE,
                folder=self.home,
                registries=registries,
            )
        )
        (self.home / "kubelet.json").write_text(json.dumps(self._kubelet_configuration()))
        (self.home / "resolv.conf").write_text(f"nameserver {BRIDGE_ADDRESS}\n")
        self.namespace.must("ip", "address", "add", f"{self.address}/32", "dev", BRIDGE)
        cgroups.make(f"{self.control_group}/{self.name}")
        self._start_containerd()
        self._forget_containers()

    def start_kubelet(self, plane: ControlPlane) -> None:
        """Start the kubelet, again after `kubelet.kill()` too; the node is Ready some seconds later."""
        arguments = [
            f"--config={self.home / 'kubelet.json'}",
            f"--kubeconfig={plane.kubeconfig(self.name)}",
            f"--root-dir={self.home / 'kubelet'}",
            f"--cert-dir={self.home / 'pki'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
        ]
        command = [str(binaries.kube()), "kubelet", *arguments]
        self.kubelet = self.namespace.start("kubelet", command, self.log("kubelet"))
        healthy = f"http://127.0.0.1:{self._health_port}/healthz"
        wait(f"the kubelet of {self.name}", lambda: self.namespace.answers(healthy), self.log("kubelet"), self.kubelet)

    def pull(self, image: str) -> None:
        """Have containerd pull an image; only layers that the node lacks move."""
        self.namespace.must(str(binaries.kube()), "pull", self.socket, image, timeout=1200)

    def _start_containerd(self) -> None:
        command = ["containerd", "--config", str(self.home / "containerd.toml")]
        self.containerd = self.namespace.start("containerd", command, self.log("containerd"))
        wait("containerd", lambda: not self._ctr("version").returncode, self.log("containerd"), self.containerd)

    def _forget_containers(self) -> None:
        """A store comes with the containers of the cluster that had it before: remove them, keep the images."""
        left = self._ctr("--namespace=k8s.io", "containers", "list", "--quiet").stdout.split()
        if not left:
            return
        for container in left:
            self._ctr("--namespace=k8s.io", "containers", "remove", container)
        assert self.containerd is not None
        self.containerd.end()
        shutil.rmtree(self.store / "io.containerd.grpc.v1.cri", ignore_errors=True)
        self._start_containerd()

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.namespace.run("ctr", f"--address={self.socket}", *arguments)

    @property
    def _health_port(self) -> int:
        return 10250 + self.number

    def _pod_network(self) -> dict[str, object]:
        bridge = {
            "type": "bridge",
            "bridge": f"pods{self.number}",
            "isGateway": True,
            "isDefaultGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": f"/run/{self.name}/addresses",
                "ranges": [[{"subnet": f"10.98.{self.number}.0/24"}]],
            },
        }
        return {"cniVersion": "0.4.0", "name": f"pods{self.number}", "plugins": [bridge]}

    def _kubelet_configuration(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.control_group}/{self.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "enforceNodeAllocatable": [],
            "makeIPTablesUtilChains": False,
            # Nobody but the cluster's own processes reaches the namespace's network.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "evictionPressureTransitionPeriod": "10s",  # of 5 minutes: a full disk is over when there is room again
            # A full disk of the machine must not make the kubelet delete images, the pause image among them.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "address": self.address,
            "healthzPort": self._health_port,
            "clusterDNS": [BRIDGE_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.home / "resolv.conf"),
            "podLogsDir": str(self.home / "logs"),
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": _LEASE_SECONDS,
        }
