"""Processes for tests that start in milliseconds: forked from a server that has imported everything and done nothing.

Not forked from the test's own process: once a backward pass has run there, autograd has threads, and no child of such a
process can run another. So what runs is a module-level function with arguments that can be pickled.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ltx2_job.errors import JobError

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["ltx2_job.training.trainer", "ltx2_job.validation.t2v", "ltx2_job.commands"])

# Starting a process asks after every other one, and a status can be read only once: a second thread that asks at that
# moment would be told 255.
_ASKING = threading.Lock()

Say = Callable[[str], None]


@dataclass
class Child:
    """A process that runs one function: ends with what it returns, its JobError's exit code, or 70 for any other
    exception.
    """

    process: BaseProcess
    pipe: Connection  # what the child says arrives here

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code; minus the signal's number where one ended it. Kills it after `seconds`."""
        connection.wait([self.process.sentinel], seconds)
        code = self.code()
        if code is None:
            self.kill()
            raise TimeoutError(f"child {self.process.pid} did not end within {seconds} s")
        return code

    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        with _ASKING:
            return self.process.exitcode

    def word(self) -> str:
        """The next word that the child says; empty when it has ended."""
        try:
            return str(self.pipe.recv())
        except EOFError:
            return ""

    def send(self, number: int) -> None:
        """A signal; nothing where it has ended."""
        if self.process.pid is not None and self.code() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> int:
        """SIGKILL, and wait; the code is 0 where it had ended by itself."""
        self.process.kill()
        connection.wait([self.process.sentinel])
        return self.code() or 0


def fork(function: Callable[..., int | None], *arguments: Any) -> Child:
    """Run `function(say, *arguments)` in a child; `say(word)` sends a word to the parent. It returns its exit code."""
    hearing, saying = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_run, args=(saying, function, arguments), daemon=True)
    with _ASKING:
        process.start()
    saying.close()
    return Child(process, hearing)


def _run(pipe: Connection, function: Callable[..., int | None], arguments: tuple[Any, ...]) -> None:
    code = 70
    try:
        import torch

        torch.set_num_threads(1)  # a forked child has lost OpenMP's threads
        code = function(lambda word: _say(pipe, word), *arguments) or 0
    except JobError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(pipe: Connection, word: str) -> None:
    try:
        pipe.send(word)
    except BrokenPipeError:
        return  # nobody listens any more


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
