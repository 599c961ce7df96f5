"""`ltx2 gpus` and `ls`: they look and change nothing."""

import contextlib
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ltx2_job import exitcodes
from ltx2_job.hub.snapshot import Holding, Snapshots
from ltx2_job.workspace import RunFolder, Workspace, read_json
from ltx2_operator import gpus as table_of
from ltx2_operator.accept import GIB, size_text
from ltx2_operator.cli.words import table
from ltx2_operator.conditions import duration_text, moment
from ltx2_operator.local import STATE_FILE
from ltx2_operator.machine import detect


def gpus(args: Namespace) -> int:
    """The classes, and what this machine has."""
    rows: list[tuple[str, ...]] = [
        ("CLASS", "VENDOR", "MEMORY", "BF16", "FP8", "TFLOPS", "LINK GB/S", "IMAGE", "NODE LABEL")
    ]
    for entry in table_of.CLASSES:
        label = next((values[0] for labels in entry.nodes for values in labels.values()), "-")
        memory = f"{entry.memory_bytes / GIB:.1f} GiB" if entry.memory_bytes else "-"
        able = tuple("yes" if units else "no" for units in (entry.bf16, entry.fp8)) if entry.resource else ("-", "-")
        rates = (f"{rate:g}" if rate else "-" for rate in (entry.bf16_tflops, entry.link_gbps))
        rows.append((entry.name, entry.vendor, memory, *able, *rates, entry.flavour, label))
    for line in table(rows):
        print(line)
    print("\nTFLOPS: dense bf16, by the data sheet. NODE LABEL: the first value that names the class, of")
    print(" or ".join(table_of.PRODUCT_LABELS.values()))
    found = detect()
    print(f"this machine: {'no GPU' if not found else ''}")
    for gpu in found:
        print(
            f"  {gpu.index}: {gpu.product}, {gpu.memory_mib} MiB, class {gpu.gpu_class.name if gpu.gpu_class else '-'}"
        )
    return exitcodes.OK


def ls(args: Namespace) -> int:
    """One row per run, and one per repository in models/."""
    place = Workspace(args.workspace)
    rows = [("NAME", "STATE", "PROGRESS", "LOSS", "HELD-OUT", "AGE")]
    rows += [_run_row(name, run) for name, run in place.runs().items()]
    if len(rows) == 1:
        print(f"{args.workspace / 'runs'}: no runs yet; `ltx2 run training.yaml` makes one")
    else:
        print("\n".join(table(rows)))
    models = Snapshots(place).holdings()
    if models:
        held = [(one.repository, one.commit[:12], str(one.files), size_text(one.bytes), _begun(one)) for one in models]
        print("\n".join(["", *table([("MODEL", "COMMIT", "FILES", "SIZE", ""), *held])]))
    return exitcodes.OK


def _begun(model: Holding) -> str:
    return f"{size_text(model.begun)} of a file that is still to be completed" if model.begun else ""


def _run_row(name: str, run: RunFolder) -> tuple[str, str, str, str, str, str]:
    state, result = _json(run.root / STATE_FILE), _json(run.result)
    status: dict[str, Any] = state.get("status") or {}
    progress = status.get("progress") or {}
    held = (result.get("heldOutLoss") or {}).get("end", progress.get("heldOutLoss"))
    loss = result.get("finalLoss", progress.get("loss"))
    word = "Succeeded" if result else str(status.get("state") or "-")
    done = f"{result['steps']}/{result['steps']}" if result.get("steps") else _done(run, status)
    start = status.get("startTime")
    age = duration_text((datetime.now(UTC) - moment(start)).total_seconds()) if start else "-"
    loss_text, held_text = (f"{float(value):.4f}" if value is not None else "-" for value in (loss, held))
    return name, word, done, loss_text, held_text, age


def _done(run: RunFolder, status: dict[str, Any]) -> str:
    """What the run last said; an attempt that ended before its first step said nothing, but a checkpoint is there."""
    if text := status.get("progressText"):
        return str(text)
    step, whole = (status.get("progress") or {}).get("step"), _json(run.config).get("max_train_steps")
    return f"{step}/{whole}" if step and whole else "-"


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        page = read_json(path)
        return page if isinstance(page, dict) else {}
    return {}
