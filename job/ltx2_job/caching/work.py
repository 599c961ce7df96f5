"""From the survey to the run's samples and to the list of what the store still lacks. Torch-free.

This is all that a run with nothing to do executes: keys are computed and the store is asked for each; torch and the
models' libraries are imported only for what is missing (caching/encode.py).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ltx2_job.caching import keys
from ltx2_job.caching.remember import Memory, identity, settle
from ltx2_job.caching.survey import HELD_OUT, TEXTS, Clip, Skipped, Survey, clip_datasets, tools
from ltx2_job.data.index import Index, Sample
from ltx2_job.data.sizes import audio_latents
from ltx2_job.store import AUDIO, TEXT, VIDEO, Store

if TYPE_CHECKING:
    from ltx2_job.config import DatasetConfig
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.stage import Stage

Item = TypeVar("Item", "VideoItem", "AudioItem", "TextItem")

CHANNELS: Final = 128  # latent channels of both modalities, after packing
FAILED: Final = "failed"  # the memory's scope of items that can never be computed


@dataclass(frozen=True)
class VideoItem:
    """Video latents that are missing."""

    key: str
    store: Store
    clip: Clip

    @property
    def bytes(self) -> int:
        """Size of the latents, bf16 [128, f, h, w]."""
        width, height = self.clip.size
        return CHANNELS * ((self.clip.frames - 1) // 8 + 1) * (height // 32) * (width // 32) * 2


@dataclass(frozen=True)
class AudioItem:
    """Audio latents that are missing: those of a clip's sound, or of as much silence."""

    key: str
    store: Store
    clip: Clip
    length: int
    silence: bool

    @property
    def bytes(self) -> int:
        """Size of the latents, fp32 [L, 128]."""
        return self.length * CHANNELS * 4


@dataclass(frozen=True)
class TextItem:
    """Connector outputs that are missing."""

    key: str
    store: Store
    text: str


@dataclass
class Work:
    """The samples of a run, and what has to be computed for them; each item once, however many samples share it."""

    samples: dict[Clip, Sample] = field(default_factory=dict)
    prompts: dict[str, dict[str, str]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    videos: dict[str, VideoItem] = field(default_factory=dict)
    audios: dict[str, AudioItem] = field(default_factory=dict)
    texts: dict[str, TextItem] = field(default_factory=dict)
    reused: dict[str, set[str]] = field(default_factory=dict)  # by kind: keys that are in the store already

    @property
    def missing(self) -> int:
        """Items to compute."""
        return len(self.videos) + len(self.audios) + len(self.texts)

    def total(self, kind: str) -> int:
        """Items of a kind that this run needs."""
        missing = {VIDEO: len(self.videos), AUDIO: len(self.audios), TEXT: len(self.texts)}
        return len(self.reused[kind]) + missing[kind]

    @property
    def trained(self) -> list[Sample]:
        """The samples to train on."""
        return [sample for sample in self.samples.values() if not sample.held_out]

    def certain_bytes(self, store: Store) -> int:
        """Bytes of latents to be written to a store; texts are not counted, for their size is known after the first."""
        videos = sum(item.bytes for item in self.videos.values() if item.store is store)
        return videos + sum(item.bytes for item in self.audios.values() if item.store is store)

    def drop(self, key: str, reason: str) -> list[Skipped]:
        """Skip every clip that needs this item; returns them."""
        lost = [clip for clip, sample in self.samples.items() if key in (sample.video_key, sample.audio_key)]
        skipped = [skip(clip, reason) for clip in lost]
        for clip in lost:
            del self.samples[clip]
        self.skipped += skipped
        return skipped


@dataclass(frozen=True)
class Stores:
    """Where each dataset's items lie: cache/ of the workspace, or the `cache_dir` of the dataset or its text_embeds."""

    home: Store
    latents: dict[str, Store]  # by dataset id
    texts: dict[str, Store]
    prompts: Store

    @property
    def all(self) -> list[Store]:
        """Each store once, home first."""
        found = [self.home, *self.latents.values(), *self.texts.values(), self.prompts]
        return list({store.root: store for store in found}.values())

    @staticmethod
    def of(stage: "Stage") -> "Stores":
        """The stores of a stage's configuration. Each of them also finds what lies in the others."""
        home = stage.workspace.cache
        entries = {dataset.id: dataset for dataset in stage.datasets if dataset.dataset_type == TEXTS}
        default = next((entry for entry in entries.values() if entry.default), next(iter(entries.values()), None))

        def root(dataset: "DatasetConfig | None") -> Path:
            if dataset is None or not dataset.cache_dir:
                return home
            return stage.workspace.resolve(dataset.cache_dir)

        clips = clip_datasets(stage.datasets)
        latents = {dataset.id: root(dataset) for dataset in clips}
        texts = {dataset.id: root(entries.get(dataset.text_embeds or "", default)) for dataset in clips}
        roots = list(dict.fromkeys([home, *latents.values(), *texts.values(), root(default)]))
        made = {path: Store(path, [other for other in roots if other != path]) for path in roots}
        return Stores(
            made[home],
            {name: made[path] for name, path in latents.items()},
            {name: made[path] for name, path in texts.items()},
            made[root(default)],
        )


class Fingerprints:
    """Content hashes of the model's parts, computed once for files that have not changed."""

    def __init__(self, checkpoint: "Checkpoint", memory: Memory):
        self._checkpoint, self._memory = checkpoint, memory

    def part(self, name: str) -> str:
        """sha256 of one part ("vae", "audio_vae", "connectors", "text_encoder"). Raises CheckpointError."""
        files = self._checkpoint.files(name)
        for path in files:
            settle(path)
        # A folder keeps a part's arguments in a file of its own, which `files` does not name.
        arguments = "" if name == "text_encoder" else self._checkpoint.source.part(name).arguments  # type: ignore[arg-type]
        seen = json.dumps([name, arguments, [identity(path) for path in files]], sort_keys=True, default=str)
        key = hashlib.sha256(seen.encode()).hexdigest()
        known = self._memory.get("part", key)
        if known is None:
            known = self._checkpoint.fingerprint(name)
            self._memory.set("part", key, known)
            self._memory.flush()  # it may have read 20 GB
        return known

    def text(self) -> str:
        """What a caption's encoding depends on: Gemma, the connectors, and how many tokens a caption has."""
        parts = [self.part("text_encoder"), self.part("connectors"), self._checkpoint.text_tokens]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def precision(stage: "Stage") -> str:
    """What VAE and text encoder compute in: "bf16" on a GPU, "fp32" on a CPU (design N6)."""
    return "bf16" if on_gpu(stage) else "fp32"


def on_gpu(stage: "Stage") -> bool:
    """Whether the plan lets the cache stage's models run on the GPU."""
    return stage.plan.device == "cuda" and stage.plan.cache_memory == "device"


def plan_work(stage: "Stage", checkpoint: "Checkpoint", memory: Memory, found: Survey, stores: Stores) -> Work:
    """Samples with their keys, and the items that are not in the store.

    Clips of which an item is remembered as impossible are skipped with the reason of that time.
    """
    work = Work(skipped=list(found.skipped), reused={VIDEO: set(), AUDIO: set(), TEXT: set()})
    prints = Fingerprints(checkpoint, memory)
    # Without any sound in the run the audio VAE is not even hashed (design decision 9).
    audible = any(_sounding(clip) for clip in found.clips)
    exact = precision(stage)
    if found.clips:
        video_print, text_print = prints.part("vae"), prints.text()
        audio_print = prints.part("audio_vae") if audible else ""

    for clip in found.clips:
        dataset = clip.found.dataset
        video = keys.video_key(
            clip.content, clip.size, clip.frames, clip.timing.rate, clip.timing.as_they_are, video_print, exact
        )
        length = audio_latents(clip.frames, clip.timing.rate) if audible and dataset.audio.auto_split else 0
        content = clip.content if clip.probe.sound else keys.SILENCE
        audio = keys.audio_key(content, clip.seconds, length, audio_print) if length else None
        texts = {keys.text_key(text, text_print, exact): text for text in clip.captions}
        failure = failed(memory, video) or (failed(memory, audio) if audio else None)
        if failure:
            work.skipped.append(skip(clip, failure))
            continue
        latents = stores.latents[dataset.id]
        _need(work, VIDEO, work.videos, VideoItem(video, latents, clip))
        if audio:
            _need(work, AUDIO, work.audios, AudioItem(audio, latents, clip, length, not clip.probe.sound))
        for key, text in texts.items():
            _need(work, TEXT, work.texts, TextItem(key, stores.texts[dataset.id], text))
        work.samples[clip] = Sample(
            id=clip.id,
            dataset=dataset.id,
            path=clip.found.named,
            width=clip.size[0],
            height=clip.size[1],
            frames=clip.frames,
            fps=float(clip.timing.rate),
            audio_latents=length,
            sounding=bool(length) and _sounding(clip),
            video_key=video,
            audio_key=audio,
            text_keys=tuple(texts),
            repeats=dataset.repeats,
            probability=dataset.probability,
            held_out=dataset.dataset_type == HELD_OUT,
        )

    for name, text in _prompts(stage).items() if work.samples else ():
        key = keys.text_key(text, text_print, exact)
        work.prompts[name] = {"text": text, "key": key}
        _need(work, TEXT, work.texts, TextItem(key, stores.prompts, text))
    return work


def failed(memory: Memory, key: str) -> str | None:
    """Why an item can never be computed, as far as the installed decoder goes; None if that is not known."""
    return memory.get(FAILED, f"{key}:{tools()}")


def set_failed(memory: Memory, key: str, reason: str) -> None:
    """Remember that an item can never be computed."""
    memory.set(FAILED, f"{key}:{tools()}", reason)


def index_of(work: Work, stores: Stores) -> Index:
    """The run's index."""
    home, *others = (str(store.root) for store in stores.all)
    return Index(tuple(work.samples.values()), work.prompts, home, tuple(others))


def skip(clip: Clip, reason: str) -> Skipped:
    """A clip that was usable until now."""
    return Skipped(clip.found.owner, clip.found.named, reason, clip.timing.available, round(float(clip.timing.rate), 3))


def footage(clips: Iterable[Clip]) -> tuple[Fraction, Fraction]:
    """(seconds used for training, seconds in the files)."""
    used, whole = Fraction(0), Fraction(0)
    for clip in clips:
        used += clip.seconds
        whole += max(clip.probe.seconds, clip.seconds)
    return used, whole


def _sounding(clip: Clip) -> bool:
    """Whether a clip's sound is trained: it has some, or its dataset wants silence to be learnt (design N4)."""
    audio = clip.found.dataset.audio
    return audio.auto_split and (clip.sounds or audio.train_silence)


def _prompts(stage: "Stage") -> dict[str, str]:
    """Texts that are no captions: for validation, for guidance, and for caption dropout."""
    prompts = {"negative": stage.config.validation_negative_prompt or "", "empty": ""}
    if stage.config.validation_prompt:
        prompts["validation"] = stage.config.validation_prompt
    return prompts


def _need(work: Work, kind: str, missing: dict[str, Item], item: Item) -> None:
    """Put an item on the list unless the store has it or it is there already."""
    if item.key in missing or item.key in work.reused[kind]:
        return
    if item.store.has(kind, item.key):
        work.reused[kind].add(item.key)
    else:
        missing[item.key] = item
