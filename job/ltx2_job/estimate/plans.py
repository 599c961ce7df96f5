"""The name of a memory plan: `<form>/<where>/keep:<n>`, and what each part costs.

form    how the base's linear weights are stored: bf16, fp32 (built); fp8, int8, int4 (predicted)
where   `resident` (built), or `streamed:<r>` (predicted): r blocks stay on the device, the others are copied from
        pinned host memory into two slots of one block, once for the forward and once for the backward pass
keep:n  n blocks keep their activations, the others are recomputed
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from ltx2_job.errors import ConfigError, Problem
from ltx2_job.estimate.constants import figure
from ltx2_job.estimate.models import Model

Form = Literal["bf16", "fp32", "fp8", "int8", "int4"]
FORM_BYTES: Final = {"bf16": 2, "fp32": 4}  # forms without scales
QUANTISED: Final = ("fp8", "int8", "int4")
FORMS: Final = (*FORM_BYTES, *QUANTISED)
BUILT_FORMS: Final = tuple(FORM_BYTES)
SLOTS: Final = 2  # blocks on the device while they are computed or fetched, beside the resident ones
PASSES: Final = 2  # times that a step needs each block: forward, and recomputation with backward

_NAME: Final = re.compile(r"([a-z0-9]+)/(?:resident|streamed:(\d+))/keep:(\d+)")


@dataclass(frozen=True)
class PlanName:
    """A memory plan by its parts. `resident`: blocks that stay on the device, None for all of them."""

    form: Form
    resident: int | None
    keep: int

    @staticmethod
    def parse(name: str, field: str = "spec.memory") -> "PlanName":
        """The plan of a name. Raises ConfigError for anything but `<form>/<where>/keep:<n>`."""
        match = _NAME.fullmatch(name)
        if match is None or match[1] not in FORMS:
            remedy = (
                f"write <form>/<where>/keep:<n>: form {', '.join(FORMS)}; where resident or streamed:<blocks that stay>"
            )
            raise ConfigError(Problem(field, f"{name} is no memory plan", remedy))
        form: Form = match[1]  # type: ignore[assignment]  # one of FORMS
        return PlanName(form, None if match[2] is None else int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.form}/{'resident' if self.resident is None else f'streamed:{self.resident}'}/keep:{self.keep}"

    @property
    def built(self) -> bool:
        """Whether the job can run it; the others can only be predicted."""
        return self.form in BUILT_FORMS and self.resident is None


def activation_bytes(form: Form) -> int:
    """Bytes of one activation: fp32 computes in fp32, every other form in bf16."""
    return 4 if form == "fp32" else 2


def block_bytes(model: Model, form: Form) -> int:
    """Bytes of one block's linear weights in a form, scales included.

    bf16 2 and fp32 4 a weight; int8 and fp8 1 and a scale per output row; int4 a half and a scale per group.
    """
    if form in FORM_BYTES:
        return FORM_BYTES[form] * model.block_weights
    if form == "int4":
        grouped = model.block_weights / figure("forms", "int4_group")
        return round(model.block_weights / 2 + grouped * figure("forms", "int4_scale_bytes"))
    return round(model.block_weights + model.block_rows * figure("forms", "row_scale_bytes"))


def weight_terms(model: Model, form: Form, resident: int | None) -> dict[str, int]:
    """Bytes of the base on the device: resident blocks and everything outside them, slots, the de-quantised layer.

    What is no linear weight of a block (embeddings, norms, tables, the head) is never quantised or streamed.
    """
    if form in FORM_BYTES and resident is None:
        return {"weights": model.transformer * FORM_BYTES[form]}
    blocks = model.blocks if resident is None else min(resident, model.blocks)
    outside = (model.transformer - model.blocks * model.block_weights) * activation_bytes(form)
    terms = {"weights": blocks * block_bytes(model, form) + outside}
    if blocks < model.blocks:
        terms["slots"] = SLOTS * block_bytes(model, form)
    if form in QUANTISED:
        terms["dequantised"] = (
            4 * model.width**2 * activation_bytes(form)
        )  # the feed-forward's D x 4 D, while it is used
    return terms


def streamed_bytes(model: Model, form: Form, resident: int | None) -> int:
    """Bytes of the blocks that are not resident: pinned in host memory, and copied PASSES times a step."""
    return 0 if resident is None else max(0, model.blocks - resident) * block_bytes(model, form)
