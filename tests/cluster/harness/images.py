"""Images for the nodes: an OCI layout per image over one shared store of blobs, so that only changed layers move."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

from . import binaries

_KEEP_SECONDS = 14 * 24 * 3600
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def blobs_folder() -> Path:
    """The blobs of all images of all clusters, by their digest."""
    return binaries.cache_folder() / "blobs"


def split_name(name: str) -> tuple[str, str, str]:
    """An image's name as registry, repository and tag, with Docker's defaults: `a/b` is `docker.io/a/b:latest`."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = "docker.io", name if slash else f"library/{name}"
    repository, _, tag = rest.partition(":")
    return first, repository, tag or "latest"


def layout_folder(images: Path, name: str) -> Path:
    """Where the layout of an image lies below a cluster's folder of images."""
    return images.joinpath(*split_name(name))


def from_podman(images: Path, name: str, local_name: str = "") -> None:
    """Copy an image of podman's storage; blobs that the store has are not copied again.

    Args:
        images: the cluster's folder of images.
        name: what pods call it.
        local_name: what podman calls it, if that differs.

    Raises:
        RuntimeError: podman has no such image, or it cannot be copied.
    """
    layout = layout_folder(images, name)
    layout.parent.mkdir(parents=True, exist_ok=True)
    unfinished = layout.with_name(f".{layout.name}.{os.getpid()}")
    store = ["--dest-oci-accept-uncompressed-layers", "--dest-shared-blob-dir", str(blobs_folder())]
    source = f"containers-storage:{local_name or name}"
    with _locked():
        done = subprocess.run(
            ["skopeo", "copy", "--quiet", *store, source, f"oci:{unfinished}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise RuntimeError(f"image {local_name or name}: {done.stderr.strip()}")
        _publish(unfinished, layout, name)


def from_program(images: Path, name: str, program: Path, entrypoint: list[str]) -> None:
    """Make an image of one static program, which lies in it as /<the first word of its entrypoint>."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        entry = tarfile.TarInfo(entrypoint[0].lstrip("/"))
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as content:
            archive.addfile(entry, content)
    layout = layout_folder(images, name)
    unfinished = layout.with_name(f".{layout.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    with _locked():
        blob = _write_blob(layer.getvalue(), _LAYER)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entrypoint},
            "rootfs": {"type": "layers", "diff_ids": [blob["digest"]]},
        }
        described = _write_blob(json.dumps(config).encode(), _CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": [blob]}
        index = {"schemaVersion": 2, "manifests": [_write_blob(json.dumps(manifest).encode(), _MANIFEST)]}
        (unfinished / "index.json").write_text(json.dumps(index))
        _publish(unfinished, layout, name)


def forget_old_blobs() -> None:
    """Delete the blobs that neither a running cluster nor the newest image of a name (of two weeks) consists of.

    An image of a job is 6 GB: its older versions would fill the disk.
    """
    with _locked():
        old = time.time() - _KEEP_SECONDS
        for record in _newest().rglob("*.json"):
            if record.stat().st_mtime < old:
                record.unlink()
        indices = [*_newest().rglob("*.json"), *binaries.cache_folder().glob("clusters/*/images/**/index.json")]
        used = set().union(*(_blobs_of(index) for index in indices))
        for blob in (blobs_folder() / "sha256").glob("*"):
            if f"sha256:{blob.name}" not in used:
                blob.unlink()


def _newest() -> Path:
    """The folder with a copy of each name's newest index."""
    return blobs_folder() / "newest"


def _blobs_of(index: Path) -> set[str]:
    """The digests of all that an image consists of; of one whose manifest has gone, nothing."""
    digest = json.loads(index.read_text())["manifests"][0]["digest"]
    if not blob_file(digest).exists():
        return set()
    manifest = json.loads(blob_file(digest).read_text())
    return {digest, *(part["digest"] for part in [manifest["config"], *manifest["layers"]])}


def find_manifest(images: Path, registry: str, repository: str, reference: str) -> tuple[str, str, Path] | None:
    """Digest, media type and file of a manifest by tag or digest; None if there is none."""
    if reference.startswith("sha256:"):
        file = blob_file(reference)
        kind = json.loads(file.read_text()).get("mediaType", _MANIFEST) if file.exists() else ""
        return (reference, kind, file) if kind else None
    index = images / registry / repository / reference / "index.json"
    if not index.resolve().is_relative_to(images.resolve()) or not index.exists():
        return None
    first = json.loads(index.read_text())["manifests"][0]
    return first["digest"], first["mediaType"], blob_file(first["digest"])


def blob_file(digest: str) -> Path:
    """Where the blob of this digest lies, or would."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not value.isalnum():
        raise ValueError(f"no digest: {digest}")
    return blobs_folder() / algorithm / value


def _publish(unfinished: Path, layout: Path, name: str) -> None:
    shutil.rmtree(layout, ignore_errors=True)
    unfinished.rename(layout)
    record = layout_folder(_newest(), f"{name}.json" if ":" in name.rpartition("/")[2] else f"{name}:latest.json")
    record.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(layout / "index.json", record)


def _write_blob(content: bytes, kind: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    file = blob_file(digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}")
    unfinished.write_bytes(content)
    unfinished.rename(file)
    return {"mediaType": kind, "digest": digest, "size": len(content)}


class _locked:
    """Holds the store of blobs against other processes."""

    def __enter__(self) -> None:
        blobs_folder().mkdir(parents=True, exist_ok=True)
        self._file = (blobs_folder() / "lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()
