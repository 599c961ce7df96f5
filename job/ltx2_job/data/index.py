"""The index of a run: its samples, and under which keys their latents and captions lie in the store. Torch-free.

The cache stage writes it to runs/<name>/index.json; training and validation read nothing else about the data.
"""

import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from ltx2_job.errors import DataError, NoInputError
from ltx2_job.store import Store
from ltx2_job.workspace import read_json, write_json

VERSION: Final = 1

Bucket = tuple[int, int, int, int]
"""(width, height, frames, audio latents): everything in a batch that must have one shape."""


@dataclass(frozen=True)
class Sample:
    """One clip as training uses it."""

    id: str  # "<dataset>/<path inside it>", unique in the run
    dataset: str
    path: str  # as the report names it, relative to the workspace where it lies in it
    width: int  # of the training pixels, a multiple of 32
    height: int
    frames: int  # 8k + 1
    fps: float  # frames per second of the training frames; goes into the RoPE's time axis
    audio_latents: int  # L = round(frames / fps * 25); 0: this run has no audio for it
    sounding: bool  # False: the audio loss is masked and the audio-to-video gate is 0
    video_key: str
    audio_key: str | None
    text_keys: tuple[str, ...]  # one per alternative caption
    repeats: int  # repeats + 1 passes per epoch
    probability: float  # weight of its dataset among datasets
    held_out: bool  # only for the held-out loss, never trained on

    @property
    def bucket(self) -> Bucket:
        """The shape class: (width, height, frames, audio latents)."""
        return (self.width, self.height, self.frames, self.audio_latents)


@dataclass
class Index:
    """All samples of a run, the prompts that are no captions, and where the store lies.

    `prompts` maps "validation", "negative" and "empty" to {"text": ..., "key": ...}; "validation" is absent when the
    run has no validation prompt. `cache_root` is absolute in memory; on disk it is relative to the index file, so that
    a workspace can be moved. `extra_roots` are the stores of datasets with a `cache_dir` of their own.
    """

    samples: tuple[Sample, ...]
    prompts: dict[str, dict[str, str]]
    cache_root: str
    extra_roots: tuple[str, ...] = field(default=())

    def store(self) -> Store:
        """The store that finds every item this index names."""
        return Store(Path(self.cache_root), [Path(root) for root in self.extra_roots])

    def keys(self) -> set[tuple[str, str]]:
        """Every (kind, key) that this index refers to."""
        found = {("video", sample.video_key) for sample in self.samples}
        found |= {("audio", sample.audio_key) for sample in self.samples if sample.audio_key}
        found |= {("text", key) for sample in self.samples for key in sample.text_keys}
        return found | {("text", prompt["key"]) for prompt in self.prompts.values()}

    def save(self, path: Path) -> None:
        """Write the index, complete or absent."""
        base = path.parent.resolve()
        write_json(
            path,
            {
                "version": VERSION,
                "cache_root": os.path.relpath(Path(self.cache_root).resolve(), base),
                "extra_roots": [os.path.relpath(Path(root).resolve(), base) for root in self.extra_roots],
                "prompts": self.prompts,
                "samples": [asdict(sample) for sample in self.samples],
            },
        )

    @staticmethod
    def load(path: Path) -> "Index":
        """Read an index. Raises NoInputError if there is none yet, DataError if it was written by another version."""
        try:
            raw = read_json(path)
        except FileNotFoundError as error:
            raise NoInputError(
                f"{path}: the cache stage has not finished here; `ltx2 run` runs it before training"
            ) from error
        if raw.get("version") != VERSION:
            raise DataError(
                f"{path}: index version {raw.get('version')!r}, not {VERSION}; run the cache stage of this program"
            )
        base = path.parent.resolve()
        return Index(
            samples=tuple(_sample(entry) for entry in raw["samples"]),
            prompts=raw["prompts"],
            cache_root=str((base / raw["cache_root"]).resolve()),
            extra_roots=tuple(str((base / root).resolve()) for root in raw["extra_roots"]),
        )


def _sample(entry: dict[str, Any]) -> Sample:
    values = {each.name: entry[each.name] for each in fields(Sample)}
    return Sample(**{**values, "text_keys": tuple(values["text_keys"])})
