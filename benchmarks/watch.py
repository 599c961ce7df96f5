"""How much memory a process and its children take while they run."""

import contextlib
import os
import subprocess
import threading
from pathlib import Path


class Watch:
    """Samples the memory of a process and its children twenty times a second.

    host: anonymous memory of the processes (RssAnon): file cache is not in it. system: what the whole machine holds
    above its file cache, compared with the beginning; it has what a driver pins on behalf of the processes as well.
    """

    def __init__(self, pid: int, device: str):
        self._pid, self._ended = pid, threading.Event()
        self._most = {"host": 0, "system": 0, "gpu": 0}
        self._start = _system_memory()
        self._threads = [threading.Thread(target=self._sample, daemon=True)]
        self._smi: subprocess.Popen[str] | None = None
        if device == "cuda":
            query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "200"]
            self._smi = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
            self._threads.append(threading.Thread(target=self._read_gpu, args=(self._smi,), daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> dict[str, int]:
        """The largest values seen, in bytes."""
        self._ended.set()
        if self._smi is not None:
            self._smi.terminate()
        for thread in self._threads:
            thread.join()
        return self._most

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            self._saw("host", sum(_anonymous(pid) for pid in _family(self._pid)))
            self._saw("system", _system_memory() - self._start)

    def _read_gpu(self, smi: "subprocess.Popen[str]") -> None:
        for line in smi.stdout or ():
            if line.strip().isdigit():
                self._saw("gpu", int(line) << 20)

    def _saw(self, name: str, value: int) -> None:
        self._most[name] = max(self._most[name], value)


def _family(ancestor: int) -> set[int]:
    """A process and all that descend from it (the launcher gives its workers sessions of their own)."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):
                # The second field is the name in brackets, which may hold anything.
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
    family = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _anonymous(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return 0


def _system_memory() -> int:
    values = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    return (values["MemTotal"] - sum(values[key] for key in ("MemFree", "Buffers", "Cached", "SReclaimable"))) << 10
