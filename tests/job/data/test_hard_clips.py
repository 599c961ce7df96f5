"""Pictures of clips as people really have them, against expectations that share nothing with the decoder.

What tests/job/data/test_worker.py has (containers, rotation, odd sizes, colour matrices, resampling) is not repeated.
"""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hard_clips import (
    HOURS_8,
    bar,
    claims,
    cut,
    grey_ramp,
    h264,
    interlaced,
    nearest,
    planes,
    restamped,
    rgba,
    screen_times,
    sound_only,
    trimmed,
    with_cover,
)  # fmt: skip
from ltx2_job.data import pictures
from ltx2_job.data.decoder import Decoder, Probe, Unusable
from ltx2_job.data.pixels import prepare
from ltx2_job.data.sizes import timing, training_size
from ltx2_job.data.whole import promised_bytes
from media import number_of, write_clip


def look(decoder: Decoder, path: Path) -> Probe:
    return Probe.from_json(decoder.probe(path))


def taken(decoder: Decoder, path: Path, count: int | None = None, rate: float | None = None) -> list[np.ndarray]:
    """The frames that the cache stage would take of a file."""
    found = look(decoder, path)
    timed = timing(found, rate)
    wanted = count or timed.available
    shown = decoder.frames(path, wanted, timed.rate, timed.as_they_are, height=found.height, width=found.width)
    return [frame.copy() for frame in shown]


def encoded(decoder: Decoder, path: Path, resolution: int) -> torch.Tensor:
    """What the video VAE would get: [3, F, H, W] in [0, 255]."""
    found = look(decoder, path)
    size = training_size(found, resolution, "pixel_area")
    pixels = prepare(taken(decoder, path), found.frames, found.aspect, size)
    return (pixels + 1) * 127.5


def numbers(frames: list[np.ndarray]) -> list[int]:
    return [number_of(frame) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "format_", "options"),
    [
        ("h264.mp4", "libx264", "yuv420p10le", {"qp": "0"}),
        ("hevc.mp4", "libx265", "yuv420p10le", {"x265-params": "lossless=1:bframes=0:log-level=none"}),
        ("ffv1.mkv", "ffv1", "yuv422p10le", {}),
        ("ffv1.mkv", "ffv1", "yuv420p10le", {}),
    ],
)
def test_ten_bits_become_the_nearest_of_eight(
    decoder: Decoder, tmp_path: Path, name: str, codec: str, format_: str, options: dict[str, str]
) -> None:
    """Catches: the two low bits cut off (half a step too dark on average), or 10-bit numbers read as 8-bit ones."""
    frame, luma = grey_ramp(format_, 64, 940)
    clip = planes(tmp_path / name, [frame] * 2, codec, options=options)
    want = (luma.astype(float) - 64) / 876 * 255
    got = taken(decoder, clip, 2)[1][30].astype(float)
    assert np.abs(got - want[:, None]).max() < 1
    assert np.abs((got - want[:, None]).mean()) < 0.1


@pytest.mark.parametrize(
    ("format_", "full", "low", "high"),
    # Of 8 bits the decoder says the range by the name of its format as well; of 10 bits only the tag tells it, and
    # libswscale's own 8 bits of them are up to 1.25 off.
    [("yuv420p", False, 16, 235), ("yuv420p", True, 0, 255), ("yuv420p10le", True, 0, 1023)],
)
def test_limited_and_full_range_both_reach_from_black_to_white(
    decoder: Decoder, tmp_path: Path, format_: str, full: bool, low: int, high: int
) -> None:
    frame, luma = grey_ramp(format_, low, high)
    frame.color_range = 2 if full else 1
    clip = planes(tmp_path / "a.mp4", [frame], options={"qp": "0"}, tags={"color_range": 2 if full else 1})
    got = taken(decoder, clip)[0][30].astype(float)
    error = got - ((luma.astype(float) - low) / (high - low) * 255)[:, None]
    assert np.abs(error).max() < 1 and np.abs(error.mean()) < 0.2
    assert (got[0, 0], got[-1, 0]) == (0, 255)


def test_4_2_2_keeps_its_colours(decoder: Decoder, tmp_path: Path) -> None:
    colours = [(200, 60, 40, 255), (40, 180, 60, 255), (60, 70, 210, 255)]
    frame = rgba(colours, "yuv422p10le")
    clip = planes(tmp_path / "a.mov", [frame], "prores_ks", options={"profile": "3"})
    shown = taken(decoder, clip)[0]
    for place, colour in zip((16, 48, 80), colours, strict=True):
        assert np.abs(shown[32, place].astype(int) - colour[:3]).max() <= 4


@pytest.mark.parametrize(
    ("name", "codec", "format_"),
    [("a.mov", "png", "rgba"), ("a.mov", "qtrle", "argb"), ("a.mov", "prores_ks", "yuva444p10le"),
     ("a.mkv", "ffv1", "yuva420p")],
)  # fmt: skip
def test_transparency_lies_over_black(decoder: Decoder, tmp_path: Path, name: str, codec: str, format_: str) -> None:
    """Catches: whatever colour an editor left under transparent places, trained as if it were seen."""
    frame = rgba([(200, 60, 40, 255), (200, 60, 40, 128), (255, 255, 255, 0)], format_)
    shown = taken(decoder, planes(tmp_path / name, [frame], codec))[0].astype(int)
    assert np.abs(shown[32, 16] - (200, 60, 40)).max() <= 3
    assert np.abs(shown[32, 48] - (100, 30, 20)).max() <= 3
    assert shown[32, 80].tolist() == [0, 0, 0]


def test_interlaced_pictures_are_of_one_instant(decoder: Decoder, tmp_path: Path) -> None:
    """Catches: combs (two instants woven into one picture), which the model would learn."""
    clip = interlaced(tmp_path / "a.mp4")
    frames = taken(decoder, clip)
    assert len(frames) == 9
    for index, frame in enumerate(frames):
        error = [np.abs(frame[4:-4].astype(int) - bar(2 * index + field)[4:-4]).mean() for field in (0, 1)]
        assert error[0] < 3 < error[1]
    lines = np.abs(np.diff(frames[4].astype(int), axis=0)).mean()
    assert lines < 0.5  # a comb differs from line to line


def test_interlaced_pictures_keep_their_times(decoder: Decoder, tmp_path: Path) -> None:
    shown = taken(decoder, interlaced(tmp_path / "a.mp4", frames=17), 9, rate=12.5)
    for index, frame in enumerate(shown):
        assert np.abs(frame[4:-4].astype(int) - bar(4 * index)[4:-4]).mean() < 3


def test_wide_pixels_fill_the_wide_picture(decoder: Decoder, tmp_path: Path) -> None:
    def half(index: int, width: int, height: int) -> np.ndarray:
        image = np.zeros((height, width, 3), np.uint8)
        image[:, width // 2 :] = 255
        return image

    pixels = encoded(
        decoder, h264(tmp_path / "a.mp4", width=64, height=64, aspect=Fraction(2), frames=1, draw=half), 96
    )
    assert pixels.shape == (3, 1, 64, 128)
    assert pixels[..., :58].max() < 12 and pixels[..., 70:].min() > 243


@pytest.mark.parametrize("turn", [90, 270])
def test_a_turned_clip_is_upright_in_the_model(decoder: Decoder, tmp_path: Path, turn: int) -> None:
    def corner(index: int, width: int, height: int) -> np.ndarray:
        image = np.zeros((height, width, 3), np.uint8)
        image[: height // 2, : width // 2] = 255  # stored: white at the top left
        return image

    pixels = encoded(decoder, h264(tmp_path / "a.mp4", width=128, height=64, rotation=turn, frames=1, draw=corner), 96)
    assert pixels.shape == (3, 1, 128, 64)
    white = [pixels[0, 0, y, x].item() > 128 for y, x in ((20, 10), (20, 54), (108, 10), (108, 54))]
    # The library's angle is counter-clockwise: the top left goes to the bottom left with 90, to the top right with 270.
    assert white == ([False, False, True, False] if turn == 90 else [False, True, False, False])


def test_b_frames_come_in_the_order_of_display(decoder: Decoder, tmp_path: Path) -> None:
    options = {"preset": "medium", "bf": "3", "crf": "10", "x264-params": "b-adapt=0"}
    for name in ("a.mp4", "a.mkv"):
        assert numbers(taken(decoder, h264(tmp_path / name, frames=40, options=options))) == list(range(40))


def test_what_an_edit_list_cuts_is_not_shown(decoder: Decoder, tmp_path: Path) -> None:
    clip = trimmed(h264(tmp_path / "a.mp4", frames=30), frames=5, ticks=512)
    found = look(decoder, clip)
    assert (found.frames, found.rate) == (25, 25)
    assert numbers(taken(decoder, clip, 9)) == list(range(5, 14))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", {"live": "1"}),
        ("a.mp4", {"movflags": "faststart"}),
    ],
)
def test_files_written_while_they_were_recorded(
    decoder: Decoder, tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    clip = h264(tmp_path / name, frames=40, container_options=options, options={"g": "10"})
    found = look(decoder, clip)
    assert (found.frames, found.rate, found.regular) == (40, 25, True)
    assert numbers(taken(decoder, clip)) == list(range(40))


def test_a_header_that_claims_eight_hours(decoder: Decoder, tmp_path: Path) -> None:
    clip = claims(h264(tmp_path / "a.mp4", frames=25), HOURS_8)
    found = look(decoder, clip)
    assert (found.frames, found.rate, found.seconds) == (25, 25, 1)
    assert numbers(taken(decoder, clip, 25)) == list(range(25))


def test_a_header_that_claims_no_length(decoder: Decoder, tmp_path: Path) -> None:
    assert look(decoder, claims(h264(tmp_path / "a.mp4", frames=9), 0)).seconds == Fraction(9, 25)


@pytest.mark.parametrize("rate", [25.0, 10.0, None])
def test_a_screen_recording_shows_what_was_there_at_each_time(
    decoder: Decoder, tmp_path: Path, rate: float | None
) -> None:
    """A nominal 1000 fps, bursts and pauses: frames are chosen by time, never counted."""
    times = screen_times()
    clip = h264(tmp_path / "a.mkv", times=times, fps=1000)
    found = look(decoder, clip)
    timed = timing(found, rate)
    assert not found.regular and timed.available > 9
    assert abs(float(found.rate) - 59 / float(times[-1])) < 0.01 * float(found.rate)
    assert numbers(taken(decoder, clip, rate=rate)) == nearest(times, timed.rate, timed.available)


def test_stamps_that_run_backwards_are_refused(decoder: Decoder, tmp_path: Path) -> None:
    clip = restamped(tmp_path / "a.mkv", [0, 40, 80, 200, 160, 120, 240, 280, 320])
    with pytest.raises(Unusable, match=r"time stamps run backwards \(a frame at 0.16 s follows one at 0.2 s\)"):
        taken(decoder, clip)
    # What comes before is whole.
    assert numbers(taken(decoder, clip, 4, rate=25)[:2]) == [0, 1]


def test_stamps_that_stand_still_are_refused(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="do not advance"):
        look(decoder, restamped(tmp_path / "a.mkv", [0] * 9))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_one_frame(decoder: Decoder, tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    clip = h264(tmp_path / name, frames=1, codec=codec)
    found = look(decoder, clip)
    assert (found.frames, found.rate, found.regular) == (1, 25, True)
    assert numbers(taken(decoder, clip)) == [0]


@pytest.mark.parametrize(
    ("name", "share", "options"),
    [("a.mp4", 0.5, {}), ("a.mp4", 0.5, {"movflags": "faststart"}), ("a.mp4", 0.99, {"movflags": "faststart"}),
     ("a.mp4", 0.6, {"movflags": "frag_keyframe+empty_moov"}), ("a.mov", 0.7, {}), ("a.mkv", 0.3, {}),
     ("a.mkv", 0.95, {}), ("a.webm", 0.6, {}), ("a.avi", 0.6, {})],
)  # fmt: skip
def test_a_file_that_is_cut_off_is_named(
    decoder: Decoder, tmp_path: Path, name: str, share: float, options: dict[str, str]
) -> None:
    """Catches: half a copy that still plays, taken for a shorter clip."""
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    clip = h264(tmp_path / name, frames=60, codec=codec, container_options=options)
    whole = clip.stat().st_size
    assert look(decoder, clip).frames == 60
    have = cut(clip, share).stat().st_size
    with pytest.raises(Unusable, match=rf"it is cut off: {have:,} of its [\d,]+ bytes are there; copy or download"):
        look(decoder, clip)
    clip.write_bytes(clip.read_bytes() + bytes(whole))  # as long as it should be, with nothing in it
    with pytest.raises(Unusable):
        taken(decoder, clip, 60)


def box(kind: bytes, body: int, length: int | None = None) -> bytes:
    """An ISO box of so many zero bytes; `length` is what its header says in 32 bits, if not the truth."""
    return ((8 + body) if length is None else length).to_bytes(4, "big") + kind + bytes(body)


WIDE = (1).to_bytes(4, "big") + b"mdat" + (10_000_000_016).to_bytes(8, "big")
HEAD = b"\x1a\x45\xdf\xa3\x81\x00"  # an EBML header of one byte


@pytest.mark.parametrize(
    ("raw", "promised"),
    [
        (box(b"ftyp", 8) + box(b"mdat", 100), 124),
        (box(b"ftyp", 8) + box(b"mdat", 50, 108), 124),  # half of it
        (box(b"ftyp", 8) + WIDE, 10_000_000_032),  # 64 bits
        (box(b"ftyp", 8) + box(b"moov", 10) + box(b"mdat", 50, 0), 34),  # up to the end of the file, wherever it is
        (box(b"moov", 10) + box(b"free", 5, 999), 18),  # nothing is lost with what is free
        (box(b"moov", 10) + b"rubbish at the end", 18),
        (HEAD + b"\x18\x53\x80\x67\x90" + bytes(9), 27),
        (HEAD + b"\x18\x53\x80\x67\x01" + b"\xff" * 7, 0),  # a live recording
        (b"RIFF" + (92).to_bytes(4, "little") + b"AVI ", 100),
        (b"RIFF" + (92).to_bytes(4, "little") + b"WAVE", 0),
        (b"free text in a file with another name", 0),
        (b"", 0),
    ],
)
def test_the_length_that_a_container_tells(tmp_path: Path, raw: bytes, promised: int) -> None:
    (tmp_path / "a").write_bytes(raw)
    assert promised_bytes(str(tmp_path / "a")) == promised


def test_a_cover_picture_is_no_film(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="there is no video track in it, only a cover picture"):
        look(decoder, with_cover(tmp_path / "a.mp4", film=False))
    film = with_cover(tmp_path / "b.mp4", film=True)
    assert (look(decoder, film).width, look(decoder, film).frames) == (96, 25)
    assert numbers(taken(decoder, film)) == list(range(25))
    with pytest.raises(Unusable, match="there is no video track in it"):
        look(decoder, sound_only(tmp_path / "c.mp4"))


def test_a_time_code_track_is_left_alone(decoder: Decoder, tmp_path: Path) -> None:
    frames = [rgba([(10 * i, 90, 90, 255)], "yuv420p") for i in range(9)]
    clip = planes(tmp_path / "a.mov", frames, options={"crf": "4"}, metadata={"timecode": "01:00:00:00"})
    with av.open(str(clip)) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    found = look(decoder, clip)
    assert (found.frames, found.sound) == (9, False)
    red = [int(frame[32, 40, 0]) for frame in taken(decoder, clip)]
    assert red == pytest.approx([10 * i for i in range(9)], abs=4)


@pytest.mark.parametrize(("code", "name"), [(16, r"PQ \(SMPTE ST 2084\)"), (18, r"HLG \(ARIB STD-B67\)")])
def test_high_dynamic_range_is_refused_by_name(decoder: Decoder, tmp_path: Path, code: int, name: str) -> None:
    frame, _ = grey_ramp("yuv420p10le", 64, 940)
    frame.color_trc = code
    options = {"x265-params": "log-level=none"}
    clip = planes(tmp_path / "a.mp4", [frame] * 9, "libx265", options=options, tags={"color_trc": code})
    with pytest.raises(Unusable, match=f"high dynamic range video with transfer {name}; convert it to SDR"):
        look(decoder, clip)


def test_4k(decoder: Decoder, tmp_path: Path) -> None:
    """Every stored pixel counts: the average of a fine pattern, not one of its pixels."""

    def fine(index: int, width: int, height: int) -> np.ndarray:
        image = np.zeros((height, width, 3), np.uint8)
        image[:, (np.arange(width) // 2) % 2 == index % 2] = 200
        return image

    clip = write_clip(tmp_path / "a.mp4", width=3840, height=2160, frames=2, layout=None, draw=fine)
    pixels = encoded(decoder, clip, 512)
    assert pixels.shape == (3, 2, 384, 672)
    assert pixels[:, :, 8:-8, 8:-8].mean().item() == pytest.approx(100, abs=4)
    assert pixels[:, :, 8:-8, 8:-8].std() < 6


def test_decoded_frames_do_not_pile_up(tmp_path: Path) -> None:
    """Catches: frames kept alive until Python looks for circles (4K: a gigabyte within fifty frames)."""
    clip = h264(tmp_path / "a.mp4", frames=60)
    alive = []
    gc.disable()
    try:
        for _ in pictures.frames(str(clip), 60, Fraction(25), True):
            alive.append(sum(isinstance(each, av.VideoFrame) for each in gc.get_objects()))
    finally:
        gc.enable()
    assert len(alive) == 60 and alive[-1] <= alive[5] < 20
