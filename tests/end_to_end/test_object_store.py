"""Clips in an object store and on a Hub, from configs/object-store.yaml to the LoRA, by the shipped commands."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import object_store
from hub_server import TOKEN, Hub
from media import write_clip

ROOT = Path(__file__).resolve().parents[2]
LTX2 = str(Path(sys.executable).parent / "ltx2")
MANIFEST = ROOT / "configs" / "object-store.yaml"

pytestmark = pytest.mark.slow


def ltx2(workspace: Path, *arguments: str, expect: int = 0, **environ: str) -> str:
    """Run the shipped command in a workspace as a user does; what it said. Looks for keys nowhere but in `environ`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LTX2", "HF_", "AWS_"))}
    done = subprocess.run(
        [LTX2, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=workspace, timeout=300,
        env=kept | {"OMP_NUM_THREADS": "1", **environ}, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def manifest(workspace: Path, name: str, tiny: Path, datasets: list[dict[str, Any]]) -> str:
    """The file in configs/ for a tiny model on the CPU, with these changes of its datasets."""
    body = yaml.safe_load(MANIFEST.read_text())
    body["metadata"]["name"] = name
    body["spec"]["gpu"] = {"class": "cpu"}
    del body["spec"]["secrets"], body["spec"]["storage"]
    body["spec"]["config"] = {
        "pretrained_model_name_or_path": str(tiny), "max_train_steps": 3, "resolution": 64, "lora_rank": 4,
        "validation_disable": True, "mixed_precision": "no",
    }  # fmt: skip
    for entry, changes in zip(body["spec"]["datasets"], datasets, strict=True):
        entry.update({"video": {"num_frames": 9, "min_frames": 9}, **changes})
        for key in [key for key, value in entry.items() if value is None]:
            del entry[key]
    (workspace / f"{name}.yaml").write_text(yaml.safe_dump(body))
    return f"{name}.yaml"


def sha256(path: Path) -> str:
    """Of a LoRA file, but for the hash of its configuration in the header, where another place of the clips stands."""
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    del header["__metadata__"]["config_hash"]
    return hashlib.sha256(json.dumps(header).encode() + path.read_bytes()[8 + size :]).hexdigest()


def test_clips_from_elsewhere_give_the_lora_of_the_same_clips_in_a_folder(tmp_path: Path, tiny20: Path) -> None:
    """Catches: another order or other names of samples, captions that were left behind, keys that do not reach the job,
    a second download, a second encoding.
    """
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    for index, (folder, name) in enumerate((("foxes", "a"), ("foxes/deep", "b"), ("held", "c"))):
        path = write_clip(near / folder / f"{name}.mp4", width=64, height=64, frames=9, level=0.2 + index / 5)
        path.with_suffix(".txt").write_text(f"fox {name}")
    local = dict.fromkeys(("aws_bucket_name", "aws_data_prefix", "aws_endpoint_url", "aws_region_name"))
    held = {"type": "local", "instance_data_dir": "held", "dataset_name": None, "data_prefix": None}
    file = manifest(near, "fox", tiny20, [{**local, "type": "local", "instance_data_dir": "foxes"}, held])
    ltx2(near, "run", file)

    hub = Hub()
    hub.add(
        "datasets/me/footage",
        {f"foxes/{path.name}": path.read_bytes() for path in (near / "held").iterdir()},
        private=True,
    )
    with object_store.serve() as store:
        store.put_folder("footage", near / "foxes", "foxes/")
        file = manifest(far, "fox", tiny20, [{"aws_endpoint_url": store.url}, {}])
        keys = {**object_store.ENVIRON, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
        nobody = {key: value for key, value in keys.items() if key not in ("AWS_ACCESS_KEY_ID", "HF_TOKEN")}

        said = ltx2(far, "check", file, **keys)
        assert "datasets[clips]: s3://footage/foxes/: 2 clips and 2 captions, " in said
        assert "datasets[held-out]: hf://datasets/me/footage/foxes/: 1 clips and 1 captions, " in said
        assert "not looked at from here: me/footage on http" in ltx2(far, "check", file, **nobody)
        assert store.fetched() == [] and not (far / "downloads").exists()

        store.signers()
        store.faults += [(403, object_store.ERROR.format("AccessDenied"))]
        said = ltx2(far, "run", file, expect=77, **keys)
        assert "s3://footage/foxes/: http" in said and "spec.secrets.objectStore" in said

        said = ltx2(far, "run", file, **keys)
        assert "s3://footage/foxes/: 4 files" in said and "4 fetched, 0 removed" in said
        assert store.signers() == {object_store.ENVIRON["AWS_ACCESS_KEY_ID"]}
        for name in ("lora.safetensors", "lora.diffusers.safetensors"):
            assert sha256(far / "runs/fox" / name) == sha256(near / "runs/fox" / name), name
        samples = [json.loads((place / "runs/fox/index.json").read_text())["samples"] for place in (far, near)]
        ids = ["clips/a.mp4", "clips/deep/b.mp4", "held-out/c.mp4"]
        assert [[one["id"] for one in each] for each in samples] == [ids, ids]
        files = [path for path in (far / "runs/fox").rglob("*") if path.is_file()]
        assert files and not any(b"of-this-test" in path.read_bytes() for path in files), "a key was written down"

        hub.requests.clear()
        said = ltx2(far, "run", manifest(far, "vixen", tiny20, [{"aws_endpoint_url": store.url}, {}]), **keys)
        assert store.fetched() == [] and not any("/resolve/" in path for _, path, *_ in hub.requests)
        assert "video 0 encoded, 3 reused" in said
        assert sha256(far / "runs/vixen/lora.safetensors") == sha256(far / "runs/fox/lora.safetensors")
        assert "all of it is here" in ltx2(far, "check", file, **keys)
    hub.close()
