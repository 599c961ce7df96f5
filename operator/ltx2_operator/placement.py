"""Where a pod may run, and what may move it: GPUs, nodes, peers, disruption. Modifiers as in pods.py."""

from typing import Any

from ltx2_operator import gpus
from ltx2_operator.pods import ATTEMPT_LABEL, CONTAINER, STAGE_LABEL, UID_LABEL, Context, Pod, labels

# Kubernetes waits 300 s before it gives up pods of a lost node; a run has better use for the time.
NODE_LOST_SECONDS = 20
HOSTNAME = "kubernetes.io/hostname"
# Read by the tools that empty nodes to save money. Who drains a node by hand still can: the run then resumes.
STAY = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


def device(pod: Pod, context: Context) -> None:
    """GPUs of the planned class: the vendor's resource, its taint, its runtime, and nodes that carry this product."""
    plan, settings = context.plan, context.settings
    if plan.resource_name is None or plan.vendor == "none":
        return
    container = pod["spec"]["containers"][0]
    for part in ("requests", "limits"):
        container.setdefault("resources", {}).setdefault(part, {})[plan.resource_name] = str(plan.gpu_count)
    toleration = {"key": plan.resource_name, "operator": "Exists", "effect": "NoSchedule"}
    pod["spec"].setdefault("tolerations", []).append(toleration)
    pod["spec"].setdefault("affinity", {}).update(gpus.find(plan.gpu_class).affinity())
    if plan.vendor in settings.runtime_class_names:
        pod["spec"]["runtimeClassName"] = settings.runtime_class_names[plan.vendor]
    if plan.vendor == "amd":
        pod["spec"].setdefault("securityContext", {})["supplementalGroups"] = list(settings.amd_device_groups)


def near_gpus(pod: Pod, context: Context) -> None:
    """A look takes no GPU, but likes a node that has one: its pod may be the first on a claim that is bound there."""
    if context.plan.stage != "look":
        return
    gpu_class = gpus.find(context.plan.gpu_class)
    if gpu_class.resource is not None:
        toleration = {"key": gpu_class.resource, "operator": "Exists", "effect": "NoSchedule"}
        pod["spec"].setdefault("tolerations", []).append(toleration)
        preferred = [{"weight": 100, "preference": term} for term in gpu_class.affinity_terms()]
        affinity = pod["spec"].setdefault("affinity", {})
        affinity["nodeAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": preferred}


def other_nodes(pod: Pod, context: Context) -> None:
    """Keep away from the nodes of status.avoidNodes: by name, since a host name label may be another one."""
    avoided = context.training.status.avoid_nodes
    if not avoided:
        return
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in avoided]
    node: dict[str, Any] = pod["spec"].setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = node.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": [{}]})
    for term in required["nodeSelectorTerms"]:  # any one of them is enough, so each must say it
        term["matchFields"] = list(fields)


def apart(pod: Pod, context: Context) -> None:
    """The pods of one attempt on several nodes: one on each, or spec.nodes would mean nothing."""
    if context.plan.nodes == 1:
        return
    own = labels(context)
    term = {
        "topologyKey": HOSTNAME,
        "labelSelector": {"matchLabels": {key: own[key] for key in (UID_LABEL, STAGE_LABEL, ATTEMPT_LABEL)}},
    }
    pod["spec"].setdefault("affinity", {})["podAntiAffinity"] = {
        "requiredDuringSchedulingIgnoredDuringExecution": [term]
    }


def node_loss(pod: Pod, context: Context) -> None:
    """Give a lost node up after seconds, not after five minutes."""
    for key in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"):
        pod["spec"].setdefault("tolerations", []).append(
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST_SECONDS}
        )


def undisturbed(pod: Pod, context: Context) -> None:
    """Ask those who move pods to save nodes to leave this one alone; kubectl logs and exec go to our container."""
    annotations = pod.setdefault("metadata", {}).setdefault("annotations", {})
    annotations.update(STAY)
    annotations["kubectl.kubernetes.io/default-container"] = CONTAINER


def priority(pod: Pod, context: Context) -> None:
    """The priority class, where one is named."""
    if context.training.spec.priority_class_name:
        pod["spec"]["priorityClassName"] = context.training.spec.priority_class_name
