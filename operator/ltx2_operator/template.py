"""The pod template of one stage: an empty pod with one container, given to each modifier, the user's patch last."""

from typing import Final

from ltx2_operator import access, placement, pod_template, pods
from ltx2_operator.api import LTX2Training
from ltx2_operator.pods import CONTAINER, Context, Modifier, Pod
from ltx2_operator.settings import Settings
from ltx2_operator.status import Plan

MODIFIERS: Final[tuple[Modifier, ...]] = (
    pods.metadata,
    pods.command,
    pods.identity,
    pods.verdicts,
    pods.no_api_access,
    pods.restricted,
    pods.resources,
    pods.shared_memory,
    pods.scratch,
    pods.configuration,
    pods.workspace,
    placement.device,
    placement.near_gpus,
    placement.other_nodes,
    placement.apart,
    placement.node_loss,
    placement.undisturbed,
    placement.priority,
    pods.ending,
    pods.metrics,
    pods.rendezvous,
    access.registry,
    access.hub,
    access.object_store,
    access.proxy,
    access.certificates,
)


def template(context: Context) -> Pod:
    """The pod template of a stage. Raises ConfigError for a spec.podTemplate that asks for what it may not have."""
    pod: Pod = {"spec": {"containers": [{"name": CONTAINER}]}}
    for modify in MODIFIERS:
        modify(pod, context)
    patch = context.training.spec.pod_template
    return pod if patch is None else pod_template.patched(pod, patch, context.settings.pod_template)


def check(training: LTX2Training, settings: Settings) -> None:
    """Whether an installation takes spec.podTemplate, whatever the plan will be. Raises ConfigError."""
    plan = Plan(
        stage="train", gpu_class="cpu", device="cpu", vendor="none", gpu_count=0, flavour="cpu", memory="",
        cpu_milli=1000, memory_bytes=1, shm_bytes=1, ephemeral_bytes=1, volume_bytes=1, predicted_peak_bytes=1,
    )  # fmt: skip
    template(Context(training, plan, 1, digest="", config_map="", claim="", service="", settings=settings))
