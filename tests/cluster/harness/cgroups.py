"""Control groups for the nodes' pods, under one folder per cluster, in both versions of the kernel's interface."""

import contextlib
import os
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def make(path: str) -> None:
    """Make a group of this path (a/b) in every hierarchy, usable as a kubelet's root."""
    for hierarchy in _hierarchies():
        group = hierarchy
        for name in path.split("/"):
            _hand_down(group)
            group = group / name
            group.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1: nothing could run
                if (group / setting).exists() and hierarchy.name == "cpuset":
                    (group / setting).write_text((group.parent / setting).read_text())


def remove(name: str) -> None:
    """Remove the group of this name and all below it from every hierarchy, once the processes in it are killed."""
    for hierarchy in _hierarchies():
        top = hierarchy / name
        for folder, _, _ in os.walk(top, topdown=False):
            _remove_one(Path(folder))


def _remove_one(group: Path) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:  # busy for a moment after its last process has been killed
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _hierarchies() -> list[Path]:
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    folders = (entry for entry in ROOT.iterdir() if entry.is_dir() and not entry.is_symlink())
    return sorted(entry for entry in folders if (entry / "cgroup.procs").exists())


def _hand_down(group: Path) -> None:
    """Version 2: let the groups below this one have its controllers."""
    control = group / "cgroup.subtree_control"
    if control.exists():
        for controller in (group / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                control.write_text(f"+{controller}")
