"""Whether a machine has the host memory that its plans need, and what would fit on it. Pure.

A cluster's scheduler finds a node with enough memory for a pod; on a single machine nobody does, and a process that
asks for more than there is ends by the kernel's hand, long after it was started.
"""

from collections.abc import Iterator, Sequence

from ltx2_job.config import Resolved
from ltx2_job.estimate import GIB, Model
from ltx2_operator import gpus, sizing
from ltx2_operator.api import Spec
from ltx2_operator.sizing import NoFit
from ltx2_operator.status import Plan


def require(spec: Spec, resolved: Resolved, plans: Sequence[Plan], have: int, model: Model | None = None) -> None:
    """Raise NoFit if a plan needs more than `have` bytes of host memory, naming the largest need and what would fit.

    plans: of both stages; they run one after the other. model: the checkpoint's sizes where they are known, as for
    sizing.size.
    """
    plan = max(plans, key=lambda plan: plan.memory_bytes)
    if plan.memory_bytes <= have:
        return
    ideas = list(_classes(spec, resolved, have, model))
    if plan.stage == "train" and all(other is plan or other.memory_bytes <= have for other in plans):
        ideas = [*_smaller_plans(spec, resolved, plan, have, model), *ideas]
    ideas.append(f"a machine with {plan.memory_bytes / GIB:.0f} GiB")
    raise NoFit(
        f"{plan.stage} with {plan.memory} on {plan.gpu_class} needs {plan.memory_bytes / GIB:.0f} GiB of host memory, "
        f"this machine has {have / GIB:.1f} GiB; what would fit: {', or '.join(ideas)}"
    )


def _smaller_plans(spec: Spec, resolved: Resolved, plan: Plan, have: int, model: Model | None) -> Iterator[str]:
    """The fastest memory plan of training on the same class that the host can hold."""
    cls = gpus.find(plan.gpu_class)
    for name in sizing.ladder(spec, resolved, cls):
        pinned = spec.model_copy(update={"memory": name})
        if sizing.size(pinned, resolved, cls, 0, "train", model).memory_bytes <= have:
            yield f"spec.memory: {name}"
            return


def _classes(spec: Spec, resolved: Resolved, have: int, model: Model | None) -> Iterator[str]:
    """The cheapest GPU class on which both stages fit into so much host memory."""
    for cls in gpus.TRAINING:
        try:
            plans = [sizing.size(spec, resolved, cls, 0, stage, model) for stage in ("cache", "train")]
        except sizing.NoFit:
            continue
        if all(plan.memory_bytes <= have for plan in plans):
            yield f"gpu.class: {cls.name}"
            return
