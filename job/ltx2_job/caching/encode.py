"""Computing what the store lacks: one pass of the video VAE, one of the audio VAE, one of the text encoder.

Only one of the three is in memory at a time, whatever offload_during_startup says: each pass does everything that
its model is needed for, and nothing is gained by keeping it. Clips are decoded ahead by media workers meanwhile.
"""

import gc
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

from ltx2_job.caching.remember import Memory
from ltx2_job.caching.survey import Workers
from ltx2_job.caching.work import AudioItem, TextItem, VideoItem, Work, on_gpu, precision, set_failed
from ltx2_job.data.audio import RATE
from ltx2_job.data.decoder import Decoder, Unusable
from ltx2_job.data.pixels import prepare
from ltx2_job.errors import GPUOutOfMemoryError
from ltx2_job.models.autoencoders import encode_audio, encode_video
from ltx2_job.models.mel import WINDOW, log_mel
from ltx2_job.storage import writing
from ltx2_job.store import AUDIO, TEXT, VIDEO

if TYPE_CHECKING:
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.stage import Stage

TEXT_WIDTH: Final = 7680  # video and audio text width of LTX-2 2.0, the larger generation: for a guess of bytes only


class Encoding:
    """The three passes of one cache stage. `encoded` counts what was computed, by kind."""

    def __init__(self, stage: "Stage", checkpoint: "Checkpoint", work: Work, memory: Memory, workers: Workers):
        self.stage, self.checkpoint, self.work = stage, checkpoint, work
        self.memory, self.workers = memory, workers
        self.encoded = {VIDEO: 0, AUDIO: 0, TEXT: 0}
        self.device = torch.device(f"cuda:{stage.local_rank}" if on_gpu(stage) else "cpu")
        self.dtype = torch.bfloat16 if precision(stage) == "bf16" else torch.float32
        self._counts = {kind: len(keys) for kind, keys in work.reused.items()}

    def run(self) -> None:
        """All passes, in the order that frees the most memory first.

        Raises Stopped between two items, GPUOutOfMemoryError, StorageError, CheckpointError. A clip that cannot be
        decoded is taken out of `work` with its reason.
        """
        if self.work.videos:
            self._videos()
        if self.work.audios and self.work.trained:
            self._audios()
        if self.work.texts and self.work.trained:
            self._texts()

    def _videos(self) -> None:
        items = list(self.work.videos.values())
        with self._model("video VAE"):
            vae = self.checkpoint.video_vae(self.device, self.dtype)
            for item, future in self.workers.ahead(self._pixels, items):
                pixels = self._result(future, item, VIDEO)
                if pixels is not None:
                    latents = encode_video(vae, pixels[None])[0]
                    self._put(VIDEO, item, {"latents": latents.to(torch.bfloat16)})
            del vae

    def _audios(self) -> None:
        # A clip whose picture could not be decoded needs no sound either.
        needed = {sample.audio_key for sample in self.work.samples.values()}
        items = [item for item in self.work.audios.values() if item.key in needed]
        with self._model("audio VAE"):
            audio_vae = self.checkpoint.audio_vae(self.device)
            for item, future in self.workers.ahead(self._wave, items):
                wave = self._result(future, item, AUDIO)
                if wave is not None:
                    latents = encode_audio(audio_vae, log_mel(wave[None].to(self.device)), item.length)[0]
                    self._put(AUDIO, item, {"latents": latents.float()})
            del audio_vae

    def _texts(self) -> None:
        with self._model("text encoder"):
            encoder = self.checkpoint.text_encoder(self.device, self.dtype)
            for item in list(self.work.texts.values()):
                ((video, audio),) = encoder.encode([item.text])
                self._put(TEXT, item, {"video": video.to(torch.bfloat16), "audio": audio.to(torch.bfloat16)})
            encoder.close()
            del encoder

    def _pixels(self, decoder: Decoder, item: VideoItem) -> torch.Tensor:
        """[3, F, H, W] in [-1, 1]; in bf16 where the VAE computes in it. Runs in a thread."""
        clip = item.clip
        frames = decoder.frames(
            clip.found.path,
            clip.frames,
            clip.timing.rate,
            clip.timing.as_they_are,
            clip.probe.height,
            clip.probe.width,
        )
        with clip.hashed.reading():
            return prepare(frames, clip.frames, clip.probe.aspect, clip.size, self.dtype)

    def _wave(self, decoder: Decoder, item: AudioItem) -> torch.Tensor:
        """[2, S] at 16 kHz, at least as long as one window of the spectrogram. Runs in a thread."""
        clip = item.clip
        wave = None
        if not item.silence:
            with clip.hashed.reading():
                wave, _ = decoder.sound(clip.found.path, clip.seconds, clip.probe.origin)
        sound = torch.zeros(2, round(clip.seconds * RATE)) if wave is None else torch.from_numpy(wave.copy())
        return torch.nn.functional.pad(sound, (0, max(0, WINDOW // 2 + 32 - sound.shape[1])))

    def _result(self, future: "Future[torch.Tensor]", item: VideoItem | AudioItem, kind: str) -> torch.Tensor | None:
        """What a thread decoded, or None after skipping the clips that need this item."""
        try:
            return future.result()
        except Unusable as error:
            if error.lasting:
                set_failed(self.memory, item.key, error.reason)
            for _ in self.work.drop(item.key, error.reason):
                self._count(kind, "skipped")
            self.stage.stop.check()
            return None

    def _put(self, kind: str, item: VideoItem | AudioItem | TextItem, tensors: dict[str, torch.Tensor]) -> None:
        """Store one item, unless this attempt was superseded or should stop."""
        self.stage.fence.check()
        with writing(self.stage, item.store.root, self._bytes_left):
            item.store.put(kind, item.key, tensors, _about(item, precision(self.stage)))
        self.encoded[kind] += 1
        self._count(kind, "encoded")
        self.stage.stop.check()

    def _count(self, kind: str, result: str) -> None:
        self._counts[kind] += 1
        self.stage.reporter.items(self._counts[kind], self.work.total(kind), result, kind)

    def _bytes_left(self) -> int:
        """About how much is still to be written."""
        tokens = self.checkpoint.text_tokens
        texts = (len(self.work.texts) - self.encoded[TEXT]) * tokens * TEXT_WIDTH * 2
        videos = sum(item.bytes for item in list(self.work.videos.values())[self.encoded[VIDEO] :])
        return videos + sum(item.bytes for item in list(self.work.audios.values())[self.encoded[AUDIO] :]) + texts

    @contextmanager
    def _model(self, name: str) -> Iterator[None]:
        """Name the model in an out-of-memory error, and give its memory back afterwards."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise GPUOutOfMemoryError(
                f"the {name} does not fit on the GPU beside one clip ({str(error).splitlines()[0]}); "
                "the next cache plan runs it on the CPU"
            ) from error
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


def _about(item: VideoItem | AudioItem | TextItem, exact: str) -> dict[str, str]:
    """What a person who inspects the file wants to know; nothing reads it back."""
    if isinstance(item, TextItem):
        return {"text": item.text, "precision": exact}
    clip = item.clip
    width, height = clip.size
    about = {"clip": clip.found.named, "fps": str(clip.timing.rate), "frames": str(clip.frames)}
    return about | ({"size": f"{width}x{height}", "precision": exact} if isinstance(item, VideoItem) else {})
