"""Which tensor of a file goes where: a pure function of its header, so that full-size files are planned without data.

Everything that does not fit is listed, not only the first: tensors with a wrong shape, missing ones, unknown ones, two
that land on the same place, and keys of the header's config that contradict the tensors. Torch-free.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ltx2_job.errors import CheckpointError, Problem
from ltx2_job.models import configs, layout, names
from ltx2_job.models.derive import derive, refuse_unsupported
from ltx2_job.models.header import Header, TensorEntry
from ltx2_job.models.names import PARTS, Part

_LISTED: Final = 12  # tensors named per kind of mistake; a wrong file would list thousands

_ARGUMENTS: Final[dict[Part, Callable[[Header, layout.Architecture], dict[str, Any]]]] = {
    "transformer": configs.transformer_arguments,
    "connectors": configs.connector_arguments,
    "vae": configs.vae_arguments,
    "audio_vae": configs.audio_vae_arguments,
    "vocoder": configs.vocoder_arguments,
}


@dataclass(frozen=True)
class PartPlan:
    """One part of a file: arguments of its diffusers class, and for each parameter or buffer the tensor it takes."""

    arguments: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]  # name in the module's state dict -> tensor of the file, in the file's order


@dataclass(frozen=True)
class LoadPlan:
    """A whole single file, checked: generation, architecture, and one plan per part."""

    architecture: layout.Architecture
    parts: Mapping[Part, PartPlan]
    unused: tuple[str, ...]  # tensors that are in the file, known, and read by nobody

    @property
    def version(self) -> layout.Version:
        """The generation: "2.0" or "2.3"."""
        return self.architecture.version


def plan_load(header: Header) -> LoadPlan:
    """Plan the reading of a combined file in the official layout.

    Raises CheckpointError listing every tensor and every key of the config that does not fit LTX-2, and for files that
    are known but not supported (quantised ones, LTX-2.5, LTX-Video 0.9).
    """
    refuse_unsupported(header)
    architecture = derive(header)
    expected = layout.tensors(architecture)
    problems = _misfits(header, expected) + configs.disagreements(header, architecture)
    if problems:
        raise CheckpointError(problems)
    filed: dict[Part, dict[str, TensorEntry]] = {part: {} for part in PARTS}
    for name, entry in header.tensors.items():
        if place := names.place(name) if name in expected else None:
            filed[place.part][place.name] = entry
    return LoadPlan(
        architecture=architecture,
        parts={part: PartPlan(_ARGUMENTS[part](header, architecture), filed[part]) for part in PARTS},
        unused=tuple(name for name in header.tensors if names.is_unused(name)),
    )


def _misfits(header: Header, expected: Mapping[str, layout.Shape]) -> list[Problem]:
    present = header.tensors
    taken = {names.place(name): name for name in expected if name in present}
    wrong, unknown = [], []
    for name, entry in present.items():
        if name in expected:
            if entry.shape != expected[name]:
                wrong.append(f"tensor {_short(name)} has shape {list(entry.shape)}, LTX-2 wants {list(expected[name])}")
        elif not names.is_unused(name):
            place = names.place(name)
            twin = taken.get(place)
            unknown.append(
                f"tensor {_short(name)} is not part of LTX-2"
                if place is None or twin is None
                else f"tensors {_short(name)} and {_short(twin)} would both be {place.part}.{place.name}"
            )
    absent = [name for name in expected if name not in present]
    missing = [f"tensor {_short(name)} {list(expected[name])} is missing" for name in absent]
    old = "is this file LTX-Video 0.9?" if any(".attn1.to_q.weight" in line for line in wrong) else ""
    return [
        *_listed(wrong, "tensors have a wrong shape", old),
        *_listed(missing, "tensors are missing", "is the file complete?"),
        *_listed(unknown, "tensors are not part of LTX-2", ""),
    ]


def _listed(lines: list[str], what: str, remedy: str) -> list[Problem]:
    problems = [Problem("model", line, remedy) for line in lines[:_LISTED]]
    if len(lines) > _LISTED:
        problems.append(Problem("model", f"{len(lines)} {what}; the first {_LISTED} are listed"))
    return problems


def _short(name: str) -> str:
    return name.removeprefix(layout.PREFIX)
