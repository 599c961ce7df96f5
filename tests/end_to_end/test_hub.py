"""A manifest whose model is a name of the Hub, from the first byte to the LoRA, by the shipped commands."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hub_server import TOKEN, Hub
from ltx2_job.hub.snapshot import PARTIAL
from media import write_clip
from patience import until

LTX2 = str(Path(sys.executable).parent / "ltx2")
DEV = "ltx-2-19b-dev.safetensors"
MANIFEST = {
    "apiVersion": "ltx2.dev/v1alpha1",
    "kind": "LTX2Training",
    "metadata": {"name": "fox"},
    "spec": {
        "gpu": {"class": "cpu"},
        "config": {
            "pretrained_model_name_or_path": "own/tiny-ltx-2", "model_flavour": "dev", "max_train_steps": 2,
            "resolution": 64, "lora_rank": 4, "validation_disable": True,
        },
        "datasets": [
            {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips",
             "caption_strategy": "textfile", "video": {"num_frames": 9, "min_frames": 9}},
        ],
    },
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub(tiny20):
    served = Hub()
    gemma = {path.name: path.read_bytes() for path in (tiny20.parent / "gemma").iterdir()}
    tokenizer = {f"tokenizer/{name}": data for name, data in gemma.items() if "token" in name}
    files = {DEV: tiny20.read_bytes(), **{f"text_encoder/{name}": data for name, data in gemma.items()}, **tokenizer}
    served.add("own/tiny-ltx-2", files | {"transformer/model.safetensors": b"x" * 9000}, gated=True)
    yield served
    served.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    clip = write_clip(folder / "clips" / "a.mp4", width=64, height=64, frames=9)
    clip.with_suffix(".txt").write_text("a fox")
    return folder


def start(hub, workspace, *arguments, token=TOKEN, **environ):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LTX2", "HF_"))}
    environment = kept | {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": hub.url, **environ}
    if token:
        environment["HF_TOKEN"] = token
    return subprocess.Popen([LTX2, *map(str, arguments)], text=True, env=environment, cwd=workspace,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def ltx2(hub, workspace, *arguments, expect=0, **options):
    process = start(hub, workspace, *arguments, **options)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == expect, out
    return out


def manifest(workspace, name, **config):
    body = json.loads(json.dumps(MANIFEST))
    body["metadata"]["name"] = name
    body["spec"]["config"] |= config
    path = workspace / f"{name}.yaml"
    path.write_text(yaml.safe_dump(body))
    return path.name


def test_from_a_name_to_a_lora_and_on_without_the_network(hub, workspace, tiny20):
    # Catches: a stage that finds the model its own way, a later stage that asks the network, a token that does not
    # reach the job, a stopped download that begins anew.
    fox = manifest(workspace, "fox")
    said = ltx2(hub, workspace, "check", fox)
    assert "download: own/tiny-ltx-2: about" in said

    said = ltx2(hub, workspace, "run", fox, token=None, expect=77)
    assert "own/tiny-ltx-2 is gated: accept its licence with an account at" in said
    assert "Traceback" not in said

    hub.hold[DEV] = half = len(tiny20.read_bytes()) // 2
    process = start(hub, workspace, "run", fox)
    assert hub.held.wait(120)
    until(lambda: sum(path.stat().st_size for path in workspace.rglob(DEV + PARTIAL)) >= half, "the half on the volume")
    process.send_signal(signal.SIGTERM)
    heard = next(
        line for line in process.stdout if "stopping the download, keeping what has been fet" in line
    )  # the job itself knows
    hub.go.set()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 85, heard + said
    assert "fox is paused; the same command goes on: ltx2 run fox.yaml" in said

    said = ltx2(hub, workspace, "run", fox)
    assert "of them here from before" in said
    assert "next       ltx2 generate --model own/tiny-ltx-2 --lora runs/fox/lora.safetensors" in said
    ranges = [wanted for _, path, wanted, _ in hub.asked(DEV) if "/resolve/" not in path]
    assert ranges[0] is None and int(ranges[1].removeprefix("bytes=").rstrip("-")) >= half
    assert set(hub.sent) >= {DEV} and not hub.asked("transformer/") and hub.leaked == []
    model = json.loads((workspace / "runs/fox/model.json").read_text())
    commit = hub.repos["own/tiny-ltx-2"].names["main"]
    assert model["commits"] == {"own/tiny-ltx-2": commit}
    assert (workspace / model["model"]).read_bytes() == tiny20.read_bytes()

    hub.close()
    offline = {"token": None, "HF_HUB_OFFLINE": "1"}
    again = ltx2(hub, workspace, "run", manifest(workspace, "vixen", max_train_steps=3), **offline)
    assert "download" not in again
    assert (workspace / "runs/vixen/lora.safetensors").exists()
    assert "not in this workspace" not in ltx2(hub, workspace, "check", fox, **offline)
    ltx2(hub, workspace, "export", "--run", "fox", "--output", "exported", **offline)
    flags = "--model own/tiny-ltx-2 --lora runs/fox/lora.safetensors --prompt fox --width 64 --height 64 --frames 9"
    ltx2(hub, workspace, "generate", *flags.split(), "--steps", "1", "--output", "a.mp4", **offline)
    assert (workspace / "a.mp4").stat().st_size > 0
