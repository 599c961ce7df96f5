"""What `ltx2 ls` prints of runs: a row each, and a history. On this machine and on a cluster alike."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ltx2_job import history, runs
from ltx2_operator.cli.words import table
from ltx2_operator.conditions import duration_text, moment

HEAD: Final = ("NAME", "STATE", "PROGRESS", "LOSS", "HELD-OUT", "AGE")
Object = Mapping[str, Any]  # an LTX2Training, empty where it is gone


def print_runs(found: Mapping[str, tuple[Mapping[str, Any], Object]]) -> None:
    """One row per run: by name, what its folder says (ltx2_job.runs.facts), and its object where that is left."""
    rows = [row(name, facts, obj.get("status") or {}) for name, (facts, obj) in found.items()]
    print("\n".join(table([HEAD, *rows])))


def row(name: str, facts: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of a run. What the operator last knew stands above what the folder tells, but for a result."""
    progress = status.get("progress") or {}
    succeeded = facts.get("state") == runs.SUCCEEDED
    state = facts.get("state") if succeeded else status.get("state") or facts.get("state")
    step = facts.get("step") if succeeded else progress.get("step") or facts.get("step")
    whole = facts.get("maxSteps")
    done = f"{step}/{whole}" if step and whole else "-"
    if not succeeded:
        done = str(status.get("progressText") or done)
    losses = [
        facts.get(key) if succeeded and facts.get(key) is not None else progress.get(key, facts.get(key))
        for key in ("loss", "heldOutLoss")
    ]
    begun = status.get("startTime") or facts.get("begun")
    age = duration_text((datetime.now(UTC) - moment(str(begun))).total_seconds()) if begun else "-"
    return name, str(state or "-"), done, *(f"{float(one):.4f}" if one is not None else "-" for one in losses), age


def print_history(entries: Iterable[history.Entry], obj: Object) -> None:
    """What happened to a run, an entry a line; the verdicts that only its object knows stand among them."""
    uid, status = str((obj.get("metadata") or {}).get("uid") or ""), obj.get("status") or {}
    told = history.with_verdicts(entries, status.get("attempts") or [], uid)
    rows = [
        (str(one.get("time") or "-"), str(one.get("attempt") or "-"), str(one.get("stage") or "-"), what(one))
        for one in told
    ]
    if rows:
        print("\n".join(["", *table([("TIME", "ATTEMPT", "STAGE", "WHAT"), *rows])]))
    else:
        print("\nnothing is told of it yet")


def what(one: history.Entry) -> str:
    """An entry in words."""
    event, message = str(one.get("event")), str(one.get("message") or "")
    if event in history.STARTED.values():
        memory = one.get("memory") or f"VAE and text encoder on the {one.get('cacheMemory')}"
        nodes, processes = one.get("nodes") or 1, one.get("processes") or 1
        many = f", {nodes} nodes" * (nodes != 1) + f", {processes} processes each" * (processes != 1)
        return f"{event}: {one.get('gpuClass')}, {memory}{many}"
    if event == history.RESUMED:
        return f"{event}: goes on from step {one.get('step')}"
    if event == history.ENDED:
        step = f" at step {one['step']}" if one.get("step") else ""
        return f"{one.get('reason')}{step}: {message} (exit code {one.get('exitCode')})"
    if event == history.VERDICT:
        nodes = f" (on {', '.join(map(str, one['nodes']))})" if one.get("nodes") else ""
        return f"operator: {one.get('action')}, {one.get('reason')}: {message}{nodes}"
    return f"{event}: {message}"
