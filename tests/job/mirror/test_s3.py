"""Mirroring an object store over real HTTP: what is asked, what lies on disk afterwards, and every way to fail."""

import errno
import os
import random
import subprocess
import sys

import pytest

import object_store
from ltx2_job import fetching
from ltx2_job.caching.remember import identity
from ltx2_job.errors import AuthError, ConfigError, NoInputError, Stopped, StorageError, UnavailableError
from ltx2_job.mirror import bring, sync
from ltx2_job.mirror.s3 import ObjectStore
from patience import until

CLIP = random.Random(1).randbytes(3_000_000)
OBJECTS = {
    "fox/a.mp4": CLIP, "fox/a.txt": b"a fox", "fox/deep/b.MOV": b"clip b", "fox/deep/b.txt": b"two foxes",
    "fox/README.md": b"# fox", "fox/.trash/c.mp4": b"old", "fox/deep/": b"", "wolf/d.mp4": b"clip d",
}  # fmt: skip
HELD = {"a.mp4": CLIP, "a.txt": b"a fox", "deep/b.MOV": b"clip b", "deep/b.txt": b"two foxes"}
SCRIPT = """
import sys
from pathlib import Path
from ltx2_job.config import resolve
from ltx2_job.mirror.bring import bring
from ltx2_job.reporter import Reporter
from ltx2_job.workspace import Workspace

class Shown(Reporter):
    def info(self, message):
        print(message, flush=True)

entry = {"id": "c", "type": "aws", "aws_bucket_name": "footage", "aws_data_prefix": "fox"}
entry["aws_endpoint_url"] = sys.argv[2]
place = Workspace(Path(sys.argv[1]))
bring(resolve({}, [entry]).clips, place, place.run("fox"), Shown(), lambda: None)
"""


@pytest.fixture
def fox(store, here):
    """The objects in the bucket `footage`; `fox(**keys)` mirrors its folder fox."""
    store.put("footage", OBJECTS)

    def update(**keys):
        here.update(**{"type": "aws", "aws_bucket_name": "footage", "aws_data_prefix": "fox",
                       "aws_endpoint_url": store.url, **keys})  # fmt: skip

    return update


def test_clips_and_captions_come_and_nothing_else(store, here, fox):
    fox()
    assert here.files() == HELD
    assert sorted(store.fetched()) == sorted(f"footage/fox/{name}" for name in HELD)
    assert here.told.lines[-1] == "s3://footage/fox/: 4 files, 2.9 MiB; 4 fetched, 0 removed, 0 here from before"
    assert here.told.transfers[-1][1:] == (sum(map(len, HELD.values())),) * 2
    assert here.told.states == ["downloading", "loading"]


def test_an_update_fetches_what_is_new_and_removes_what_has_gone(store, here, fox):
    fox()
    before = identity(here.mirror.files / "a.mp4")
    store.put("footage", {"fox/deep/b.txt": b"two wolves", "fox/e.mp4": b"clip e"})  # the first has the size it had
    store.remove("footage", "fox/deep/b.MOV")
    fox()
    assert here.files() == {"a.mp4": CLIP, "a.txt": b"a fox", "deep/b.txt": b"two wolves", "e.mp4": b"clip e"}
    assert sorted(store.fetched()) == ["footage/fox/deep/b.txt", "footage/fox/e.mp4"]
    assert "2 fetched, 1 removed, 2 here from before" in here.told.lines[-1]
    assert identity(here.mirror.files / "a.mp4") == before  # so that nothing is hashed again
    store.remove("footage", "fox/deep/b.txt")
    (here.mirror.files / "a.txt").write_bytes(b"half")
    (here.mirror.files / "mine.mp4").write_bytes(b"put there by hand")
    store.requests.clear()
    fox()
    assert here.files() == {"a.mp4": CLIP, "a.txt": b"a fox", "e.mp4": b"clip e"}
    assert store.fetched() == ["footage/fox/a.txt"] and not (here.mirror.files / "deep").exists()


def test_an_unchanged_source_is_listed_and_nothing_else(store, here, fox):
    fox()
    store.requests.clear()
    fox()
    assert [(method, path) for method, path, *_ in store.requests] == [("GET", "/footage")]


def test_a_cut_goes_on_where_it_was(store, here, fox):
    store.cuts["/footage/fox/a.mp4"] = 1_000_000
    fox()
    assert here.files() == HELD
    ranges = [wanted for _, path, _, wanted in store.requests if path == "/footage/fox/a.mp4"]
    assert ranges == [None, "bytes=1000000-"] and here.waits


def test_a_stop_keeps_what_has_come_and_the_next_run_goes_on(store, here, fox):
    def stop():
        partial = here.mirror.home / "partial"
        if partial.is_dir() and any(path.stat().st_size for path in partial.iterdir()):
            raise Stopped("told to stop")

    here.check = stop
    with pytest.raises(Stopped):
        fox()
    assert here.files() == {}
    here.check = lambda: None
    store.requests.clear()
    fox()
    assert here.files() == HELD
    wanted = next(each for _, path, _, each in store.requests if path == "/footage/fox/a.mp4")
    assert int(wanted.removeprefix("bytes=").rstrip("-")) > 0
    assert "of them here from before" in [line for line in here.told.lines if line.startswith("downloading")][-1]


def test_what_was_begun_of_another_content_is_not_gone_on_with(store, here, fox):
    def stop():
        if here.mirror.home.joinpath("partial").is_dir() and here.told.transfers:
            raise Stopped("told to stop")

    here.check = stop
    with pytest.raises(Stopped):
        fox()
    here.check = lambda: None
    other = bytes(reversed(CLIP))
    store.put("footage", {"fox/a.mp4": other})
    fox()
    assert here.files()["a.mp4"] == other
    assert list((here.mirror.home / "partial").iterdir()) == []


def test_an_object_that_changes_during_the_download_is_never_mixed(store, here, fox, monkeypatch):
    store.cuts["/footage/fox/a.mp4"] = 1_000_000
    tries = []

    def again(fetcher, count, why):
        store.client.put_object(Bucket="footage", Key="fox/a.mp4", Body=b"new")
        tries.append(why)
        assert len(tries) == 1, "gone on with another object"

    monkeypatch.setattr(fetching.Fetcher, "again", again)
    with pytest.raises(UnavailableError, match=r"fox/a.mp4: it was changed or removed during the download"):
        fox()
    assert "a.mp4" not in here.files()
    fox()
    assert here.files()["a.mp4"] == b"new"


def test_two_processes_download_once(store, here, fox):
    store.hold["/footage/fox/a.mp4"] = 1_000_000
    store.held.clear()
    store.go.clear()

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(here.workspace.root), store.url], text=True, env=dict(os.environ),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    first = start()
    assert store.held.wait(60)
    second = start()
    waiting = next(line for line in second.stdout if "another process downloads" in line)
    store.go.set()
    shown = [waiting + process.communicate(timeout=60)[0] for process in (second, first)]
    assert first.returncode == second.returncode == 0, shown
    assert "0 fetched, 0 removed, 4 here from before" in shown[0]
    assert sorted(store.fetched()) == sorted(f"footage/fox/{name}" for name in HELD)


def test_a_killed_process_loses_at_most_the_file_at_hand(store, here, fox):
    store.hold["/footage/fox/deep/b.MOV"] = 3
    store.held.clear()
    store.go.clear()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(here.workspace.root), store.url], env=dict(os.environ)
    )
    assert store.held.wait(60)
    until(lambda: list(here.workspace.downloads.glob("*/files/a.txt")), "the files before it")
    process.kill()
    process.wait()
    store.go.set()
    store.requests.clear()
    fox()
    assert here.files() == HELD
    assert [path for path in store.fetched() if path.endswith(("a.mp4", "a.txt"))] == []


def test_a_volume_without_room_is_told_before_the_first_byte(store, here, fox, monkeypatch):
    monkeypatch.setattr(fetching, "free", lambda path: 1000)
    with pytest.raises(StorageError, match=r"s3://footage/fox/ needs 2.9 MiB more, 1000 B are free; grow the volume"):
        fox()
    assert store.fetched() == [] and here.files() == {}


def test_a_volume_that_fills_up_is_told_and_what_came_is_kept(store, here, fox, monkeypatch):
    real = sync.Mirror._put

    def full(self, partial, target):
        if target.name == "b.MOV":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(self, partial, target)

    monkeypatch.setattr(sync.Mirror, "_put", full)
    with pytest.raises(StorageError, match=r"needs .* more, .* are free; grow the volume or make room, then run again"):
        fox()
    assert set(here.files()) == {"a.mp4", "a.txt"}


def test_names_that_no_volume_can_hold_are_left_out_and_told(store, here, fox):
    odd = ["fox//e.mp4", "fox/../f.mp4", "fox/" + "g" * 260 + ".mp4", "fox/h.mp4"]
    store.put("footage", {**dict.fromkeys(odd, b"odd"), "fox/h.mp4/i.mp4": b"inside a file"})
    fox()
    assert here.files() == HELD | {"h.mp4/i.mp4": b"inside a file"}
    told = [line for line in here.told.lines if "left out, no file can have that name" in line]
    assert len(told) == 4
    assert not list(here.workspace.root.rglob("f.mp4"))


def test_more_objects_than_a_page_holds(store, here, fox):
    store.put("footage", {f"many/{number:04}.mp4": b"x" for number in range(1001)})
    source = ObjectStore(here.dataset(type="aws", aws_bucket_name="footage", aws_data_prefix="many",
                                      aws_endpoint_url=store.url))  # fmt: skip
    assert len(source.listing().files) == 1001
    pages = [query for _, path, query, _ in store.requests if path == "/footage"]
    assert len(pages) == 2
    assert source.has_clip()
    assert len([query for _, path, query, _ in store.requests if path == "/footage"]) == 3


def test_a_folder_without_clips_keeps_what_is_here(store, here, fox):
    fox()
    for name in OBJECTS:
        store.remove("footage", name)
    with pytest.raises(NoInputError, match="s3://footage/fox/: there is no video file there yet; put the clips there"):
        fox()
    assert here.files() == HELD


CODE = object_store.ERROR.format
REFUSALS = [
    ((403, CODE("AccessDenied")), AuthError, "403 AccessDenied: these keys may not read it; give keys", 0),
    ((403, CODE("InvalidAccessKeyId")), AuthError, "403 InvalidAccessKeyId", 0),
    ((403, CODE("SignatureDoesNotMatch")), AuthError, "spec.secrets.objectStore", 0),
    ((401, ""), AuthError, "answers 401", 0),
    ((400, CODE("ExpiredToken")), AuthError, "400 ExpiredToken", 0),
    ((404, CODE("NoSuchBucket")), ConfigError, "datasets[clips].aws_bucket_name: there is no bucket footage on", 0),
    ((404, "<html>no such page</html>"), ConfigError, "datasets[clips].aws_endpoint_url: http", 0),
    ((200, "<html>a console</html>"), ConfigError, "datasets[clips].aws_endpoint_url: http", 0),
    ((200, "welcome"), UnavailableError, "is aws_endpoint_url the address of its S3 interface?", 5),
    ((301, ""), ConfigError, "it sends every question elsewhere; is it https?", 0),
    ((307, ""), ConfigError, "it sends every question elsewhere; is it https?", 0),
    ((400, CODE("IllegalLocationConstraintException")), ConfigError, "datasets[clips].aws_region_name: footage", 0),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "kind", "says", "waits"), REFUSALS, ids=lambda value: str(value)[:40])
def test_a_refusal_is_named_with_its_field_and_not_tried_again(store, here, fox, fault, kind, says, waits):
    store.faults += [fault] * 20  # the SDK looks twice or more at some of them
    with pytest.raises(kind) as error:
        fox()
    assert says in str(error.value) and "\n" not in str(error.value)
    assert bool(here.waits) == bool(waits)
    assert not list(here.workspace.downloads.glob("*")), "a refused source left a folder behind"


@pytest.mark.parametrize("fault", [(503, CODE("SlowDown")), (500, CODE("InternalError")), (429, "")])
def test_a_store_that_is_busy_is_asked_again(store, here, fox, fault):
    store.faults += [fault] * 2
    fox()
    assert here.files() == HELD
    assert sum(line.startswith("s3://footage/fox/") and "; try" in line for line in here.told.lines) == 2


def test_a_store_that_cannot_be_reached_is_unavailable_after_the_last_try(store, here, fox):
    with pytest.raises(UnavailableError, match=r"not reachable: s3://footage/fox/: .*127\.0\.0\.1:9/"):
        fox(aws_endpoint_url="http://127.0.0.1:9")
    assert len([line for line in here.told.lines if "; try" in line]) == fetching.TRIES - 1


def test_what_is_there_is_described_without_fetching_it(store, here, fox):
    keys = {"type": "aws", "aws_bucket_name": "footage", "aws_data_prefix": "fox", "aws_endpoint_url": store.url}
    said = bring.described(here.dataset(**keys), here.workspace)
    assert said == "s3://footage/fox/: 2 clips and 2 captions, 2.9 MiB; 2.9 MiB will be downloaded to downloads/"
    assert store.fetched() == [] and not here.workspace.downloads.exists()
    fox()
    assert bring.described(here.dataset(**keys), here.workspace).endswith("; all of it is here")
    store.faults.append((403, CODE("AccessDenied")))
    assert bring.described(here.dataset(**keys), here.workspace).startswith(
        "not looked at from here: s3://footage/fox/"
    )
