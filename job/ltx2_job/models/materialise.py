"""Builds a module on the meta device and fills it straight from the file, one tensor at a time, in its final form.

There are never two copies of a model in memory: the module is made without storage, each tensor is read, converted and
moved once, and becomes the parameter.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import nn

from ltx2_job.errors import CheckpointError, Problem
from ltx2_job.memory.plan import Form
from ltx2_job.models.header import fault
from ltx2_job.models.sources import Located, PartSource

Module = TypeVar("Module", bound=nn.Module)

_LISTED = 12


def build(cls: type[Module], source: PartSource, form: Callable[[str], Form]) -> Module:
    """An instance of `cls` with the weights of `source`, frozen and in evaluation mode.

    form: the dtype and device of a parameter or buffer by its name. Raises CheckpointError if the arguments, names or
    shapes do not fit the class.
    """
    known = inspect.signature(cls.__init__).parameters
    if strange := sorted(set(source.arguments) - set(known)):
        raise fault(
            f"{source.part}: the configuration has keys that {cls.__name__} does not know: {', '.join(strange)}",
            "is the model newer than this version?",
        )
    with init_empty_weights(include_buffers=False):
        module = cls(**source.arguments)
    fill(module, source.tensors, form, source.part)
    return module


def fill(module: nn.Module, tensors: Mapping[str, Located], form: Callable[[str], Form], part: str) -> None:
    """Put a tensor of the file into every parameter and persistent buffer of `module`, and freeze it.

    Raises CheckpointError listing missing, unknown and wrongly shaped tensors before anything is read.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict(keep_vars=True).items()}
    _compare(wanted, {name: located.entry.shape for name, located in tensors.items()}, part)
    by_file: dict[str, list[tuple[int, str, str]]] = {}
    for name, located in tensors.items():
        by_file.setdefault(str(located.path), []).append((located.entry.begin, name, located.entry.name))
    for path, items in by_file.items():
        with safe_open(path, framework="pt", device="cpu") as file:
            for _, name, official in sorted(items):  # in the order of the bytes: volumes read ahead
                into = form(name)
                # copy=True: what safe_open returns is a view of the mapped file, which must not outlive this loop.
                _put(module, name, file.get_tensor(official).to(into.device, into.dtype, copy=True))
    _move_computed_buffers(module, form)
    module.eval()


def _compare(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], part: str) -> None:
    lines = [
        f"{part}: tensor {name} has shape {list(given[name])}, LTX-2 wants {list(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name] != shape
    ]
    lines += [f"{part}: tensor {name} {list(shape)} is missing" for name, shape in wanted.items() if name not in given]
    lines += [f"{part}: tensor {name} is not part of LTX-2" for name in given if name not in wanted]
    if lines:
        problems = [Problem("model", line) for line in lines[:_LISTED]]
        if len(lines) > _LISTED:
            problems.append(Problem("model", f"{len(lines)} tensors do not fit; the first {_LISTED} are listed"))
        raise CheckpointError(problems)


def _put(module: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


def _move_computed_buffers(module: nn.Module, form: Callable[[str], Form]) -> None:
    """Buffers that no file holds (filters, rotary frequencies) were computed at construction; they keep their dtype."""
    stored = set(module.state_dict(keep_vars=True))
    for name, value in list(module.named_buffers()):
        if name not in stored:
            _put(module, name, value.to(form(name).device))
