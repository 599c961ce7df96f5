"""Checkpoints: complete or absent, the newest complete one found, the last complete one never removed."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ltx2_job import checkpoint
from ltx2_job.errors import ConfigError, Superseded

ADAPTER = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(4)}
MOMENTS = {"exp_avg.a": torch.zeros(4), "exp_avg.b": torch.full((2, 3), 0.5)}


def save(folder: Path, step: int, origin: str = "") -> Path:
    return checkpoint.save(folder, step, ADAPTER, MOMENTS, {"origin": origin, "seed": step})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 500)
    assert path == tmp_path / "step-0000500" and checkpoint.damage(path) == ""
    loaded = checkpoint.load(path)
    assert loaded.state == {"version": 1, "step": 500, "origin": "", "seed": 500}
    for saved, read in ((ADAPTER, loaded.adapter), (MOMENTS, loaded.optimizer)):
        assert saved.keys() == read.keys() and all(torch.equal(saved[key], read[key]) for key in saved)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000500"]
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in path.iterdir()), "readable by others on the volume"


def test_the_same_state_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = save(tmp_path / "1", 5), save(tmp_path / "2", 5)
    for name in (checkpoint.ADAPTER, checkpoint.OPTIMIZER, checkpoint.MANIFEST):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("moment", ["guard", "os.replace"])
def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """A fence that has been taken over, or a full volume, right before the end. Catches: renaming before the guard."""

    def guard() -> None:
        raise Superseded("a newer attempt owns this run")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    save(tmp_path, 1)
    if moment == "guard":
        with pytest.raises(Superseded):
            checkpoint.save(tmp_path, 2, ADAPTER, MOMENTS, {}, guard)
    else:
        monkeypatch.setattr(checkpoint, "sync", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(tmp_path, 2, ADAPTER, MOMENTS, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000001"]


def corrupt(path: Path, how: str) -> None:
    if how == "no manifest":
        (path / checkpoint.MANIFEST).unlink()
    elif how == "manifest cut":
        (path / checkpoint.MANIFEST).write_text("{")
    elif how == "manifest lists too little":
        page = json.loads((path / checkpoint.MANIFEST).read_text())
        del page["files"][checkpoint.OPTIMIZER]
        (path / checkpoint.MANIFEST).write_text(json.dumps(page))
    elif how == "missing file":
        (path / checkpoint.OPTIMIZER).unlink()
    elif how == "short file":
        file = path / checkpoint.ADAPTER
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "one bit":
        raw = bytearray((path / checkpoint.ADAPTER).read_bytes())
        raw[-1] ^= 1
        (path / checkpoint.ADAPTER).write_bytes(raw)


HOWS = ["no manifest", "manifest cut", "manifest lists too little", "missing file", "short file", "one bit"]


@pytest.mark.parametrize("how", HOWS)
def test_the_newest_complete_one_is_found_and_broken_ones_are_named(tmp_path: Path, how: str) -> None:
    """Catches: trusting the highest number, or the manifest's presence without its hashes ("one bit")."""
    for step in (1, 2, 3):
        save(tmp_path, step)
    corrupt(tmp_path / "step-0000003", how)
    warnings: list[str] = []
    assert checkpoint.newest_complete(tmp_path, warnings.append) == tmp_path / "step-0000002"
    assert len(warnings) == 1 and "step-0000003" in warnings[0]
    with pytest.raises(ConfigError, match=r"resume_from_checkpoint.*step-0000003"):
        checkpoint.load(tmp_path / "step-0000003")


def test_nothing_complete_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest_complete(tmp_path / "absent") is None
    corrupt(save(tmp_path, 1), "short file")
    assert checkpoint.newest_complete(tmp_path) is None


def test_a_broken_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    corrupt(save(tmp_path, 1), "one bit")
    save(tmp_path, 1)
    assert checkpoint.damage(tmp_path / "step-0000001") == ""
    assert len(list(tmp_path.iterdir())) == 1


def names(folder: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.listed(folder)]


def test_the_limit_keeps_the_newest(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step)
    assert checkpoint.purge(tmp_path, 0, 7) == [] and names(tmp_path) == list(range(1, 8))
    checkpoint.purge(tmp_path, 3, 7)
    assert names(tmp_path) == [5, 6, 7]
    checkpoint.purge(tmp_path, 1, 7)
    assert names(tmp_path) == [7]


@pytest.mark.parametrize("how", HOWS)
def test_the_last_complete_one_is_never_removed(tmp_path: Path, how: str) -> None:
    """Newer broken ones do not count towards the limit. Catches: counting folders, or by sizes alone ("one bit")."""
    for step in (1, 2, 3):
        save(tmp_path, step)
    for step in (2, 3):
        corrupt(tmp_path / f"step-000000{step}", how)
    checkpoint.purge(tmp_path, 1, 1)
    assert checkpoint.newest_complete(tmp_path) == tmp_path / "step-0000001"


def test_checkpoints_of_another_course_are_left_alone(tmp_path: Path) -> None:
    """A run that was rewound to step 1: its own limit does not touch what it left, nor does the other's count."""
    for step in (1, 2, 9):
        save(tmp_path, step)
    origin = checkpoint.identity(tmp_path / "step-0000001")
    for step in (3, 4):
        save(tmp_path, step, origin)
    assert checkpoint.newest_complete(tmp_path, origin=origin) == tmp_path / "step-0000004"
    checkpoint.purge(tmp_path, 1, 4, origin)
    assert names(tmp_path) == [1, 2, 4, 9]


def test_leftovers_of_a_killed_writer_are_never_seen_and_are_swept(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    shutil.copytree(path, tmp_path / ".writing-step-0000002-abc")
    assert names(tmp_path) == [1]
    checkpoint.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000001"]
