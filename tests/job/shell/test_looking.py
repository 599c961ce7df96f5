"""`ltx2-job look`: what a volume lacks for a run, its exit code and last word; nothing is written there."""

import hashlib
import json
import os

import pytest

import object_store
from job.shell.conftest import CONFIG, DATASETS, write_files
from ltx2_job.cli import main
from ltx2_job.config import resolve


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A workspace with a clip and something where the model is named; look(**config) -> (code, last word)."""
    root = tmp_path / "w"
    (root / "datasets/videos").mkdir(parents=True)
    (root / "datasets/videos/a.mp4").write_bytes(b"clip")
    (root / "models/tiny/gemma").mkdir(parents=True)
    (root / "models/tiny/ltx-2-tiny.safetensors").write_bytes(b"model")
    log = tmp_path / "log"
    monkeypatch.setenv("LTX2JOB_UID", "u1")
    monkeypatch.setenv("LTX2JOB_TERMINATION_LOG", str(log))

    def look(datasets=DATASETS, **config):
        files = write_files(tmp_path / "files", {**CONFIG, **config}, datasets)
        argv = ["look", "--files", str(files), "--workspace", str(root), "--run", "fox", "--attempt", "3"]
        code = main(argv)
        return code, json.loads(log.read_bytes())

    look.root = root
    return look


def everything(root):
    return {path: path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def saved(folder, step=5, **state):
    """A complete checkpoint by its manifest."""
    path = folder / f"step-{step:07d}"
    path.mkdir(parents=True)
    page = {"step": step, "rank": 32, "alpha": 32.0, "optimizer": "adamw", "origin": "", **state}
    files = {"adapter.safetensors": b"a", "optimizer.safetensors": b"o", "state.json": json.dumps(page).encode()}
    for name, data in files.items():
        (path / name).write_bytes(data)
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    (path / "manifest.json").write_text(json.dumps({"version": 1, "step": step, "files": entries}))
    return path


def test_all_there_is_0_and_nothing_is_written(place):
    before = everything(place.root)
    code, word = place()
    assert code == 0
    assert (word["exitCode"], word["stage"], word["uid"], word["attempt"], word["result"]) == (0, "look", "u1", 3, {})
    assert everything(place.root) == before


def test_no_clip_yet_is_66_with_the_folder(place):
    (place.root / "datasets/videos/a.mp4").unlink()
    code, word = place()
    assert code == word["exitCode"] == 66
    assert "datasets/videos: there is no video file in it yet" in word["message"]


def test_a_model_that_a_path_names_and_that_is_not_there_yet_is_66(place):
    code, word = place(pretrained_model_name_or_path="models/other.safetensors")
    assert code == 66
    assert "models/other.safetensors" in word["message"]


def test_a_finished_run_gives_its_result_even_where_the_clips_are_gone(place):
    run = place.root / "runs/fox"
    run.mkdir(parents=True)
    result = {"configDigest": resolve(CONFIG, DATASETS).digest, "steps": 20, "lora": "runs/fox/lora.safetensors"}
    (run / "result.json").write_text(json.dumps(result))
    (place.root / "datasets/videos/a.mp4").unlink()
    assert place()[0] == 66  # its LoRA was taken away: no result
    for name in ("lora.safetensors", "lora.diffusers.safetensors"):
        (run / name).write_bytes(b"")
    code, word = place()
    assert (code, word["step"], word["maxSteps"], word["result"]) == (0, 20, 20, result)
    assert place(learning_rate=2e-4)[0] != 0  # another configuration has not finished here


@pytest.mark.parametrize("reference", ["old", "runs/old", "runs/old/checkpoints/step-0000005"])
def test_a_run_to_train_on_from_must_be_there_whole_and_of_the_same_adapter(place, reference):
    code, word = place(resume_from_checkpoint=reference)
    assert code == 78
    assert "is no checkpoint" in word["message"] and "spec.resumeFrom" in word["message"]
    path = saved(place.root / "runs/old/checkpoints")
    assert place(resume_from_checkpoint=reference)[0] == 0
    code, word = place(resume_from_checkpoint=reference, lora_rank=8)
    assert code == 78 and "lora_rank: is 8, but checkpoint step-0000005 was made with 32" in word["message"]
    code, word = place(resume_from_checkpoint=reference, max_train_steps=5)
    assert code == 78 and "max_train_steps: is 5" in word["message"]
    (path / "adapter.safetensors").write_bytes(b"b")
    assert place(resume_from_checkpoint=reference)[0] == 78


def test_a_volume_that_cannot_be_written_is_73(place, monkeypatch):
    # Told by the system's answer, since root, who may run this, can write everywhere.
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    code, word = place()
    assert code == word["exitCode"] == 73
    assert f"not writable by user {os.geteuid()}" in word["message"]


def test_a_train_stage_of_a_finished_run_leaves_at_once_with_its_result(place, tmp_path, monkeypatch):
    # There is neither an index nor a model that could be read: it left before it looked for them.
    run = place.root / "runs/fox"
    run.mkdir(parents=True)
    digest = resolve(CONFIG, DATASETS).digest
    (run / "result.json").write_text(json.dumps({"configDigest": digest, "steps": 20}))
    argv = ["train", "--files", str(write_files(tmp_path / "files")), "--workspace", str(place.root), "--run", "fox"]
    assert main(argv) == 66
    for name in ("lora.safetensors", "lora.diffusers.safetensors"):
        (run / name).write_bytes(b"")
    assert main(argv) == 0
    word = json.loads((tmp_path / "log").read_bytes())
    assert (word["step"], word["maxSteps"], word["result"]["configDigest"]) == (20, 20, digest)


def test_clips_that_lie_elsewhere_are_asked_for_and_not_waited_for_on_the_volume(place, monkeypatch):
    # Catches: a look that waits for a folder, that fetches, that takes a refusal for an empty folder.
    for name, value in object_store.ENVIRON.items():
        monkeypatch.setenv(name, value)
    (place.root / "datasets/videos/a.mp4").unlink()
    with object_store.serve() as store:
        store.put("footage", {"fox/readme.txt": b"soon"})
        entry = {"id": "clips", "type": "aws", "aws_bucket_name": "footage", "aws_data_prefix": "fox"}
        datasets = [{**entry, "aws_endpoint_url": store.url}]
        before = everything(place.root)
        code, word = place(datasets)
        assert (
            code == word["exitCode"] == 66 and "s3://footage/fox/: there is no video file there yet" in word["message"]
        )
        store.put("footage", {"fox/a.mp4": b"clip"})
        assert place(datasets)[0] == 0
        assert store.fetched() == []
        store.faults.append((403, object_store.ERROR.format("AccessDenied")))
        code, word = place(datasets)
        assert code == 77 and "spec.secrets.objectStore" in word["message"]
        store.faults.append((503, object_store.ERROR.format("SlowDown")))
        assert place(datasets)[0] == 69
        assert place([{**datasets[0], "aws_bucket_name": "none"}])[0] == 78
        assert everything(place.root) == before
