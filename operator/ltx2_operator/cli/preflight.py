"""What is looked at before a run on this machine begins: a mistake found here starts no process and leaves no file.

A cluster would let such a pod wait (for a GPU, for clips, for a download); whoever types a command is told at once.
"""

from collections.abc import Sequence

from ltx2_job.errors import ConfigError, NoInputError, Problem
from ltx2_operator.cli.inputs import Order
from ltx2_operator.gpus import AMD_RESOURCE, NVIDIA_RESOURCE
from ltx2_operator.machine import LocalGpu
from ltx2_operator.status import Plan


def require(order: Order, plans: Sequence[Plan], found: Sequence[LocalGpu]) -> None:
    """Raise for what this machine or workspace lacks for a run.

    plans: of both stages; found: the GPUs that are visible. Raises ConfigError (a paused manifest, missing GPUs),
    NoInputError (no checkpoint, no folder of clips).
    """
    if order.training.spec.suspend:
        raise ConfigError(Problem("spec.suspend", "true: the manifest pauses this training", "write false to run it"))
    _gpus(plans, found)
    _checkpoint(order)
    _clips(order)


def missing(order: Order) -> list[str]:
    """What a run in this workspace would lack, a line each; on a cluster it may lie on the volume."""
    found = []
    for look in (_checkpoint, _clips):
        try:
            look(order)
        except NoInputError as error:
            found.append(str(error))
    return found


def _gpus(plans: Sequence[Plan], found: Sequence[LocalGpu]) -> None:
    vendors = {NVIDIA_RESOURCE: "nvidia", AMD_RESOURCE: "amd"}
    for plan in plans:
        if plan.resource_name is None:
            continue
        have = sum(gpu.vendor == vendors[plan.resource_name] for gpu in found)
        need = plan.gpu_count * plan.nodes
        if have >= need:
            continue
        message = f"{plan.gpu_class} needs {need} x {plan.resource_name}, this machine shows {have}"
        remedy = "run it on a cluster, or here with class cpu (tiny models) or another class of `ltx2 gpus`"
        if have:
            remedy = "set gpu.count or nodes lower, or run it on a cluster"
        other = plan.stage == "cache" and any(plan.gpu_class != one.gpu_class for one in plans)
        raise ConfigError(Problem("spec.cache.gpu.class" if other else "spec.gpu.class", message, remedy))


def _checkpoint(order: Order) -> None:
    name = order.resolved.training.pretrained_model_name_or_path
    path = order.workspace.resolve(name)
    if not path.exists():
        raise NoInputError(
            f"pretrained_model_name_or_path: {name} is no file or folder of the workspace ({path}), and downloads from "
            "a hub are not supported yet; put the checkpoint there and name its path"
        )


def _clips(order: Order) -> None:
    """The folders of the datasets; a run that has its index has found its clips already."""
    if order.folder.index.exists():
        return
    for dataset in order.resolved.clips:
        path = order.workspace.resolve(dataset.instance_data_dir or "")
        if not path.is_dir():
            raise NoInputError(
                f"datasets, {dataset.id}: instance_data_dir: there is no folder {path}; put the clips there, or name "
                "the folder that holds them"
            )
