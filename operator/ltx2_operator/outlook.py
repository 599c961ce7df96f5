"""How one training would do on one GPU class: with a plan that can be run, with one that is not built yet, or not."""

from dataclasses import dataclass
from typing import Literal

from ltx2_job.errors import ConfigError
from ltx2_job.estimate import GIB
from ltx2_operator import prospects, sizing
from ltx2_operator.api import Plan
from ltx2_operator.demands import Case, NoFit
from ltx2_operator.gpus import AUTO, GpuClass

State = Literal["now", "later", "no"]


@dataclass(frozen=True)
class Outlook:
    """One class's answer. state: "now" fits with what is built, "later" is predicted to fit, "no" with the reason."""

    cls: GpuClass
    state: State
    train: Plan | None = None
    cache: Plan | None = None
    reason: str = ""


def outlook(case: Case) -> Outlook:
    """The answer of a case's class."""
    cls = case.cls
    if not cls.bf16:
        return Outlook(cls, "no", reason=f"does not compute in bf16 (compute capability {cls.capability})")
    try:
        if prospects.pins(case).built:
            return _answer(case, "now", sizing.size(case.spec, case.resolved, cls, 0, "train", case.model))
    except NoFit:
        pass
    except ConfigError as error:
        return Outlook(cls, "no", reason=error.problems[0].message)
    later = sizing.predict(case.spec, case.resolved, cls, case.model)
    return _answer(case, "later", later) if later is not None else Outlook(cls, "no", reason=_reason(case))


def _answer(case: Case, state: State, train: Plan) -> Outlook:
    """With the plan of the cache stage, whose own ladder no memory plan pins."""
    spec = case.spec.model_copy(update={"memory": AUTO})
    return Outlook(case.cls, state, train, sizing.size(spec, case.resolved, case.cls, 0, "cache", case.model))


def _reason(case: Case) -> str:
    least = prospects.smallest(case)
    if least is None:
        return "quantised and streamed bases need a GPU and bf16"
    need = sum(least[1].values()) / GIB
    return f"{least[0]} needs {need:.1f} GiB, it has {case.cls.usable_bytes / GIB:.1f} GiB"
