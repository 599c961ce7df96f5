"""The other end of a transfer: a command of `ltx2-job` in a process of its own, as a pipe (ltx2_job.transfer.Pipe)."""

import os
import subprocess
import sys

from ltx2_job import transfer


class Peer:
    """A process at the other end. spoil: changes what is written to it."""

    def __init__(self, *arguments: str, spoil=lambda data: data):
        command = [sys.executable, "-m", "ltx2_job.cli", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._spoil, self.written = spoil, 0

    def write(self, data: bytes) -> None:
        view = memoryview(self._spoil(data))
        while view:
            view = view[os.write(self.process.stdin.fileno(), view) :]
        self.written += len(data)

    def read(self) -> bytes:
        return os.read(self.process.stdout.fileno(), transfer.CHUNK)

    def ready(self) -> bool:
        return False

    def end(self) -> int:
        self.process.communicate(timeout=60)
        return self.process.returncode
