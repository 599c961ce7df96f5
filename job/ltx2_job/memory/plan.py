"""Memory plans: the form of the transformer's tensors, where they live, and how many blocks are not recomputed.

A plan is named `<form>/<place>/keep:<n>`, for example `bf16/resident/keep:24`. The names are the interface with the
operator, which picks a plan by its memory model and goes down the ladder after a GPU out-of-memory.
torch is imported only where a dtype is asked for, so that a name can be read without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2_job.errors import ConfigError, Problem

if TYPE_CHECKING:
    import torch

FORMS = ("bf16", "fp32")
PLACES = ("resident",)
KEEP_ALL = 48
"""Blocks of the real model: `keep:48` recomputes nothing; a model with fewer blocks caps the number."""

_LADDER = (KEEP_ALL, KEEP_ALL // 2, 0)
_TABLE = "scale_shift_table"


@dataclass(frozen=True)
class Form:
    """What one tensor becomes while it is read: its dtype and the device it is put on."""

    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class MemoryPlan:
    """One memory plan.

    form: "bf16" (weights bf16; the modulation tables stay fp32, as they are in LTX-2's files) or "fp32" (everything).
    place: "resident" (every weight stays on the compute device).
    keep: number of blocks, counted from the last, whose activations are kept for the backward pass.
    """

    form: str
    place: str = "resident"
    keep: int = KEEP_ALL

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise _refuse(str(self), f"unknown form {self.form!r}", f"forms are {', '.join(FORMS)}")
        if self.place not in PLACES:
            raise _refuse(str(self), f"unknown place {self.place!r}", f"places are {', '.join(PLACES)}")
        if self.keep < 0:
            raise _refuse(str(self), f"{self.keep} blocks cannot be kept", "write keep:0 to recompute every block")

    @staticmethod
    def parse(name: str) -> MemoryPlan:
        """The plan of a name. Raises ConfigError (field `memory`) for anything but `<form>/<place>/keep:<n>`."""
        parts = name.split("/")
        if len(parts) != 3 or not parts[2].startswith("keep:") or not parts[2].removeprefix("keep:").isdecimal():
            raise _refuse(name, "not a memory plan", "write <form>/<place>/keep:<n>, for example bf16/resident/keep:48")
        return MemoryPlan(parts[0], parts[1], int(parts[2].removeprefix("keep:")))

    def __str__(self) -> str:
        return f"{self.form}/{self.place}/keep:{self.keep}"

    def form_of(self, tensor_name: str, device: torch.device | str = "cpu") -> Form:
        """Form of a transformer tensor (official or diffusers' name) for the compute device `device`."""
        import torch

        bf16 = self.form == "bf16" and _TABLE not in tensor_name
        return Form(torch.bfloat16 if bf16 else torch.float32, torch.device(device))

    def ladder(self) -> tuple[MemoryPlan, ...]:
        """This plan and every smaller one of its form and place, largest first: the rungs after an out-of-memory."""
        return (self, *(MemoryPlan(self.form, self.place, keep) for keep in _LADDER if keep < self.keep))


def _refuse(name: str, message: str, remedy: str) -> ConfigError:
    return ConfigError(Problem("memory", f"{message} in {name!r}", remedy))
