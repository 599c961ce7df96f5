"""What this machine can say about a download before it begins, and how the user's token reaches the job."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import stand_in_job
from ltx2_job.config import resolve
from ltx2_job.hub.choice import Entry, Listing
from ltx2_job.hub.snapshot import Snapshots
from ltx2_job.places import Repository
from ltx2_job.workspace import Workspace
from ltx2_operator import machine
from ltx2_operator.cli import downloads, main, training
from ltx2_operator.demands import model_of
from ltx2_operator.doctor.hub import token_of
from ltx2_operator.gpus import CLASSES, CPU

CLIPS = [{"id": "clips", "type": "local", "instance_data_dir": "clips", "caption_strategy": "textfile"}]
DEV = "ltx-2-19b-dev.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A workspace without GPU and with host memory for anything; the job is a stand-in."""
    stand_in_job.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(machine, "KFD", tmp_path / "none")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "_nvidia", lambda environ: [])
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 << 30))
    workspace = tmp_path / "w"
    (workspace / "clips").mkdir(parents=True)
    (workspace / "clips/a.mp4").touch()
    monkeypatch.chdir(workspace)
    return workspace


def write(here, name="Lightricks/LTX-2", **config):
    spec = {"gpu": {"class": "cpu"}, "config": {"pretrained_model_name_or_path": name, "max_train_steps": 2, **config}}
    body = {"apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": "fox"}}
    (here / "training.yaml").write_text(json.dumps(body | {"spec": spec | {"datasets": CLIPS}}))
    return "training.yaml"


def pending(here, **config):
    resolved = resolve({"max_train_steps": 1, **config}, CLIPS)
    found = downloads.pending(resolved.training, Workspace(here), model_of(resolved, CLASSES[0]))
    return str(found) if found else None


def listed(here, name, files, commit=COMMIT):
    """A repository whose listing is here and none of its files."""
    listing = Listing(Repository(name), commit, {path: Entry(size, "sha256:0") for path, size in files.items()})
    snapshots = Snapshots(Workspace(here))
    snapshots.remember(listing, first=True)
    return snapshots.folder(listing)


def test_sizes_come_from_the_flavour_and_then_from_the_listing(here):
    assert pending(here) == "Lightricks/LTX-2: about 62.2 GiB will be downloaded to models/"
    both = {"model_flavour": "2.3-dev", "pretrained_gemma_model_name_or_path": "google/gemma-3-12b-it"}
    assert pending(here, **both) == (
        "Lightricks/LTX-2.3 and google/gemma-3-12b-it: about 64.9 GiB will be downloaded to models/"
    )
    (here / "gemma").mkdir()
    assert "about 40.3 GiB" in pending(here, pretrained_gemma_model_name_or_path="gemma")
    gemma = {"text_encoder/config.json": 10, "text_encoder/model.safetensors": 1 << 30,
             "tokenizer/tokenizer_config.json": 10}  # fmt: skip
    folder = listed(here, "Lightricks/LTX-2", {DEV: 3 << 30, "vae/x.safetensors": 9 << 30, **gemma})
    assert pending(here) == "Lightricks/LTX-2: 4.0 GiB will be downloaded to models/"
    (folder / f"{DEV}.partial").write_bytes(b"")
    with (folder / f"{DEV}.partial").open("r+b") as file:
        file.truncate(2 << 30)
    assert pending(here) == "Lightricks/LTX-2: 2.0 GiB will be downloaded to models/"
    for name, size in {DEV: 3 << 30, **gemma}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with (folder / name).open("wb") as file:
            file.truncate(size)
    assert pending(here) is None


def test_ls_shows_what_was_downloaded(here, capfd):
    assert main(["ls"]) == 0
    assert "MODEL" not in capfd.readouterr().out
    folder = listed(here, "Lightricks/LTX-2", {DEV: 3 << 20, "vae/x.safetensors": 9 << 20})
    (folder / f"{DEV}.partial").write_bytes(bytes(2 << 20))
    assert main(["ls"]) == 0
    (row,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("Lightricks/LTX-2")]
    assert row.split()[1:5] == [COMMIT[:12], "0", "0", "MiB"] and "2 MiB of a file that is still to be" in row
    (folder / f"{DEV}.partial").rename(folder / DEV)
    assert main(["ls"]) == 0
    (row,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("Lightricks/LTX-2")]
    assert row.split() == ["Lightricks/LTX-2", COMMIT[:12], "1", "2", "MiB"]


def test_the_class_cpu_expects_a_small_model_of_ones_own(here):
    resolved = resolve({"max_train_steps": 1, "pretrained_model_name_or_path": "own/tiny"}, CLIPS)
    found = downloads.pending(resolved.training, Workspace(here), model_of(resolved, CPU))
    assert found.bytes < 10 << 30


def test_run_and_check_say_what_will_be_downloaded(here, capfd):
    file = write(here)
    assert main(["check", file]) == 0
    assert "download: Lightricks/LTX-2: about 62.2 GiB will be downloaded to models/" in capfd.readouterr().out
    assert main(["run", file]) == 0
    assert "  download   Lightricks/LTX-2: about 62.2 GiB will be downloaded to models/" in capfd.readouterr().out


def test_a_disk_without_room_is_found_before_anything_starts(here, capfd, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=61 << 30))
    assert main(["run", write(here)]) == 73
    shown = capfd.readouterr()
    assert shown.err.count("\n") == 1
    assert "Lightricks/LTX-2: about 62.2 GiB will be downloaded to models/, 61.0 GiB are free; make room" in shown.err
    assert not (here / "calls.jsonl").exists()
    assert not (here / "runs").exists()
    assert main(["check", write(here)]) == 0
    assert f"no room on this machine: {here}/models: Lightricks/LTX-2: about 62.2" in capfd.readouterr().out


def test_offline_is_found_before_anything_starts(here, capfd, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["run", write(here)]) == 66
    assert "which HF_HUB_OFFLINE forbids; copy the files there" in capfd.readouterr().err
    assert not (here / "calls.jsonl").exists()


@pytest.mark.parametrize("stored", [False, True])
def test_the_token_of_this_machine_reaches_the_job(here, monkeypatch, stored):
    # Catches: a token that only a manifest with a Secret brings along, and one that goes where nothing is downloaded.
    if stored:
        login = Path.home() / ".cache/huggingface/token"
        login.parent.mkdir(parents=True)
        login.write_text("hf_mine\n")
    else:
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert main(["run", write(here)]) == 0
    calls = [json.loads(line) for line in (here / "calls.jsonl").read_text().splitlines()]
    assert [call["env"].get("HF_TOKEN") for call in calls] == ["hf_mine", "hf_mine"]
    assert "hf_mine" not in (here / "runs/fox/training.json").read_text()


def test_where_a_token_is_looked_for(tmp_path):
    assert token_of({"HOME": str(tmp_path)})[0] == ""
    for variable, path in (("HOME", ".cache/huggingface/token"), ("XDG_CACHE_HOME", "huggingface/token"),
                           ("HF_HOME", "token"), ("HF_TOKEN_PATH", "")):  # fmt: skip
        file = tmp_path / variable / path if path else tmp_path / "file"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"hf_{variable}\n")
        place = file if variable == "HF_TOKEN_PATH" else tmp_path / variable
        assert token_of({"HOME": str(tmp_path / "nobody"), variable: str(place)})[0] == f"hf_{variable}"
    assert token_of({"HF_TOKEN": " hf_env\n", "HF_HOME": str(tmp_path / "HF_HOME")})[0] == "hf_env"


def test_a_secret_of_the_manifest_is_not_replaced(here):
    order = training.inputs.from_manifest(training.manifest.training(training.manifest.load(Path(write(here)))), here)
    named = order.body | {"spec": order.body["spec"] | {"secrets": {"hubToken": {"name": "mine"}}}}
    mine = training.replace(order, body=named, training=training.parse(named))
    assert training.with_token(mine, {"HF_TOKEN": "x"}) is mine
    assert training.with_token(order, {}) is order


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        ({}, "--model Lightricks/LTX-2 --lora"),
        ({"model_flavour": "2.3-distilled"}, "--model Lightricks/LTX-2.3 --flavour 2.3-distilled --lora"),
        ({"ltx2_combined_filename": "a.safetensors"}, "--model Lightricks/LTX-2 --filename a.safetensors --lora"),
        ({"pretrained_gemma_model_name_or_path": "google/gemma-3-12b-it"},
         "--model Lightricks/LTX-2 --gemma google/gemma-3-12b-it --lora"),
    ],
)  # fmt: skip
def test_the_next_command_opens_the_same_model(here, capfd, monkeypatch, config, flags):
    assert main(["run", write(here, **config)]) == 0
    assert f"next       ltx2 generate {flags}" in capfd.readouterr().out
    monkeypatch.chdir(here.parent)
    assert main(["run", "w/training.yaml", "--workspace", "w"]) == 0
    assert f"{flags.removesuffix('--lora')}--workspace w --lora" in capfd.readouterr().out
