"""Which clips a configuration could use, and why not the others: for `ltx2 check`. Nothing is written. Torch-free.

Names, packets and first frame of every file are looked at, and its caption; no file is hashed and no sound decoded, so
this is what the cache stage will find but for frames that break later in a file and for the loudness of a track. What a
cache stage remembers about unchanged files is taken from its memory.
"""

import contextlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ltx2_job.caching.manage import memory_path
from ltx2_job.caching.remember import identity
from ltx2_job.caching.report import SHOWN, bucket_name
from ltx2_job.caching.survey import HELD_OUT, Found, Skipped, Workers, clip_datasets, find, nameable, tools
from ltx2_job.data.captions import captions
from ltx2_job.data.decoder import Decoder, Probe, Unusable
from ltx2_job.data.sizes import Timing, clip_frames, timing, training_size

if TYPE_CHECKING:
    from ltx2_job.config import Resolved
    from ltx2_job.workspace import Workspace

Recall = Callable[[Path], dict[str, Any] | Unusable | None]


@dataclass(frozen=True)
class Look:
    """What was seen: usable clips by (bucket, frames per second), those left out, and counts."""

    buckets: Counter[tuple[str, float]]
    skipped: tuple[Skipped, ...]
    held_out: int
    with_track: int
    trained: int

    @property
    def used(self) -> int:
        """Usable clips, those held out among them."""
        return self.buckets.total()

    def lines(self) -> list[str]:
        """For people: counts, buckets, and why clips are left out."""
        total = self.used + len(self.skipped)
        found = [
            f"{total} clip{'s' * (total != 1)}: {self.used} usable ({self.held_out} held out, {self.with_track} with a "
            f"sound track), {len(self.skipped)} would be skipped"
        ]
        found += [
            f"bucket {name} at {rate:g} fps: {count} clip{'s' * (count != 1)}"
            for (name, rate), count in sorted(self.buckets.items())
        ]
        found += [f"{each.path}: {each.reason}; would be skipped" for each in self.skipped[:SHOWN]]
        if len(self.skipped) > SHOWN:
            found.append(f"{len(self.skipped) - SHOWN} more would be skipped; the cache stage lists all in report.json")
        return found


def look(resolved: "Resolved", workspace: "Workspace", make_workers: Callable[[], Workers] = Workers) -> Look:
    """Look at every clip of the datasets. Raises NoInputError if a dataset's folder holds no video file."""
    files = [found for dataset in clip_datasets(resolved.datasets) for found in find(workspace, dataset)]
    buckets: Counter[tuple[str, float]] = Counter()
    left_out: dict[Found, Skipped] = {}
    counts: Counter[str] = Counter()

    def skip(found: Found, error: Unusable, probe: Probe | None = None, timed: Timing | None = None) -> None:
        left_out[found] = Skipped.of(found, error, probe, timed)

    named = [found for found in files if nameable(found, skip)]
    recall = remembered(memory_path(workspace))
    with make_workers() as workers:
        for found, future in workers.ahead(lambda decoder, found: _probe(decoder, found.path, recall), named):
            probe: Probe | None = None
            timed: Timing | None = None
            try:
                probe = future.result()
                timed = timing(probe, found.dataset.video.frame_rate)
                frames = clip_frames(timed.available, timed.rate, found.dataset.video)
                captions(found.path, found.dataset)
            except Unusable as error:
                skip(found, error, probe, timed)
                continue
            width, height = training_size(probe, found.dataset.resolution, found.dataset.resolution_type)
            buckets[bucket_name(width, height, frames), round(float(timed.rate), 3)] += 1
            held_out = found.dataset.dataset_type == HELD_OUT
            counts["held out" if held_out else "trained"] += 1
            counts["track"] += found.dataset.audio.auto_split and probe.sound
    skipped = tuple(left_out[found] for found in files if found in left_out)
    return Look(buckets, skipped, counts["held out"], counts["track"], counts["trained"])


def _probe(decoder: Decoder, path: Path, recall: Recall) -> Probe:
    """What a file holds, remembered or asked. Raises Unusable."""
    try:
        known = recall(path)
        if isinstance(known, Unusable):
            raise known
        return Probe.from_json(known if known is not None else decoder.probe(path))
    except OSError as error:
        raise Unusable(f"it cannot be read ({error.strerror})", lasting=False) from error


def remembered(path: Path) -> Recall:
    """What a cache stage's memory says about a file that has not changed since: its probe, or why it is of no use.

    The memory is opened for reading alone; without one, or with one that cannot be read, nothing is remembered.
    """
    try:
        # Read in full and closed: threads ask, and a running cache stage must not wait for them.
        with contextlib.closing(sqlite3.connect(f"file:{quote(os.fspath(path))}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT scope, key, value FROM facts WHERE scope IN ('file', 'probe')").fetchall()
    except sqlite3.Error:
        rows = []
    facts = {(scope, key): value for scope, key, value in rows}

    def recall(file: Path) -> dict[str, Any] | Unusable | None:
        content = facts.get(("file", identity(file)))
        text = facts.get(("probe", f"{content}:{tools()}")) if content else None
        if text is None:
            return None
        raw: dict[str, Any] = json.loads(text)
        return Unusable(raw["reason"]) if "reason" in raw else raw

    return recall
