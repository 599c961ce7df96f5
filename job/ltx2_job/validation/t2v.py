"""Sample clips of a run: text to video with sound, from the prompts that the cache stage has encoded.

No text encoder is needed. The decoders are loaded after the sampling and freed after the clip is written, so that
training has the memory to itself again.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2_job.data.index import Index
from ltx2_job.models.load import Checkpoint
from ltx2_job.store import TEXT, Store
from ltx2_job.validation.gallery import write_gallery
from ltx2_job.validation.guidance import Guidance
from ltx2_job.validation.sampler import Prompt, Request, sample
from ltx2_job.workspace import sync

if TYPE_CHECKING:
    from ltx2_job.config import TrainingConfig
    from ltx2_job.models.transformer import LTX2Transformer
    from ltx2_job.stage import Stage

Validator = Callable[["LTX2Transformer", int], list[Path]]


def make_validator(stage: "Stage", checkpoint: Checkpoint, index: Index, store: Store) -> Validator | None:
    """What the trainer calls with its model and step: it writes validation/step-<n>/*.mp4 and returns the files.

    None if the run makes no sample clips: switched off, no prompt, or not rank 0 (one GPU makes them all). A step's
    folder is complete or absent. The callable raises Stopped between two sampling steps when the stage is told to stop,
    Superseded when another attempt owns the run.
    """
    if stage.config.validation_disable or "validation" not in index.prompts or stage.rank != 0:
        return None
    keys = [index.prompts[name]["key"] for name in ("validation", "negative")]
    text = index.prompts["validation"]["text"]
    sounding = any(each.audio_key for each in index.samples)
    if stage.run.validation.exists():
        write_gallery(stage.run.validation, stage.run_name, text)  # a kill may have come between clips and page

    def validate(model: "LTX2Transformer", step: int) -> list[Path]:
        wanted = requests(stage.config)
        prompt, negative = (_prompt(store, key) for key in keys)
        latents = [sample(model, each, prompt, negative, stage.stop.check) for each in wanted]
        clips = decode(checkpoint, latents, model.device, sounding)
        stage.stop.check()
        stage.fence.check()
        folder = stage.run.validation / f"step-{step:07d}"
        hidden = folder.with_name(f".{folder.name}.tmp")
        for each, clip in zip(wanted, clips, strict=True):
            write_clip(hidden / f"{name(each)}.mp4", each, clip)
        sync(hidden)
        if folder.exists():  # made by a course that was thrown away
            shutil.rmtree(folder)
        hidden.rename(folder)
        sync(folder.parent)
        write_gallery(stage.run.validation, stage.run_name, text)
        return [folder / f"{name(each)}.mp4" for each in wanted]

    return validate


def requests(config: "TrainingConfig") -> list[Request]:
    """The clips of one validation: one for each size."""
    video, audio = Guidance(config.validation_guidance), Guidance(config.ltx2_validation_audio_guidance)
    return [
        Request(
            width,
            height,
            config.validation_num_video_frames,
            config.framerate,
            config.validation_num_inference_steps,
            config.validation_seed,
            video,
            audio,
        )
        for width, height in config.validation_resolution
    ]


def name(request: Request) -> str:
    """File name of a validation clip, without suffix."""
    return f"validation-{request.width}x{request.height}"


@dataclass(frozen=True)
class Clip:
    """Decoded: pixels [3, F, H, W] in [-1, 1], and sound [2, S] in [-1, 1] at `rate` Hz or None."""

    pixels: Tensor
    wave: Tensor | None = None
    rate: int = 0


def decode(
    checkpoint: Checkpoint, latents: Sequence[tuple[Tensor, Tensor]], device: torch.device, sounding: bool
) -> list[Clip]:
    """Pixels and (if `sounding`) sound of sampled latents, on the CPU. Decoders are loaded once and freed after."""
    from ltx2_job.models.autoencoders import decode_audio, decode_video

    vae = checkpoint.video_vae(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    pixels = [decode_video(vae, video)[0].cpu() for video, _ in latents]
    del vae
    waves: list[tuple[Tensor | None, int]] = [(None, 0)] * len(pixels)
    if sounding:
        audio_vae, vocoder = checkpoint.audio_vae(device), checkpoint.vocoder(device)
        decoded = (decode_audio(audio_vae, vocoder, audio) for _, audio in latents)
        waves = [(wave[0].cpu(), rate) for wave, rate in decoded]
        del audio_vae, vocoder
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return [Clip(picture, wave, rate) for picture, (wave, rate) in zip(pixels, waves, strict=True)]


def write_clip(path: Path, request: Request, clip: Clip) -> Path:
    """Write the .mp4 of a clip and return its path."""
    from ltx2_job.validation.media import to_frames, write_mp4

    wave = None if clip.wave is None else clip.wave.numpy()
    write_mp4(path, to_frames(clip.pixels), request.fps, wave, clip.rate)
    return path


def _prompt(store: Store, key: str) -> Prompt:
    tensors = store.get(TEXT, key)
    return Prompt(tensors["video"], tensors["audio"])
