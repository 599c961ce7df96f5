"""`ltx2 check`: everything about a training that can be said without training. Changes nothing."""

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ltx2_job import exitcodes
from ltx2_job.errors import ConfigError, UnavailableError
from ltx2_operator import accept, demands, gpus, host, sizing
from ltx2_operator.cli import inputs, preflight
from ltx2_operator.cli.reading import readable
from ltx2_operator.cli.words import total_steps
from ltx2_operator.gpus import AUTO
from ltx2_operator.machine import detect, host_memory
from ltx2_operator.processes import find_program

STAGES: Final[tuple[sizing.Stage, ...]] = ("cache", "train")


def check(args: Namespace) -> int:
    """Every mistake and correction, what this workspace and machine lack, and which clips can be used.

    What lacks here may lie on a cluster's volume or nodes: it is said and is no mistake. Clips that are here and cannot
    be used at all are one (65).
    """
    order, notes = readable(args.file, args.workspace.resolve())
    for line in notes:
        print(line)
    if any(line.startswith("not supported yet") for line in notes):
        print(f"{args.file}: cannot run as it stands")
        return exitcodes.CONFIG
    _require_anywhere(order)
    print(
        f"{args.file}: {order.name} is valid: {len(order.resolved.clips)} datasets, {total_steps(order) or '?'} steps"
    )
    for line in (*_model(order), *_machine(order)):
        print(line)
    for line in preflight.missing(order):
        print(line)
    if download := preflight.to_download(order):
        print(f"download: {download}")
    return _clips(order) if preflight.has_clips(order) else exitcodes.OK


def _require_anywhere(order: inputs.Order) -> None:
    """Raise ConfigError for a GPU class or a memory plan that no machine and no cluster would run."""
    spec = order.training.spec
    for stage in STAGES:
        name = sizing.gpu_of(spec, stage).class_
        named = None if name == AUTO else gpus.find(name, sizing.class_field(spec, stage))
        if stage == "train" and named is not None:
            sizing.ladder(spec, order.resolved, named)
    if spec.memory != AUTO:
        demands.require_built(spec.memory)


def _model(order: inputs.Order) -> Iterator[str]:
    """What the checkpoint's header says, where it is here."""
    if order.model is not None:
        model = order.model
        size = f"{model.transformer / 1e9:.3g}B" if model.transformer >= 1e9 else f"{model.transformer / 1e6:.3g}M"
        yield (
            f"model: {order.resolved.training.pretrained_model_name_or_path}: {model.blocks} blocks of "
            f"{model.width} and {model.audio_width}, {size} parameters"
        )


def _machine(order: inputs.Order) -> Iterator[str]:
    """The plan that this machine would run, or why it would not."""
    found = detect()
    try:
        chosen = inputs.choose(order, found)
        plans = [
            accept.plan_stage(chosen.training, chosen.resolved, stage, 0, None, model=chosen.model) for stage in STAGES
        ]
        preflight.require_gpus(plans, found)
        have = host_memory()
        if have is not None:
            host.require(chosen.training.spec, chosen.resolved, plans, have, chosen.model)
    except (ConfigError, sizing.NoFit) as error:
        yield from (f"not on this machine: {line}" for line in str(error).splitlines())
        return
    yield f"this machine: {accept.plan_words(plans[1])}"


def _clips(order: inputs.Order) -> int:
    """Let the job look at the clips, and pass on what it says; its exit code."""
    try:
        program = find_program("ltx2-job", os.environ)
    except UnavailableError as error:
        print(f"clips: not looked at: {error}")
        return exitcodes.OK
    with tempfile.TemporaryDirectory(prefix="ltx2-check-") as folder:
        files = {name: Path(folder) / f"{name}.json" for name in ("config", "datasets")}
        for name, page in order.resolved.dump().items():
            files[name].write_text(json.dumps(page))
        command = [program, "clips", str(files["config"]), "--datasets", str(files["datasets"])]
        sys.stdout.flush()
        done = subprocess.run([*command, "--workspace", str(order.workspace.root)], check=False)
    return done.returncode
