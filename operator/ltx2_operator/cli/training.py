"""`ltx2 run` and `ltx2 train`: a training on this machine, from the plan to the summary."""

import contextlib
import copy
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ltx2_job import exitcodes
from ltx2_job.errors import UsageError
from ltx2_job.finished import finished
from ltx2_job.runs import newest_step
from ltx2_job.workspace import read_json
from ltx2_operator import accept, conditions, host, local, local_state, manifest
from ltx2_operator.api import parse
from ltx2_operator.cli import inputs, preflight, rendering
from ltx2_operator.cli.words import plan_lines, summary_lines
from ltx2_operator.doctor.hub import token_of
from ltx2_operator.draft import Event
from ltx2_operator.machine import as_machine, detect, free_port, host_memory
from ltx2_operator.processes import check_job
from ltx2_operator.settings import Settings
from ltx2_operator.standin import LocalJobs

# What the job itself does not say on the terminal.
TOLD: Final = frozenset({"AttemptFailed", "GPUOutOfMemory", "Preempted", "Superseded", "Rejected", "Retried"})


def run(args: Namespace) -> int:
    """Train what a manifest says, or run the Jobs of rendered documents as they stand."""
    documents = manifest.load(args.file)
    workspace = args.workspace.resolve()
    secrets = manifest.secrets(documents)
    if any(document.kind == "Job" for document in documents):
        return _rendered(documents, workspace, secrets)
    order = inputs.from_manifest(inputs.training_of(documents), workspace)
    return _train(order, secrets, f"ltx2 run {args.file}", str(args.file))


def train(args: Namespace) -> int:
    """Train config/config.json, as the guide does: LTX2_<KEY> variables and --key=value flags stand above it."""
    workspace = args.workspace.resolve()
    path = args.config if args.config.is_absolute() or args.config.exists() else workspace / args.config
    order = inputs.from_config(path, workspace, tuple(args.flags), os.environ)
    return _train(order, {}, " ".join(["ltx2 train", *sys.argv[2:]]), None)


def _train(order: inputs.Order, secrets: dict[str, dict[str, str]], command: str, file: str | None) -> int:
    folder = order.folder
    if finished(folder, order.resolved.digest) is not None:
        _say(f"{order.name} is finished already")
        _summary(order, (local_state.load_state(folder.root) or {}).get("status") or {}, file)
        return exitcodes.OK
    preflight.require_folder(order)
    found = detect()
    order = inputs.choose(order, found)
    plan = accept.plan_stage(order.training, order.resolved, "train", 0, None, model=order.model)
    cache_plan = accept.plan_stage(order.training, order.resolved, "cache", 0, None, model=order.model)
    preflight.require(order, (cache_plan, plan), found)
    if order.training.spec.pod_template is not None:
        for body in rendering.documents(order, Settings()):
            if body["kind"] == "Job":
                check_job(body)
    have = host_memory()
    if have is not None:
        host.require(order.training.spec, order.resolved, (cache_plan, plan), have, order.model)
    download = preflight.to_download(order)
    environ = dict(os.environ)
    if download is not None or any(dataset.type == "huggingface" for dataset in order.resolved.clips):
        order = with_token(order, environ)
    order = with_object_store(order, environ)
    with _nothing_left(folder.root), local_state.locked(folder.root):
        state = local_state.load_state(folder.root)
        settings = Settings(metrics_port=free_port())
        if state is not None:
            local_state.end_orphans(state, settings.grace_seconds, _say)
        old = local_state.same_run(state, order.resolved.digest)
        obj = local_state.new_object(order.body, old, datetime.now(UTC))
        jobs = LocalJobs(
            order.workspace.root, as_machine(found, os.environ), local.secret_source(environ, secrets), _now
        )
        walk = local.LocalRun(obj, folder.root, jobs, settings, local.Interrupts(), _tell, order.model)
        walk.save()  # a volume that cannot be written is noticed before anything is said
        for line in plan_lines(order, plan, cache_plan, settings.metrics_port, str(download or "")):
            _say(line)
        with walk.interrupts.listen():
            try:
                code = walk.run()
            finally:
                jobs.close()
                walk.save()
    return _end(order, walk.status, code, command, file)


@contextlib.contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Around the making of a run's folder: one that was made here and that holds nothing yet goes with a failure."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if made and [path.name for path in folder.glob("*")] == [local_state.LOCK_FILE]:
            (folder / local_state.LOCK_FILE).unlink()
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()
        raise


def with_token(order: inputs.Order, environ: dict[str, str]) -> inputs.Order:
    """The order with a Secret for the Hub's token of this machine, if it has one and the manifest names none.

    The value goes into `environ` under the variable's name, where a local run looks for Secrets.
    """
    token, _ = token_of(environ)
    if not token or order.training.spec.secrets.hub_token is not None:
        return order
    environ["HF_TOKEN"] = token
    return _with_secret(order, "hubToken", {"name": "hub-token-of-this-machine"})


def with_object_store(order: inputs.Order, environ: Mapping[str, str]) -> inputs.Order:
    """The order with a Secret for the keys of an object store that stand in this machine's environment.

    Where the manifest names one, or a profile, a file or the machine itself gives the keys, nothing is changed: what
    leads there is no secret (processes.MACHINE_ENV).
    """
    needed = any(dataset.type == "aws" for dataset in order.resolved.clips)
    if not needed or not environ.get("AWS_ACCESS_KEY_ID") or order.training.spec.secrets.object_store is not None:
        return order
    return _with_secret(order, "objectStore", "object-store-of-this-machine")


def _with_secret(order: inputs.Order, key: str, reference: Any) -> inputs.Order:
    body = copy.deepcopy(order.body)
    body["spec"].setdefault("secrets", {})[key] = reference
    return replace(order, body=body, training=parse(body))


def _rendered(documents: list[manifest.Document], workspace: Path, secrets: dict[str, dict[str, str]]) -> int:
    """Run rendered Jobs as they stand: what is changed in the file changes the run."""
    for document in documents:  # all of them, before the first is run
        if document.kind == "Job":
            check_job(document.body)
    names = {_run_name(document.body) for document in documents if document.kind == "Job"}
    if len(names) != 1:
        raise UsageError(
            f"{documents[0].file}: Jobs of {len(names)} trainings ({', '.join(sorted(names))}); one file holds one"
        )
    interrupts = local.Interrupts()
    jobs = LocalJobs(workspace, as_machine(detect(), os.environ), local.secret_source(os.environ, secrets), _now)
    folder = workspace / "runs" / names.pop()
    with _nothing_left(folder), local_state.locked(folder), interrupts.listen():
        try:
            return local.run_rendered([document.body for document in documents], jobs, interrupts)
        finally:
            jobs.close()


def _run_name(job: Mapping[str, Any]) -> str:
    return str((job["metadata"].get("labels") or {}).get("ltx2.dev/training") or job["metadata"]["name"])


def _end(order: inputs.Order, status: Mapping[str, Any], code: int, command: str, file: str | None) -> int:
    name = order.name
    if code == exitcodes.OK:
        _summary(order, status, file)
    elif code in (exitcodes.STOPPED, exitcodes.STOPPED_UNSAVED) and conditions.is_true(
        status["conditions"], "Suspended"
    ):
        step = newest_step(order.folder)
        _say(f"{name} is paused" + (f" at step {step}" if step else "") + f"; the same command goes on: {command}")
    elif code == exitcodes.NO_INPUT:
        _warn(f"{name} waits for data: {_why(status, code)}; then the same command goes on: {command}")
    else:
        attempt = status.get("attempt", 0)
        _warn(f"{name} has failed (attempt {attempt}): {_why(status, code)}")
        if attempt:
            _warn(f"log: {order.folder.log}; after its cause is gone, the same command tries again: {command}")
    return code


def _why(status: Mapping[str, Any], code: int) -> str:
    """Why it ended; what the job has said on this very terminal, a line above, is not said again."""
    row, sentence = exitcodes.lookup(code), local.failure_sentence(status)
    known = f"exit code {code}, {row.meaning}"
    ours = row.action is exitcodes.Action.LOWER_MEMORY_PLAN  # then the rest is about the plans, not of the job
    return known if sentence.startswith(f"{known}: ") and not ours else sentence


def _summary(order: inputs.Order, status: Mapping[str, Any], file: str | None) -> None:
    result: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        result = read_json(order.folder.result)
    for line in summary_lines(order, result or status.get("result") or {}, status, file):
        _say(line)


def _tell(event: Event) -> None:
    if event.reason in TOLD:
        (_warn if event.kind == "Warning" else _say)(f"{event.reason}: {event.message}")


def _say(line: str) -> None:
    print(line, flush=True)


def _warn(line: str) -> None:
    print(f"ltx2: {line}", file=sys.stderr, flush=True)


def _now() -> datetime:
    return datetime.now(UTC)
