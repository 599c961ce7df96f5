"""The processes of a cluster's containers, as this machine sees them."""

from pathlib import Path

from .harness.cluster import Cluster


def first_process(cluster: Cluster, name: str, stage: str = "train") -> int:
    """The pid, on this machine, of the first process of a run's container. Raises AssertionError if there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            status = (folder / "status").read_text()
        except OSError:
            continue
        inside = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
        ours = len(inside) > 1 and inside[-1] == "1" and stage.encode() in words and name.encode() in words
        if ours and is_of(cluster, int(folder.name)):
            return int(folder.name)
    raise AssertionError(f"no first process of {name}")


def is_of(cluster: Cluster, pid: int) -> bool:
    """Whether a process is one of this cluster's."""
    try:
        return cluster.name in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False
