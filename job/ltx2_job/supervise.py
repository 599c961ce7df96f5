"""The two halves of `ltx2-job cache` and `train`: the launcher in process 1, and the worker it starts per GPU."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2_job import exitcodes, history
from ltx2_job.endings import Ending, ending
from ltx2_job.errors import ConfigError, JobError, Problem
from ltx2_job.fence import Owner
from ltx2_job.launch import WORKER_FLAG, Launcher, Layout
from ltx2_job.progress import VERSION, ending_fields, timestamp, write_last_word
from ltx2_job.workspace import RunFolder, Workspace

if TYPE_CHECKING:
    from ltx2_job.stage import Stage


_END = "LTX2JOB_END"  # the file in which a worker tells its launcher how it ended: rank 0 alone writes to the volume


@dataclass(frozen=True)
class Order:
    """The command line of a stage."""

    stage: str  # "look", "cache" or "train"
    files: Path
    workspace: Path
    run: str
    attempt: int


def supervise(order: Order, arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Start the stage's workers, wait, see that a last word is written even if no worker could; the exit code."""
    log = _termination_log(environ)
    if log is not None:
        with contextlib.suppress(OSError):
            log.write_bytes(b"")  # what stands there is an older process' word
    try:
        layout = _layout(order, environ)
        grace = _seconds("LTX2JOB_GRACE_SECONDS", environ)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
        _last_word(order, error.exit_code, str(error), environ, main_node=True)
        return error.exit_code
    command = [sys.executable, "-m", "ltx2_job.cli", *arguments, WORKER_FLAG]
    before = _told(order)
    with tempfile.TemporaryDirectory(prefix="ltx2-job-") as folder:
        ends = [Path(folder) / str(local) for local in range(layout.processes)]
        pairs = zip(layout.environments(environ), ends, strict=True)
        environments = [{**environment, _END: str(end)} for environment, end in pairs]
        code = Launcher(command, environments, grace, other_nodes=layout.nodes > 1).run()
        known = {page["code"]: str(page["message"]) for page in map(_read, reversed(ends)) if "code" in page}
    told = _told(order)
    if code == exitcodes.STOPPED_UNSAVED and told != before and told.get("exitCode") == exitcodes.STOPPED:
        code = exitcodes.STOPPED  # killed (a second Ctrl-C, the end of the grace period) when all was on disk already
    message = known.get(code) or exitcodes.lookup(code).meaning
    written = _last_word(order, code, message, environ, main_node=layout.node == 0)
    if layout.node == 0:
        _note_end(order, code, message, environ)
    if written and code not in (exitcodes.OK, *known):
        print(f"error: {message}", file=sys.stderr)  # the workers could not say so themselves
    return code


def work(order: Order, run_stage: "Callable[[Stage], None]", environ: Mapping[str, str] = os.environ) -> int:
    """Be one worker: open the stage, run it, turn its end into an exit code, a line for the user and a last word."""
    from ltx2_job.stage import StopFlag, open_stage

    stop = StopFlag()
    stop.install()  # before anything heavy is imported: from here on SIGTERM is never lost
    _end_with_parent()
    stage: Stage | None = None
    try:
        stage = open_stage(order.stage, order.files, order.workspace, order.run, order.attempt, stop, environ)
        run_stage(stage)
        end = Ending(exitcodes.OK, "done")
    except BaseException as error:  # every way out of a stage has a code, SystemExit and KeyboardInterrupt included
        end = ending(error, order.workspace)
        if end.defect:
            text = "".join(traceback.format_exception(error))
            print(text, file=sys.stderr, end="")
            if stage is not None:
                with contextlib.suppress(JobError, OSError):
                    stage.reporter.traceback(text)
    first = environ.get("RANK", "0") == "0"
    if end.code != exitcodes.OK and (first or end.code != exitcodes.STOPPED):  # all ranks stop alike: one says it
        print(f"{'stopped' if end.code == exitcodes.STOPPED else 'error'}: {end.message}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, KeyError):
        Path(environ[_END]).write_text(json.dumps({"code": end.code, "message": end.message}), encoding="utf-8")
    with contextlib.suppress(OSError):  # a full volume has its code already; the launcher tries the last word again
        if stage is not None:
            stage.reporter.close(end.code, end.message)
        elif first:
            _last_word(order, end.code, end.message, environ, main_node=True)
    return end.code


def _layout(order: Order, environ: Mapping[str, str]) -> Layout:
    """The processes of this stage: one per GPU to train, one in all to cache (the store has one writer)."""
    try:
        plan = json.loads((order.files / "plan.json").read_bytes())
        nodes, processes = int(plan["nodes"]), int(plan["processes"])
    except (OSError, ValueError, KeyError, TypeError):
        return Layout()  # a worker reads the same file and names what is wrong with it
    if order.stage == "cache" or min(nodes, processes) < 1:
        return Layout()
    return Layout.read(nodes, processes, environ)


def _last_word(order: Order, code: int, message: str, environ: Mapping[str, str], main_node: bool) -> bool:
    """Write the termination message and attempts/<n>.json; False if a worker has already written this very end.

    What the attempt last said of itself (at its newest checkpoint) stays in it: step, checkpoint, losses.
    """
    log, run = _termination_log(environ), _run_folder(order)
    before = _told(order)
    if before.get("stage") != order.stage:
        before = {}
    told = _read(log) if log is not None else before
    if told.get("exitCode") == code:
        return False
    page = {
        "version": VERSION,
        "run": order.run,
        "uid": environ.get("LTX2JOB_UID", ""),
        "attempt": order.attempt,
        "stage": order.stage,
        **before,
        **told,
        "time": timestamp(),
        **ending_fields(code, message),
    }
    ours = main_node and run is not None and _owns(run, order, environ)
    with contextlib.suppress(OSError):  # the exit code itself is the message that cannot be lost
        write_last_word(page, log, run if ours else None, order.attempt)
    return True


def _note_end(order: Order, code: int, message: str, environ: Mapping[str, str]) -> None:
    """One line of the run's history, by the one process of the attempt that knows how all of its workers ended."""
    run = _run_folder(order)
    if run is None or not _owns(run, order, environ):
        return
    step = _told(order).get("step") if order.stage == "train" else None
    with contextlib.suppress(OSError):  # the exit code itself is the message that cannot be lost
        end = history.ended(environ.get("LTX2JOB_UID", ""), order.attempt, order.stage, code, message, step)
        history.append(run, [end])


def _told(order: Order) -> dict[str, Any]:
    """What the attempt last said of itself on the volume; empty if nothing."""
    run = _run_folder(order)
    return _read(run.attempts / f"{order.attempt}.json") if run is not None else {}


def _owns(run: RunFolder, order: Order, environ: Mapping[str, str]) -> bool:
    """Whether the run folder's fence names this attempt (and this pod, where there are pods)."""
    try:
        holder = Owner.read(run.attempt)
    except (JobError, OSError):
        return False
    if holder is None:
        return False
    pod = environ.get("LTX2JOB_POD_UID") or holder.pod_uid
    return (holder.uid, holder.attempt, holder.pod_uid) == (environ.get("LTX2JOB_UID", ""), order.attempt, pod)


def _run_folder(order: Order) -> RunFolder | None:
    """The run's folder; None if config.json cannot be read to know it."""
    config = _read(order.files / "config.json")
    return Workspace(order.workspace).run(order.run, config.get("output_dir")) if config else None


def _read(path: Path) -> dict[str, Any]:
    try:
        page = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return page if isinstance(page, dict) else {}


def _termination_log(environ: Mapping[str, str]) -> Path | None:
    return Path(environ["LTX2JOB_TERMINATION_LOG"]) if environ.get("LTX2JOB_TERMINATION_LOG") else None


def _seconds(name: str, environ: Mapping[str, str]) -> float | None:
    text = environ.get(name, "")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(Problem(name, f"is {text!r}", "give a number of seconds")) from None


def _end_with_parent() -> None:
    """Ask Linux for a SIGTERM should the launcher die: a worker without it would train on unseen and hold its GPU."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
