"""The namespaces (network, mounts, processes) that a cluster lives in: ending their first process ends it all."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import binaries
from .processes import Process, StartFailed, children, start

# A kubelet sets these for the whole machine; inside it finds files of its own in their place.
TUNABLES = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_PREPARE = """
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/log /run/cni /run/tunables /run/lock /var/log /var/lib/cni
mount --bind /run/log /var/log
mount --bind /run/cni /var/lib/cni
for name in {tunables}; do
  file=/run/tunables/$(echo $name | tr / _)
  cat /proc/sys/$name > $file
  mount --bind $file /proc/sys/$name
done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
"""


@dataclass(frozen=True)
class Namespace:
    """The namespaces of a running cluster, named by their first process (as this machine numbers it)."""

    first: Process

    def enter(self, *kinds: str) -> tuple[str, ...]:
        """What to put before a command so that it runs inside: in all namespaces, or in those of these kinds."""
        options = (f"--{kind}" for kind in kinds or ("net", "mount", "pid"))
        return ("nsenter", f"--target={self.first.pid}", *options, "--")

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside, whatever it ends with."""
        return subprocess.run([*self.enter(), *command], capture_output=True, text=True, timeout=timeout, check=False)

    def must(self, *command: str, timeout: float = 60) -> str:
        """Run a command inside and return what it printed.

        Raises:
            StartFailed: it ended with another code than 0.
        """
        done = self.run(*command, timeout=timeout)
        if done.returncode:
            raise StartFailed(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def start(self, name: str, command: list[str], log: Path, kinds: tuple[str, ...] = ()) -> Process:
        """Start a process inside that outlives the caller; returns the process itself, not the one that entered."""
        entering = start(name, [*self.enter(*kinds), *command], log)
        end = time.monotonic() + 10
        while not (found := children(entering.pid)):
            if not entering.alive or time.monotonic() > end:
                raise StartFailed(f"{name} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        return Process.of(name, found[0])

    def answers(self, url: str) -> bool:
        """Whether the address answers with status 200 inside."""
        return self.run(str(binaries.box()), "ready", url).returncode == 0

    def end(self) -> None:
        """Kill everything inside; returns once all of it is gone."""
        self.first.kill()
        end = time.monotonic() + 60
        while self.first.alive:
            if time.monotonic() > end:
                raise RuntimeError(f"process {self.first.pid} of the cluster does not end")
            time.sleep(0.05)


def open_namespace(log: Path, keep: tuple[int, ...] = (), bound: bool = False) -> Namespace:
    """Make new namespaces with loopback, routing, and /run, /var/log and kernel settings of their own.

    Args:
        keep: file descriptors that the first process holds open as long as it lives.
        bound: whether all of it ends with the calling thread.
    """
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    bind = ["setpriv", "--pdeathsig", "KILL"] if bound else []
    outside = start("namespace", [*bind, *unshare, str(binaries.box()), "pause"], log, pass_fds=keep)
    end = time.monotonic() + 10
    while not _is_box(found := children(outside.pid)):
        if not outside.alive or time.monotonic() > end:
            raise StartFailed(f"no namespace: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.01)
    namespace = Namespace(Process.of("namespace", found[0]))
    try:
        namespace.must("sh", "-ec", _PREPARE.format(tunables=" ".join(TUNABLES)))
    except BaseException:
        namespace.end()
        raise
    return namespace


def _is_box(found: list[int]) -> bool:
    """Whether the child has become the box, its /proc mounted."""
    try:
        command = Path(f"/proc/{found[0]}/cmdline").read_bytes().split(b"\0") if found else []
    except OSError:
        return False
    return command[:1] == [bytes(binaries.box())]
