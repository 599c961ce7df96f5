"""One dataset with every kind of hard clip, through the whole cache stage with the tiny model: what each ends as."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_bench import Bench
from hard_clips import (
    HOURS_8,
    claims,
    cut,
    grey_ramp,
    h264,
    interlaced,
    planes,
    restamped,
    rgba,
    screen_times,
    sound_only,
    trimmed,
    two_tracks,
    with_cover,
)
from ltx2_job.caching import stage as cache_stage
from ltx2_job.models.load import Checkpoint
from media import tone, write_clip


@dataclass(frozen=True)
class Used:
    """A clip that is trained on: its bucket's size and frames, its rate, and whether it sounds."""

    size: tuple[int, int] = (64, 64)
    frames: int = 9
    fps: float = 25.0
    sounds: bool = False


def hdr(path: Path, transfer: int) -> Path:
    frame, _ = grey_ramp("yuv420p10le", 64, 940, 64)
    frame.color_trc = transfer
    options = {"x265-params": "log-level=none"}
    return planes(path, [frame] * 9, "libx265", options=options, tags={"color_trc": transfer})


def deep(path: Path, codec: str, **options: str) -> Path:
    return planes(path, [grey_ramp("yuv420p10le", 64, 940, 64)[0]] * 9, codec, options=options)


def fast(path: Path, **options: Any) -> Path:
    return h264(path, container_options={"movflags": "faststart"}, **options)


SQUARE = {"width": 64, "height": 64, "frames": 9}
STEADY = [Fraction(i, 25) for i in range(9)]
UNEVEN = [*STEADY[:5], *(Fraction(i, 5) for i in range(1, 6))]
SHORT = np.stack([tone(440, 0.1, 48_000)] * 2)
SCREEN = round(59 / float(screen_times()[-1]), 2)  # 60 frames from the first time to the last
CUT_OFF = "it is cut off: # of its # bytes are there; copy or download it again"

# name: (how it is made, what it ends as: used, or the reason it is skipped for)
KINDS: dict[str, tuple[Callable[[Path], Any], Used | str]] = {
    "variable rate.mkv": (lambda p: h264(p, **SQUARE | {"times": UNEVEN}), Used(fps=9.0)),
    "screen 1000 fps.mkv": (lambda p: h264(p, width=64, height=64, times=screen_times(), fps=1000), Used(fps=SCREEN)),
    "rotated.mp4": (lambda p: h264(p, width=128, height=64, frames=9, rotation=90), Used((32, 96))),
    "wide pixels.mp4": (lambda p: h264(p, **SQUARE, aspect=Fraction(2)), Used((96, 32))),
    "ten bits h264.mp4": (lambda p: deep(p, "libx264", qp="0"), Used()),
    "ten bits hevc.mp4": (lambda p: deep(p, "libx265", **{"x265-params": "log-level=none"}), Used()),
    "ten bits ffv1.mkv": (lambda p: deep(p, "ffv1"), Used()),
    "4-2-2.mov": (lambda p: planes(p, [rgba([(9, 99, 200, 255)], "yuv422p10le", 64)] * 9, "prores_ks"), Used()),
    "transparent.mov": (lambda p: planes(p, [rgba([(9, 99, 200, 99)], "rgba", 64)] * 9, "png"), Used()),
    "interlaced.mp4": (interlaced, Used((96, 32))),
    "full range.mp4": (lambda p: h264(p, **SQUARE, pixel_format="yuvj420p"), Used()),
    "b-frames.mp4": (lambda p: h264(p, **SQUARE, options={"preset": "medium", "bf": "3"}), Used()),
    "fragmented.mp4": (
        lambda p: h264(p, **SQUARE, container_options={"movflags": "frag_keyframe+empty_moov"}), Used(),
    ),
    "live.mkv": (lambda p: h264(p, **SQUARE, container_options={"live": "1"}), Used()),
    "time code.mov": (
        lambda p: planes(p, [rgba([(9, 99, 200, 255)], "yuv420p", 64)] * 9, metadata={"timecode": "01:00:00:00"}),
        Used(),
    ),
    "edited.mp4": (lambda p: trimmed(h264(p, **SQUARE | {"frames": 14}), 5, 512), Used()),
    "claims 8 hours.mp4": (lambda p: claims(h264(p, **SQUARE), HOURS_8), Used()),
    "claims no length.mp4": (lambda p: claims(h264(p, **SQUARE), 0), Used()),
    "odd.mp4": (lambda p: h264(p, width=97, height=61, frames=9, pixel_format="yuv444p"), Used((96, 64))),
    "4k.mp4": (lambda p: h264(p, width=3840, height=2160, frames=9), Used((96, 32))),
    "one frame.mp4": (lambda p: h264(p, **SQUARE | {"frames": 1}), Used(frames=1)),
    "seven channels.mkv": (
        lambda p: write_clip(p, **SQUARE, layout="7.1", audio_codec="pcm_s16le"), Used(sounds=True),
    ),
    "six channels.mp4": (lambda p: write_clip(p, **SQUARE, layout="5.1"), Used(sounds=True)),
    "mono.mp4": (lambda p: write_clip(p, **SQUARE, layout="mono"), Used(sounds=True)),
    "late sound.mp4": (lambda p: write_clip(p, **SQUARE, sound_start=Fraction(1, 5)), Used(sounds=True)),
    "sound after the end.mp4": (lambda p: write_clip(p, **SQUARE, sound_start=1), Used()),
    "short sound.mp4": (lambda p: write_clip(p, **SQUARE, wave=SHORT), Used(sounds=True)),
    "no sound.mp4": (lambda p: h264(p, **SQUARE), Used()),
    "silent.mp4": (lambda p: write_clip(p, **SQUARE, level=0.0), Used()),
    "two tracks.mp4": (lambda p: two_tracks(p, (400, 900)), Used(sounds=True)),
    "cover and film.mp4": (lambda p: with_cover(p, film=True), Used(sounds=True)),
    "pq.mp4": (
        lambda p: hdr(p, 16),
        "high dynamic range video with transfer PQ (SMPTE ST 2084); convert it to SDR (BT.709) first",
    ),
    "hlg.mp4": (
        lambda p: hdr(p, 18),
        "high dynamic range video with transfer HLG (ARIB STD-B67); convert it to SDR (BT.709) first",
    ),
    "crooked.mp4": (
        lambda p: h264(p, **SQUARE, rotation=45),
        "it is rotated by an angle that is no multiple of 90 degrees; render it upright first",
    ),
    "cut off.mp4": (lambda p: cut(h264(p, **SQUARE | {"frames": 60}), 0.6), CUT_OFF),
    "cut off, still plays.mp4": (
        lambda p: cut(fast(p, **SQUARE | {"frames": 60}), 0.8),
        CUT_OFF,
    ),
    "cut off.mkv": (
        lambda p: cut(h264(p, **SQUARE | {"frames": 60}), 0.8),
        CUT_OFF,
    ),
    "text.mp4": (
        lambda p: p.write_text("no video at all\n"),
        "it cannot be read as a video (Invalid data found when processing input)",
    ),
    "nothing.mp4": (lambda p: p.touch(), "the file is empty (0 bytes)"),
    "cover only.mp4": (lambda p: with_cover(p, film=False), "there is no video track in it, only a cover picture"),
    "sound only.mp4": (sound_only, "there is no video track in it"),
    "backwards.mkv": (
        lambda p: restamped(p, [0, 40, 80, 200, 160, 120, 240, 280, 320]),
        "its time stamps run backwards (a frame at 0.16 s follows one at 0.2 s); re-encode it first",
    ),
    "standing.mkv": (lambda p: restamped(p, [0] * 9), "the time stamps of its frames do not advance"),
}  # fmt: skip


@pytest.fixture
def real_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Puts back the real checkpoint reader, which the bench replaces."""
    real = cache_stage.open_checkpoint
    return lambda: monkeypatch.setattr(cache_stage, "open_checkpoint", real)


def test_every_kind_in_one_dataset(real_model: Callable[[], None], bench: Bench, tiny20: Path) -> None:
    real_model()
    bench.config["pretrained_model_name_or_path"] = str(tiny20)
    bench.dataset |= {"caption_strategy": "filename", "video": {"num_frames": 9, "min_frames": 1}}
    bench.clips.mkdir(parents=True)
    for name, (make, _) in KINDS.items():
        make(bench.clips / name)
    planes(bench.clips / "animation.gif", [rgba([(9, 99, 200, 255)], "rgba").reformat(format="rgb8")] * 9, "gif")

    index, _ = bench.run()
    report = json.loads((bench.workspace.root / "runs" / "fox" / "report.json").read_text())
    expected = {name: ends for name, (_, ends) in KINDS.items()}
    used = {name: ends for name, ends in expected.items() if isinstance(ends, Used)}
    got = {
        Path(sample.path).name: Used(
            (sample.width, sample.height), sample.frames, round(sample.fps, 2), sample.sounding
        )
        for sample in index.samples
    }
    assert got == used
    reasons = {
        Path(row["path"]).name: re.sub(r"\d[\d,]{2,}(?= (of|bytes))", "#", row["reason"]) for row in report["skipped"]
    }
    assert reasons == {name: ends for name, ends in expected.items() if isinstance(ends, str)}
    assert report["clips"] == {
        "found": len(KINDS), "used": len(used), "held_out": 0, "skipped": len(KINDS) - len(used),
        "sounding": sum(each.sounds for each in used.values()),
    }  # fmt: skip
    assert sum(bucket["clips"] for bucket in report["buckets"]) == len(used)
    store = index.store()
    for sample in index.samples:
        latents = store.get("video", sample.video_key)["latents"].float()
        assert latents.shape == (128, (sample.frames - 1) // 8 + 1, sample.height // 32, sample.width // 32)
        assert latents.isfinite().all()
        sound = store.get("audio", sample.audio_key or "")["latents"]
        assert sound.shape == (round(sample.frames / sample.fps * 25), 128) and sound.isfinite().all()

    # The same again finds everything, and skips the same without a decoder.
    again, encoded = bench.run()
    assert again == index and not encoded
    assert Checkpoint.open(tiny20).text_tokens == store.get("text", index.samples[0].text_keys[0])["video"].shape[0]


def test_one_frame_is_too_short_unless_it_is_allowed(bench: Bench) -> None:
    bench.clip("a")
    bench.clip("still", frames=1, layout=None)
    bench.dataset["video"] = {"num_frames": 9}
    index, _ = bench.run()
    assert [sample.id for sample in index.samples] == ["clips/a.mp4"]
    (warning,) = bench.reporter.warnings
    assert warning == (
        "datasets/videos/still.mp4: 1 frame at 25 fps, min_frames is 9; skipped (1 of 2 clips skipped, see report.json)"
    )
