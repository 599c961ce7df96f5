"""What is looked at before a run on this machine begins: a mistake found here starts no process and leaves no file.

A cluster would let such a pod wait (for a GPU, for clips, for a download); whoever types a command is told at once.
"""

import os
import tempfile
from collections.abc import Sequence

from ltx2_job.config import DatasetConfig
from ltx2_job.discover import find_clips
from ltx2_job.errors import CheckpointError, ConfigError, NoInputError, Problem, StorageError
from ltx2_job.hub.snapshot import NotDownloaded, Snapshots
from ltx2_job.mirror.place import is_remote
from ltx2_job.models.gemma import find_gemma
from ltx2_job.models.header import read_lora_header
from ltx2_job.resumption import find_origin, require_fitting
from ltx2_job.same_run import UNNAMED_CHECKPOINTS, require_same
from ltx2_operator import demands, gpus
from ltx2_operator.cli import downloads
from ltx2_operator.cli.inputs import Order
from ltx2_operator.doctor.hub import ENDPOINT, is_address
from ltx2_operator.gpus import AMD_RESOURCE, CPU, NVIDIA_RESOURCE
from ltx2_operator.machine import MASKS, LocalGpu
from ltx2_operator.processes import find_program
from ltx2_operator.status import Plan


def require_folder(order: Order) -> None:
    """See that the run's folder can be used: it is none of another configuration, and what to go on from is there.

    Raises ConfigError.
    """
    folder, config = order.folder, order.resolved.training
    if folder.root.exists() and not folder.root.is_dir():
        field = "output_dir" if config.output_dir else "metadata.name"
        raise ConfigError(Problem(field, f"{folder.root} is a file", "name a folder, or move the file away"))
    require_same(folder, order.resolved.dump(), config.resume_from_checkpoint)
    _named_checkpoint(order, config.resume_from_checkpoint)
    if config.init_lora:
        try:
            read_lora_header(order.workspace.resolve(config.init_lora))
        except CheckpointError as error:
            message = error.problems[0].message
            raise ConfigError(Problem("init_lora", message, "name a LoRA's .safetensors file")) from None


def _named_checkpoint(order: Order, reference: str | None) -> None:
    if reference is not None and reference not in UNNAMED_CHECKPOINTS:
        require_fitting(find_origin(reference, order.folder, order.workspace).path, order.resolved.training)


def require(order: Order, plans: Sequence[Plan], found: Sequence[LocalGpu]) -> None:
    """Raise for what this machine or workspace lacks for a run.

    plans: of both stages; found: the GPUs that are visible. Raises ConfigError (a paused manifest, missing GPUs),
    NoInputError (no folder of clips, no network wanted), UnavailableError (no job), StorageError (no temporary folder,
    no room for the download).
    """
    if order.training.spec.suspend:
        raise ConfigError(Problem("spec.suspend", "true: the manifest pauses this training", "write false to run it"))
    require_gpus(plans, found)
    find_program("ltx2-job", os.environ)
    _temporary()
    _checkpoint(order)
    _text_encoder(order)
    _clips(order)


def missing(order: Order) -> list[str]:
    """What a run in this workspace would lack, a line each; on a cluster it may lie on the volume."""
    found = []
    for look in (_checkpoint, _text_encoder, _clips):
        try:
            look(order)
        except NoInputError as error:
            found.append(f"not in this workspace: {error}")
        except StorageError as error:
            found.append(f"no room on this machine: {error}")
    return found


def has_clips(order: Order) -> bool:
    """Whether the folder of every dataset that has one is here and holds video files."""
    try:
        for dataset in _on_this_volume(order):
            find_clips(order.workspace.resolve(dataset.instance_data_dir or ""), dataset.id)
    except NoInputError:
        return False
    return True


def require_gpus(plans: Sequence[Plan], found: Sequence[LocalGpu]) -> None:
    """Raise ConfigError if a plan needs GPUs that are not visible here, or larger ones than those."""
    vendors = {NVIDIA_RESOURCE: "nvidia", AMD_RESOURCE: "amd"}
    for plan in plans:
        if plan.resource_name is None:
            continue
        there = [gpu for gpu in found if gpu.vendor == vendors[plan.resource_name]]
        have, need = len(there), plan.gpu_count * plan.nodes
        smaller = _smaller(plan, there)
        if have - len(smaller) >= need:
            continue
        message = f"{plan.gpu_class} needs {need} x {plan.resource_name}, this machine shows {have}"
        remedy = "run it on a cluster, or here with class cpu (tiny models) or another class of `ltx2 gpus`"
        masks = [f"{name}={os.environ[name]!r}" for name in MASKS if name in os.environ]
        message += f" ({', '.join(masks)})" if masks else ""
        if have:
            remedy = "set gpu.count or nodes lower, or run it on a cluster"
        if have >= need:
            cards = ", ".join(sorted({f"{gpu.product} ({gpu.memory_mib} MiB)" for gpu in smaller}))
            message += f", too small for that class: {cards}"
            remedy = "name the class of the cards that are here (`ltx2 gpus`), or auto; or run it on a cluster"
        other = plan.stage == "cache" and any(plan.gpu_class != one.gpu_class for one in plans)
        raise ConfigError(Problem("spec.cache.gpu.class" if other else "spec.gpu.class", message, remedy))


def _smaller(plan: Plan, there: Sequence[LocalGpu]) -> list[LocalGpu]:
    """The GPUs that hold less than the planned class; one that does not tell its memory is none of them."""
    least = (1 - gpus.SAME_MEMORY) * gpus.BY_NAME[plan.gpu_class].memory_bytes
    return [gpu for gpu in there if 0 < gpu.memory_mib * gpus.MIB < least]


def _temporary() -> None:
    """Processes of a run get folders of their own there."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise StorageError("no folder for temporary files can be written; set TMPDIR to one that can") from None


def _checkpoint(order: Order) -> None:
    """A download must be allowed and have room; a missing path was found when the model was read."""
    download = to_download(order)
    if download is not None:
        hub = os.environ.get("HF_ENDPOINT") or ENDPOINT
        if not is_address(hub):
            raise ConfigError(Problem("HF_ENDPOINT", f"{hub!r} is no address", f"write {ENDPOINT}, or unset it"))
        downloads.require(download, order.workspace)


def to_download(order: Order) -> downloads.Download | None:
    """What the run will download first."""
    cls = next(entry for entry in gpus.CLASSES if (entry is CPU) == (order.training.spec.gpu.class_ == CPU.name))
    return downloads.pending(order.resolved.training, order.workspace, demands.model_of(order.resolved, cls))


def _text_encoder(order: Order) -> None:
    """Gemma 3, unless it will be downloaded; a run that has its index has encoded its captions already."""
    if order.folder.index.exists():
        return
    try:
        files = Snapshots(order.workspace).find(order.resolved.training)
    except NotDownloaded:
        return
    gemma = find_gemma(files.model, files.gemma)
    if gemma is None:
        raise NoInputError(
            f"pretrained_gemma_model_name_or_path: there is no Gemma 3 beside {files.model}; put the folder of "
            "google/gemma-3-12b-it there as `gemma`, or name a folder or a repository of the Hub with this key"
        )
    _ = gemma.config, gemma.tokens, gemma.tensors  # each raises CheckpointError for what is no Gemma 3


def _clips(order: Order) -> None:
    """The folders of the datasets; a run that has its index has found its clips already.

    What lies elsewhere is asked for by the job alone, which has the libraries for it.
    """
    if order.folder.index.exists():
        return
    for dataset in _on_this_volume(order):
        named = dataset.instance_data_dir or ""
        find_clips(order.workspace.resolve(named), f"datasets[{dataset.id}].instance_data_dir: {named}")


def _on_this_volume(order: Order) -> list[DatasetConfig]:
    return [dataset for dataset in order.resolved.clips if not is_remote(dataset)]
