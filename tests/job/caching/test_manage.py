"""Listing the store and freeing space in it."""

import os
import signal
from pathlib import Path

import pytest

from cache_bench import Bench
from ltx2_job.caching.manage import Freed, collect, in_use, listing
from ltx2_job.errors import DataError, UnavailableError


def totals(bench: Bench) -> dict[str, tuple[int, int]]:
    return {row.kind: (row.items, row.unused_items) for row in listing(bench.workspace)}


def test_what_no_run_refers_to_is_unused_and_collected(bench: Bench) -> None:
    clip = bench.clip("a")
    bench.clip("b", level=0.4)
    bench.run()
    assert totals(bench) == {"video": (2, 0), "audio": (2, 0), "text": (5, 0)}
    assert collect(bench.workspace) == Freed(0, 0)
    clip.unlink()
    bench.run()
    assert totals(bench) == {"video": (2, 1), "audio": (2, 1), "text": (5, 1)}
    would = collect(bench.workspace, dry_run=True)
    assert would.items == 3 and totals(bench)["video"] == (2, 1)
    assert collect(bench.workspace) == would
    assert totals(bench) == {"video": (1, 0), "audio": (1, 0), "text": (4, 0)}
    _, encoded = bench.run()
    assert not encoded


def test_runs_elsewhere_keep_their_items(bench: Bench) -> None:
    bench.clip("a")
    bench.config["output_dir"] = "output/bar"
    bench.run("bar")
    assert collect(bench.workspace) == Freed(0, 0)
    (bench.workspace.root / "output" / "bar" / "index.json").unlink()
    assert collect(bench.workspace).items == 6


def test_a_name_that_moved_keeps_the_items_of_all_its_folders(bench: Bench) -> None:
    """Catches an index that is no longer looked at once another folder has the run's name."""
    for clip, output_dir in (("a", None), ("b", "output/one"), ("c", "output/two")):
        path = bench.clip(clip, level=0.2 + ord(clip) / 1000)
        bench.config["output_dir"] = output_dir
        bench.run("bar")
        path.unlink()
    assert collect(bench.workspace) == Freed(0, 0)
    assert totals(bench)["video"] == (3, 0)


def test_a_mirror_goes_when_no_run_has_clips_of_it(bench: Bench) -> None:
    """Catches clips of an object store that fill the volume for ever, and those of a run that are fetched again."""
    bench.clips = files = bench.workspace.downloads / "footage-1a2b3c4d5e6f" / "files"
    bench.dataset["instance_data_dir"] = "downloads/footage-1a2b3c4d5e6f/files"
    bench.clip("a")
    bench.run("bar")
    other = bench.workspace.downloads / "old-999999999999" / "files"
    other.mkdir(parents=True)
    (other / "b.mp4").write_bytes(b"x" * 1000)
    rows = {row.kind: (row.items, row.unused_items, row.unused_bytes) for row in listing(bench.workspace)}
    assert rows["footage-1a2b3c4d5e6f"] == (2, 0, 0) and rows["old-999999999999"] == (1, 1, 1000)
    assert collect(bench.workspace, dry_run=True) == Freed(1, 1000) and other.exists()
    assert collect(bench.workspace) == Freed(1, 1000)
    assert not other.parent.exists() and len(list(files.iterdir())) == 2


def test_nothing_is_collected_while_a_cache_stage_works(bench: Bench) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with in_use(bench.workspace):
            os.write(writer, b".")
            signal.pause()
        os._exit(0)
    os.read(reader, 1)
    try:
        with in_use(bench.workspace):  # several at once may work
            pass
        with pytest.raises(UnavailableError, match="a cache stage is at work"):
            collect(bench.workspace)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert collect(bench.workspace) == Freed(0, 0)


def test_an_index_that_cannot_be_understood_protects_everything(bench: Bench) -> None:
    bench.clip("a")
    bench.run()
    (bench.workspace.root / "runs" / "old").mkdir()
    (bench.workspace.root / "runs" / "old" / "index.json").write_text('{"version": 0}')
    with pytest.raises(DataError, match="version 0"):
        collect(bench.workspace)
    assert totals_by_hand(bench.workspace.cache) == 6


def totals_by_hand(root: Path) -> int:
    return len(list(root.rglob("*.safetensors")))
