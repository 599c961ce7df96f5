"""Everything that the code of a stage is given: configuration, plan, folders, identity, and the wish to stop."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from ltx2_job import history
from ltx2_job.errors import ConfigError, Problem, Stopped
from ltx2_job.fence import Fence, Owner
from ltx2_job.reporter import LiveReporter, Reporter
from ltx2_job.same_run import require_same
from ltx2_job.workspace import RunFolder, Workspace, read_json, sweep, write_json

if TYPE_CHECKING:
    from ltx2_job.config import DatasetConfig, Resolved, TrainingConfig

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Whether somebody asked the stage to stop. A signal only raises the flag; loops look at it at a safe point."""

    def __init__(self) -> None:
        self._requested = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """True from the first SIGTERM or SIGINT on."""
        return self._requested

    def request(self) -> None:
        """Raise the flag; the first time, tell those who want to know."""
        if not self._requested:
            self._requested = True
            for callback in self._callbacks:
                callback()

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call back at the first request, from a signal handler: neither print nor lock. At once if it has come."""
        self._callbacks.append(callback)
        if self._requested:
            callback()

    def check(self) -> None:
        """Raise Stopped if the flag is up."""
        if self._requested:
            raise Stopped("told to stop; what is done so far is kept")

    def install(self) -> None:
        """Let SIGTERM and SIGINT raise the flag. Main thread only."""

        def handler(number: int, frame: FrameType | None) -> None:
            self.request()

        for number in STOP_SIGNALS:
            signal.signal(number, handler)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """`install` for the time of the body. Main thread only."""
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True)
class StagePlan:
    """What the operator decided from the GPU: see plan.json in docs/architecture.md."""

    gpu_class: str = "cpu"
    device: str = "cpu"  # "cpu" or "cuda" (ROCm's torch calls its GPUs cuda as well)
    nodes: int = 1
    processes: int = 1  # per node, one per GPU
    memory: str = "fp32/resident/keep:48"
    cache_memory: str = "device"  # where VAE and text encoder run: "device" or "cpu"
    corrections: tuple[str, ...] = ()  # what was changed of the user's configuration before it was resolved
    cores: int | None = None  # planned for the pod; None where the plan does not say

    @staticmethod
    def read(page: Mapping[str, Any]) -> "StagePlan":
        """The plan of plan.json; further keys are the operator's own. Raises ConfigError for a missing or wrong key."""
        kinds = {
            "gpuClass": str, "device": str, "nodes": int, "processes": int, "memory": str, "cacheMemory": str,
        }  # fmt: skip
        problems = [
            Problem(f"plan.{key}", f"is {page.get(key)!r}, not {'a number' if kind is int else 'a text'}")
            for key, kind in kinds.items()
            if not isinstance(page.get(key), kind) or isinstance(page.get(key), bool)
        ]
        if not problems:
            allowed = {"device": ("cpu", "cuda"), "cacheMemory": ("device", "cpu")}
            problems = [
                Problem(f"plan.{key}", f"is {page[key]!r}", f"use one of {', '.join(values)}")
                for key, values in allowed.items()
                if page[key] not in values
            ]
            problems += [
                Problem(f"plan.{key}", f"is {page[key]}", "use 1 or more")
                for key in ("nodes", "processes")
                if page[key] < 1
            ]
        corrections = page.get("corrections", [])
        if not isinstance(corrections, list) or not all(isinstance(each, str) for each in corrections):
            problems.append(Problem("plan.corrections", f"is {corrections!r}, not a list of texts"))
        if problems:
            raise ConfigError(problems)
        milli = page.get("cpuMilli")
        cores = max(1, milli // 1000) if isinstance(milli, int) else None
        return replace(StagePlan(*(page[key] for key in kinds)), corrections=tuple(corrections), cores=cores)


@dataclass
class Stage:
    """One process of one stage of one attempt."""

    name: str  # "cache" or "train"
    config: "TrainingConfig"
    datasets: "tuple[DatasetConfig, ...]"
    plan: StagePlan
    workspace: Workspace
    run: RunFolder
    run_name: str
    attempt: int = 1
    uid: str = ""  # the LTX2Training's uid; empty outside a cluster
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    digest: str = ""  # sha256 of the resolved configuration
    stop: StopFlag = field(default_factory=StopFlag)
    reporter: Reporter = field(default_factory=Reporter)
    fence: Fence = field(default_factory=Fence)


def read_files(files: Path, workspace: Path) -> "tuple[Resolved, StagePlan]":
    """Configuration and plan from a folder with config.json, datasets.json and plan.json (a mounted ConfigMap).

    The files are the whole truth: environment and flags were folded into them when they were written. Raises
    ConfigError.
    """
    from ltx2_job.config import resolve

    config, datasets, plan = (_read(files / name) for name in ("config.json", "datasets.json", "plan.json"))
    resolved = resolve(config, datasets, workspace=workspace)
    resolved.require_supported()
    return resolved, StagePlan.read(plan)


def open_stage(
    name: str,
    files: Path,
    workspace: Path,
    run_name: str,
    attempt: int,
    stop: StopFlag,
    environ: Mapping[str, str] = os.environ,
) -> Stage:
    """Read the inputs, take the run folder and open the reporter. Rank 0 alone writes.

    Raises ConfigError for wrong inputs or a run folder of another configuration, Superseded if a later attempt owns it,
    OSError if the volume is not writable.
    """
    from ltx2_job.console import open_console
    from ltx2_job.progress import Progress

    resolved, plan = read_files(files, workspace)
    place = Workspace(workspace)
    run = place.run(run_name, resolved.training.output_dir)
    uid = environ.get("LTX2JOB_UID", "")
    stage = Stage(
        name, resolved.training, resolved.datasets, plan, place, run, run_name, attempt, uid,
        rank=int(environ.get("RANK", "0")),
        world=int(environ.get("WORLD_SIZE", "1")),
        local_rank=int(environ.get("LOCAL_RANK", "0")),
        digest=resolved.digest,
        stop=stop,
    )  # fmt: skip
    if stage.rank != 0:
        return stage
    stage.fence = Fence.claim(run, Owner.now(uid, attempt, environ.get("LTX2JOB_POD_UID", "")))
    sweep(run)
    ensure_same_run(run, resolved.dump(), stage.config.resume_from_checkpoint)
    write_json(run.plan, _read(files / "plan.json"))
    place.note_run(run_name, run)
    history.append(run, [*history.handed(environ.get(history.VERDICTS, ""), uid), _begun(stage)])
    log = environ.get("LTX2JOB_TERMINATION_LOG")
    port = environ.get("LTX2JOB_PORT")
    stage.reporter = LiveReporter(
        run,
        stage.fence,
        Progress(run_name, uid, attempt, name),
        open_console(),
        port=int(port) if port else None,
        termination_log=Path(log) if log else None,
    )
    stop.on_request(stage.reporter.stopping)
    # Resolved files have nothing left to correct: what was corrected on the way to them stands in the plan.
    for correction in (*plan.corrections, *map(str, resolved.corrections)):
        stage.reporter.warn(correction)
    return stage


def _begun(stage: Stage) -> history.Entry:
    """What the history says of a stage's begin: on what, and under which memory plan."""
    plan = stage.plan
    if stage.name == "cache":
        given = {"nodes": 1, "processes": 1, "cacheMemory": plan.cache_memory}
    else:
        given = {"nodes": plan.nodes, "processes": plan.processes, "memory": plan.memory}
    event = history.STARTED[stage.name]
    return history.entry(event, stage.uid, stage.attempt, stage.name, gpuClass=plan.gpu_class, **given)


def ensure_same_run(run: RunFolder, dump: Mapping[str, Any], resume_from: str | None) -> None:
    """Write config.json and datasets.json into the run folder, unless it belongs to another configuration.

    Raises ConfigError as require_same does.
    """
    require_same(run, dump, resume_from)
    write_json(run.config, dump["config"])
    write_json(run.datasets, dump["datasets"])


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise ConfigError(
            Problem(str(path), "is missing", "give --files a folder with config, datasets and plan")
        ) from None
    except ValueError as error:
        raise ConfigError(Problem(str(path), f"is not JSON ({error})")) from None
