"""The checkout in which the pages' commands are run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from checkout import Checkout, Ran
from clips import demo_clips
from docpages import ROOT, Command, pages

COPIED = ("README.md", "Makefile", "pyproject.toml", "uv.lock", "configs", "docs", "scripts")
# What the pages call things beside `demo`: training.yaml, the demo's finished run and the tiny model by other names.
RUNS = ("my-style", "fox")
EARLIER = "step-0001500"  # a checkpoint of 2,000 steps with the default interval
MODELS = ("ltx-2-tiny.safetensors", "ltx-2-19b-dev.safetensors")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Checkout:
    """A checkout after `make demo`, with the clips in datasets/videos and a model and runs as the pages name them."""
    root = tmp_path_factory.mktemp("docs") / "ltx2-operator"
    root.mkdir()
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, root / name)
    (root / ".venv").mkdir()
    (root / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (root / ".venv" / "ready").touch()  # newer than the lock file: make installs nothing
    shutil.copy(ROOT / "configs" / "my-style.yaml", root / "training.yaml")
    clips = demo_clips()
    for folder in ("demo/datasets/videos", "datasets/videos"):
        shutil.copytree(clips, root / folder)
    shutil.copytree(tiny20.parent / "gemma", root / "models" / "gemma")
    for name in MODELS:
        shutil.copy(tiny20, root / "models" / name)
    made = Checkout(root, _variables(root))
    demo = made.run("make demo")
    assert demo.code == 0, demo.output
    for name in RUNS:
        shutil.copytree(root / "demo" / "runs" / "quickstart", root / "runs" / name)
        checkpoints = root / "runs" / name / "checkpoints"
        (checkpoints / "step-0000040").rename(checkpoints / EARLIER)
    shutil.copytree(root / "demo" / "cache", root / "cache")
    return made


@pytest.fixture(scope="session")
def outcomes(checkout: Checkout) -> dict[Command, Ran]:
    """Every unmarked command of every page, run."""
    return {command: ran for page in pages() for command, ran in checkout.page(page).items()}


def _variables(root: Path) -> dict[str, str]:
    """The tests' own variables without what would change a run; no hub can be reached."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not re.match(r"LTX2|HF_|HUGGING|MAKE|MFLAGS|CUDA_|PYTEST|COV_|PWD|OLDPWD|SHLVL|_$", key)
    }
    home = root.parent / "home"
    home.mkdir()
    return kept | {
        "PATH": f"{root / '.venv' / 'bin'}:{os.environ['PATH']}", "HOME": str(home), "OMP_NUM_THREADS": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9", "LC_ALL": "C.UTF-8", "COLUMNS": "120",
    }  # fmt: skip
