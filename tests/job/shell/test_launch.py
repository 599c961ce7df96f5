"""The launcher with small child scripts in place of workers: codes, signals, grace, lost peers, memory, zombies."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx2_job import exitcodes
from ltx2_job.errors import ConfigError
from ltx2_job.launch import Launcher, Layout, combined, kill_after

# Children meet by named pipes, never by sleeping: opening one end waits for the other.
PRELUDE = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
folder = os.environ["FOLDER"]
launcher = os.getppid()
def wait_for(name):
    with open(f"{folder}/{name}") as pipe:
        pipe.read()
def tell(name):
    with open(f"{folder}/{name}", "w") as pipe:
        pipe.write("x")
def forever():
    while True:
        signal.pause()
"""


def launch(tmp_path: Path, script: str, ranks: int = 1, pipes: tuple[str, ...] = (), **options) -> int:
    """Run `script` as the worker of each rank under a launcher in this very process."""
    for name in pipes:
        os.mkfifo(tmp_path / name)
    file = tmp_path / "worker.py"
    file.write_text(PRELUDE + textwrap.dedent(script))
    environments = Layout(processes=ranks).environments({**os.environ, "FOLDER": str(tmp_path)})
    return Launcher([sys.executable, "-S", str(file)], environments, **options).run()


@pytest.mark.parametrize("code", [0, 1, 64, 65, 66, 69, 73, 78, 79, 80, 85, 87])
def test_one_workers_code_is_handed_through(tmp_path, code):
    """Catches an elastic agent's habit of turning every code into 1."""
    assert launch(tmp_path, f"sys.exit({code})") == code


def test_death_by_signal_becomes_128_plus_n(tmp_path):
    """Catches sys.exit(-11), which a shell sees as 245."""
    assert launch(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)") == 139


def test_ranks_get_their_places(tmp_path):
    """Catches a swapped RANK and LOCAL_RANK, a missing MASTER_PORT, ranks that meet on different ports."""
    script = """
    import json
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump({name: os.environ[name] for name in names}, file)
    """
    assert launch(tmp_path, script, ranks=2) == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["RANK"], first["LOCAL_RANK"], second["RANK"], second["LOCAL_RANK"]) == ("0", "0", "1", "1")
    assert first["WORLD_SIZE"] == second["WORLD_SIZE"] == "2"
    assert first["MASTER_ADDR"] == "127.0.0.1" and first["MASTER_PORT"] == second["MASTER_PORT"]


def test_gpu_memory_wins_over_a_lost_peer_that_left_first(tmp_path):
    """Rank 1 sees rank 0 go and leaves with 69; rank 0's own 80 comes later. Catches 'first code wins'."""
    script = """
    if rank == 1:
        tell("left"); sys.exit(69)
    wait_for("left"); sys.exit(80)
    """
    assert launch(tmp_path, script, ranks=2, pipes=("left",)) == exitcodes.GPU_OUT_OF_MEMORY


def test_a_rank_that_hangs_after_its_peer_has_gone_is_ended(tmp_path):
    """Catches waiting for ever on a collective that nobody will join; the cause stays the first rank's."""
    script = """
    if rank == 1:
        wait_for("up"); sys.exit(75)
    signal.signal(signal.SIGTERM, signal.SIG_IGN); tell("up"); forever()
    """
    began = time.monotonic()
    assert launch(tmp_path, script, ranks=2, pipes=("up",), peer_seconds=0.3) == exitcodes.TEMPORARY
    assert 0.3 <= time.monotonic() - began < 10


def test_lost_peers_may_take_fifteen_seconds_to_name_a_cause():
    """Catches a shorter default: on two nodes the rank that knows the cause was a second later."""
    assert Launcher([], []).peer_seconds >= 15


def test_sigterm_is_passed_on_once_and_85_comes_back(tmp_path, monkeypatch):
    """Catches a launcher that dies of SIGTERM itself, that swallows it, or that sends it twice."""
    sent, kill = [], os.kill
    monkeypatch.setattr("ltx2_job.launch.os.kill", lambda pid, number: (sent.append(number), kill(pid, number)))
    script = """
    def leave(*_):
        os.kill(launcher, signal.SIGTERM)  # local.py and the terminal may both ask: the second changes nothing
        sys.exit(85)
    signal.signal(signal.SIGTERM, leave)
    os.kill(launcher, signal.SIGTERM)
    forever()
    """
    assert launch(tmp_path, script) == exitcodes.STOPPED
    assert sent == [signal.SIGTERM]


def test_sigterm_reaches_every_rank_and_one_that_had_no_handler_yet_is_no_failure(tmp_path, monkeypatch):
    """Two processes told to stop, the second while it still starts. Catches a stop that only rank 0 hears."""
    sent, kill = [], os.kill
    monkeypatch.setattr("ltx2_job.launch.os.kill", lambda pid, number: (sent.append(number), kill(pid, number)))
    script = """
    if rank == 1:
        tell("up"); forever()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(85))
    wait_for("up")
    os.kill(launcher, signal.SIGTERM)
    forever()
    """
    assert launch(tmp_path, script, ranks=2, pipes=("up",)) == exitcodes.STOPPED
    assert sent == [signal.SIGTERM] * 2


def test_one_ctrl_c_reaches_the_workers_once_as_sigint(tmp_path):
    """The terminal signals the whole group; workers have a session of their own and get the launcher's copy."""
    script = """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    assert os.getsid(0) == os.getpid()
    os.kill(launcher, signal.SIGINT)
    signal.sigwait([signal.SIGINT])
    sys.exit(85)
    """
    assert launch(tmp_path, script) == exitcodes.STOPPED


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    """Catches a worker that cannot be stopped: it ignores SIGINT and would run for ever."""
    script = """
    signal.signal(signal.SIGINT, lambda *_: os.kill(launcher, signal.SIGINT))
    os.kill(launcher, signal.SIGINT)
    forever()
    """
    assert launch(tmp_path, script) == exitcodes.STOPPED_UNSAVED


def test_a_worker_that_outlives_the_grace_period_is_killed_as_unsaved(tmp_path):
    """Catches both a kill at a fixed 30 s and none at all (the kubelet's own SIGKILL would lose the last word)."""
    script = """
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.kill(launcher, signal.SIGTERM)
    forever()
    """
    began = time.monotonic()
    assert launch(tmp_path, script, grace=1.3) == exitcodes.STOPPED_UNSAVED
    assert 0.3 <= time.monotonic() - began < 10


def test_the_grace_period_is_given_to_the_workers_but_for_a_margin():
    """Catches a launcher that uses up the whole grace period and is killed while writing its last word."""
    assert kill_after(30) == 27 and kill_after(600) == 595 and kill_after(1) == 0 and kill_after(None) is None


def test_sigterm_before_the_workers_handlers_stand_is_a_stop_not_a_success(tmp_path):
    """The worker dies of the signal that was passed on. Catches 143 (a counted retry) and 0 (a false success)."""
    assert launch(tmp_path, "os.kill(launcher, signal.SIGTERM); forever()") == exitcodes.STOPPED


@pytest.mark.parametrize(("kills", "code"), [((3, 4), exitcodes.HOST_OUT_OF_MEMORY), ((3, 3), 137)])
def test_sigkill_is_out_of_memory_only_if_the_counter_rose(tmp_path, kills, code):
    """Catches calling every SIGKILL an OOM, and reading the counter without comparing it to the one before."""
    counts = iter(kills)
    assert launch(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", oom_kills=lambda: next(counts)) == code


def test_our_own_kill_is_never_out_of_memory(tmp_path):
    """Catches a hung peer, killed by the launcher, being reported as OOM because another process was."""
    script = """
    if rank == 1:
        wait_for("up"); sys.exit(69)
    tell("up"); forever()
    """
    counts = iter((0, 1))
    code = launch(tmp_path, script, 2, ("up",), peer_seconds=0.1, oom_kills=lambda: next(counts))
    assert code == exitcodes.UNAVAILABLE


def test_a_lost_peer_on_another_node_is_told_late(tmp_path):
    """The Job keeps the first pod's code: this node holds its 69 back. Catches leaving at once."""
    began = time.monotonic()
    assert launch(tmp_path, "sys.exit(69)", other_nodes=True, peer_seconds=0.4) == exitcodes.UNAVAILABLE
    assert time.monotonic() - began >= 0.4
    began = time.monotonic()
    assert launch(tmp_path, "sys.exit(80)", other_nodes=True, peer_seconds=30) == exitcodes.GPU_OUT_OF_MEMORY
    assert time.monotonic() - began < 10


def test_leftovers_of_a_worker_are_killed(tmp_path):
    """Catches helper processes that outlive their worker and keep the GPU's memory."""
    script = """
    import subprocess
    child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
    with open(f"{folder}/pid", "w") as file:
        file.write(str(child.pid))
    os._exit(70)
    """
    assert launch(tmp_path, script) == 70
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while _running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _running(pid)


def test_process_1_buries_orphans(tmp_path):
    """A subreaper stands for process 1: grandchildren whose parent died must not stay as zombies."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        textwrap.dedent("""
        import os, time
        launcher = os.getppid()
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.setsid()
                while os.getppid() != launcher:
                    time.sleep(0.001)
                os._exit(0)
            os._exit(0)
        os.waitpid(middle, 0)
        def zombies():
            found = 0
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
                except OSError:
                    continue
                found += fields[0] == "Z" and int(fields[1]) == launcher
            return found
        for _ in range(200):
            time.sleep(0.01)
            if not zombies():
                break
        os._exit(zombies())
        """)
    )
    program = textwrap.dedent(f"""
        import ctypes, os, sys
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
        from ltx2_job.launch import Launcher
        sys.exit(Launcher([sys.executable, "-S", {str(worker)!r}], [dict(os.environ)]).run())
    """)
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_signal_handlers_are_put_back(tmp_path):
    """Catches a launcher that leaves its handlers behind in a process that lives on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    launch(tmp_path, "")
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ((69, 80, 75), 80),
        ((0, 70), 70),
        ((85, 85), 85),
        ((85, 69), 85),  # rank 0 saved and left; the other saw it go
        ((85, 86), 86),
        ((70, 65), 65),
        ((87, 75), 87),
        ((79, 69), 79),
        ((-11, 75), -11),
        ((69, 75), 75),
    ],
)
def test_which_rank_speaks_for_all(codes, code):
    """Catches each wrong order: 'first', 'highest', 'a stop hides a cause', 'success hides a failure'."""
    assert combined(codes) == combined(codes[::-1]) == code


@given(st.lists(st.integers(-64, 255), min_size=1, max_size=8))
def test_success_is_everybodys_success(codes):
    """Catches any path by which one failed rank ends as 0, or an invented code."""
    assert combined(codes) in codes
    assert (combined(codes) == 0) == (set(codes) == {0})


def test_nodes_find_their_ranks():
    """Catches ranks that overlap between nodes, and a silent single-node start when the address is missing."""
    environ = {"LTX2JOB_MASTER_ADDR": "fox-train-1-0.fox", "JOB_COMPLETION_INDEX": "1"}
    ranks = Layout.read(2, 4, environ).environments({})
    assert [rank["RANK"] for rank in ranks] == ["4", "5", "6", "7"]
    assert {rank["WORLD_SIZE"] for rank in ranks} == {"8"} and {rank["MASTER_ADDR"] for rank in ranks} == {
        "fox-train-1-0.fox"
    }
    with pytest.raises(ConfigError, match="LTX2JOB_MASTER_ADDR"):
        Layout.read(2, 4, {"JOB_COMPLETION_INDEX": "1"})
    with pytest.raises(ConfigError, match="JOB_COMPLETION_INDEX"):
        Layout.read(2, 4, {**environ, "JOB_COMPLETION_INDEX": "2"})


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
