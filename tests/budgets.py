"""The library that refuses torch memory beyond a budget (end_to_end/budget.c), for LD_PRELOAD."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "end_to_end" / "budget.c"
# Live bytes of large blocks in a step of the tiny model at resolution 256, batch 4: 16.9 million under keep:48, 11.4
# million under keep:0.
BETWEEN = 14_000_000


def build(library: Path, rank: int, most: int, after: str, peak: str) -> Path:
    """Compile it with its numbers: process `rank` gets `most` bytes once the path `after` exists; `peak` is told."""
    names = {"RANK": f'"{rank}"', "BYTES": most, "AFTER": f'"{after}"', "PEAK": f'"{peak}"'}
    defines = [f"-DBUDGET_{name}={value}" for name, value in names.items()]
    command = ["gcc", "-O2", "-shared", "-fPIC", *defines, "-o", library, SOURCE, "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library
