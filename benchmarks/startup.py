"""How long a person waits for a command: `python benchmarks/startup.py [RUNS]` (5).

Runs each command RUNS times as a whole process, after one that is not counted (it fills the page cache), prints a table
beside the limits, with the processor time of the command and its children (which other work on the machine changes
little), and writes benchmarks/results/startup.json and startup.md. `make demo` and the check of an up-to-date
cache of 1,000 clips (benchmarks/cache_check.py) run at most three times. Ends with 1 if a median is above its limit.

On a machine with other work, `chrt --fifo 10 python benchmarks/startup.py` puts the commands ahead of it.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cache_check

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BIN = Path(sys.executable).parent
FILE = str(ROOT / "configs" / "my-style.yaml")
CLIPS = 1000

# what is typed -> limit in seconds, None: no promise
COMMANDS: dict[str, float | None] = {
    "ltx2 --help": 0.3,
    "ltx2 estimate configs/my-style.yaml": 1.0,
    "ltx2 render configs/my-style.yaml": 1.0,
    "ltx2 check configs/my-style.yaml": None,
    "ltx2 gpus": None,
    "ltx2 ls": None,
    "ltx2 doctor": None,
    "ltx2 config reference": None,
    "ltx2 configure --yes --force": None,
}
CACHE = f"cache stage, {CLIPS:,} clips, nothing to do"
DEMO = "make demo"
LIMITS = {**COMMANDS, CACHE: 5.0, DEMO: 60.0}


def timed(command: list[str], folder: Path) -> float:
    """Wall seconds of a fresh process."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=cache_check.environment(), capture_output=True, text=True)
    took = time.perf_counter() - start
    if done.returncode and command[1] not in ("check", "doctor"):  # those two judge this machine by their exit code
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return took


def command(text: str, folder: Path) -> Callable[[], float]:
    """A command as it is typed, with `ltx2` from this environment, in an empty workspace."""
    words = [FILE if word == "configs/my-style.yaml" else word for word in text.split()]
    return lambda: timed([str(BIN / words[0]), *words[1:]], folder)


def cache(folder: Path) -> Callable[[], float]:
    """The cache stage of a workspace in which everything is cached."""
    cache_check.workspace(folder, CLIPS)
    cache_check.run(cache_check.FILL + cache_check.STAGE, folder)

    def once() -> float:
        took, (clips, *imported) = cache_check.run(cache_check.STAGE, folder)
        assert int(clips) == CLIPS and not imported, (clips, imported)
        return took

    return once


def demo(scratch: Path) -> Callable[[], float]:
    """`make demo` in a new folder each time; the three clips are fetched before, for no clock runs on the network."""
    count = iter(range(100))
    timed([sys.executable, str(ROOT / "scripts" / "demo_clips.py"), str(scratch / "clips")], ROOT)
    return lambda: timed(["make", "demo", f"DEMO={scratch / str(next(count))}"], ROOT)


def processor() -> float:
    """Seconds that all ended children have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(once: Callable[[], float], runs: int, warm: bool = True) -> dict[str, float]:
    """{median, min, max} of the runs, and the least processor time of one; `warm`: after one that is not counted."""
    if warm:
        once()
    seconds, computed = [], []
    for _ in range(runs):
        before = processor()
        seconds.append(once())
        computed.append(processor() - before)
    figures = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "cpu": min(computed)}
    return {name: round(value, 3) for name, value in figures.items()}


def row(name: str, figures: dict[str, float]) -> str:
    """One line of the table."""
    limit = LIMITS[name]
    over = " **above**" if limit is not None and figures["median"] > limit else ""
    cells = [f"{figures['median']:.2f}{over}", *(f"{figures[key]:.2f}" for key in ("min", "max", "cpu"))]
    return f"| `{name}` | {f'{limit:g}' if limit is not None else '-'} | {' | '.join(cells)} |"


def main() -> int:
    """Measure, print and write."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    few, load = min(runs, 3), [round(os.getloadavg()[0], 2)]
    seconds: dict[str, dict[str, float]] = {}
    lines = ["| command | limit, s | median, s | min | max | processor, s |", "|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)

    def note(name: str, once: Callable[[], float], runs: int, warm: bool = True) -> None:
        seconds[name] = measure(once, runs, warm)
        lines.append(row(name, seconds[name]))
        load.append(round(os.getloadavg()[0], 2))
        print(lines[-1], flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        empty, cached = Path(scratch) / "empty", Path(scratch) / "cache"
        empty.mkdir()
        cached.mkdir()
        for text in COMMANDS:
            note(text, command(text, empty), runs)
        note(CACHE, cache(cached), few)
        note(DEMO, demo(Path(scratch)), few, warm=False)
    result = {
        "seconds": seconds, "limits": LIMITS, "runs": runs, "cores": os.cpu_count(),
        "python": platform.python_version(), "load": {"least": min(load), "most": max(load)},
    }  # fmt: skip
    (RESULTS / "startup.json").write_text(json.dumps(result, indent=2) + "\n")
    ahead = (
        "" if os.sched_getscheduler(0) == os.SCHED_OTHER else " of other work, which these went ahead of (chrt --fifo)"
    )
    head = (
        "# How long a person waits\n\n"
        f"`python benchmarks/startup.py {runs}`: whole processes on {result['cores']} cores, Python "
        f"{result['python']}, load average between {min(load)} and {max(load)}{ahead}.\n\n"
    )
    (RESULTS / "startup.md").write_text(head + "\n".join(lines) + "\n")
    return int(any(limit is not None and seconds[name]["median"] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
