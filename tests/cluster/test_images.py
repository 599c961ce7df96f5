"""An image of podman's storage reaches both nodes, and of a changed image only the changed layers move."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster.boxes import LOCKED, pod
from cluster.harness import binaries
from cluster.harness.cluster import Cluster

pytestmark = pytest.mark.cluster
NAME = f"localhost/two-layers:{os.getpid()}"
SETTINGS = '[containers]\ndefault_ulimits = ["nofile=1024:20000"]\n[engine]\nruntime = "runc"\n'


def build(folder: Path, text: str) -> None:
    (folder / "text").write_text(text)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY box /box\nCOPY text /text\nENTRYPOINT ["/box"]\n')
    (folder / "containers.conf").write_text(SETTINGS)
    environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
    command = ["podman", "build", "--layers", "--isolation=chroot", "--tag", NAME, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def blobs_asked_for(cluster: Cluster) -> list[str]:
    log = (cluster.folder / "logs" / "registry.log").read_text().splitlines()
    return [line for line in log if "GET /v2/two-layers/blobs/" in line]


def test_only_changed_layers_move(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    shutil.copy(binaries.box(), tmp_path / "box")
    try:
        build(tmp_path, f"{NAME} one")
        cluster.load_image(NAME)
        moved = len(blobs_asked_for(cluster))
        build(tmp_path, f"{NAME} two")
        cluster.load_image(NAME)
        # Of the second image each node lacks the description and one layer, not the program's layer.
        assert len(blobs_asked_for(cluster)) - moved == 2 * len(cluster.nodes)
        for node in cluster.nodes:
            container = {"name": "box", "image": NAME, "imagePullPolicy": "Never", "securityContext": LOCKED}
            container["args"] = ["show", "/text"]
            reader = pod(node.name, container, nodeName=node.name)
            cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=reader)
            done = "--for=jsonpath={.status.phase}=Succeeded"
            cluster.kubectl("wait", f"pod/{node.name}", done, "-n", namespace, "--timeout=60s")
            assert cluster.kubectl("logs", node.name, "-n", namespace) == f"{NAME} two"
    finally:
        subprocess.run(["podman", "rmi", "--force", NAME], capture_output=True, check=False)


def test_an_image_that_nobody_has_is_named(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match="localhost/nobody-has-this:1"):
        cluster.load_image("localhost/nobody-has-this:1")
