"""Memory of a real media worker on 4K films: under 1 GiB, however long the film and the clip are."""

from fractions import Fraction
from pathlib import Path

import pytest

from hard_clips import film_4k, peak_bytes
from ltx2_job.data.decoder import Decoder, Probe
from ltx2_job.data.sizes import timing

LIMIT = 2**30
REORDERED = {"preset": "ultrafast", "bf": "3", "refs": "5", "crf": "23"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "format_", "options", "rounds", "fps", "taken"),
    [
        ("libx264", "yuv420p", REORDERED, 11, 25, 121),
        # Frames of 25 MB, every other one taken.
        ("libx265", "yuv420p10le", {"preset": "ultrafast", "x265-params": "log-level=none"}, 6, 50, 33),
    ],
)
def test_a_film_of_4k(
    tmp_path: Path, codec: str, format_: str, options: dict[str, str], rounds: int, fps: int, taken: int
) -> None:
    """Catches: decoded frames that are held after they were sent (a gigabyte within 50)."""
    film = film_4k(tmp_path / "a.mp4", codec, format_, rounds, fps, options)
    with Decoder() as decoder:
        found = Probe.from_json(decoder.probe(film))
        assert (found.width, found.height, found.frames) == (3840, 2160, 11 * rounds)
        timed = timing(found, 25.0)
        frames = decoder.frames(film, taken, Fraction(25), timed.as_they_are, height=2160, width=3840)
        assert sum(1 for _ in frames) == taken
        assert decoder._process is not None
        peak = peak_bytes(decoder._process.pid)
    assert peak < LIMIT, f"{peak / 2**20:.0f} MiB"
    assert peak > 90 * 2**20  # it is the worker that was measured
