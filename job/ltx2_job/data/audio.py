"""The sound of a clip as the audio VAE's front end wants it: 16 kHz, stereo, cut to the picture (design N7).

Down-mix and resampler are our own, because those of the decoding library give other numbers: its mono comes out 0.707
per channel, its 5.1 is not normalised, and its filter is not the one that the audio VAE's features were made with.
numpy only; `read` alone imports av.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RATE: Final = 16_000
"""Samples per second that the audio VAE's log-mel front end works on."""

SILENCE: Final = 10 ** (-60 / 20)
"""A clip of which no sample reaches -60 dBFS has no sound (design N4)."""

ZEROS: Final = 6  # zero crossings of the sinc on each side
ROLL_OFF: Final = 0.99  # cut-off as a share of the lower Nyquist frequency
JUMP: Final = 0.02  # seconds by which a time stamp may drift before it counts as a gap

_SIDE: Final = math.sqrt(0.5)  # -3 dB
# What each loudspeaker gives to (left, right), before the rows are normalised. LFE gives nothing.
_SHARES: Final = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (_SIDE, _SIDE),
    "LFE": (0.0, 0.0),
    "BL": (_SIDE, 0.0),
    "BR": (0.0, _SIDE),
    "SL": (_SIDE, 0.0),
    "SR": (0.0, _SIDE),
    "BC": (0.5, 0.5),
    "FLC": (_SIDE, 0.0),
    "FRC": (0.0, _SIDE),
    "DL": (1.0, 0.0),
    "DR": (0.0, 1.0),
}
# Files that tell a number of channels and no layout mean the usual one.
_USUAL: Final = {
    1: ("FC",),
    2: ("FL", "FR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}

Wave = NDArray[np.float32]


class UnreadableSound(Exception):
    """The audio track cannot be used; `str()` says why."""


def mix_matrix(channels: Sequence[str]) -> NDArray[np.float64]:
    """The down-mix to stereo as a matrix [2, C] whose rows sum to 1: a sound in all channels keeps its level.

    `channels` are loudspeaker names (FL, FR, FC, LFE, BL, BR, SL, SR ...). One channel of whatever name goes to both
    sides with weight 1. For 5.1 a row is (1, .707, .707) / 2.414, for 7.1 (1, .707, .707, .707) / 3.121.
    Raises UnreadableSound for a loudspeaker that has no place in a stereo mix.
    """
    if len(channels) == 1:
        return np.ones((2, 1))
    unknown = sorted(set(channels) - set(_SHARES))
    if unknown:
        usual = _USUAL.get(len(channels))
        if usual is None or not all(name.startswith(("UNK", "NONE", "USR", "UNSD", "AMBI")) for name in channels):
            raise UnreadableSound(f"audio channels {', '.join(unknown)} cannot be mixed to stereo")
        channels = usual
    rows = np.array([_SHARES[name] for name in channels]).T
    return rows / rows.sum(axis=1, keepdims=True)


def downmix(wave: NDArray[np.floating[Any]], channels: Sequence[str]) -> NDArray[np.float64]:
    """[C, S] -> [2, S] by `mix_matrix`."""
    return mix_matrix(channels) @ wave.astype(np.float64)


def resample(wave: NDArray[np.floating[Any]], rate: int, target: int = RATE) -> NDArray[np.float64]:
    """Windowed-sinc resampling of [C, S] from `rate` to `target` samples per second: [C, ceil(S * target / rate)].

    y[m] = sum_n x[n] h(n / rate - m / target), with h(t) = (b / rate) sinc(b t) cos^2(pi b t / 12) for |b t| <= 6 and
    b = 0.99 min(rate, target): a sinc of 6 zero crossings under a Hann window, the defaults that torchaudio documents
    for its resampling. Samples outside the wave are 0.
    """
    if rate == target:
        return wave.astype(np.float64)
    count = -(-wave.shape[1] * target // rate)
    band = ROLL_OFF * min(rate, target)
    reach = math.ceil(ZEROS * rate / band)  # input samples on each side of an output sample that h reaches
    divisor = math.gcd(rate, target)
    up, down = target // divisor, rate // divisor  # output m lies at input place m * down / up; phases repeat after up
    taps = np.arange(-reach, reach + 2)

    phases = np.arange(min(up, count))
    offset = taps[None, :] - (phases * down % up / up)[:, None]  # in input samples, relative to the output sample
    scaled = np.clip(offset * band / rate, -ZEROS, ZEROS)
    kernel = np.sinc(scaled) * np.cos(np.pi * scaled / (2 * ZEROS)) ** 2 * (band / rate)

    padded = np.pad(wave.astype(np.float64), ((0, 0), (reach, reach + 2)))
    result = np.empty((wave.shape[0], count))
    for first in range(0, count, 1 << 16):  # in pieces, so that the gathered windows stay small
        places = np.arange(first, min(count, first + (1 << 16)))
        windows = (places * down // up)[:, None] + (taps + reach)[None, :]
        result[:, places] = np.einsum("cmk,mk->cm", padded[:, windows], kernel[places % up])
    return result


def fit(wave: NDArray[np.floating[Any]], seconds: Fraction) -> Wave:
    """Cut or pad with silence to exactly round(seconds * 16000) samples: [2, S] float32."""
    length = round(seconds * RATE)
    cut = wave[:, :length]
    return np.pad(cut, ((0, 0), (0, length - cut.shape[1]))).astype(np.float32)


def sounds(wave: Wave) -> bool:
    """Whether any sample reaches -60 dBFS."""
    return bool(wave.size) and float(np.abs(wave).max()) >= SILENCE


def read(path: str, seconds: Fraction, origin: Fraction) -> Wave | None:
    """The sound of a file between `origin` and `origin + seconds` on the file's clock: [2, S] at 16 kHz, or None.

    None means that the file has no audio track. What lies before `origin` is dropped, a track that starts later is
    preceded by silence, gaps stay gaps, and the end is cut or padded. Raises UnreadableSound, or the decoder's own
    av.error.FFmpegError.
    """
    import av

    with av.open(path) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        native: NDArray[np.float32] | None = None
        packed: av.AudioResampler | None = None
        names: tuple[str, ...] = ()
        rate = cursor = 0
        for frame in container.decode(stream):
            if packed is None or native is None:
                rate, names = frame.sample_rate, tuple(channel.name for channel in frame.layout.channels)
                # Only the sample format is changed here: planar frames of many channels cannot be read directly.
                packed = av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
                # A little beyond the end, so that the resampler sees what follows the cut.
                native = np.zeros((len(names), math.ceil((seconds + Fraction(1, 20)) * rate)), np.float32)
            elif frame.sample_rate != rate or len(frame.layout.channels) != len(names):
                raise UnreadableSound("the audio track changes its rate or layout in the middle")
            for part in packed.resample(frame):
                block = part.to_ndarray().astype(np.float32, copy=False).reshape(-1, len(names)).T
                if part.pts is not None and part.time_base is not None:
                    base = Fraction(part.time_base.numerator, part.time_base.denominator)
                    place = round((part.pts * base - origin) * rate)
                    cursor = place if abs(place - cursor) > JUMP * rate or not cursor else cursor
                _place(native, block, cursor)
                cursor += block.shape[1]
            if native is not None and cursor >= native.shape[1]:
                break
        if native is None:
            raise UnreadableSound("the audio track holds no sound at all (no frame could be decoded)")
    return fit(resample(downmix(native, names), rate), seconds)


def _place(native: Wave, block: Wave, start: int) -> None:
    """Copy a block of samples to its place, leaving out what lies before or after the wave."""
    first, last = max(0, start), min(native.shape[1], start + block.shape[1])
    if first < last:
        native[:, first:last] = block[:, first - start : last - start]
