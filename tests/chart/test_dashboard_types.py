"""The dashboards against Grafana's own types of a dashboard, by the TypeScript compiler."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clients import CHART
from cluster.harness.binaries import cache_folder
from cluster.required import missing

PINNED = Path(__file__).with_name("grafana")
BOARDS = ("training", "operator")


@pytest.fixture(scope="session")
def modules() -> Path:
    """Grafana's types and the compiler out of npm, kept outside the checkout under a key of what is pinned."""
    if shutil.which("npm") is None:
        missing("no npm: install Node.js")
    files = [PINNED / "package.json", PINNED / "package-lock.json"]
    folder = cache_folder() / "grafana" / hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process installs, the others wait and find it
        if not folder.exists():
            unfinished = folder.with_suffix(f".{os.getpid()}")
            shutil.copytree(PINNED, unfinished)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=unfinished, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                shutil.rmtree(unfinished)
                missing(f"npm cannot install Grafana's types: {done.stderr[-300:]}")
            unfinished.rename(folder)
    return folder / "node_modules"


def complaints(modules: Path, folder: Path, board: dict[str, Any]) -> str:
    """What the compiler says of a dashboard."""
    (folder / "node_modules").symlink_to(modules)
    text = json.dumps(board)
    (folder / "board.ts").write_text(
        f'import type {{ Dashboard }} from "@grafana/schema";\nexport const board: Partial<Dashboard> = {text};\n'
    )
    options = "--noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext --target es2022"
    command = [str(modules / ".bin" / "tsc"), *options.split(), "board.ts"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False).stdout


def board(name: str) -> dict[str, Any]:
    return dict(json.loads((CHART / "dashboards" / f"{name}.json").read_text()))


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_has_grafanas_types(name: str, modules: Path, tmp_path: Path) -> None:
    assert complaints(modules, tmp_path, board(name)) == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"refresh": 30}, "'number' is not assignable to type 'string'"),
        ({"panels": [{"id": 1, "type": "stat", "gridPos": {"x": "0", "y": 0, "w": 4, "h": 4}}]}, "not assignable"),
        ({"templating": {"list": [{"name": "training", "type": "quary"}]}}, "quary"),
        ({"title": "LTX-2", "panel": []}, '"panel"'),
    ],
)
def test_a_wrong_type_is_found(wrong: dict[str, Any], said: str, modules: Path, tmp_path: Path) -> None:
    """The types are not just `any`."""
    assert said in complaints(modules, tmp_path, wrong)
