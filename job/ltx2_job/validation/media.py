"""From decoded pixels and sound to an .mp4 that every player shows alike: H.264 (yuv420p, BT.709) and AAC stereo."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from torch import Tensor

from ltx2_job.workspace import sync

CRF = "17"  # x264's "visually lossless": what is judged is the model, not the encoder


def to_frames(pixels: Tensor) -> np.ndarray:
    """Pixels [3, F, H, W] in [-1, 1] -> RGB uint8 [F, H, W, 3], rounded."""
    return pixels.float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).cpu().numpy()


def write_mp4(path: Path, frames: np.ndarray, fps: float, wave: np.ndarray | None = None, rate: int = 0) -> None:
    """Write a clip, complete or absent.

    frames: RGB uint8 [F, H, W, 3], H and W even. wave: None (no sound track) or float [2, S] in [-1, 1] at `rate` Hz;
    louder samples are clipped. Raises OSError if the volume refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a name that nobody takes for a clip
    try:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            _, height, width, _ = frames.shape
            video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.options = {"crf": CRF, "preset": "medium"}
            tags = video.codec_context
            tags.colorspace, tags.color_primaries, tags.color_trc = (
                Colorspace.ITU709,
                ColorPrimaries.BT709,
                ColorTrc.BT709,
            )
            tags.color_range = ColorRange.MPEG
            sound = None
            if wave is not None:
                sound = container.add_stream("aac", rate=rate, layout="stereo")
                sound.bit_rate = 192_000
            for picture in frames:
                container.mux(video.encode(to_yuv(picture)))
            container.mux(video.encode(None))
            if sound is not None and wave is not None:
                samples = np.ascontiguousarray(wave.clip(-1, 1), dtype=np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = rate, 0
                container.mux(sound.encode(frame))
                container.mux(sound.encode(None))
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_yuv(picture: np.ndarray) -> av.VideoFrame:
    """One RGB picture uint8 [H, W, 3] as yuv420p by BT.709's matrix, limited range."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(
        format="yuv420p",
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        dst_color_primaries=ColorPrimaries.BT709,
        dst_color_trc=ColorTrc.BT709,
        interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
    )
