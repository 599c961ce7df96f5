"""Claims that hold the clips and the tiny model of a test, filled by an administrator who has the disk at hand."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ltx2_operator.pods import UID

from .harness.cluster import Cluster


@dataclass(frozen=True)
class Volume:
    """A bound claim. inputs: the folder that its content was copied from."""

    claim: str
    folder: Path  # where this machine sees it
    inputs: Path

    def copy_inputs(self, folder: Path) -> None:
        """The same clips and model in a folder of this machine."""
        shutil.copytree(self.inputs, folder, dirs_exist_ok=True)

    def fill(self) -> None:
        """Copy the inputs there as the user of the pods."""
        self.copy_inputs(self.folder)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, UID, UID)


def make_volume(
    cluster: Cluster, namespace: str, inputs: Path, claim: str = "data", size: str = "2Gi", kind: str = "standard"
) -> Volume:
    """Make a claim of a storage class, wait until it is bound, and copy the inputs there as the user of the pods."""
    cluster.kubectl(
        "create", "-n", namespace, "-f", "-",
        manifest={
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim},
            "spec": {
                "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}},
                "storageClassName": kind,
            },
        },
    )  # fmt: skip
    cluster.kubectl("wait", f"pvc/{claim}", "-n", namespace, "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    volume = Volume(claim, cluster.claim_folder(namespace, claim), inputs)
    volume.fill()
    return volume
