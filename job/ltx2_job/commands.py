"""What each verb of `ltx2-job` does: the joints between the rooms.

Each function takes the parsed arguments of its verb.
"""

import json
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ltx2_job import exitcodes, strict_json
from ltx2_job.console import size_text
from ltx2_job.endings import ending
from ltx2_job.errors import ConfigError, DataError, NoInputError, Problem, StorageError, UsageError
from ltx2_job.finished import finished
from ltx2_job.places import moved, place_of
from ltx2_job.workspace import RunFolder, Workspace, read_json, require_folder

if TYPE_CHECKING:
    from ltx2_job.config import Resolved
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.stage import Stage


def cache_stage(stage: "Stage") -> None:
    """The cache stage: fill the store and write the run's index."""
    from ltx2_job.caching.stage import run_cache

    run_cache(stage)


def train_stage(stage: "Stage") -> None:
    """The train stage: the one loop, with validation handed to it as a callable."""
    from ltx2_job.data.index import Index
    from ltx2_job.models.load import Checkpoint

    # What can be wrong is looked at before torch is imported, which takes seconds.
    if (result := finished(stage.run, stage.digest)) is not None:
        stage.reporter.finished(result)  # by an attempt whose end nobody heard of, or before the object was made anew
        return
    index = Index.load(stage.run.index)
    model = Checkpoint.find(stage.config, stage.workspace, stage.run)
    from ltx2_job.training.trainer import run_training
    from ltx2_job.validation.t2v import make_validator

    run_training(stage, make_validator(stage, model, index, index.store()))


STAGES: Final[dict[str, "Callable[[Stage], None]"]] = {"cache": cache_stage, "train": train_stage}


def validate(args: Namespace) -> None:
    """Make the validation clips of a run's checkpoint, as the training would have made them at that step."""
    workspace, run = Workspace(args.workspace), _run(args)
    import torch

    from ltx2_job import checkpoint
    from ltx2_job.data.index import Index
    from ltx2_job.memory.plan import MemoryPlan
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.stage import Stage, StagePlan, StopFlag
    from ltx2_job.validation.lora import apply_lora
    from ltx2_job.validation.t2v import make_validator

    resolved = _configuration(run, args.workspace)
    loaded = checkpoint.load(_checkpoint(run, args.checkpoint))
    plan = StagePlan.read(read_json(run.plan))
    stage = Stage(
        "validate", resolved.training, resolved.datasets, plan, workspace, run, run.root.name, stop=StopFlag()
    )
    stage.stop.install()
    index = Index.load(run.index)
    model = Checkpoint.find(resolved.training, workspace, run)
    make = make_validator(stage, model, index, index.store())
    if make is None:
        raise ConfigError(Problem("validation_prompt", "is not set, or validation_disable is true", "set a prompt"))
    transformer = model.transformer(MemoryPlan.parse(plan.memory), torch.device(plan.device))
    apply_lora(transformer, _scaled(loaded.adapter, loaded.state))
    for file in make(transformer, int(loaded.state["step"])):
        print(file)


def export(args: Namespace) -> None:
    """Write the LoRA files of a checkpoint, in both forms."""
    run = _run(args)
    from ltx2_job import checkpoint
    from ltx2_job.data.index import Index
    from ltx2_job.export import Facts, write_lora
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.training.outcome import data_hash

    config = _configuration(run, args.workspace).training
    loaded = checkpoint.load(_checkpoint(run, args.checkpoint))
    state = loaded.state
    model = Checkpoint.find(config, Workspace(args.workspace), run)
    facts = Facts(
        base_model=model.path.name,
        model_version=model.version,
        steps=state["step"],
        config_hash=state["configDigest"],
        data_hash=data_hash(Index.load(run.index)),
        trigger_words=tuple(config.trigger_words),
    )
    for file in write_lora(RunFolder(args.output), loaded.adapter, state["rank"], state["alpha"], facts):
        print(file)


def generate(args: Namespace) -> None:
    """Make one clip from a prompt."""
    from ltx2_job.models.header import read_lora_header

    # What can be wrong is looked at before torch is imported, which takes seconds.
    if args.lora:
        read_lora_header(args.lora)
    require_folder("--output", args.output.absolute().parent)
    model = _model(args)
    model.require_text_encoder()
    blocks = int(model.source.part("transformer").arguments["num_layers"])
    if args.stg_block is not None and args.stg_block >= blocks:
        raise UsageError(f"--stg-block: {args.stg_block}, the model has {blocks} blocks; write 0 to {blocks - 1}")
    import torch

    from ltx2_job.export import load_lora
    from ltx2_job.validation.generate import SKIPPED_BLOCK
    from ltx2_job.validation.generate import generate as make
    from ltx2_job.validation.guidance import Guidance
    from ltx2_job.validation.sampler import Request

    lora = load_lora(args.lora) if args.lora else None
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    block = SKIPPED_BLOCK[model.version] if args.stg_block is None else args.stg_block
    video, audio = (
        Guidance(cfg, args.stg, args.modality_guidance, args.rescale) for cfg in (args.guidance, args.audio_guidance)
    )
    request = Request(
        args.width, args.height, args.frames, args.fps, args.steps, args.seed, video, audio,
        skipped_block=block if args.stg else None,
    )  # fmt: skip
    print(make(model, request, (args.prompt, args.negative_prompt), lora, device, args.output))


def inspect(args: Namespace) -> int:
    """Say what a model file or folder holds, from its header alone; 78 for what this program cannot use."""
    from ltx2_job.models.inspection import inspect as look
    from ltx2_job.models.inspection import lines

    if not args.file.exists():
        raise NoInputError(f"{args.file}: there is no such file or folder")
    found = look(args.file)
    print(json.dumps(found.dump(), indent=2) if args.json else "\n".join(lines(found)))
    return exitcodes.OK if found.usable else exitcodes.CONFIG


def _model(args: Namespace) -> "Checkpoint":
    """The model of --model and --gemma, downloaded into the workspace's models/ if it is on the Hub."""
    from ltx2_job.config import TrainingConfig
    from ltx2_job.console import open_console
    from ltx2_job.hub.obtain import obtain
    from ltx2_job.hub.snapshot import Snapshots
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.reporter import ScreenReporter
    from ltx2_job.stage import StopFlag

    for flag, name in (("--model", args.model), ("--gemma", args.gemma)):
        place = place_of(name, args.workspace, flag) if name else None
        if isinstance(place, Path) and not place.exists():
            raise NoInputError(f"{flag} {name}: there is no such file or folder")
    config = TrainingConfig(
        pretrained_model_name_or_path=moved(args.model, args.flavour) or args.model,
        pretrained_gemma_model_name_or_path=args.gemma,
        model_flavour=args.flavour,
        ltx2_combined_filename=args.filename,
    )
    stop, reporter = StopFlag(), ScreenReporter(open_console(sys.stderr))
    with stop.listening(), reporter:
        files = obtain(Snapshots(Workspace(args.workspace)), config, reporter, stop.check)
    return Checkpoint.open(files.model, files.gemma)


def tiny(args: Namespace) -> None:
    """Write a tiny checkpoint with random weights."""
    if args.dir.exists() and not args.dir.is_dir():
        raise StorageError(f"{args.dir}: is a file; name a folder")
    from ltx2_job.models.tiny import write_tiny

    print(write_tiny(args.dir, args.version, args.blocks, args.seed))


def config(args: Namespace) -> None:
    """Print the reference of all keys, or check a configuration file."""
    if args.what == "reference":
        from ltx2_job.config.reference import reference_markdown

        print(reference_markdown(), end="")
        return
    resolved = _resolved(args)
    for correction in resolved.corrections:
        print(f"corrected: {correction}")
    for unsupported in resolved.unsupported:
        print(unsupported)
    resolved.require_supported()
    print(f"{args.file}: runs ({len(resolved.datasets)} datasets)")


def clips(args: Namespace) -> None:
    """Look at the clips of a configuration; nothing is written."""
    from ltx2_job.caching.look import look
    from ltx2_job.mirror.bring import described
    from ltx2_job.mirror.place import folder, is_remote

    resolved, workspace = _resolved(args), Workspace(args.workspace)
    for dataset in resolved.clips:
        if is_remote(dataset):
            print(f"datasets[{dataset.id}]: {described(dataset, workspace)}")
    here = tuple(one for one in resolved.clips if not is_remote(one) or folder(workspace, one).is_dir())
    if len(here) < len(resolved.clips):
        print("clips: those that lie elsewhere are looked at when they have been downloaded")
    if not here:
        return
    seen = look(replace(resolved, datasets=here), workspace)
    for line in seen.lines():
        print(line)
    if not seen.trained and len(here) == len(resolved.clips):
        raise DataError("no clip can be trained on; repair the clips named above or loosen what refuses them")


def facts(args: Namespace) -> None:
    """Print what this installation can do."""
    from ltx2_job.facts import facts as of_this_installation

    print(json.dumps(of_this_installation(), indent=2, sort_keys=True))


def store(args: Namespace) -> None:
    """Show what the stores of a workspace hold, or free what no run's index refers to."""
    from ltx2_job.caching import manage

    workspace = Workspace(args.workspace)
    if args.what == "gc":
        freed = manage.collect(workspace, dry_run=args.dry_run)
        print(f"{freed.items} items, {size_text(freed.bytes)} {'would be ' if args.dry_run else ''}freed")
        return
    holdings = manage.listing(workspace)
    for held in holdings:
        unused = f"{held.unused_items} unused, {size_text(held.unused_bytes)}" if held.unused_items else "all in use"
        print(f"{held.root}/{held.kind}: {held.items} items, {size_text(held.bytes)} ({unused})")
    if not holdings:
        print(f"{workspace.cache}: empty")


def receive(args: Namespace) -> None:
    """Take files over the standard streams."""
    from ltx2_job import transfer_pod

    transfer_pod.receive(Workspace(args.workspace), args.to)


def send(args: Namespace) -> None:
    """Give a run's files over the standard streams; that there is no such run is told there, too."""
    from ltx2_job import transfer_pod

    transfer_pod.send(_sent_run(args), args.checkpoints)


def runs(args: Namespace) -> None:
    """Tell the runs of a workspace, or one with its history; that there is none of this name is told there, too."""
    from ltx2_job import transfer_pod

    place = Workspace(args.workspace)
    transfer_pod.runs({args.run: _sent_run(args)} if args.run else place.runs(), with_history=bool(args.run))


def hold(args: Namespace) -> None:
    """Keep a pod while a transfer is busy in it."""
    from ltx2_job import transfer_pod

    transfer_pod.hold(args.idle)


def end(error: BaseException, workspace: Path | None) -> int:
    """Print how a tool ended (with the traceback only for a defect of ours) and return its exit code."""
    how = ending(error, workspace)
    if how.defect:
        traceback.print_exception(error)
    print(f"ltx2-job: {how.message}", file=sys.stderr)
    return how.code


def _sent_run(args: Namespace) -> RunFolder:
    """As _run; an error is told over the standard streams as well."""
    from ltx2_job import transfer, transfer_pod

    try:
        return _run(args)
    except NoInputError as error:
        transfer.tell(transfer_pod.StandardPipe(), error)
        raise


def _run(args: Namespace) -> RunFolder:
    """The folder of --run: a name below runs/, or a path. Raises NoInputError if nothing ran there."""
    place = Workspace(args.workspace)
    named = place.runs().get(args.run) or place.run(args.run)
    run = named if named.config.exists() else RunFolder(place.resolve(args.run))
    if not run.config.exists():
        raise NoInputError(
            f"--run {args.run}: neither {named.root} nor {run.root} is the folder of a run; `ltx2 ls` lists them"
        )
    return run


def _resolved(args: Namespace) -> "Resolved":
    """The configuration of FILE and --datasets."""
    from ltx2_job.config import resolve

    datasets = None if args.datasets is None else _json(args.datasets)
    return resolve(_json(args.file), datasets, workspace=args.workspace)


def _configuration(run: RunFolder, workspace: Path) -> "Resolved":
    from ltx2_job.config import resolve

    return resolve(read_json(run.config), read_json(run.datasets), workspace=workspace)


def _checkpoint(run: RunFolder, name: str | None) -> Path:
    """The checkpoint's folder. Raises NoInputError naming those that are there."""
    from ltx2_job import checkpoint

    there = checkpoint.listed(run.checkpoints)
    found = (
        checkpoint.newest_complete(run.checkpoints, lambda text: print(f"warning: {text}", file=sys.stderr))
        if name is None
        else next((path for path in there if path.name == name), None)
    )
    if found is None:
        names = ", ".join(path.name for path in there) or "none"
        raise NoInputError(f"{run.checkpoints}: no complete checkpoint{f' {name}' if name else ''}; there: {names}")
    return found


def _scaled(adapter: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's LoRA with its scale folded into B, as LoRA files have it."""
    scale = state["alpha"] / state["rank"]
    return {key: tensor * scale if ".lora_B." in key else tensor for key, tensor in adapter.items()}


def _json(path: Path) -> Any:
    try:
        return strict_json.loads(path.read_bytes())
    except OSError as error:
        raise NoInputError(f"{path}: {error.strerror}; give the path of a JSON file") from None
    except strict_json.BadJson as error:
        raise ConfigError(Problem(f"{path}:{error.line}", error.message)) from None
