"""Plays a cloud's storage: makes a volume for each claim of its classes, grows it, and removes it with its claim.

Class `standard` (the default) gives folders, which know no size; class `limited` gives file systems in memory of
exactly the claim's size. Both can be mounted by many pods on both nodes, and pods' fsGroup is applied to them.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
from kubernetes.utils import parse_quantity

PROVISIONER = "ltx2.dev/folder"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_PAUSE_SECONDS = 0.5


def storage_classes() -> list[dict[str, Any]]:
    """The classes, as objects."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    common = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "provisioner": PROVISIONER,
        "allowVolumeExpansion": True,
    }
    return [
        {**common, "metadata": {"name": "standard", "annotations": default}},
        {**common, "metadata": {"name": "limited"}, "parameters": {"medium": "Memory"}},
    ]


class Provisioner:
    """Looks at all claims and volumes, and does what is missing."""

    def __init__(self, core: kubernetes.client.CoreV1Api, folder: Path, nodes: list[str]) -> None:
        self._core = core
        self._folder = folder
        self._nodes = nodes
        self._limited = {each["metadata"]["name"]: "parameters" in each for each in storage_classes()}

    def look(self) -> None:
        """One look; a claim or volume that has changed meanwhile is met again at the next."""
        volumes = {each.metadata.name: each for each in self._core.list_persistent_volume().items}
        for claim in self._core.list_persistent_volume_claim_for_all_namespaces().items:
            if claim.spec.storage_class_name in self._limited and not claim.metadata.deletion_timestamp:
                volume = volumes.get(f"pvc-{claim.metadata.uid}")
                if volume is None and not claim.spec.volume_name:
                    self._provision(claim)
                elif volume is not None and claim.status.phase == "Bound":
                    self._grow(claim, volume)
        for volume in volumes.values():
            ours = (volume.metadata.annotations or {}).get(_PROVISIONED_BY) == PROVISIONER
            released = volume.status.phase == "Released" and not volume.metadata.deletion_timestamp
            if ours and released and volume.spec.persistent_volume_reclaim_policy == "Delete":
                self._remove(volume)

    def _provision(self, claim: Any) -> None:
        name = f"pvc-{claim.metadata.uid}"
        size = claim.spec.resources.requests["storage"]
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if self._limited[claim.spec.storage_class_name] and not folder.is_mount():
            _mount(folder, size)
        on_nodes = {"key": "kubernetes.io/hostname", "operator": "In", "values": self._nodes}
        reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": claim.metadata.uid}
        reference |= {"namespace": claim.metadata.namespace, "name": claim.metadata.name}
        self._core.create_persistent_volume(
            {
                "metadata": {"name": name, "annotations": {_PROVISIONED_BY: PROVISIONER}},
                "spec": {
                    "capacity": {"storage": size},
                    "accessModes": claim.spec.access_modes,
                    "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": claim.spec.storage_class_name,
                    "claimRef": reference,
                    "local": {"path": str(folder)},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_nodes]}]}},
                },
            }
        )

    def _grow(self, claim: Any, volume: Any) -> None:
        size = claim.spec.resources.requests["storage"]
        if parse_quantity(size) <= parse_quantity(volume.spec.capacity["storage"]):
            return
        if self._limited[claim.spec.storage_class_name]:
            _mount(Path(volume.spec.local.path), size, "remount,")
        capacity = {"capacity": {"storage": size}}
        self._core.patch_persistent_volume(volume.metadata.name, {"spec": capacity})
        self._core.patch_namespaced_persistent_volume_claim_status(
            claim.metadata.name, claim.metadata.namespace, {"status": capacity}
        )

    def _remove(self, volume: Any) -> None:
        folder = Path(volume.spec.local.path)
        if folder.is_mount():
            subprocess.run(["umount", folder], check=True)
        shutil.rmtree(folder, ignore_errors=True)
        self._core.delete_persistent_volume(volume.metadata.name)


def _mount(folder: Path, size: str, how: str = "") -> None:
    options = f"{how}size={int(parse_quantity(size))},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "limited", folder], check=True)


def main(kubeconfig: str, folder: str, *nodes: str) -> None:
    """Look again and again, until ended."""
    core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(kubeconfig))
    provisioner = Provisioner(core, Path(folder), list(nodes))
    while True:
        try:
            provisioner.look()
        except (
            kubernetes.client.ApiException, urllib3.exceptions.HTTPError, subprocess.CalledProcessError, OSError
        ) as error:  # fmt: skip
            print(f"provisioner: {error}", flush=True)
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
