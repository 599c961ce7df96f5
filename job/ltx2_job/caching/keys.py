"""The keys of the store: a hash over all that an item's content depends on, and nothing else. Pure, torch-free.

A key holds the source's content (never its name), every setting that changes the result, the fingerprint of the model
part that computes it, that part's precision, and the version of our own computation below. So another resolution, frame
count, checkpoint or caption computes just what changed, and what has not changed is found again by any run.
"""

import hashlib
import json
from fractions import Fraction
from typing import Any, Final

# To be raised whenever the numbers of that kind change, so that old items are left alone and computed anew.
VIDEO_FORMAT: Final = 2
AUDIO_FORMAT: Final = 1
TEXT_FORMAT: Final = 1
PROBE_FORMAT: Final = 2  # of what is remembered about a file

SILENCE: Final = "silence"  # the content of every clip without an audio track


def _key(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def video_key(
    content: str,
    size: tuple[int, int],
    frames: int,
    rate: Fraction,
    as_they_are: bool,
    fingerprint: str,
    precision: str,
) -> str:
    """The key of a clip's video latents. `size` is (width, height); `rate` matters only when frames are resampled."""
    sampling = "as they are" if as_they_are else str(rate)
    return _key(
        {
            "kind": "video", "format": VIDEO_FORMAT, "content": content, "size": size, "frames": frames,
            "sampling": sampling, "cut": "cover, centre", "model": fingerprint, "precision": precision,
        }
    )  # fmt: skip


def audio_key(content: str, seconds: Fraction, length: int, fingerprint: str) -> str:
    """The key of a clip's audio latents: `length` of them for `seconds` of sound. The audio VAE always runs in fp32."""
    return _key(
        {
            "kind": "audio", "format": AUDIO_FORMAT, "content": content, "seconds": str(seconds), "length": length,
            "model": fingerprint,
        }
    )  # fmt: skip


def text_key(text: str, fingerprint: str, precision: str) -> str:
    """The key of a text's connector outputs; the same text has one item, wherever it occurs."""
    return _key({"kind": "text", "format": TEXT_FORMAT, "text": text, "model": fingerprint, "precision": precision})
