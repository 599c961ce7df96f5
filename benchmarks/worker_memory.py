"""Peak memory of a media worker on films in 4K: `python benchmarks/worker_memory.py`.

For each kind of film a fresh worker process looks at the file and gives the frames of a training clip, and what it ever
held (VmHWM) is read at the end. Prints a table and writes benchmarks/results/worker_memory.md.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("job", "tests")]

from hard_clips import film_4k, peak_bytes  # noqa: E402 - after the path is set
from ltx2_job.data.decoder import Decoder, Probe  # noqa: E402
from ltx2_job.data.sizes import timing  # noqa: E402

LIMIT = 2**30
H264 = {"preset": "ultrafast", "bf": "3", "refs": "5", "crf": "23"}
HEVC = {"preset": "ultrafast", "x265-params": "log-level=none"}
# what, file, codec, pixels, encoder's options, rounds of 11 frames, its fps, frames taken, at which rate
FILMS = (
    ("H.264, 8 bits, 121 frames", "a.mp4", "libx264", "yuv420p", H264, 11, 25, 121, None),
    ("HEVC, 10 bits, 121 frames", "b.mp4", "libx265", "yuv420p10le", HEVC, 11, 25, 121, None),
    (
        "HEVC, 10 bits, 242 frames, brought from 50 to 25 fps",
        "c.mp4",
        "libx265",
        "yuv420p10le",
        HEVC,
        22,
        50,
        121,
        25.0,
    ),
    ("ProRes 4444, 12 bits and alpha, 33 frames", "d.mov", "prores_ks", "yuva444p10le", {}, 3, 25, 33, None),
    ("H.264, 8 bits, a film of 10 minutes, 121 frames", "e.mkv", "libx264", "yuv420p", H264, 1364, 25, 121, None),
)


def measure(folder: Path, film: tuple) -> tuple[float, float, float]:
    """(MiB after the look, MiB at the end, seconds of both)."""
    _, name, codec, pixels, options, rounds, fps, taken, rate = film
    path = film_4k(folder / name, codec, pixels, rounds, fps, options)
    start = time.perf_counter()
    with Decoder() as decoder:
        found = Probe.from_json(decoder.probe(path))
        assert decoder._process is not None
        looked = peak_bytes(decoder._process.pid) / 2**20
        timed = timing(found, rate)
        frames = decoder.frames(path, taken, timed.rate, timed.as_they_are, height=found.height, width=found.width)
        assert sum(1 for _ in frames) == taken
        peak = peak_bytes(decoder._process.pid) / 2**20
    path.unlink()
    return looked, peak, time.perf_counter() - start


def main() -> int:
    """Measure, print, write; 1 if a worker needs more than the limit."""
    lines = [
        "# Memory of a media worker on films of 3840 x 2160",
        "",
        f"`python benchmarks/worker_memory.py`, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; limit 1024 MiB.",
        "",
        "| film | after the look, MiB | peak, MiB | seconds |",
        "|---|---|---|---|",
    ]
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for film in FILMS:
            looked, peak, seconds = measure(Path(scratch), film)
            worst = max(worst, peak)
            lines.append(f"| {film[0]} | {looked:.0f} | {peak:.0f} | {seconds:.0f} |")
            print(lines[-1], flush=True)
    (ROOT / "benchmarks" / "results" / "worker_memory.md").write_text("\n".join(lines) + "\n")
    return int(worst * 2**20 >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
