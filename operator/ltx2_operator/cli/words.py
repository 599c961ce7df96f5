"""What `ltx2 run` says before and after a training, and tables for a terminal."""

import contextlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltx2_job.places import GEMMA_KEY, MODEL_KEY, Repository, place_of
from ltx2_job.runs import newest_step
from ltx2_job.workspace import RunFolder, read_json
from ltx2_operator.accept import size_text
from ltx2_operator.cli.inputs import Order
from ltx2_operator.conditions import duration_text, gpu_text
from ltx2_operator.status import Plan


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def total_steps(order: Order) -> int | None:
    """Optimizer steps of the run, None where only the number of clips would tell (num_train_epochs)."""
    return int(order.resolved.training.max_train_steps or 0) or None


def plan_lines(order: Order, plan: Plan, cache_plan: Plan, port: int, download: str = "") -> list[str]:
    """The accepted plan: GPU, memory, prediction, datasets, corrections, download; what it goes on from; where to look.

    download: what is to be fetched first, in words.
    """
    where = gpu_text(plan.dump(), {})
    cached = "" if cache_plan.gpu_class == plan.gpu_class else f", cache on {gpu_text(cache_plan.dump(), {})}"
    steps = total_steps(order)
    each = float(plan.predicted_seconds_per_step or 0.0)
    predicted = [f"peak {size_text(plan.predicted_peak_bytes)}"]
    if each:
        predicted.append(
            f"{each:.3g} s/step" + (f", about {duration_text(each * steps)} for {steps} steps" if steps else "")
        )
    else:
        predicted.append("seconds per step are not known for this device" + (f", {steps} steps" if steps else ""))
    home = "GPU" if cache_plan.device == "cuda" and cache_plan.cache_memory == "device" else "CPU"
    lines = [
        f"{order.name}: {where} of this machine{cached}",
        f"  memory     {plan.memory}; VAE and text encoder on the {home}",
        f"  predicted  {', '.join(predicted)}",
        f"  datasets   {datasets_text(order)}",
        f"  corrected  {'; '.join(order.corrections) or 'nothing'}",
    ]
    if download:
        lines.append(f"  download   {download}")
    step = newest_step(order.folder)
    if step:
        lines.append(f"  goes on    from step {step}")
    lines.append(f"  look       http://127.0.0.1:{port}/metrics and /progress while it runs; {shown(order.folder.log)}")
    return lines


def datasets_text(order: Order) -> str:
    """Buckets of the cached samples where the run has an index, else what the datasets ask for."""
    buckets = bucket_counts(order.folder)
    if buckets:
        return ", ".join(f"{count} x {bucket}" for bucket, count in buckets.most_common(6))
    parts = []
    for dataset in order.resolved.clips:
        held = " (held out)" if dataset.dataset_type == "eval" else ""
        parts.append(
            f"{dataset.id}: {dataset.resolution:g} {dataset.resolution_type}, {dataset.video.num_frames} frames{held}"
        )
    return "; ".join(parts)


def bucket_counts(folder: RunFolder) -> Counter[str]:
    """Samples by width x height x frames, from runs/<name>/index.json; empty without one."""
    found: Counter[str] = Counter()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for sample in read_json(folder.index)["samples"]:
            found[f"{sample['width']}x{sample['height']}x{sample['frames']}"] += 1
    return found


def shown(path: Path) -> str:
    """A path as the user would type it: relative to the current folder where it lies in it."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def model_flags(order: Order) -> str:
    """The flags of `ltx2 generate` that open the model of a run, as the user would type them."""
    config, root = order.resolved.training, order.workspace.root
    flags = []
    names = ((MODEL_KEY, "--model"), (GEMMA_KEY, "--gemma"))
    places = [(flag, place_of(name, root, key)) for key, flag in names if (name := getattr(config, key))]
    for flag, place in places:
        flags.append(f"{flag} {shown(place) if isinstance(place, Path) else place}")
    if isinstance(places[0][1], Repository):
        if config.ltx2_combined_filename:
            flags.append(f"--filename {config.ltx2_combined_filename}")
        elif config.model_flavour != "dev":
            flags.append(f"--flavour {config.model_flavour}")
    if root.absolute() != Path.cwd() and any(isinstance(place, Repository) for _, place in places):
        flags.append(f"--workspace {shown(root)}")
    return " ".join(flags)


def quoted(text: str) -> str:
    """A text as one word for a shell: in double quotes, which read best, unless it holds what those do not shield."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def summary_lines(order: Order, result: Mapping[str, Any], status: Mapping[str, Any], file: str | None) -> list[str]:
    """The end of a good run: losses, speed, files, where to look, what to type next."""
    folder = order.folder
    steps, seconds = int(result.get("steps") or 0), float(result.get("seconds") or 0.0)
    speed = f"{steps / seconds:.2f} steps/s" if seconds > 0 else "speed unknown"
    held = result.get("heldOutLoss") or {}
    losses = [f"final {result['finalLoss']:.4f}"] if isinstance(result.get("finalLoss"), int | float) else []
    if isinstance(held.get("start"), int | float) and isinstance(held.get("end"), int | float):
        losses.insert(0, f"held-out {held['start']:.4f} → {held['end']:.4f}")
    wrong = [f"{len(items)} warnings in the log" for items in [status.get("warnings") or []] if items]
    prompt = order.resolved.training.validation_prompt or "what the clips show"
    lora = shown(folder.lora)
    lines = [
        f"{order.name}: finished, {steps} steps in {duration_text(seconds)}, {speed}"
        + (f"; {wrong[0]}" if wrong else ""),
        f"  loss       {', '.join(losses) or 'see metrics.jsonl'}",
        f"  LoRA       {lora} (official names), {shown(folder.lora_diffusers)} (diffusers)",
        f"  look       {shown(folder.loss_png)}, {shown(folder.metrics)}, {shown(folder.report)}"
        + (f", {shown(folder.validation)}/" if folder.validation.is_dir() else ""),
        f"  next       ltx2 generate {model_flags(order)} --lora {lora} --prompt {quoted(prompt)} "
        f"--output {order.name}.mp4",
    ]
    cluster = (
        f"kubectl apply -f {file}"
        if file
        else "paste the config under spec.config of an LTX2Training and kubectl apply it"
    )
    lines.append(f"  cluster    {cluster}: the same training on a cluster with the operator")
    return lines
