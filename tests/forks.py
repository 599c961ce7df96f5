"""Processes for tests by fork: they hold the parent's imports, so each starts in milliseconds.

A forked child must not use OpenMP (its threads are gone), so torch is held to one thread in it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from ltx2_job.errors import JobError


@dataclass
class Child:
    """A forked process that runs one function; ends with its JobError's exit code, 70 for any other exception."""

    pid: int
    pipe: int  # what the child says through `say` arrives here

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code; minus the signal's number where one ended it. Kills it after `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self.pipe)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        self.kill()
        raise TimeoutError(f"child {self.pid} did not end within {seconds} s")

    def word(self) -> str:
        """The next word that the child says; empty when it has ended."""
        heard = b""
        while not heard.endswith(b"\n"):
            part = os.read(self.pipe, 1)
            if not part:
                return ""
            heard += part
        return heard.decode().strip()

    def kill(self) -> int:
        """SIGKILL, and wait; the code is 0 where it had ended by itself."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pipe)
        return os.waitstatus_to_exitcode(status)


def fork(function: Callable[[Callable[[str], None]], None]) -> Child:
    """Run `function(say)` in a child; `say(word)` sends a word to the parent."""
    sys.stdout.flush(), sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = 70
    try:
        os.close(reading)
        import torch

        torch.set_num_threads(1)
        function(lambda word: _say(writing, word))
        code = 0
    except JobError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def _say(pipe: int, word: str) -> None:
    try:
        os.write(pipe, f"{word}\n".encode())
    except BrokenPipeError:
        return  # nobody listens any more


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
