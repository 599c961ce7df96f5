"""How often the kernel has killed a process of this container for want of memory."""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def oom_kills(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """The counter `oom_kill` of our memory cgroup (v2: memory.events, v1: memory.oom_control); 0 where there is none.

    A container sees its own cgroup as the root; a process of the host finds its path in /proc/self/cgroup. The counter
    only rises, so that the difference over a child's life says whether the kernel killed in that time.
    """
    paths = _paths(membership)
    candidates = [
        *(root / hierarchy / paths[""] / "memory.events" for hierarchy in ("", "unified") if "" in paths),
        root / "memory.events",
        *([root / "memory" / paths["memory"] / "memory.oom_control"] if "memory" in paths else []),
        root / "memory" / "memory.oom_control",
    ]
    for file in candidates:
        try:
            rows = dict(line.split(maxsplit=1) for line in file.read_text().splitlines() if " " in line)
        except OSError:
            continue
        if "oom_kill" in rows:
            return int(rows["oom_kill"])
    return 0


def _paths(membership: Path) -> dict[str, str]:
    """Controller -> path below the hierarchy's root; the key of the unified hierarchy (v2) is empty."""
    try:
        lines = os.fsdecode(membership.read_bytes()).splitlines()
    except OSError:
        return {}
    fields = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    return {controller: path.lstrip("/") for _, names, path in fields for controller in names.split(",")}
