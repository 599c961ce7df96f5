"""What is remembered about files, and when it counts."""

import os
import sqlite3
from pathlib import Path

import pytest

from ltx2_job.caching.remember import Memory, content_hash, identity, settle


def fail(message: str) -> None:
    raise AssertionError(message)


def test_facts_survive_the_process(tmp_path: Path) -> None:
    with Memory(tmp_path / "a" / "memory.sqlite", fail) as memory:
        memory.set("file", "1", "x")
        memory.set("file", "1", "y")
        memory.set("probe", "1", "z")
    with Memory(tmp_path / "a" / "memory.sqlite", fail) as memory:
        assert (memory.get("file", "1"), memory.get("probe", "1"), memory.get("file", "2")) == ("y", "z", None)


def test_a_damaged_file_costs_only_time(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    path.write_bytes(b"this is no database" * 100)
    said: list[str] = []
    with Memory(path, said.append) as memory:
        memory.set("file", "1", "x")
        assert memory.get("file", "1") == "x"
    assert len(said) == 1 and "delete it if it is damaged" in said[0]


def test_two_stages_share_the_file_and_nobody_keeps_it_locked(tmp_path: Path) -> None:
    """Catches: a transaction left open from the first fact on, which ends another stage after 30 s of waiting."""
    path = tmp_path / "memory.sqlite"
    with Memory(path, fail) as memory, Memory(path, fail) as other:
        memory.set("failed", "1", "x")
        assert memory.get("failed", "1") == "x"
        writer = sqlite3.connect(path, timeout=0)
        writer.execute("INSERT INTO facts VALUES ('file', '2', 'y')")  # raises where somebody holds the lock
        writer.commit()
        writer.close()
        other.set("file", "3", "z")
        other.flush()
        assert (memory.get("file", "2"), memory.get("file", "3"), other.get("failed", "1")) == ("y", "z", None)
        memory.flush()
        assert other.get("failed", "1") == "x"


def test_a_file_that_breaks_later_costs_only_time(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    said: list[str] = []
    with Memory(path, said.append) as memory:
        memory.set("file", "1", "x")
        memory.flush()
        path.write_bytes(b"this is no database" * 1000)
        memory.set("file", "2", "y")
        memory.flush()
        assert memory.get("file", "2") == "y"
    assert len(said) == 1 and "cannot be used" in said[0]


def test_other_content_under_the_same_name_size_and_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    before, status = identity(path), path.stat()
    first = content_hash(path)
    path.write_text("two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (status.st_ino, status.st_size, status.st_mtime_ns)
    assert identity(path) != before and content_hash(path) != first


def test_hashing_waits_until_a_later_change_would_show(tmp_path: Path) -> None:
    for _ in range(20):
        path = tmp_path / "a"
        path.write_text("one")
        settle(path)
        before = identity(path)
        path.write_text("two")
        assert identity(path) != before


@pytest.mark.parametrize("change", ["rename", "touch"])
def test_a_renamed_or_touched_file_is_hashed_again_with_the_same_result(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    settle(path)
    before, content = identity(path), content_hash(path)
    if change == "rename":
        path = path.rename(tmp_path / "b")
    else:
        os.utime(path)
    assert identity(path) != before and content_hash(path) == content
