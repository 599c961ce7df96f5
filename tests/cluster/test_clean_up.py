"""Nothing of a cluster stays on the machine: what was there before and what is there after are compared."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.boxes import container, pod
from cluster.harness import cgroups
from cluster.harness import cluster as clusters
from cluster.harness.binaries import cache_folder
from cluster.harness.namespace import TUNABLES
from cluster.harness.processes import Process, children
from patience import until

# With those on nodes: of a cluster that comes or goes meanwhile the comparison would find traces.
pytestmark = [pytest.mark.cluster, pytest.mark.nodes]
NAME = f"swept-{os.getpid()}"


def traces() -> dict[str, set[str]]:
    """What a cluster could leave on this machine, by kind, but for processes."""
    commands = {
        "links": ["ip", "-oneline", "link"],
        "addresses": ["ip", "-oneline", "address"],
        "routes": ["ip", "route", "show", "table", "all"],
        **{
            f"rules of {table}": ["iptables", "--table", table, "--list-rules"] for table in ("filter", "nat", "mangle")
        },
    }
    found = {
        what: set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())
        for what, command in commands.items()
    }
    # Others build images and run clusters meanwhile: their mounts carry their tools' names, their groups processes, or
    # those of the clusters their names: a pod of another test may end at any moment.
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found["mounts"] = {each.split(" ", 3)[3] for each in mounts if "containers/storage" not in each}
    idle = (folder for folder in _folders(cgroups.ROOT) if not any(map(_busy, _folders(folder))))
    ours, others = map(clusters.control_group_of, (NAME, ""))
    found["control groups"] = {folder for folder in idle if ours in folder or others not in folder}
    found["settings"] = {f"{name}={Path('/proc/sys', name).read_text()}" for name in TUNABLES}
    found["folders"] = {str(each) for place in ("/run", "/var/log", "/var/lib/cni") for each in Path(place).glob("*")}
    found["state"] = {str(each) for each in (cache_folder() / "clusters").glob(f"{NAME}*")}
    return found


def _folders(top: Path | str) -> Iterator[str]:
    """The folder and all below it; those of other clusters may go while they are listed."""
    return (folder for folder, _, _ in os.walk(top))


def _busy(group: str) -> bool:
    """Whether processes are in a control group itself."""
    try:
        return bool(Path(group, "cgroup.procs").read_text().strip())
    except OSError:
        return False


def inside(first: int) -> list[Process]:
    """Every process in the namespace of a cluster's first process, and below those: the parts' and the containers'."""
    found: set[int] = set()
    todo = [int(each.name) for each in Path("/proc").glob("[0-9]*") if _namespace(each.name) == _namespace(str(first))]
    while todo:
        pid = todo.pop()
        found.add(pid)
        todo += [child for child in children(pid) if child not in found]
    return [Process.of(_command(pid), pid) for pid in found]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:80]
    except OSError:
        return ""


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def grown(before: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there now and was not before, by kind."""
    return {what: new for what, now in traces().items() if (new := now - before[what])}


def test_down_leaves_nothing(cluster: clusters.Cluster) -> None:
    before = traces()
    second = clusters.up(NAME, bound=True)  # beside the session's own, with the same addresses and names inside
    try:
        box = container("sleep", "600")
        box["volumeMounts"] = [{"name": "scratch", "mountPath": "/tmp"}]
        memory = {"name": "scratch", "emptyDir": {"medium": "Memory"}}
        second.kubectl("create", "-f", "-", manifest=pod("busy", box, volumes=[memory]))
        second.kubectl("wait", "pod/busy", "--for=condition=Ready", "--timeout=60s")
        assert not cluster.kubectl.run("get", "pod", "busy", "-n", "default").stdout
        during = inside(second.namespace.first.pid)
        groups = list(cgroups.ROOT.rglob(f"*{NAME}*"))
        commands = [Path(f"/proc/{process.pid}/cmdline").read_text().split("\0") for process in during]
        assert ["/box", "sleep", "600", ""] in commands and groups, "the comparison looks at nothing"
    finally:
        clusters.down(NAME)
    until(lambda: not [process for process in during if process.alive], f"the end of {during}")
    assert grown(before) == {}
    assert cluster.kubectl("get", "nodes")


def test_a_killed_session_takes_its_cluster_along_and_the_next_sweeps_its_rest(cluster: clusters.Cluster) -> None:
    before = traces()
    bring_up = f"from cluster.harness import cluster; import time; cluster.up({NAME!r}, bound=True); time.sleep(600)"
    session = subprocess.Popen([sys.executable, "-c", bring_up], cwd=Path(__file__).parents[1])
    end = time.monotonic() + 60
    while (left := clusters.find(NAME)) is None or not left.kubeconfig.exists():
        assert session.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    session.kill()
    session.wait()
    end = time.monotonic() + 10
    while left.namespace.first.alive:
        assert time.monotonic() < end, "the cluster has outlived its session"
        time.sleep(0.1)
    assert "state" in grown(before)
    clusters.sweep()
    assert grown(before) == {}
