"""The sound of clips: down-mix, resampler, time, silence. Numbers against tests/reference/audio.py."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ltx2_job.data import audio
from ltx2_job.data.decoder import Decoder, Probe
from media import LAYOUTS, tone, write_clip
from reference.audio import decibel, downmix, resample, rms

NAMES = {
    "mono": ("FC",),
    "stereo": ("FL", "FR"),
    "5.1": ("FL", "FR", "FC", "LFE", "BL", "BR"),
    "7.1": ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}


def noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((channels, samples)) * 0.2


def sound_of(decoder: Decoder, path: Path) -> tuple[np.ndarray | None, bool, Probe]:
    probe = Probe.from_json(decoder.probe(path))
    return *decoder.sound(path, probe.frames / probe.rate, probe.origin), probe


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000, 11_127])
def test_the_resampler_is_the_formula(rate: int) -> None:
    wave = noise(2, rate // 50)
    got = audio.resample(wave, rate)
    for channel in range(2):
        want = resample(wave[channel], rate, 16_000)
        assert got[channel].shape == want.shape
        assert np.abs(got[channel] - want).max() < 1e-12


@pytest.mark.parametrize("mistake", [{"width": 7}, {"roll_off": 1.0}])
def test_that_comparison_catches_another_filter(mistake: dict[str, float]) -> None:
    wave = noise(1, 960)
    assert np.abs(audio.resample(wave, 48_000)[0] - resample(wave[0], 48_000, 16_000, **mistake)).max() > 1e-3


def test_16_khz_passes_unchanged() -> None:
    wave = noise(2, 100)
    assert np.array_equal(audio.resample(wave, 16_000), wave)


def test_a_tone_keeps_level_and_pitch_and_what_16_khz_cannot_hold_is_removed() -> None:
    low, high = tone(1000, 0.5, 44_100), tone(12_000, 0.5, 44_100)
    kept = audio.resample(low[None], 44_100)[0][500:-500]
    assert abs(decibel(rms(kept) / rms(low))) < 0.05
    assert np.argmax(np.abs(np.fft.rfft(kept))) * 16_000 / len(kept) == pytest.approx(1000, abs=3)
    assert decibel(rms(audio.resample(high[None], 44_100)[0][500:-500]) / rms(high)) < -50


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_down_mix_is_the_table(layout: str) -> None:
    wave = noise(LAYOUTS[layout], 64)
    assert np.abs(audio.downmix(wave, NAMES[layout]) - downmix(wave, layout)).max() < 1e-12


def test_side_loudspeakers_count_as_back_ones_and_plain_channel_numbers_as_the_usual_layout() -> None:
    wave = noise(6, 64)
    side = audio.downmix(wave, ("FL", "FR", "FC", "LFE", "SL", "SR"))
    plain = audio.downmix(wave, tuple(f"UNK{i}" for i in range(6)))
    assert np.array_equal(side, audio.downmix(wave, NAMES["5.1"]))
    assert np.array_equal(plain, side)


def test_a_loudspeaker_without_a_place_is_named() -> None:
    with pytest.raises(audio.UnreadableSound, match="TFL, TFR"):
        audio.mix_matrix(("FL", "FR", "TFL", "TFR"))


@pytest.mark.parametrize("layout", ["mono", "5.1", "7.1"])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_clips_of_any_layout_keep_the_stated_level(decoder: Decoder, tmp_path: Path, layout: str, rate: int) -> None:
    # The same tone everywhere but in the LFE: after a down-mix whose rows sum to 1 it has the tone's own level.
    # Without that division 5.1 would come out 7.7 dB and 7.1 9.9 dB too loud.
    channels = LAYOUTS[layout]
    wave = np.stack([tone(440, 1.0, rate)] * channels)
    if channels > 2:
        wave[3] = tone(60, 1.0, rate)
    codec = "flac" if channels < 8 else "aac"
    clip = write_clip(tmp_path / "a.mkv", layout=layout, rate=rate, wave=wave, audio_codec=codec)
    got, sounds, _ = sound_of(decoder, clip)
    assert got is not None and sounds and got.shape == (2, 16_000) and got.dtype == np.float32
    want = downmix(wave, layout)
    for side in range(2):
        assert abs(decibel(rms(got[side][1000:-1000]) / rms(want[side]))) < 0.1


def test_that_tolerance_catches_a_down_mix_without_division() -> None:
    wave = np.stack([tone(440, 0.1, 48_000)] * 6)
    ratio = rms(downmix(wave, "5.1", normalise=False)[0]) / rms(audio.downmix(wave, NAMES["5.1"])[0])
    assert decibel(ratio) == pytest.approx(7.66, abs=0.01)


def test_each_channel_of_a_5_1_file_goes_to_its_side(decoder: Decoder, tmp_path: Path) -> None:
    pitches = [300, 500, 700, 900, 1100, 1300]
    wave = np.stack([tone(pitch, 1.0, 48_000, 0.2) for pitch in pitches])
    got, _, _ = sound_of(decoder, write_clip(tmp_path / "a.mp4", layout="5.1", wave=wave))
    assert got is not None
    spectrum = np.abs(np.fft.rfft(got.astype(np.float64), axis=1)) / 8000
    share = np.array([[spectrum[side, pitch] for pitch in pitches] for side in range(2)]) / 0.2
    assert np.abs(share - audio.mix_matrix(NAMES["5.1"])).max() < 0.02


def test_real_5_1_sound(decoder: Decoder, real_clips: Path) -> None:
    got, sounds, probe = sound_of(decoder, real_clips / "bigbuckbunny.mp4")
    assert got is not None and sounds and got.shape == (2, round(probe.seconds * 16_000))
    assert np.abs(got).max() < 1 and rms(got) > 0.005


def test_a_late_track_is_preceded_by_silence(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mkv", sound_start=Fraction(1, 2), audio_codec="pcm_s16le")
    got, _, _ = sound_of(decoder, clip)
    assert got is not None
    assert np.abs(got[:, :7900]).max() == 0 and rms(got[:, 8100:9000]) > 0.1


def test_sound_before_the_first_frame_is_dropped(decoder: Decoder, tmp_path: Path) -> None:
    rate = 48_000
    wave = np.concatenate([tone(200, 0.5, rate), tone(3000, 1.0, rate)])[None].repeat(2, 0)
    got, _, probe = sound_of(
        decoder, write_clip(tmp_path / "a.mkv", start=Fraction(1, 2), wave=wave, audio_codec="pcm_s16le")
    )
    assert got is not None and probe.origin == Fraction(1, 2)
    spectrum = np.abs(np.fft.rfft(got[0]))
    assert spectrum[190:210].max() < 0.02 * spectrum[2990:3010].max()


def test_a_short_track_is_padded_and_a_long_one_cut(decoder: Decoder, tmp_path: Path) -> None:
    short = np.stack([tone(440, 0.4, 48_000)] * 2)
    got, _, _ = sound_of(decoder, write_clip(tmp_path / "a.mkv", wave=short, audio_codec="pcm_s16le"))
    assert got is not None and got.shape == (2, 16_000) and np.abs(got[:, 6500:]).max() == 0
    long = np.stack([tone(440, 3.0, 48_000)] * 2)
    got, _, _ = sound_of(decoder, write_clip(tmp_path / "b.mkv", wave=long, audio_codec="pcm_s16le"))
    assert got is not None and got.shape == (2, 16_000) and rms(got[:, -200:]) > 0.1


@pytest.mark.parametrize(("level", "sounds"), [(0.0, False), (0.0009, False), (0.0011, True)])
def test_below_minus_60_dbfs_is_silence(decoder: Decoder, tmp_path: Path, level: float, sounds: bool) -> None:
    wave = np.stack([tone(440, 1.0, 48_000, level)] * 2)
    got = sound_of(decoder, write_clip(tmp_path / "a.mkv", wave=wave, audio_codec="pcm_f32le"))
    assert got[0] is not None and got[1] is sounds


def test_no_track(decoder: Decoder, tmp_path: Path) -> None:
    wave, sounds, probe = sound_of(decoder, write_clip(tmp_path / "a.mp4", layout=None))
    assert wave is None and not sounds and not probe.sound
