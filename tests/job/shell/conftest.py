"""What the tests of the shell share: a folder as the operator mounts it."""

import json
from pathlib import Path

import pytest

PLAN = {
    "gpuClass": "cpu",
    "device": "cpu",
    "nodes": 1,
    "processes": 1,
    "memory": "fp32/resident/keep:48",
    "cacheMemory": "device",
    "predictedPeakBytes": 1,
}
CONFIG = {
    "model_family": "ltxvideo2",
    "model_type": "lora",
    "pretrained_model_name_or_path": "models/tiny/ltx-2-tiny.safetensors",
    "max_train_steps": 20,
    "num_train_epochs": 0,
    "learning_rate": 1e-4,
}
DATASETS = [{"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}]


def write_files(folder: Path, config=CONFIG, datasets=DATASETS, plan=PLAN) -> Path:
    """A folder with the three files of a stage."""
    folder.mkdir(exist_ok=True)
    for name, page in (("config", config), ("datasets", datasets), ("plan", plan)):
        (folder / f"{name}.json").write_text(json.dumps(page))
    return folder


@pytest.fixture
def files(tmp_path) -> Path:
    return write_files(tmp_path / "files")
