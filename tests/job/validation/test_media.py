"""The .mp4 files and the page that shows them."""

import av
import numpy as np
import pytest
import torch

from ltx2_job.validation.gallery import write_gallery
from ltx2_job.validation.media import to_frames, to_yuv, write_mp4


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal to noise ratio of two uint8 clips in dB."""
    return 10 * np.log10(255**2 / np.mean((first.astype(float) - second.astype(float)) ** 2))


def yuv_round_trip(frames: np.ndarray) -> np.ndarray:
    """RGB through yuv420p and back, without any encoding: what an .mp4 can hold at best."""
    return np.stack([to_yuv(frame).to_ndarray(format="rgb24") for frame in frames])


def read(path) -> tuple[np.ndarray, np.ndarray | None]:
    """All frames as RGB, and all sound as [2, S]."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return frames, None
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    return frames, sound


@pytest.fixture
def clip():
    """A smooth moving pattern with strong colours, 17 frames of 96 x 64, and two tones of 440 and 880 Hz."""
    t, y, x = np.meshgrid(np.arange(17), np.arange(64), np.arange(96), indexing="ij")
    frames = (
        np.stack([128 + 100 * np.sin((x + 3 * t) / 17), 60 + y, 200 - x + t], axis=-1).clip(0, 255).astype(np.uint8)
    )
    seconds = np.arange(16320) / 24000
    return frames, np.stack([0.5 * np.sin(2 * np.pi * 440 * seconds), 0.25 * np.sin(2 * np.pi * 880 * seconds)])


def test_the_file_holds_the_clip(tmp_path, clip):
    """Catches swapped width and height, RGB read as BGR, the BT.601 matrix, full range, and a poor encoder setting."""
    frames, _ = clip
    write_mp4(tmp_path / "a.mp4", frames, 25.0)
    found, sound = read(tmp_path / "a.mp4")
    assert found.shape == frames.shape and sound is None
    assert psnr(found, yuv_round_trip(frames)) > 30
    assert psnr(found, frames) > 28
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]  # no temporary file is left


def test_a_plain_colour_survives_players_that_trust_the_tags(tmp_path):
    """Luma of (200, 60, 40) by BT.709 is 92, by BT.601 97. Catches an untagged or wrongly converted file."""
    frames = np.full((9, 64, 64, 3), (200, 60, 40), np.uint8)
    write_mp4(tmp_path / "a.mp4", frames, 24.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        tags = container.streams.video[0].codec_context
        assert (tags.colorspace, tags.color_primaries, tags.color_trc, tags.color_range) == (1, 1, 1, 1)
        luma = next(container.decode(video=0)).to_ndarray()[:64]
    assert abs(luma.mean() - (16 + 219 * (0.2126 * 200 + 0.7152 * 60 + 0.0722 * 40) / 255)) < 1


def test_the_file_holds_the_sound(tmp_path, clip):
    """Catches swapped channels, a wrong rate and a mono track."""
    frames, wave = clip
    write_mp4(tmp_path / "a.mp4", frames, 25.0, wave, 24000)
    _, sound = read(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        audio = container.streams.audio[0]
        assert (audio.codec_context.name, audio.rate, audio.layout.name) == ("aac", 24000, "stereo")
    assert abs(sound.shape[1] - wave.shape[1]) <= 1024
    for channel, frequency in enumerate((440, 880)):
        spectrum = np.abs(np.fft.rfft(sound[channel]))
        assert abs(spectrum.argmax() * 24000 / sound.shape[1] - frequency) < 5


@pytest.mark.parametrize("fps", [25.0, 24.0, 23.976, 29.97, 12.5])
def test_the_frame_rate_is_kept(tmp_path, fps):
    """Catches a rate that is rounded to a whole number: the sound would drift."""
    write_mp4(tmp_path / "a.mp4", np.zeros((9, 32, 32, 3), np.uint8), fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-4)


def test_a_clip_is_complete_or_absent(tmp_path):
    """Odd sizes cannot be yuv420p: the encoder refuses. Catches half a file that a gallery would show."""
    with pytest.raises(av.error.FFmpegError):
        write_mp4(tmp_path / "a.mp4", np.zeros((9, 33, 31, 3), np.uint8), 25.0)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_is_being_written_is_no_clip(tmp_path, monkeypatch):
    """As if killed right before the end. Catches a temporary file that a gallery takes for a clip."""

    def killed(*_):
        assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
        raise KeyboardInterrupt

    monkeypatch.setattr("ltx2_job.validation.media.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_mp4(tmp_path / "a.mp4", np.zeros((9, 32, 32, 3), np.uint8), 25.0)


def test_pixels_become_bytes():
    """Catches truncation in place of rounding, wrap-around beyond the range, and another order of axes."""
    pixels = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]).view(1, 5, 1, 1).expand(3, 5, 2, 4)
    frames = to_frames(pixels)
    assert frames.shape == (5, 2, 4, 3) and frames.dtype == np.uint8
    assert frames[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


def test_the_gallery_shows_every_step_and_escapes_text(tmp_path):
    """Catches broken links, steps in the wrong order, and a prompt that becomes markup."""
    for step, name in ((0, "a.mp4"), (500, "a.mp4"), (500, "b c.mp4")):
        (tmp_path / f"step-{step:07d}").mkdir(exist_ok=True)
        (tmp_path / f"step-{step:07d}" / name).touch()
    (tmp_path / "step-0000900").mkdir()  # stopped before its first clip
    page = write_gallery(tmp_path, "fox & co", "<script>alert('x')</script>").read_text()
    assert "<script>" not in page and "fox &amp; co" in page
    assert page.index("step 500") < page.index("step 0<") and "step 900" not in page
    assert page.count("<video") == 3 and 'src="step-0000500/b%20c.mp4"' in page
