"""A volume that is full, over its quota or read-only ends a run with 73 and says what to do; then the run goes on.

A sample: `make test-kill` fills the volume at each kind of write (tests/kills/disk.py).
"""

import errno
import functools
import os
from pathlib import Path

import pytest

from kills import disk, witness
from kills.breaking import Record, Whole, unbroken
from kills.disk import Kind, filled, go_on, volume
from kills.trial import Place, copied, start
from ltx2_job import exitcodes
from ltx2_job.workspace import read_json

needs_root = pytest.mark.skipif(not disk.possible(), reason="mounting a small file system needs root on Linux")
SAMPLE = [kind for kind in disk.KINDS if kind.what in ("text embeddings", "optimizer")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Whole:
    """The unbroken run."""
    return unbroken(tmp_path_factory.mktemp("full") / "unbroken", tiny20, 1)


def ended(place: Place, whole: Whole, stage: str) -> Record:
    """The same run, once the volume takes everything."""
    record = Record("again", disk.FULL, 1, "all", stage)
    go_on(place, whole, stage, record)
    return record


@needs_root
@pytest.mark.parametrize("kind", SAMPLE, ids=lambda kind: kind.what)
def test_a_full_volume_costs_nothing_that_was_complete(tmp_path: Path, whole: Whole, kind: Kind) -> None:
    """A real one, filled in the middle of a write: 73 with file, bytes and remedy; nothing half-written is taken for
    whole; the same run goes on to the same end.
    """
    record = filled(tmp_path / "full", whole, kind)
    assert not record.problems and record.codes == [exitcodes.STORAGE]


@needs_root
def test_a_memory_without_room_costs_time_and_no_more(tmp_path: Path, whole: Whole) -> None:
    """memory.sqlite holds shortcuts only. Catches a run that fails because its notes cannot be kept."""
    place = copied(whole.place, tmp_path / "run", with_cache=False)
    with volume(tmp_path / "small", disk.PAGE * 2) as small:
        disk.fill(small, 0)
        place.cache.mkdir()
        (place.cache / "memory.sqlite").symlink_to(small / "memory.sqlite")
        assert [child.wait() for child in start(place, "cache", 1)] == [0]
        assert "memory.sqlite: cannot be used" in place.output("cache", 1).read_text()
        assert not ended(place, whole, "train").problems


@needs_root
def test_a_read_only_folder_is_named_with_the_user(tmp_path: Path, whole: Whole) -> None:
    """The checkpoints lie on a volume that was mounted read-only. Catches the advice to grow the claim."""
    place = copied(whole.place, tmp_path / "run", with_cache=True)
    with volume(place.run.checkpoints, disk.SIZE, "ro"):
        assert [child.wait() for child in start(place, "train", 1)] == [exitcodes.STORAGE]
        message = read_json(place.termination_log)["message"]
        assert "runs/run/checkpoints" in message and "Read-only file system" in message and "user 0" in message
    assert not ended(place, whole, "train").problems


@pytest.mark.parametrize(
    ("stage", "at", "named"),
    [
        ("cache", r"cache/tmp/.*", "cache"),
        ("train", r"runs/run/checkpoints/.*/optimizer\.safetensors", "runs/run/checkpoints"),
    ],
)
def test_a_quota_that_shows_only_when_a_file_is_synced(
    tmp_path: Path, whole: Whole, stage: str, at: str, named: str
) -> None:
    """Network volumes take every byte and refuse them at fsync. Catches a rename of what the volume did not keep."""
    place = copied(whole.place, tmp_path / "run", with_cache=stage == "train")
    first = functools.partial(refuse_sync, place.root, at)
    assert [child.wait() for child in start(place, stage, 1, first)] == [exitcodes.STORAGE]
    message = read_json(place.termination_log)["message"]
    assert named in message and "no space left" in message and " free" in message and "nothing is lost" in message
    assert "Traceback" not in place.output(stage, 1).read_text()
    assert witness.after_break(place, whole.contents) == []
    assert not ended(place, whole, stage).problems


def refuse_sync(root: Path, at: str) -> None:
    """In the process itself: the volume refuses to keep what is named so."""
    import re

    sync, pattern = os.fsync, re.compile(at)

    def refused(descriptor: int) -> None:
        if pattern.fullmatch(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), root)):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        sync(descriptor)

    os.fsync = refused
