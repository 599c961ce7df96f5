"""A volume that is full at one kind of write: a small file system of its own, filled when that write begins.

The write meets the kernel's own "no space left", with half of its bytes written where it has more than a page. What
begins a write is heard by an audit hook in the process: the making of a file, or of the folder that a library written
in another language writes into.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kills import witness
from kills.breaking import PATIENCE, Record, Whole, said
from kills.trial import Place, copied, start
from ltx2_job import exitcodes
from ltx2_job.workspace import read_json

FULL: Final = "FULL"
SIZE: Final = 64 << 20
PAGE: Final = 4096
_STEP: Final = "runs/run/checkpoints/step-0000006"


@dataclass(frozen=True)
class Kind:
    """One kind of write.

    at: what is made when it begins, as an expression over paths below the workspace. named: what the message names.
    half: a file of the unbroken run, of which half still finds room; before: files that find room as a whole; pad: a
    growing file that is brought to the end of its page first, or its next line would find room there.
    """

    what: str
    stage: str
    at: str
    named: str
    half: str = ""
    before: tuple[str, ...] = ()
    nth: int = 1
    pad: str = ""


def _page(name: str, stage: str, folder: str = "runs/run") -> Kind:
    """A page that is written beside its place and then renamed."""
    return Kind(name, stage, rf"{folder}/\.{re.escape(name)}\..*", f"{folder}/{name}")


KINDS: Final = (
    _page("attempt", "cache"),
    _page("config.json", "cache"),
    _page("datasets.json", "cache"),
    _page("plan.json", "cache"),
    Kind("history.jsonl", "cache", r"runs/run/history\.jsonl", "runs/run/history.jsonl"),
    _page("model.json", "cache"),
    Kind("video latents", "cache", "cache/video", "cache"),
    Kind("audio latents", "cache", "cache/audio", "cache", half="cache/audio/*/*"),
    Kind("text embeddings", "cache", "cache/text", "cache", half="cache/text/*/*"),
    _page("report.json", "cache"),
    _page("index.json", "cache"),
    Kind("log.txt", "train", r"runs/run/metrics\.jsonl", "runs/run/log.txt", pad="runs/run/log.txt"),
    Kind("metrics.jsonl", "train", r"runs/run/metrics\.jsonl", "runs/run/metrics.jsonl", nth=2),
    Kind("adapter", "train", r".*/\.writing-step-0000002.*", "checkpoints", half=f"{_STEP}/adapter.safetensors"),
    Kind("optimizer", "train", r".*/\.writing-step-0000002.*", "checkpoints",
         half=f"{_STEP}/optimizer.safetensors", before=(f"{_STEP}/adapter.safetensors",)),
    Kind("state.json", "train", r".*/\.writing-.*/state\.json", "checkpoints"),
    Kind("manifest.json", "train", r".*/\.writing-.*/manifest\.json", "checkpoints"),
    Kind("attempts", "train", r".*/attempts/\.1\.json\..*", "attempts/1.json"),
    Kind("validation clip", "train", r"runs/run/validation/\.step-.*", "validation",
         half="runs/run/validation/step-0000003/*.mp4"),
    _page("index.html", "train", "runs/run/validation"),
    Kind("lora.safetensors", "train", r"runs/run/\.lora\.safetensors\..*", "lora.safetensors",
         half="runs/run/lora.safetensors"),
    Kind("lora.diffusers.safetensors", "train", r"runs/run/\.lora\.diffusers\.safetensors\..*",
         "lora.diffusers.safetensors", half="runs/run/lora.diffusers.safetensors"),
    _page("loss.png", "train"),
    _page("result.json", "train"),
)  # fmt: skip


def possible() -> bool:
    """Whether this process may mount a file system."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None and _mountable()


def name_of(kind: Kind) -> str:
    """The case's name."""
    return f"{FULL}-{kind.what.replace(' ', '-')}"


@contextmanager
def volume(folder: Path, size: int = SIZE, *options: str) -> Iterator[Path]:
    """A file system of its own on a folder that is made for it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def filled(base: Path, whole: Whole, kind: Kind) -> Record:
    """Let one kind of write fill the volume, make room again, and see the run through to its end."""
    began = time.monotonic()
    record = Record(name_of(kind), FULL, 1, "all", kind.stage)
    try:
        with volume(base / "workspace"):
            place = copied(whole.place, base, with_cache=kind.stage == "train")
            _meet(place, whole, kind, record)
            (place.root / "filler").unlink(missing_ok=True)
            go_on(place, whole, kind.stage, record)
    except Exception as error:  # one defect must not hide the others
        record.problems.append(f"{type(error).__name__}: {error}")
    record.seconds = round(time.monotonic() - began, 2)
    if not record.problems:
        shutil.rmtree(base)
    return record


def _meet(place: Place, whole: Whole, kind: Kind, record: Record) -> None:
    room = sum(_pages(_one(whole.place, name)) for name in kind.before)
    if kind.half:
        room += _pages(_one(whole.place, kind.half) // 2)
    first = functools.partial(fill_when, place.root, kind.at, kind.nth, room, kind.pad)
    record.codes = [child.wait(PATIENCE) for child in start(place, kind.stage, 1, first)]
    record.step = witness.last_step(place)
    if not (place.root / "filler").exists():
        record.problems.append("nothing was written that could have filled the volume")
    elif record.codes != [exitcodes.STORAGE]:
        record.problems.append(f"left with {record.codes}: {said(place, kind.stage, 1)}")
    else:
        message = read_json(place.termination_log)["message"]
        words = (kind.named, "no space left", " free", "grow the claim", "nothing is lost")
        record.problems += [f"the message has no {word!r}: {message}" for word in words if word not in message]
    output = place.output(kind.stage, 1).read_text()
    record.problems += ["a traceback for a full volume"] if "Traceback" in output else []
    record.problems += witness.after_break(place, whole.contents)


def go_on(place: Place, whole: Whole, stage: str, record: Record) -> None:
    """The same run once there is room again."""
    complete = witness.newest(place)
    for each in ("cache", "train")[stage == "train" :]:
        if any(codes := [child.wait(PATIENCE) for child in start(place, each, 2)]):
            record.problems.append(f"{each} ended with {codes} when it went on: {said(place, each, 2)}")
            return
    record.resumed = complete
    record.lost = record.step - complete
    record.problems += witness.at_end(place, whole.contents)


def fill_when(root: Path, at: str, nth: int, room: int, pad: str = "") -> None:
    """In the process itself: when it makes the n-th thing named so, leave only `room` bytes on the volume."""
    pattern, count = re.compile(at), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event == "os.mkdir":
            path = arguments[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and pattern.fullmatch(os.path.relpath(path, root)):
            count += 1
            if count == nth:
                if pad:
                    with (root / pad).open("a") as file:
                        file.write("\n" * (-file.tell() % PAGE))
                fill(root, room)

    sys.addaudithook(hook)


def fill(root: Path, room: int) -> None:
    """Take all but `room` bytes of a volume."""
    with (root / "filler").open("wb") as file:
        status = os.fstatvfs(file.fileno())
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - room)


def _pages(size: int) -> int:
    """A size rounded up to whole pages: what a file of it takes."""
    return -(-size // PAGE) * PAGE


def _one(place: Place, pattern: str) -> int:
    return next(place.root.glob(pattern)).stat().st_size


@functools.cache
def _mountable() -> bool:
    """Root inside a container may lack the right."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            with volume(Path(folder)):
                return True
        except subprocess.CalledProcessError:
            return False
