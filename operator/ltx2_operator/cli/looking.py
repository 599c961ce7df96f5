"""`ltx2 estimate`, `gpus` and `ls`: they look and change nothing."""

import contextlib
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ltx2_job import exitcodes
from ltx2_job.errors import ConfigError
from ltx2_job.workspace import RunFolder, read_json
from ltx2_operator import gpus as table_of
from ltx2_operator import sizing
from ltx2_operator.accept import GIB
from ltx2_operator.cli.checking import readable
from ltx2_operator.cli.words import table, total_steps
from ltx2_operator.conditions import duration_text, moment
from ltx2_operator.local import STATE_FILE
from ltx2_operator.machine import detect


def estimate(args: Namespace) -> int:
    """One row per GPU class; the cheapest that fits is marked with *."""
    order, notes = readable(args.file, args.workspace.resolve())
    steps = total_steps(order)
    rows = [("", "CLASS", "FITS", "PLAN", "PEAK", "S/STEP", "HOURS", "RAM", "DISK")]
    reasons, marked = [], False
    for entry in table_of.cheapest_first(table_of.CLASSES):
        try:
            plan = sizing.size(order.training.spec, order.resolved, entry, 0, "train", order.model)
            cached = sizing.size(order.training.spec, order.resolved, entry, 0, "cache", order.model)
        except (sizing.NoFit, ConfigError) as error:
            rows.append(("", entry.name, "no", "-", "-", "-", "-", "-", "-"))
            reasons.append(f"{entry.name}: {error}")
            continue
        each = float(plan.predicted_seconds_per_step or 0)
        mark = "*" if not marked and entry is not table_of.CPU else ""
        marked = marked or bool(mark)
        rows.append(
            (
                mark, entry.name, "yes", plan.memory, f"{plan.predicted_peak_bytes / GIB:.1f}G",
                f"{each:.3g}" if each else "-",
                f"{each * steps / 3600:.1f}" if each and steps else "-",
                f"{max(plan.memory_bytes, cached.memory_bytes) / GIB:.0f}G", f"{plan.volume_bytes / GIB:.0f}G",
            )
        )  # fmt: skip
    for line in [*table(rows), *reasons, *notes]:
        print(line)
    if steps is None:
        print("hours: num_train_epochs needs the number of clips, which the cache stage finds")
    return exitcodes.OK


def gpus(args: Namespace) -> int:
    """The classes, and what this machine has."""
    rows = [("CLASS", "VENDOR", "MEMORY", "BF16 TFLOPS", "RESOURCE")]
    for entry in table_of.CLASSES:
        memory = f"{entry.memory_bytes / GIB:.1f} GiB" if entry.memory_bytes else "-"
        rows.append(
            (
                entry.name,
                entry.vendor,
                memory,
                f"{entry.bf16_tflops:g}" if entry.bf16_tflops else "-",
                entry.resource or "-",
            )
        )
    for line in table(rows):
        print(line)
    found = detect()
    print(f"\nthis machine: {'no GPU' if not found else ''}")
    for gpu in found:
        print(
            f"  {gpu.index}: {gpu.product}, {gpu.memory_mib} MiB, class {gpu.gpu_class.name if gpu.gpu_class else '-'}"
        )
    return exitcodes.OK


def ls(args: Namespace) -> int:
    """One row per folder of runs/."""
    runs = sorted((args.workspace / "runs").glob("*/"), key=lambda path: path.name)
    rows = [("NAME", "STATE", "PROGRESS", "LOSS", "HELD-OUT", "AGE")]
    rows += [_run_row(path) for path in runs]
    if len(rows) == 1:
        print(f"{args.workspace / 'runs'}: no runs yet; `ltx2 run training.yaml` makes one")
        return exitcodes.OK
    for line in table(rows):
        print(line)
    return exitcodes.OK


def _run_row(folder: Path) -> tuple[str, str, str, str, str, str]:
    run = RunFolder(folder)
    state, result = _json(folder / STATE_FILE), _json(run.result)
    status: dict[str, Any] = state.get("status") or {}
    progress = status.get("progress") or {}
    held = (result.get("heldOutLoss") or {}).get("end", progress.get("heldOutLoss"))
    loss = result.get("finalLoss", progress.get("loss"))
    word = "Succeeded" if result else str(status.get("state") or "-")
    done = f"{result['steps']}/{result['steps']}" if result.get("steps") else str(status.get("progressText") or "-")
    start = status.get("startTime")
    age = duration_text((datetime.now(UTC) - moment(start)).total_seconds()) if start else "-"
    loss_text, held_text = (f"{float(value):.4f}" if value is not None else "-" for value in (loss, held))
    return folder.name, word, done, loss_text, held_text, age


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        page = read_json(path)
        return page if isinstance(page, dict) else {}
    return {}
