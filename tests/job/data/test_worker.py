"""Looking into files and decoding their pictures, through a real worker process."""

import os
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

import ltx2_job
from ltx2_job.data.decoder import Decoder, Probe, Unusable
from ltx2_job.errors import JobError
from media import number_of, picture, write_clip


def probe(decoder: Decoder, path: Path) -> Probe:
    return Probe.from_json(decoder.probe(path))


def read(decoder: Decoder, path: Path, count: int | None = None, rate: Fraction | None = None) -> list[np.ndarray]:
    found = probe(decoder, path)
    plain = rate is None and found.regular
    frames = decoder.frames(
        path, count or found.frames, rate or found.rate, plain, height=found.height, width=found.width
    )
    return [frame.copy() for frame in frames]


def numbers(frames: list[np.ndarray]) -> list[int]:
    return [number_of(frame) for frame in frames]


def test_real_clips(decoder: Decoder, real_clips: Path) -> None:
    bunny = probe(decoder, real_clips / "bigbuckbunny.mp4")
    assert (bunny.width, bunny.height, bunny.frames, bunny.rate, bunny.sound) == (1280, 720, 132, 25, True)
    bikes = probe(decoder, real_clips / "bikes.mp4")
    assert (bikes.width, bikes.height, bikes.frames, bikes.rate, bikes.sound) == (640, 272, 250, 25, False)
    phone = probe(decoder, real_clips / "carphone_pristine.mp4")
    assert (phone.aspect, phone.frames, phone.rate) == (Fraction(128, 117), 120, Fraction(30000, 1001))
    assert [frame.shape for frame in read(decoder, real_clips / "carphone_pristine.mp4", 9)] == [(144, 176, 3)] * 9


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [("a.mp4", "libx264", "aac"), ("a.mov", "libx264", "aac"), ("a.mkv", "libx264", "aac"),
     ("a.webm", "libvpx-vp9", "libopus"), ("a.avi", "libx264", "libmp3lame"), ("a.mpg", "mpeg2video", "mp2"),
     ("a.flv", "libx264", "aac")],
)  # fmt: skip
def test_containers(decoder: Decoder, tmp_path: Path, name: str, codec: str, sound: str) -> None:
    clip = write_clip(tmp_path / name, codec=codec, audio_codec=sound, frames=17)
    found = probe(decoder, clip)
    assert (found.frames, found.rate, found.regular, found.sound) == (17, 25, True, True)
    assert numbers(read(decoder, clip)) == list(range(17))


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30), Fraction(50)])
def test_rates_survive_a_clock_of_milliseconds(decoder: Decoder, tmp_path: Path, fps: Fraction) -> None:
    found = probe(decoder, write_clip(tmp_path / "a.mkv", fps=fps, frames=30))
    assert found.regular and abs(found.rate - fps) < Fraction(1, 200)


def test_halving_the_rate_takes_every_other_frame(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", fps=50, frames=34)
    assert numbers(read(decoder, clip, 17, Fraction(25))) == list(range(0, 34, 2))


def test_uneven_ratios_follow_the_time_stamps(decoder: Decoder, tmp_path: Path) -> None:
    fast = write_clip(tmp_path / "a.mp4", fps=30, frames=30)
    assert numbers(read(decoder, fast, 25, Fraction(25))) == [round(k * 1.2 - 1e-9) for k in range(25)]
    slow = write_clip(tmp_path / "b.mp4", fps=20, frames=20)
    assert numbers(read(decoder, slow, 25, Fraction(25))) == [round(k * 0.8 - 1e-9) for k in range(25)]


def test_variable_frame_rate_is_brought_to_an_even_one(decoder: Decoder, tmp_path: Path) -> None:
    # Ten frames at 50 fps, then ten at 12.5: a reader that counts frames plays the second half four times too fast.
    times = [Fraction(i, 50) for i in range(10)] + [Fraction(1, 5) + Fraction(i * 4, 50) for i in range(10)]
    clip = write_clip(tmp_path / "a.mkv", times=times)
    found = probe(decoder, clip)
    assert not found.regular and abs(float(found.seconds) - 1.0) < 0.06
    assert numbers(read(decoder, clip, 9, Fraction(25)))[:5] == [0, 2, 4, 6, 8]
    late = numbers(read(decoder, clip, 21, Fraction(25)))[5:]
    assert late == sorted(late) and late[::2] == [10, 11, 12, 13, 14, 15, 16, 17]


def test_a_lost_frame_does_not_change_the_rate(decoder: Decoder, tmp_path: Path) -> None:
    times = [Fraction(i + (i > 12), 25) for i in range(25)]
    found = probe(decoder, write_clip(tmp_path / "a.mp4", times=times))
    assert found.rate == 25 and not found.regular and found.seconds == Fraction(26, 25)


@pytest.mark.parametrize(("angle", "turns"), [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_rotation(decoder: Decoder, tmp_path: Path, angle: int, turns: int) -> None:
    clip = write_clip(tmp_path / "a.mp4", rotation=angle, frames=9)
    stored = picture(0, 96, 64).astype(int)
    found, shown = probe(decoder, clip), read(decoder, clip)[0].astype(int)
    want = np.rot90(stored, turns)  # the library's angle is counter-clockwise
    assert (found.height, found.width) == want.shape[:2] == shown.shape[:2]
    assert np.abs(shown - want).mean() < 8
    assert all(np.abs(shown - np.rot90(stored, other)).mean() > 20 for other in range(4)
               if other != turns and np.rot90(stored, other).shape == shown.shape)  # fmt: skip


def test_a_crooked_rotation_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="multiple of 90 degrees"):
        decoder.probe(write_clip(tmp_path / "a.mp4", rotation=45))


def test_pixel_aspect_turns_with_the_picture(decoder: Decoder, tmp_path: Path) -> None:
    assert probe(decoder, write_clip(tmp_path / "a.mp4", aspect=Fraction(4, 3))).aspect == Fraction(4, 3)
    assert probe(decoder, write_clip(tmp_path / "b.mp4", aspect=Fraction(4, 3), rotation=90)).aspect == Fraction(3, 4)


def test_odd_sizes_and_a_single_frame(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", width=97, height=65, pixel_format="yuv444p", frames=1)
    assert (probe(decoder, clip).frames, [frame.shape for frame in read(decoder, clip)]) == (1, [(65, 97, 3)])


@pytest.mark.parametrize(("width", "height", "tagged"), [(1280, 720, True), (1280, 720, False), (640, 480, False)])
def test_colours(decoder: Decoder, tmp_path: Path, width: int, height: int, tagged: bool) -> None:
    """Untagged video is BT.709 from 720 lines on and BT.601 below; the other matrix moves this red by ten steps."""
    want, matrix = (200, 60, 40), 1 if height >= 720 else 5
    # The encoder is given YUV made with the right matrix; whether the file says so is the test.
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "4", "preset": "ultrafast"}
        if tagged:
            stream.codec_context.colorspace = matrix
        for index in range(2):
            flat = np.full((height, width, 3), want, np.uint8)
            frame: Any = av.VideoFrame.from_ndarray(flat, format="rgb24").reformat(
                format="yuv420p",
                src_colorspace=Colorspace(matrix),
                dst_colorspace=Colorspace(matrix),
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            frame.colorspace = matrix if tagged else 2
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    got = read(decoder, path)[0].reshape(-1, 3).mean(0)
    assert np.abs(got - want).max() < 3, got


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused_by_name(decoder: Decoder, tmp_path: Path, transfer: int, name: str) -> None:
    with pytest.raises(Unusable, match=f"transfer {name}") as caught:
        decoder.probe(write_clip(tmp_path / "a.mp4", tags={"color_trc": transfer}))
    assert caught.value.lasting


def test_what_is_no_video(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video\n")
    (tmp_path / "empty.mp4").touch()
    whole = write_clip(tmp_path / "whole.mp4", frames=40).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])  # its table of contents was at the end
    for name, reason in (
        ("text", "cannot be read as a video"),
        ("empty", "0 bytes"),
        ("half", r"it is cut off: [\d,]+ of its [\d,]+ bytes are there"),
    ):
        with pytest.raises(Unusable, match=reason):
            decoder.probe(tmp_path / f"{name}.mp4")


def test_what_the_volume_does_is_no_lasting_fault_of_the_file(decoder: Decoder, tmp_path: Path) -> None:
    """Catches: a file that was away for a moment, remembered for good as one that cannot be decoded."""
    gone = tmp_path / "gone.mp4"
    for ask in (
        lambda: decoder.probe(gone),
        lambda: list(decoder.frames(gone, 9, Fraction(25), True, height=64, width=96)),
        lambda: decoder.sound(gone, Fraction(1), Fraction(0)),
    ):
        with pytest.raises(Unusable, match="No such file") as caught:
            ask()
        assert not caught.value.lasting
    (tmp_path / "text.mp4").write_text("this is no video\n")
    with pytest.raises(Unusable) as caught:
        decoder.probe(tmp_path / "text.mp4")
    assert caught.value.lasting


def test_a_track_that_breaks_in_the_middle_is_told(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mkv", frames=40, layout=None)
    found = probe(decoder, clip)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(Unusable, match=r"frame \d+ of 40"):
        list(decoder.frames(clip, 40, found.rate, True, height=64, width=96))
    # The worker lives on.
    assert probe(decoder, write_clip(tmp_path / "b.mp4")).frames == 25


def test_sound_alone_is_no_video(decoder: Decoder, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 1600)
    (tmp_path / "a.wav").rename(tmp_path / "a.mp4")
    with pytest.raises(Unusable, match="no video track"):
        decoder.probe(tmp_path / "a.mp4")


WORKER = """
import os, sys, time
from ltx2_job.data import worker
answer = worker.answer
def wrapped(request, pipe):
    name = os.path.basename(request["path"])
    if name.startswith("crash"): os.abort()
    if name.startswith("hang"): time.sleep(3600)
    if name.startswith("exit"): print("out of luck", file=sys.stderr); os._exit(3)
    answer(request, pipe)
worker.answer = wrapped
worker.main()
"""


def test_a_worker_that_dies_or_hangs_costs_one_clip(tmp_path: Path) -> None:
    clips = {
        name: write_clip(tmp_path / f"{name}.mp4", layout=None, frames=9) for name in ("crash", "hang", "exit", "good")
    }
    with Decoder(patience=3, command=[sys.executable, "-c", WORKER]) as decoder:
        for name, reason in (
            ("crash", "SIGABRT"),
            ("exit", r"code 3 \(out of luck\)"),
            ("hang", "no progress for 3 s"),
        ):
            with pytest.raises(Unusable, match=reason) as caught:
                decoder.probe(clips[name])
            assert not caught.value.lasting  # another machine or day may decode it
            assert decoder.probe(clips["good"])["frames"] == 9


SLOW = """
worker.ALIVE_SECONDS = 0.2
shown = worker._shown
worker._shown = lambda packet: time.sleep(0.3) or shown(packet)
worker.main()
"""


def test_a_long_look_into_a_film_is_no_hang(tmp_path: Path) -> None:
    """A worker that sends nothing for longer than the reader's patience, but says that it is alive."""
    slow = WORKER.replace("worker.main()", SLOW)
    clip = write_clip(tmp_path / "film.mp4", layout=None, frames=9)
    with Decoder(patience=1.5, command=[sys.executable, "-c", slow]) as decoder:
        assert decoder.probe(clip)["frames"] == 9


def test_a_reader_that_stops_early_does_not_confuse_the_next_one(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", frames=25)
    frames = decoder.frames(clip, 25, Fraction(25), True, height=64, width=96)
    next(frames)
    frames.close()
    assert numbers(read(decoder, clip)) == list(range(25))


def test_frames_of_another_size_are_told(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    with pytest.raises(Unusable, match="change their size"):
        list(decoder.frames(clip, 25, Fraction(25), True, height=65, width=96))


def test_a_worker_that_cannot_start_is_a_defect_and_not_a_bad_clip(tmp_path: Path) -> None:
    broken = Decoder(command=[sys.executable, "-c", "import sys; sys.exit('no av here')"])
    with pytest.raises(JobError, match=r"does not start .no av here"), broken:
        broken.probe(tmp_path / "a.mp4")


def test_the_worker_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; from ltx2_job.data import worker; sys.exit('torch' in sys.modules)"
    home = str(Path(ltx2_job.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": home}).returncode == 0
