"""A workspace that would train, a machine without GPU, and an eye on every process that is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from ltx2_job import cli as job
from ltx2_operator import machine
from media import write_clip
from mistakes.cases import CONFIG, DATASETS, MANIFEST, Became, Place


@pytest.fixture(scope="session")
def a_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small clip with sound."""
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", width=64, height=64, frames=17)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files: nothing may be left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny20: Path, a_clip: Path) -> Place:
    """The workspace, as the current folder."""
    root = tmp_path / "w"
    made = Place(root, monkeypatch)
    made.write("training.yaml", MANIFEST)
    made.write("config/config.json", CONFIG)
    made.write("config/multidatabackend.json", DATASETS)
    made.write("clips/a.txt", "a fox")
    shutil.copy(a_clip, root / "clips/a.mp4")
    (root / "models/gemma").mkdir(parents=True)
    for file in (tiny20, *(tiny20.parent / "gemma").iterdir()):
        (root / "models" / file.relative_to(tiny20.parent)).symlink_to(file)
    monkeypatch.chdir(root)
    for name in os.environ:
        if name.startswith(("LTX2_", "HF_", "CUDA_VISIBLE", "HIP_VISIBLE")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(machine, "KFD", tmp_path / "none")
    monkeypatch.setattr(machine, "_nvidia", lambda environ: [])
    return made


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every process that was started. `ltx2` becoming `ltx2-job` is none: it goes on here, in this process."""
    seen: list[object] = []

    def start(*args: object, **_: object) -> None:
        if args and isinstance(args[0], subprocess.Popen):
            args[0].returncode, args[0].args = 0, args[1:]  # what is looked at when it is shown and collected
        seen.append(args)
        raise AssertionError(f"a process was started: {args}")

    def become(program: str, argv: list[str]) -> None:
        raise Became(job.main(argv[1:]))

    monkeypatch.setattr(subprocess.Popen, "__init__", start)
    for name in ("posix_spawn", "posix_spawnp", "fork", "forkpty", "system"):
        monkeypatch.setattr(os, name, start)
    monkeypatch.setattr(os, "execv", become)
    return seen
