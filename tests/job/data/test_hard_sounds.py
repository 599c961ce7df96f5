"""Sound of clips as people really have them: places to the sample, loudspeakers, tracks. Reference: reference/audio.py.

What tests/job/data/test_audio.py has (the formula, levels, silence, short and long tracks) is not repeated.
"""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from hard_clips import trimmed, two_tracks, with_cover
from ltx2_job.data.decoder import Decoder, Probe
from media import LAYOUTS, tone, write_clip
from reference.audio import ROWS, decibel

RATE = 16_000


def heard(decoder: Decoder, path: Path, seconds: Fraction | None = None) -> np.ndarray:
    """The sound that the cache stage would take, [2, S]."""
    found = Probe.from_json(decoder.probe(path))
    wave, _ = decoder.sound(path, seconds or found.seconds, found.origin)
    assert wave is not None
    return wave.copy()


def noise(seconds: float, rate: int = 48_000) -> np.ndarray:
    """Stereo noise below 3 kHz, which every codec keeps."""
    count = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(5).standard_normal(count))
    spectrum[int(3000 * seconds) :] = 0
    wave = np.fft.irfft(spectrum, count)
    return (0.3 * wave / np.abs(wave).max())[None].repeat(2, 0).astype(np.float32)


def lag(got: np.ndarray, want: np.ndarray) -> int:
    """By how many samples `got` comes later than `want`, from the peak of their correlation."""
    size = 2 * max(len(got), len(want))
    product = np.fft.rfft(got, size) * np.conj(np.fft.rfft(want, size))
    place = int(np.argmax(np.fft.irfft(product, size)))
    return place if place < size // 2 else place - size


CODECS = [
    ("a.mp4", "libx264", "aac"), ("a.mov", "libx264", "pcm_s16le"), ("a.mkv", "libx264", "aac"),
    ("a.mkv", "libx264", "libopus"), ("a.webm", "libvpx-vp9", "libopus"), ("a.mkv", "libx264", "flac"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "audio_codec"), CODECS)
@pytest.mark.parametrize("late", [Fraction(0), Fraction(1, 4)])
def test_sound_lies_where_the_file_says_to_the_sample(
    decoder: Decoder, tmp_path: Path, name: str, codec: str, audio_codec: str, late: Fraction
) -> None:
    """Catches: an encoder's priming samples counted as sound (aac: 21 ms), a late track moved to the front."""
    wave = noise(1.0 - float(late))
    clip = write_clip(tmp_path / name, codec=codec, audio_codec=audio_codec, wave=wave, sound_start=late)
    got = heard(decoder, clip)
    assert got.shape == (2, RATE)
    start = round(late * RATE)
    shift = lag(got[0], np.concatenate([np.zeros(start), wave[0, ::3]]))
    # Matroska counts in milliseconds, and so does the edit list by which an mp4 starts a track late.
    assert abs(shift) <= (1 if name in ("a.mp4", "a.mov") and not late else 16)
    assert np.abs(got[:, : max(0, start - 100)]).max(initial=0) < 0.01
    if start:
        assert np.abs(got[:, start + 100 : start + 1600]).max() > 0.1


def test_a_picture_that_starts_late_does_not_move_its_sound(decoder: Decoder, tmp_path: Path) -> None:
    wave = noise(1.5)
    clip = write_clip(tmp_path / "a.mkv", start=Fraction(1, 2), wave=wave, audio_codec="pcm_s16le")
    got = heard(decoder, clip)
    assert abs(lag(got[0], wave[0, 24_000::3])) <= 1


def test_sound_stays_with_a_picture_that_an_edit_list_cuts(decoder: Decoder, tmp_path: Path) -> None:
    """The list cuts the first 0.2 s of the picture only: the sound of the file still begins with what is shown."""
    wave = noise(1.0)
    clip = trimmed(write_clip(tmp_path / "a.mp4", frames=30, wave=wave), frames=5, ticks=512)
    assert abs(lag(heard(decoder, clip)[0], wave[0, ::3])) <= 1


@pytest.mark.parametrize(
    ("name", "layout", "codec", "rate"),
    [("a.mkv", "7.1", "pcm_s16le", 48_000), ("a.mp4", "7.1", "aac", 48_000), ("a.mkv", "5.1", "flac", 44_100),
     ("a.mp4", "mono", "aac", 44_100), ("a.mkv", "7.1", "libopus", 48_000)],
)  # fmt: skip
def test_each_loudspeaker_reaches_its_side_with_its_share(
    decoder: Decoder, tmp_path: Path, name: str, layout: str, codec: str, rate: int
) -> None:
    """A tone of its own in each channel; in dB, and where the table has 0, below -50 dB. Two would be a wrong order."""
    pitches = [200 + 250 * i for i in range(LAYOUTS[layout])]
    wave = np.stack([tone(pitch, 1.0, rate, 0.1) for pitch in pitches])
    got = heard(decoder, write_clip(tmp_path / name, layout=layout, rate=rate, wave=wave, audio_codec=codec))
    spectrum = np.abs(np.fft.rfft(got[:, 2000:10_000] * np.hanning(8000), axis=1)) / 2000
    for side, (number, pitch) in itertools.product(range(2), enumerate(pitches)):
        share = spectrum[side, pitch // 2] / 0.1
        want = ROWS[layout][side][number] / sum(ROWS[layout][side])
        if number == 3 and codec != "pcm_s16le":
            assert share < 0.01  # LFE; codecs cut its band anyway
        elif want:
            assert abs(decibel(share / want)) < (0.1 if codec in ("pcm_s16le", "flac") else 0.5)
        else:
            assert share < 0.003


def test_the_first_of_two_tracks_is_heard(decoder: Decoder, tmp_path: Path) -> None:
    for first, second in ((400, 900), (900, 400)):
        spectrum = np.abs(np.fft.rfft(heard(decoder, two_tracks(tmp_path / f"{first}.mp4", (first, second)))[0]))
        assert spectrum[first] > 100 * spectrum[second]


def test_sound_beside_a_cover_picture(decoder: Decoder, tmp_path: Path) -> None:
    spectrum = np.abs(np.fft.rfft(heard(decoder, with_cover(tmp_path / "a.mp4", film=True))[0]))
    assert np.argmax(spectrum) == 440


def test_only_as_much_is_read_as_is_trained(decoder: Decoder, tmp_path: Path) -> None:
    wave = noise(4.0)
    clip = write_clip(tmp_path / "a.mp4", frames=100, wave=wave)
    got = heard(decoder, clip, Fraction(9, 25))
    assert got.shape == (2, 5760) and abs(lag(got[0], wave[0, : 5760 * 3 : 3])) <= 1
