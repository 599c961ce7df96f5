"""Looking at the clips: what is there, what it holds, what can be used, in which shape. Torch-free.

Whatever was found out once about the same bytes is taken from the memory; the rest is asked of media workers, several
at a time. A clip that cannot be used is skipped with a reason and never ends the run.
"""

import functools
import json
import os
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ltx2_job.caching import keys
from ltx2_job.caching.remember import Memory, content_hash, identity
from ltx2_job.data.captions import captions
from ltx2_job.data.decoder import Decoder, Probe, Unusable
from ltx2_job.data.sizes import Timing, clip_frames, timing, training_size
from ltx2_job.discover import find_clips
from ltx2_job.mirror import place
from ltx2_job.workspace import name_of

if TYPE_CHECKING:
    from ltx2_job.config import DatasetConfig
    from ltx2_job.stage import Stage
    from ltx2_job.workspace import Workspace

T = TypeVar("T")
R = TypeVar("R")

HELD_OUT: Final = "eval"
CLIPS: Final = ("video", HELD_OUT)
TEXTS: Final = "text_embeds"


@dataclass(frozen=True)
class Found:
    """A file that may be a clip of a dataset."""

    dataset: "DatasetConfig" = field(compare=False)
    owner: str  # the dataset's id
    path: Path
    named: str  # as messages name it: relative to the workspace where it lies in it
    inside: str  # its path inside the dataset's folder


@dataclass(frozen=True)
class Hashed:
    """A file whose content is known."""

    path: Path
    content: str  # sha256 of its bytes
    seen: str  # its identity (caching/remember.py) when they were read

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around reading the file for what is kept under its content's hash, be it a result or a lasting failure.

        Raises Unusable if the file holds other bytes by now: what was found out in the body belongs to those.
        """
        try:
            yield
        except Unusable as error:
            if error.lasting:
                self._ensure_unchanged()
            raise
        self._ensure_unchanged()

    def _ensure_unchanged(self) -> None:
        try:
            # One that was merely touched has other times and the same content.
            if identity(self.path) != self.seen and content_hash(self.path) != self.content:
                raise _changed()
        except OSError as error:
            raise _unreadable(error) from error


@dataclass(frozen=True)
class Clip:
    """A usable clip and the shape it will have."""

    found: Found
    hashed: Hashed
    probe: Probe
    timing: Timing
    frames: int
    size: tuple[int, int]  # (width, height)
    captions: tuple[str, ...]
    sounds: bool = False

    @property
    def content(self) -> str:
        """sha256 of the file."""
        return self.hashed.content

    @property
    def id(self) -> str:
        """Unique in the run."""
        return f"{self.found.dataset.id}/{self.found.inside}"

    @property
    def seconds(self) -> Fraction:
        """Length of the training clip."""
        return self.frames / self.timing.rate

    @property
    def with_sound(self) -> bool:
        """Whether its dataset trains on sound and it has a track."""
        return self.found.dataset.audio.auto_split and self.probe.sound


@dataclass(frozen=True)
class Skipped:
    """A clip that is left out, and why."""

    dataset: str
    path: str
    reason: str
    frames: int | None = None  # of the file; None if not even that is known
    fps: float | None = None

    @staticmethod
    def of(found: Found, error: Unusable, probe: Probe | None = None, timed: Timing | None = None) -> "Skipped":
        """A found file with the reason that it cannot be used, and what is known of it."""
        frames = timed.available if timed else probe.frames if probe else None
        rate = timed.rate if timed else probe.rate if probe else None
        return Skipped(found.dataset.id, found.named, error.reason, frames, float(rate) if rate else None)


@dataclass(frozen=True)
class Survey:
    """All clips of a run."""

    clips: tuple[Clip, ...]
    skipped: tuple[Skipped, ...]


class Workers:
    """Threads with one media worker each: `cores`, where the plan says how many, but at most this machine's and 8."""

    def __init__(self, cores: int | None = None, make: Callable[[], Decoder] = Decoder):
        self.count = min(8, len(os.sched_getaffinity(0)), cores or 8)
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="media")
        self._free: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        self._all = [make() for _ in range(self.count)]
        for decoder in self._all:
            self._free.put(decoder)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for decoder in self._all:
            decoder.kill()  # a thread that waits for its worker wakes up
        self._pool.shutdown()
        for decoder in self._all:
            decoder.close()

    def submit(self, work: Callable[[Decoder, T], R], item: T) -> "Future[R]":
        """Do one piece of work in a thread, with a decoder of its own for that time."""

        def run() -> R:
            decoder = self._free.get()
            try:
                return work(decoder, item)
            finally:
                self._free.put(decoder)

        return self._pool.submit(run)

    def ahead(self, work: Callable[[Decoder, T], R], items: Sequence[T]) -> Iterator[tuple[T, "Future[R]"]]:
        """The finished futures in the items' order, with at most `count + 1` of them begun ahead of the reader."""
        begun: list[tuple[T, Future[R]]] = []
        for item in items:
            begun.append((item, self.submit(work, item)))
            if len(begun) > self.count:
                yield begun.pop(0)
        yield from begun


def survey(stage: "Stage", memory: Memory, workers: Workers) -> Survey:
    """Find, hash, probe and judge every clip of the stage's datasets.

    Raises NoInputError if a dataset's folder holds no video file yet.
    """
    files = [found for dataset in clip_datasets(stage.datasets) for found in find(stage.workspace, dataset)]
    skipped: dict[Found, Skipped] = {}

    def skip(found: Found, error: Unusable, probe: Probe | None = None, timed: Timing | None = None) -> None:
        skipped[found] = Skipped.of(found, error, probe, timed)

    contents = dict(_hashes(stage, memory, workers, [found for found in files if nameable(found, skip)], skip))
    probes: dict[str, Probe] = {}
    refused: dict[str, Unusable] = {}
    for found, answer in _remembered(
        stage, memory, workers, "probe", list(contents), lambda found: f"{contents[found].content}:{tools()}",
        lambda decoder, found: _probe(decoder, contents[found]),
    ):  # fmt: skip
        if isinstance(answer, Unusable):
            refused[contents[found].content] = answer
        else:
            probes[contents[found].content] = Probe.from_json(answer)

    clips: dict[Found, Clip] = {}
    for found, hashed in contents.items():
        if hashed.content in refused:
            skip(found, refused[hashed.content])
            continue
        probe, timed = probes[hashed.content], None
        try:
            timed = timing(probe, found.dataset.video.frame_rate)
            frames = clip_frames(timed.available, timed.rate, found.dataset.video)
            texts = captions(found.path, found.dataset, stage.config.trigger_words)
        except Unusable as error:
            skip(found, error, probe, timed)
            continue
        size = training_size(probe, found.dataset.resolution, found.dataset.resolution_type)
        clips[found] = Clip(found, hashed, probe, timed, frames, size, texts)

    listened = _remembered(
        stage, memory, workers, "sound", [found for found, clip in clips.items() if clip.with_sound],
        lambda found: f"{clips[found].content}:{clips[found].seconds}:{clips[found].probe.origin}:{tools()}",
        lambda decoder, found: _listen(decoder, clips[found]),
    )  # fmt: skip
    for found, answer in listened:
        if isinstance(answer, Unusable):
            clip = clips.pop(found)
            skip(found, answer, clip.probe, clip.timing)
        else:
            clips[found] = replace(clips[found], sounds=answer["sounds"])
    return Survey(
        tuple(clips[found] for found in files if found in clips),
        tuple(skipped[found] for found in files if found in skipped),
    )


def clip_datasets(datasets: Iterable["DatasetConfig"]) -> list["DatasetConfig"]:
    """The datasets that hold clips; config.resolve has seen to it that there is one and that it can be read."""
    return [dataset for dataset in datasets if dataset.dataset_type in CLIPS and not dataset.disabled]


def _probe(decoder: Decoder, hashed: Hashed) -> dict[str, Any]:
    with hashed.reading():
        return decoder.probe(hashed.path)


def _listen(decoder: Decoder, clip: Clip) -> dict[str, Any]:
    with clip.hashed.reading():
        _, sounds = decoder.sound(clip.found.path, clip.seconds, clip.probe.origin)
    return {"sounds": sounds}


def find(workspace: "Workspace", dataset: "DatasetConfig") -> list[Found]:
    """The files of a dataset that may be clips. Raises NoInputError if there is none yet."""
    folder = place.folder(workspace, dataset)
    named = name_of(folder, workspace.root) if place.is_remote(dataset) else place.named(dataset)
    return [
        Found(dataset, dataset.id, path, name_of(path, workspace.root), path.relative_to(folder).as_posix())
        for path in find_clips(folder, named)
    ]


def nameable(found: Found, skip: Callable[[Found, Unusable], None]) -> bool:
    """Whether a file's name is text, which a sample's id has to be; if not, it is skipped."""
    try:
        found.inside.encode()
    except UnicodeEncodeError:
        skip(found, Unusable("its name is not UTF-8 text; rename it"))
        return False
    return True


def _changed() -> Unusable:
    return Unusable("it was changed while it was read (is it still being copied?)", lasting=False)


def _unreadable(error: OSError) -> Unusable:
    return Unusable(f"it cannot be read ({error.strerror})", lasting=False)


def _hashes(
    stage: "Stage", memory: Memory, workers: Workers, files: list[Found], skip: Callable[[Found, Unusable], None]
) -> Iterator[tuple[Found, Hashed]]:
    """Each file with its content's hash, remembered for files that have not changed since."""
    known: dict[Found, Hashed] = {}
    new: list[tuple[Found, str]] = []
    for found in files:
        try:
            seen = identity(found.path)
        except OSError as error:
            skip(found, _unreadable(error))
            continue
        remembered = memory.get("file", seen)
        if remembered is None:
            new.append((found, seen))
        else:
            known[found] = Hashed(found.path, remembered, seen)
    for (found, seen), future in workers.ahead(lambda _, item: content_hash(item[0].path), new):
        stage.stop.check()
        try:
            content = future.result()
            if identity(found.path) != seen:
                raise _changed()
        except OSError as error:
            skip(found, _unreadable(error))
            continue
        except Unusable as error:
            skip(found, error)
            continue
        memory.set("file", seen, content)
        known[found] = Hashed(found.path, content, seen)
    memory.flush()
    yield from ((found, known[found]) for found in files if found in known)


def _remembered(
    stage: "Stage",
    memory: Memory,
    workers: Workers,
    scope: str,
    files: list[Found],
    key: Callable[[Found], str],
    work: Callable[[Decoder, Found], dict[str, Any]],
) -> Iterator[tuple[Found, dict[str, Any] | Unusable]]:
    """What `work` finds out about each file, or found out earlier about the same content; lasting failures as well.

    Files with the same key are asked about once.
    """
    answers: dict[str, dict[str, Any] | Unusable] = {}
    new: dict[str, Found] = {}
    for found in files:
        text = memory.get(scope, key(found))
        if text is None:
            new.setdefault(key(found), found)
        else:
            raw = json.loads(text)
            answers[key(found)] = Unusable(raw["reason"]) if "reason" in raw else raw
    for number, (found, future) in enumerate(workers.ahead(work, list(new.values())), 1):
        stage.stop.check()
        try:
            answers[key(found)] = answer = future.result()
            memory.set(scope, key(found), json.dumps(answer))
        except Unusable as error:
            answers[key(found)] = error
            if error.lasting:
                memory.set(scope, key(found), json.dumps({"reason": error.reason}))
        stage.reporter.items(number, len(new), None, scope)
    memory.flush()
    for found in files:
        yield found, answers[key(found)]


@functools.cache
def tools() -> str:
    """What an answer about a file depends on beside its bytes."""
    return f"{keys.PROBE_FORMAT}:{version('av')}"
