"""What our control group tells: kills for want of memory, the limits of memory and of cores."""

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


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes that our memory cgroup may use, None without a limit.

    v2: memory.max, v1: memory.limit_in_bytes, where a number near 2^63 means none. Groups above ours may be tighter
    than our own, so all of them are looked at.
    """
    paths = _paths(membership)
    unified = [folder / "memory.max" for folder in _upwards(root, paths.get("", ""))]
    legacy = [folder / "memory.limit_in_bytes" for folder in _upwards(root / "memory", paths.get("memory", ""))]
    limits = [int(text) for file in (*unified, *legacy) if (text := _text(file)).isdigit()]
    return min((limit for limit in limits if limit < 2**60), default=None)


def cpu_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """Cores that our cgroup may use (quota / period), None without a quota; v2: cpu.max, v1: cpu.cfs_quota_us."""
    paths = _paths(membership)
    pairs = [_text(folder / "cpu.max").split() for folder in _upwards(root, paths.get("", ""))]
    for hierarchy in ("cpu", "cpu,cpuacct"):
        for folder in _upwards(root / hierarchy, paths.get("cpu", "")):
            pairs.append([_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")])
    quotas = [int(pair[0]) / int(pair[1]) for pair in pairs if len(pair) == 2 and all(map(str.isdigit, pair))]
    return min(quotas, default=None)


def _upwards(root: Path, path: str) -> list[Path]:
    """The group's folder and every one above it, the hierarchy's root last."""
    folder = root / path
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _paths(membership: Path) -> dict[str, str]:
    """Controller -> path below the hierarchy's root; the key of the unified hierarchy (v2) is empty."""
    try:
        lines = os.fsdecode(membership.read_bytes()).splitlines()
    except OSError:
        return {}
    fields = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    return {controller: path.lstrip("/") for _, names, path in fields for controller in names.split(",")}
