"""Process 1 of a pod: starts one worker per local GPU, hands it signals and grace period, and returns its code.

Workers are plain child processes. An elastic agent would restart them and turn their exit codes into its own; here one
Job is one attempt and the operator alone decides what a failure means, so all that is wanted is the code, unchanged.
Nothing heavy is imported: this process lives as long as the training and must answer SIGTERM at once.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from ltx2_job import cgroup, exitcodes
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.exitcodes import Action

PEER_SECONDS: Final = 15.0  # how long the others may take to name a cause of their own, once one rank has failed
MASTER_PORT: Final = 29500  # where ranks on several nodes meet; each node's ranks alone meet on a free port
WORKER_FLAG: Final = "--worker"  # hidden flag that makes a command line a worker's
_WATCHED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GOOD_ENDS: Final = (exitcodes.OK, exitcodes.STOPPED, exitcodes.STOPPED_UNSAVED)  # the others may take their time
_PEER_LOSS: Final = (exitcodes.UNAVAILABLE, exitcodes.TEMPORARY)


@dataclass(frozen=True)
class Layout:
    """How many processes a training has, and which of them this launcher starts."""

    nodes: int = 1
    processes: int = 1  # per node
    node: int = 0
    master: str = "127.0.0.1"
    port: int = MASTER_PORT

    @staticmethod
    def read(nodes: int, processes: int, environ: Mapping[str, str]) -> "Layout":
        """The layout of this node: its index from JOB_COMPLETION_INDEX, where rank 0 is from LTX2JOB_MASTER_ADDR.

        Raises ConfigError if there are several nodes and the master's address or this node's index is missing or wrong.
        """
        if nodes == 1:
            return Layout(1, processes, port=_free_port() if processes > 1 else MASTER_PORT)
        master, index = environ.get("LTX2JOB_MASTER_ADDR", ""), environ.get("JOB_COMPLETION_INDEX", "")
        if not master:
            raise ConfigError(Problem("LTX2JOB_MASTER_ADDR", f"is not set, but the plan has {nodes} nodes"))
        if not index.isdigit() or int(index) >= nodes:
            raise ConfigError(Problem("JOB_COMPLETION_INDEX", f"is {index!r}, but the plan has nodes 0 to {nodes - 1}"))
        return Layout(nodes, processes, int(index), master)

    def environments(self, base: Mapping[str, str]) -> list[dict[str, str]]:
        """One environment per local worker."""
        return [
            {
                # A process that lost its peer warns every second, with a C++ trace, until it is ended.
                "TORCH_CPP_LOG_LEVEL": "ERROR",
                **base,
                "RANK": str(self.node * self.processes + local),
                "WORLD_SIZE": str(self.nodes * self.processes),
                "LOCAL_RANK": str(local),
                "MASTER_ADDR": self.master,
                "MASTER_PORT": str(self.port),
            }
            for local in range(self.processes)
        ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_after(grace: float | None) -> float | None:
    """Seconds from the first signal until workers are killed: the grace period less a margin for our last word.

    None (no limit) without a grace period: at a terminal the user decides, by a second Ctrl-C.
    """
    return None if grace is None else max(0.0, grace - max(1.0, min(5.0, 0.1 * grace)))


def combined(codes: Sequence[int]) -> int:
    """One verdict from the codes of many ranks.

    A rank that knows its own cause wins over those that only lost a peer: GPU memory, host memory, a newer attempt,
    terminal causes, then a stop that the ranks agreed on (those that left a moment later see a lost peer), then
    unexpected ends, then lost peers. Success is everybody's success.
    """

    def weight(code: int) -> int:
        first = (exitcodes.GPU_OUT_OF_MEMORY, exitcodes.HOST_OUT_OF_MEMORY, exitcodes.SUPERSEDED)
        if code in first:
            return first.index(code)
        if exitcodes.lookup(code).action in (Action.FAIL, Action.WAIT_FOR_DATA):
            return 3
        last = (
            exitcodes.STOPPED_UNSAVED,
            exitcodes.STOPPED,
            None,
            exitcodes.TEMPORARY,
            exitcodes.UNAVAILABLE,
            exitcodes.OK,
        )
        return 4 + last.index(code if code in last else None)

    return min(codes, key=weight)


@dataclass
class Launcher:
    """Runs `command` once per environment and waits. One use; main thread only."""

    command: Sequence[str]
    environments: Sequence[Mapping[str, str]]
    grace: float | None = None  # seconds, as the pod's terminationGracePeriodSeconds
    other_nodes: bool = False
    peer_seconds: float = PEER_SECONDS
    oom_kills: Callable[[], int] = cgroup.oom_kills
    _workers: dict[int, int] = field(default_factory=dict)  # pid -> local rank, of those alive
    _codes: dict[int, int] = field(default_factory=dict)  # local rank -> code as subprocess gives it
    _killed: dict[int, int | None] = field(default_factory=dict)  # local rank -> code in place of our own SIGKILL's
    _stopped_at: float | None = None
    _failed_at: float | None = None
    _signals: list[int] = field(default_factory=list)

    def run(self) -> int:
        """Start the workers, wait for all of them, and return one exit code 0-255."""
        with self._watch() as wake:
            kills_before = self.oom_kills()
            for local, environment in enumerate(self.environments):
                # A session of their own: Ctrl-C at a terminal reaches this process alone, which passes it on once.
                process = subprocess.Popen(self.command, env=dict(environment), start_new_session=True)
                process.returncode = 0  # reaped below with everybody else's children, so Popen must not wait for it
                self._workers[process.pid] = local
            while self._workers:
                self._wait(wake, min((when for when, _ in self._deadlines()), default=None))
                self._answer_signals()
                self._reap()
                self._enforce()
            code = combined(self._verdicts(self.oom_kills() > kills_before))
            self._hold(wake, code)
        return code if code >= 0 else 128 - code

    @contextlib.contextmanager
    def _watch(self) -> Iterator[socket.socket]:
        """Collect signals in a list and wake the loop for each; everything is put back afterwards."""

        def handler(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        with reader, writer:
            wake_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            # A signal that is ignored on purpose (SIGHUP under nohup) stays so.
            watched = [number for number in _WATCHED if signal.getsignal(number) is not signal.SIG_IGN]
            before = {number: signal.signal(number, handler) for number in watched}
            try:
                yield reader
            finally:
                for number, old in before.items():
                    signal.signal(number, old)
                signal.set_wakeup_fd(wake_before)

    def _wait(self, wake: socket.socket, until: float | None) -> None:
        timeout = None if until is None else max(0.0, until - time.monotonic())
        if select.select([wake], [], [], timeout)[0]:
            with contextlib.suppress(BlockingIOError):
                wake.recv(4096)

    def _deadlines(self) -> list[tuple[float, int | None]]:
        """When workers will be killed if nothing happens before, and the verdict on them then."""
        if all(local in self._killed for local in self._workers.values()):
            return []
        deadlines: list[tuple[float, int | None]] = []
        if self._stopped_at is not None and (limit := kill_after(self.grace)) is not None:
            deadlines.append((self._stopped_at + limit, exitcodes.STOPPED_UNSAVED))
        if self._failed_at is not None:
            deadlines.append((self._failed_at + self.peer_seconds, None))
        return deadlines

    def _answer_signals(self) -> None:
        """Pass the first wish to stop on; a SIGINT after it stops at once."""
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGCHLD:
                continue
            if self._stopped_at is None:
                self._stopped_at = time.monotonic()
                for pid in self._workers:
                    # A closed terminal (SIGHUP) means stop as well; workers know SIGTERM and SIGINT.
                    os.kill(pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
            elif number == signal.SIGINT:
                self._kill(exitcodes.STOPPED_UNSAVED)

    def _reap(self) -> None:
        """Take the codes of ended workers, and as process 1 of a container bury everybody's orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._workers:
                code = os.waitstatus_to_exitcode(status)
                self._codes[self._workers.pop(pid)] = code
                _kill_group(pid)  # what the worker left behind would keep its GPU's memory
                if code not in _GOOD_ENDS and self._failed_at is None:
                    self._failed_at = time.monotonic()

    def _enforce(self) -> None:
        """Kill the workers whose time is over: the grace period's, or those that wait for a peer that is gone."""
        for when, verdict in self._deadlines():
            if time.monotonic() >= when:
                self._kill(verdict)

    def _kill(self, verdict: int | None) -> None:
        for pid, local in self._workers.items():
            if local not in self._killed:
                self._killed[local] = verdict
                _kill_group(pid)

    def _verdicts(self, out_of_memory: bool) -> list[int]:
        """The code each worker stands for: its own, unless we or the kernel killed it."""
        verdicts = []
        for local, code in self._codes.items():
            if code == -signal.SIGKILL and local in self._killed:
                verdict = self._killed[local]
                verdicts += [] if verdict is None else [verdict]  # killed for a lost peer: the others know the cause
            elif code == -signal.SIGKILL and out_of_memory:
                verdicts.append(exitcodes.HOST_OUT_OF_MEMORY)
            elif code in (-signal.SIGTERM, -signal.SIGINT) and self._stopped_at is not None:
                # It died of our own signal before its handlers stood: nothing was begun, nothing is lost.
                verdicts.append(exitcodes.STOPPED)
            else:
                verdicts.append(code)
        return verdicts

    def _hold(self, wake: socket.socket, code: int) -> None:
        """Let another node publish the cause first: a Job keeps the first pod's code, and ours says "lost a peer"."""
        if not self.other_nodes or code not in _PEER_LOSS or self._failed_at is None:
            return
        until = self._failed_at + self.peer_seconds
        while time.monotonic() < until and not any(number != signal.SIGCHLD for number in self._signals):
            self._wait(wake, until)
            self._reap()


def _kill_group(pid: int) -> None:
    """SIGKILL to a worker's whole session; nothing left to kill is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
