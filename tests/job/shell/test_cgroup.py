"""The kernel's count of out-of-memory kills, read from fake cgroup folders of both versions."""

from pathlib import Path

from ltx2_job.cgroup import oom_kills


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_version_2_as_a_container_sees_it(tmp_path):
    """Catches reading `oom` (limit hit) in place of `oom_kill` (a process killed)."""
    write(tmp_path / "cgroup", "0::/\n")
    write(tmp_path / "fs" / "memory.events", "low 0\nhigh 0\nmax 9\noom 5\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills(tmp_path / "fs", tmp_path / "cgroup") == 2


def test_version_2_on_the_host_takes_our_own_group(tmp_path):
    """Catches counting the whole machine's kills: the path in /proc/self/cgroup comes first."""
    write(tmp_path / "cgroup", "0::/user.slice/session-3.scope\n")
    write(tmp_path / "fs" / "memory.events", "oom_kill 99\n")
    write(tmp_path / "fs" / "user.slice" / "session-3.scope" / "memory.events", "oom_kill 1\n")
    assert oom_kills(tmp_path / "fs", tmp_path / "cgroup") == 1


def test_version_1(tmp_path):
    """Catches looking only at version 2: half of the clusters' nodes still run version 1."""
    write(tmp_path / "cgroup", "9:name=systemd:/\n4:memory:/kubepods/pod7\n0::/\n")
    text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
    write(tmp_path / "fs" / "memory" / "kubepods" / "pod7" / "memory.oom_control", text)
    assert oom_kills(tmp_path / "fs", tmp_path / "cgroup") == 3
    (tmp_path / "cgroup").write_text("4:memory:/elsewhere\n")
    write(tmp_path / "fs" / "memory" / "memory.oom_control", text.replace("3", "4"))
    assert oom_kills(tmp_path / "fs", tmp_path / "cgroup") == 4


def test_no_cgroup_counts_nothing(tmp_path):
    """Catches a crash where there are no cgroups (macOS, some sandboxes)."""
    assert oom_kills(tmp_path / "fs", tmp_path / "absent") == 0
