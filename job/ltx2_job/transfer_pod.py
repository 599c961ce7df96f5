"""A transfer's end in a pod: `ltx2-job receive` and `send` over their standard streams; `hold`, which keeps the pod
while they are busy and lets it end when nobody is there any more.
"""

import os
import select
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ltx2_job import history, transfer
from ltx2_job.errors import ConfigError, JobError, Problem
from ltx2_job.runs import facts
from ltx2_job.stage import StopFlag
from ltx2_job.workspace import RunFolder, Workspace

BEAT: Final = Path(tempfile.gettempdir()) / "ltx2-transfer"  # its time is that of the last byte
BEAT_SECONDS: Final = 5.0


class StandardPipe:
    """Standard input and output of this process as a pipe; each byte keeps the pod for a while."""

    def __init__(self) -> None:
        self._beaten = 0.0

    def write(self, data: bytes) -> None:
        """Write all of it."""
        self._beat()
        view = memoryview(data)
        while view:
            view = view[os.write(sys.stdout.fileno(), view) :]

    def read(self) -> bytes:
        """Some bytes, b"" at the end."""
        data = os.read(sys.stdin.fileno(), transfer.CHUNK)
        self._beat()
        return data

    def ready(self) -> bool:
        """Whether bytes, or the end, are there."""
        return bool(select.select([sys.stdin.fileno()], [], [], 0)[0])

    def _beat(self) -> None:
        if (now := time.monotonic()) - self._beaten >= BEAT_SECONDS:
            BEAT.touch()
            self._beaten = now


def receive(workspace: Workspace, folder: str) -> None:
    """Take files into a folder of the workspace. Raises as transfer.receive, and ConfigError for one outside."""
    pipe = StandardPipe()
    try:
        transfer.receive(pipe, _inside(workspace, folder))
    except JobError as error:
        transfer.tell(pipe, error)
        raise


def send(run: RunFolder, checkpoints: bool) -> None:
    """Give the files of a run. Raises as transfer.send."""
    pipe = StandardPipe()
    try:
        transfer.send(pipe, transfer.run_files(run.root, checkpoints), growing=True)
    except JobError as error:
        transfer.tell(pipe, error)
        raise


def runs(found: Mapping[str, RunFolder], with_history: bool) -> None:
    """Say what each run has come to (ltx2_job.runs.facts), with its history if that is wanted, in one message."""
    pages = {name: facts(run) | ({"history": history.told(run)} if with_history else {}) for name, run in found.items()}
    transfer.Talk(StandardPipe()).say({"runs": pages})


def hold(idle: float) -> None:
    """Wait until no byte has moved for `idle` seconds, or somebody ends this process."""
    stop = StopFlag()
    stop.install()  # the first process of a pod has no default action for signals
    BEAT.touch()
    while not stop.requested and time.time() - BEAT.stat().st_mtime < idle:
        time.sleep(0.5)


def _inside(workspace: Workspace, folder: str) -> Path:
    path = Path(os.path.normpath(workspace.resolve(folder)))
    if not path.is_relative_to(os.path.normpath(workspace.root)):
        raise ConfigError(Problem("--to", f"{folder} lies outside of the volume", "write a folder below the workspace"))
    return path
