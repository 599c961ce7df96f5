"""A Hub of the test's own, an empty workspace, and a download that keeps what it is told and never sleeps."""

import os
import random
from types import SimpleNamespace

import pytest

from hub_server import Hub
from ltx2_job.config import resolve
from ltx2_job.hub.download import Downloader
from ltx2_job.hub.snapshot import Snapshots
from ltx2_job.workspace import Workspace
from told import Told

CLIPS = [{"id": "clips", "type": "local", "instance_data_dir": "clips", "caption_strategy": "textfile"}]
DEV, NEW = "ltx-2-19b-dev.safetensors", "ltx-2.3-22b-dev.safetensors"
SIZE = 3_000_000


def noise(seed, size=SIZE):
    """Bytes that no compression and no repetition makes smaller."""
    return random.Random(seed).randbytes(size)


def gemma(folder="text_encoder/", tokenizer="tokenizer/", seed=7):
    """A text encoder's files: two shards with their index, configuration, tokenizer."""
    return {
        f"{folder}config.json": b'{"model_type": "gemma3"}',
        f"{folder}model.safetensors.index.json": b'{"weight_map": {}}',
        f"{folder}model-00001-of-00002.safetensors": noise(seed, 50_000),
        f"{folder}model-00002-of-00002.safetensors": noise(seed + 1, 50_000),
        f"{tokenizer}tokenizer_config.json": b"{}",
        f"{tokenizer}tokenizer.json": noise(seed + 2, 20_000),
    }


def published(seed=1):
    """Lightricks/LTX-2 as it is laid out: combined files, and folders in diffusers' layout that nobody wants here."""
    return {
        "README.md": b"# LTX-2",
        DEV: noise(seed),
        "ltx-2-19b-dev-fp8.safetensors": noise(seed + 10, 9_000),
        "ltx-2-19b-distilled.safetensors": noise(seed + 11, 9_000),
        "model_index.json": b"{}",
        "transformer/config.json": b"{}",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": noise(seed + 12, 9_000),
        "vae/diffusion_pytorch_model.safetensors": noise(seed + 13, 9_000),
        "text_encoder/diffusion_pytorch_model.safetensors.index.json": b"{}",
        "text_encoder/diffusion_pytorch_model-00001-of-00001.safetensors": noise(seed + 14, 9_000),
        **gemma(),
    }


@pytest.fixture
def hub(monkeypatch):
    served = Hub()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    served.add("Lightricks/LTX-2", published())
    yield served
    served.close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A workspace with a run, and `fetch(**config)` in it."""
    workspace = Workspace(tmp_path / "w")
    workspace.root.mkdir()
    told = Told()

    def config(**keys):
        return resolve({"max_train_steps": 1, **keys}, CLIPS).training

    def snapshots(run="fox"):
        return Snapshots(workspace, workspace.run(run) if run else None)

    def fetch(check=lambda: None, run="fox", **keys):
        waits = []
        found = Downloader(snapshots(run), told, check, sleep=waits.append).fetch(config(**keys))
        snapshots(run).record(config(**keys))
        return found

    home = workspace.models / "Lightricks--LTX-2"
    return SimpleNamespace(
        workspace=workspace, root=workspace.root, told=told, config=config, snapshots=snapshots, fetch=fetch, home=home,
        environ=lambda hub: {**os.environ, "HF_ENDPOINT": hub.url},
    )  # fmt: skip
