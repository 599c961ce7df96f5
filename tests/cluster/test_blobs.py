"""What is kept of images between clusters: the newest of each name, and what a running cluster has."""

import json
from pathlib import Path

import pytest

from cluster.harness import images


def test_the_older_version_of_an_image_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program, layouts = tmp_path / "program", tmp_path / "ltx2-operator" / "clusters" / "mine" / "images"

    def publish(content: str, folder: Path) -> set[str]:
        program.write_text(content)
        images.from_program(folder, "localhost/box:1", program, ["/box"])
        index = images.layout_folder(folder, "localhost/box:1") / "index.json"
        digest = json.loads(index.read_text())["manifests"][0]["digest"]
        manifest = json.loads(images.blob_file(digest).read_text())
        return {digest, manifest["config"]["digest"], manifest["layers"][0]["digest"]}

    def there() -> set[str]:
        return {f"sha256:{blob.name}" for blob in (images.blobs_folder() / "sha256").glob("*")}

    running = publish("one", layouts)
    old, new = publish("two", tmp_path / "gone"), publish("three", tmp_path / "gone")
    assert there() == running | old | new
    images.forget_old_blobs()
    assert there() == running | new
