"""The bodies of the stages `cache` and `train` that a test writes: all around them is the shipped job.

The launcher in process 1, the worker's frame, fence, reporter, checkpoints' layout, last word and exit codes are the
installed ltx2_job's; what happens inside a stage is read from <workspace>/behaviour/<run>.json: a list of steps for
"<stage>-<attempt>.<node>", "<stage>-<attempt>" or "<stage>"; without one the stage is done well. Each start leaves a
line in runs/<run>/starts.jsonl: attempt, stage, the step it goes on from, its memory plan, its worker's pid. Training
goes through the steps one by one, and leaves the numbers of each in metrics.jsonl, as the real one does.
"""

import hashlib
import json
import os
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

from ltx2_job import errors
from ltx2_job.fence import Owner
from ltx2_job.finished import finished
from ltx2_job.saved import ADAPTER, MANIFEST, OPTIMIZER, STATE, name_of, newest_complete, step_of
from ltx2_job.stage import Stage
from ltx2_job.workspace import write_json

STARTS = "starts.jsonl"


class DistNetworkError(RuntimeError):
    """As torch.distributed names the loss of a peer."""


class OutOfMemoryError(RuntimeError):
    """As torch names an allocation that a GPU refused."""


ERRORS: dict[str, Any] = {
    **vars(errors),
    "ConfigError": lambda text: errors.ConfigError(errors.Problem("learning_rate", text)),
    "DistNetworkError": DistNetworkError,
    "OutOfMemoryError": OutOfMemoryError,
    "RuntimeError": RuntimeError,
    "MemoryError": MemoryError,
}


def cache(stage: Stage) -> None:
    """Nothing is encoded."""
    play(stage)
    stage.reporter.result.update(clips=3, skipped=0, encoded=3)


def train(stage: Stage) -> None:
    """From the newest complete checkpoint to the last step, without learning anything."""
    if result := finished(stage.run, stage.digest):
        stage.reporter.finished(result)
        return
    newest = newest_complete(stage.run.checkpoints)
    stage.reporter.resumed(step_of(newest) if newest else 0, (), stage.config.checkpoint_step_interval)
    play(stage)
    last = stage.config.max_train_steps
    if stage.rank == 0:
        checkpoint(stage, last)
        for file in (stage.run.lora, stage.run.lora_diffusers):
            file.write_text("a stand-in's")
        result = {"steps": last, "finalLoss": 0.25, "lora": "lora.safetensors", "configDigest": stage.digest}
        write_json(stage.run.result, result)
        stage.reporter.result.update(result)


def play(stage: Stage) -> None:
    """Note the start, then take the steps that the test has written."""
    file = stage.workspace.root / "behaviour" / f"{stage.run_name}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    node = os.environ.get("JOB_COMPLETION_INDEX", "0")
    key = f"{stage.name}-{stage.attempt}"
    steps = known.get(f"{key}.{node}", known.get(key, known.get(stage.name, [])))
    newest = newest_complete(stage.run.checkpoints)
    start = {
        "attempt": stage.attempt, "stage": stage.name, "node": int(node), "step": step_of(newest) if newest else 0,
        "memory": stage.plan.cache_memory if stage.name == "cache" else stage.plan.memory, "pid": os.getpid(),
    }  # fmt: skip
    stage.run.root.mkdir(parents=True, exist_ok=True)
    with (stage.run.root / STARTS).open("a") as log:
        log.write(json.dumps(start) + "\n")
    for verb, *values in steps:
        VERBS[verb](stage, *values)


def checkpoint(stage: Stage, step: int) -> None:
    """Train up to a step and leave a checkpoint that is complete, behind the fence as all that a run writes."""
    for each in range(stage.reporter.progress.step + 1, step + 1):  # type: ignore[attr-defined]
        stage.reporter.step(each, stage.config.max_train_steps, {"loss": 0.25})
    stage.fence.check()
    folder = stage.run.checkpoints / name_of(step)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {ADAPTER: b"", OPTIMIZER: b"", STATE: json.dumps({"step": step}).encode()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = {name: {"sha256": hashlib.sha256(one).hexdigest(), "bytes": len(one)} for name, one in contents.items()}
    (folder / MANIFEST).write_text(json.dumps({"step": step, "files": files}))
    stage.reporter.checkpoint(step, folder, 0.0)


def fail(stage: Stage, name: str, text: str) -> None:
    """Raise an error by its class's name: its exit code is the job's to find."""
    raise ERRORS[name](text)


def leave(stage: Stage, code: int) -> None:
    """Be gone at once with a code, without a word."""
    sys.stdout.flush()
    os._exit(code)


def die(stage: Stage, number: int) -> None:
    """Die of a signal."""
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), number)
    time.sleep(60)


def wait(stage: Stage, seconds: float) -> None:
    """Look, as training does between two steps, whether it is told to stop; then with a checkpoint of what is done."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stage.stop.requested and stage.name == "train":
            checkpoint(stage, stage.reporter.progress.step + 1)  # type: ignore[attr-defined]
        stage.stop.check()
        stage.fence.check()
        time.sleep(0.1)


def until(stage: Stage, file: str) -> None:
    """Go on when a file of the workspace is there."""
    while not stage.workspace.resolve(file).exists():
        stage.stop.check()
        stage.fence.check()
        time.sleep(0.1)


def hang(stage: Stage, seconds: float) -> None:
    """Hear nothing."""
    time.sleep(seconds)


def outlive(stage: Stage) -> None:
    """Hear nothing, know nothing, until another owner has the run and finishes it; then go on as if alone."""
    while not stage.run.result.exists() or Owner.read(stage.run.attempt) == stage.fence.owner:
        time.sleep(0.1)


def fill(stage: Stage, where: str, mib: int) -> None:
    """Write a file of that size in a folder; the error is the volume's."""
    path = stage.workspace.resolve(where) / "filler"
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(2**20))
            file.flush()
            os.fsync(file.fileno())


def hog(stage: Stage, mib: int) -> None:
    """Hold so much memory."""
    held = [bytearray(os.urandom(2**20)) for _ in range(mib)]
    assert len(held) == mib


def after(stage: Stage, step: int) -> None:
    """Go on when the first node has begun this attempt, too, and the checkpoint of that step is there."""
    while not (_begun(stage) and (stage.run.checkpoints / name_of(step) / MANIFEST).exists()):
        time.sleep(0.1)


def _begun(stage: Stage) -> bool:
    starts = map(json.loads, (stage.run.root / STARTS).read_text().splitlines())
    return any((one["attempt"], one["stage"], one["node"]) == (stage.attempt, stage.name, 0) for one in starts)


def encode(stage: Stage, count: int) -> None:
    """Fill the cache with so many clips, two a second."""
    for done in range(1, count + 1):
        stage.reporter.items(done, count, "encoded", "video")
        wait(stage, 0.5)


def learn(stage: Stage, last: int, interval: int) -> None:
    """Train up to a step, five a second, with all the numbers of real steps and a GPU's memory; 0: no checkpoints."""
    sys.modules["torch"] = CARD  # type: ignore[assignment]
    values = {
        "loss": 0.5, "loss_video": 0.375, "loss_audio": 0.125, "learning_rate": 1e-4, "grad_norm": 2.0,
        "seconds_per_step": 0.2, "data_wait_seconds": 0.05,
    }  # fmt: skip
    for step in range(stage.reporter.progress.step + 1, last + 1):  # type: ignore[attr-defined]
        stage.reporter.step(step, stage.config.max_train_steps, values)
        if step == 1:
            stage.reporter.held_out(step, 0.75, {"loss_video": 0.5, "loss_audio": 0.25})
        if interval and step % interval == 0:
            checkpoint(stage, step)
        wait(stage, 0.2)


class _Card:
    """What torch.cuda says of a GPU in use."""

    @staticmethod
    def is_available() -> bool:
        return True

    is_initialized = is_available

    @staticmethod
    def memory_allocated() -> int:
        return 2**30

    memory_reserved = max_memory_allocated = memory_allocated


CARD = SimpleNamespace(cuda=_Card)
VERBS: dict[str, Any] = {
    "checkpoint": checkpoint, "raise": fail, "exit": leave, "signal": die, "wait": wait, "hang": hang, "fill": fill,
    "hog": hog, "after": after, "outlive": outlive, "until": until,
    "encode": encode, "learn": learn,
}  # fmt: skip
STAGES: dict[str, Any] = {"cache": cache, "train": train}
