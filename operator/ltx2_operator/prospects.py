"""Memory plans that the job cannot run yet: what the model predicts of them.

Nothing here is ever chosen for a run: `ltx2 estimate` shows it, marked, and a refusal names it. The flags of the guide
pin their part of the plan (base_model_precision the form; ramtorch, musubi_blocks_to_swap and enable_group_offload
where weights lie; gradient_checkpointing the blocks kept); what they leave open is filled as `memory: auto` would.
"""

import re
from dataclasses import dataclass
from itertools import product
from typing import Final

from ltx2_job.config.training import TrainingConfig
from ltx2_job.errors import ConfigError
from ltx2_job.estimate import Form, PlanName, Terms, step_parts
from ltx2_operator.demands import KEEP, Case, batch_of, train_terms
from ltx2_operator.gpus import AUTO

FLAVOUR_FORMS: Final[dict[str, Form]] = {"dev-fp8": "fp8", "dev-fp4": "int4"}
HALF: Final = 24  # blocks that stay where half are streamed


@dataclass(frozen=True)
class Pins:
    """What of the plan a configuration fixes; None where it leaves it open. `resident`: (blocks,), (None,) for all."""

    form: Form | None
    resident: tuple[int | None] | None
    keep: int | None

    @property
    def built(self) -> bool:
        """Whether a plan with these parts can be run."""
        return self.form in (None, "bf16", "fp32") and self.resident in (None, (None,))


def pins(case: Case) -> Pins:
    """What the manifest and its configuration fix of the memory plan."""
    if case.spec.memory != AUTO:
        try:
            plan = PlanName.parse(case.spec.memory)
        except ConfigError:
            return Pins(None, None, None)
        return Pins(plan.form, (plan.resident,), plan.keep)
    training = case.resolved.training
    keep = {True: 0, False: KEEP[0], None: None}[training.gradient_checkpointing]
    return Pins(_form(training), _resident(training, case.model.blocks), keep)


def _form(training: TrainingConfig) -> Form | None:
    """The form that base_model_precision or the flavour names: 2 to 4 bits as int4, 5 to 8 as int8 or fp8."""
    name = training.base_model_precision
    if name == "no_change":
        return FLAVOUR_FORMS.get(training.model_flavour)
    bits = min(int(found) for found in re.findall(r"(?:int|fp|nf)(\d+)", name) or ["8"])
    if bits <= 4:
        return "int4"
    if bits > 8:
        return "bf16"
    return "fp8" if name.startswith("fp") else "int8"


def _resident(training: TrainingConfig, blocks: int) -> tuple[int | None] | None:
    """The blocks that stay on the device, where a flag of the guide says so."""
    if training.ramtorch:
        return (round(blocks * (1 - training.ramtorch_transformer_percent / 100)),)
    if training.musubi_blocks_to_swap:
        return (max(0, blocks - training.musubi_blocks_to_swap),)
    return (0,) if training.enable_group_offload else None


def candidates(case: Case) -> list[PlanName]:
    """Plans that are not built, in the order in which they are preferred: form, then where it lies, then blocks kept.

    fp8 before int8 where the GPU multiplies fp8, int4 last: the less precise. Resident before streamed, which needs
    host memory and a free link. Empty for fp32, of which there are no such plans.
    """
    if case.form == "fp32":
        return []
    pinned = pins(case)
    forms: tuple[Form, ...] = ("fp8" if case.cls.fp8 else "int8", "int4")
    if pinned.resident not in (None, (None,)):
        forms = ("bf16", *forms)
    forms = forms if pinned.form is None else (pinned.form,)
    keeps = KEEP if pinned.keep is None else (pinned.keep,)
    plans = (PlanName(*parts) for parts in product(forms, pinned.resident or (None, HALF, 0), keeps))
    return [plan for plan in plans if not plan.built]


def best(case: Case) -> tuple[PlanName, Terms] | None:
    """The first of these plans that is predicted to fit, None if there is none."""
    found = ((plan, train_terms(case, plan)) for plan in candidates(case))
    return next((one for one in found if case.fits(one[1])), None)


def smallest(case: Case) -> tuple[PlanName, Terms] | None:
    """The plan that needs least of all that are not built, fitting or not."""
    found = [(plan, train_terms(case, plan)) for plan in candidates(case)]
    return min(found, key=lambda one: sum(one[1].values()), default=None)


def step_seconds(case: Case, plan: PlanName) -> dict[str, float]:
    """Predicted seconds of an optimizer step by what may bound it; empty in fp32, whose rate the table does not hold.

    On a GPU it is a fraction of the rate in bf16, on the class cpu it is anyone's guess.
    """
    if plan.form == "fp32":
        return {}
    parts = step_parts(
        case.model,
        batch_of(case.resolved),
        keep=plan.keep,
        form=plan.form,
        resident=plan.resident,
        tflops=case.cls.bf16_tflops,
        link_gbps=case.cls.link_gbps,
        fp8_units=case.cls.fp8,
    )
    return {name: each * case.resolved.training.gradient_accumulation_steps for name, each in parts.items()}
