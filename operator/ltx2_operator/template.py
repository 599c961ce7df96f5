"""The pod template of one stage: an empty pod with one container, given to each modifier, the user's patch last."""

from typing import Final

from ltx2_operator import access, placement, pod_template, pods
from ltx2_operator.pods import CONTAINER, Context, Modifier, Pod

MODIFIERS: Final[tuple[Modifier, ...]] = (
    pods.metadata,
    pods.command,
    pods.identity,
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
