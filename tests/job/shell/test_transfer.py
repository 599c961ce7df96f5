"""Files between two processes over pipes: whole or absent, resumable, checked; the peers are those of `ltx2-job`."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltx2_job import transfer
from ltx2_job.errors import DataError, UnavailableError
from ltx2_job.transfer import OtherVersionError, RemoteError, Tally
from peers import Peer

CONTENT = {"a.mp4": b"first" * 200_000, "b/c.mp4": b"second", "b/c.txt": b"", "a b.txt": b"words"}


def write(folder: Path, content: dict[str, bytes] = CONTENT) -> dict[str, Path]:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return transfer.listed(folder)


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def receiver(there: Path, folder: str = "datasets/videos", **options) -> Peer:
    return Peer("receive", "--workspace", str(there), "--to", folder, **options)


def test_a_folder_arrives_once_and_what_changed_again(here: Path, there: Path) -> None:
    files = write(here, CONTENT | {".hidden/x.mp4": b"no", ".DS_Store": b"no"})
    (here / "b/link.mp4").symlink_to(here / "b/c.mp4")
    files = transfer.listed(here)
    whole = sum(map(len, CONTENT.values())) + len(CONTENT["b/c.mp4"])
    peer = receiver(there)
    assert transfer.send(peer, files) == Tally(5, whole, 0) and peer.end() == 0
    expected = CONTENT | {"b/link.mp4": CONTENT["b/c.mp4"]}
    assert read(there / "datasets/videos") == expected
    again = receiver(there)
    assert transfer.send(again, files) == Tally(0, 0, 5) and again.end() == 0
    assert again.written < 1000, "what is there is not sent"
    files["b/c.mp4"].write_bytes(b"SECOND")
    os.utime(files["b/c.mp4"], (1, 1))
    peer = receiver(there)
    assert transfer.send(peer, files) == Tally(2, 12, 3) and peer.end() == 0
    assert read(there / "datasets/videos") == expected | {"b/c.mp4": b"SECOND", "b/link.mp4": b"SECOND"}
    spoilt = there / "datasets/videos/a b.txt"
    kept = spoilt.stat().st_mtime
    spoilt.write_bytes(b"wor")
    os.utime(spoilt, (kept, kept))
    peer = receiver(there)
    assert transfer.send(peer, files) == Tally(1, 5, 4) and peer.end() == 0
    assert spoilt.read_bytes() == b"words"


def test_a_receiver_that_is_killed_leaves_whole_files_and_the_next_goes_on(here: Path, there: Path) -> None:
    files = write(here, {"a.mp4": b"a" * 1000, "b.mp4": b"b" * 4_000_000, "c.mp4": b"c"})
    peer = receiver(there)

    def kill(name: str, size: int) -> None:
        if name == "b.mp4":
            peer.process.kill()
            peer.process.wait()

    with pytest.raises(UnavailableError, match="broke off; what has arrived whole stays"):
        transfer.send(peer, files, kill)
    folder = there / "datasets/videos"
    assert set(read(folder)) - {"a.mp4"} == {path.name for path in folder.glob(".*.part")} != set()
    peer = receiver(there)
    assert transfer.send(peer, files) == Tally(2, 4_000_001, 1) and peer.end() == 0
    assert {name: len(data) for name, data in read(folder).items()} == {"a.mp4": 1000, "b.mp4": 4_000_000, "c.mp4": 1}


def test_bytes_that_change_on_the_way_are_noticed_and_leave_nothing(here: Path, there: Path) -> None:
    files = write(here, {"a.mp4": b"a" * 1000})
    peer = receiver(there, spoil=lambda data: data.replace(b"aaaa", b"abaa", 1))
    with pytest.raises(RemoteError, match=r"a\.mp4: arrived damaged \(1000 of 1000 bytes\)") as told:
        transfer.send(peer, files)
    assert told.value.exit_code == peer.end() == 65
    assert read(there) == {}


def test_a_file_that_changes_while_it_is_sent_does_not_arrive(here: Path, there: Path) -> None:
    files = write(here, {"a.mp4": b"a" * 1_000_000})
    peer = receiver(there)
    with pytest.raises(DataError, match="changed while it was being sent"):
        transfer.send(peer, files, lambda name, size: os.utime(files["a.mp4"], (5, 5)))
    peer.process.stdin.close()
    peer.process.stdin = None
    assert peer.end() == 69
    assert read(there) == {}


def test_without_room_nothing_is_written(here: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of 8 EB: no disk holds it."""
    here.mkdir()
    with (here / "huge.mp4").open("wb") as file:
        file.truncate(2**43)
    peer = receiver(there)
    with pytest.raises(RemoteError, match=r"no space left \(needs 8192\.0 GiB, \d+\.\d GiB free\)") as told:
        transfer.send(peer, transfer.listed(here))
    assert told.value.exit_code == peer.end() == 73
    assert read(there) == {}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_a_name_outside_of_the_folder_is_not_taken(there: Path, name: str) -> None:
    peer = receiver(there)
    talk = transfer.Talk(peer)
    talk.say({"offer": [{"name": name, "size": 1, "mtime": 1}]})
    with pytest.raises(RemoteError, match="is no name of a file below the folder"):
        talk.hear("wanted")
    assert peer.end() == 69


@pytest.mark.parametrize("folder", ["..", "/etc", "datasets/../../x"])
def test_a_folder_outside_of_the_workspace_is_refused(here: Path, there: Path, folder: str) -> None:
    peer = receiver(there, folder)
    with pytest.raises(RemoteError, match="lies outside of the volume") as told:
        transfer.send(peer, write(here))
    assert told.value.exit_code == peer.end() == 78


def test_two_uploads_of_one_file_do_not_mix(here: Path, there: Path) -> None:
    files = write(here, {"a.mp4": b"a" * 1_000_000})
    first = receiver(there)

    def second(name: str, size: int) -> None:
        other = receiver(there)
        with pytest.raises(RemoteError, match="another transfer writes it now"):
            transfer.send(other, files)
        assert other.end() == 73

    assert transfer.send(first, files, second).files == 1
    assert read(there / "datasets/videos") == {"a.mp4": b"a" * 1_000_000}


# ------------------------------------------------------------------------------------------------------------- a run


@pytest.fixture
def run(there: Path) -> Path:
    """A run's folder with a complete checkpoint, an incomplete one, and one that is being written."""
    root = there / "runs/fox"
    write(
        root,
        {
            "config.json": b"{}",
            "lora.safetensors": b"w" * 700_000,
            "validation/step-0000002/0.mp4": b"video",
            "metrics.jsonl": b"{}\n",
            "checkpoints/step-0000002/state.json": b"s",
            "checkpoints/step-0000002/manifest.json": b"m",
            "checkpoints/step-0000004/state.json": b"s",
            "checkpoints/.writing-step-0000006/manifest.json": b"m",
            ".lora.tmp": b"half",
        },
    )
    return root


def sender(there: Path, *flags: str) -> Peer:
    return Peer("send", "--workspace", str(there), "--run", "fox", *flags)


def test_a_run_comes_back_without_its_checkpoints(here: Path, there: Path, run: Path) -> None:
    coming: list[int] = []
    peer = sender(there)
    assert transfer.receive(peer, here, coming=coming.append) == Tally(4, 700_010, 0) and peer.end() == 0
    assert coming == [700_010]
    assert set(read(here)) == {"config.json", "lora.safetensors", "validation/step-0000002/0.mp4", "metrics.jsonl"}
    same = [hashlib.sha256((folder / "lora.safetensors").read_bytes()).hexdigest() for folder in (run, here)]
    assert same[0] == same[1]
    peer = sender(there)
    assert transfer.receive(peer, here) == Tally(0, 0, 4) and peer.end() == 0


def test_complete_checkpoints_come_where_they_are_wanted_their_manifest_last(
    here: Path, there: Path, run: Path
) -> None:
    order: list[str] = []
    peer = sender(there, "--checkpoints")
    transfer.receive(peer, here, lambda name, size: order.append(name))
    assert peer.end() == 0
    assert [name for name in dict.fromkeys(order) if name.startswith("checkpoints/")] == [
        "checkpoints/step-0000002/state.json",
        "checkpoints/step-0000002/manifest.json",
    ]


def test_a_run_that_still_writes_is_read_as_it_was(here: Path, there: Path, run: Path) -> None:
    """Here in one process, so that the log grows, and a file goes, exactly while it is sent."""

    class Both:
        """The two ends of a transfer in one thread: the receiver's answers are known."""

        def __init__(self) -> None:
            self.sent = b""

        def write(self, data: bytes) -> None:
            if not self.sent:  # the offer is made: the log grows, another file goes
                with (run / "metrics.jsonl").open("ab") as log:
                    log.write(b"{}\n")
                (run / "config.json").unlink()
            self.sent += data

        def read(self) -> bytes:
            wanted = ["config.json", "metrics.jsonl"]
            return (json.dumps({"wanted": wanted}) + '\n{"received": 1}\n').encode()

        def ready(self) -> bool:
            return False

    pipe = Both()
    transfer.send(pipe, transfer.run_files(run, False), growing=True)
    _, gone, header, data = pipe.sent.split(b"\n", 3)
    assert json.loads(gone) == {"gone": "config.json"}
    assert json.loads(header)["file"]["size"] == 6 and data[:10] == (6).to_bytes(4, "big") + b"{}\n{}\n"


def test_no_such_run_is_said_to_both_sides(here: Path, there: Path) -> None:
    peer = sender(there)
    with pytest.raises(RemoteError, match=r"--run fox: neither .* is the folder of a run") as told:
        transfer.receive(peer, here)
    assert told.value.exit_code == peer.end() == 66
    assert not here.exists()


def test_a_hold_ends_when_nothing_moves_and_at_once_when_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ltx2_job.cli", "hold", "--idle"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    assert subprocess.run([*command, "1"], env=environ, timeout=60, check=False).returncode == 0
    (tmp_path / "ltx2-transfer").unlink()
    with subprocess.Popen([*command, "600"], env=environ) as process:
        while not (tmp_path / "ltx2-transfer").exists():
            assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 0


class Words:
    """Another side that says one thing."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def write(self, data: bytes) -> None:
        pass

    def read(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def ready(self) -> bool:
        return False


@pytest.mark.parametrize("said", [b"hello\n", b'{"greeting": 1}\n', b'{"offer": 3}\n', b'{"offer": [{"name": "a"}]}\n'])
def test_what_no_release_of_this_protocol_says_is_another_version(tmp_path: Path, said: bytes) -> None:
    with pytest.raises(OtherVersionError):
        transfer.receive(Words(said), tmp_path / "there")
