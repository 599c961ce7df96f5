"""Why the scheduler finds no node for a pod: what is lacking, in the field's words, and what to change.

The scheduler counts nodes by reason, one or more reasons a node: "0/3 nodes are available: 1 Insufficient memory, 2
node(s) didn't match Pod's node affinity/selector. preemption: ...". A node of another GPU class always is among those
that do not match, so affinity is the answer only where nothing else is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ltx2_operator import gpus
from ltx2_operator.gpus import GpuClass
from ltx2_operator.pods import quantity_value

Body = Mapping[str, Any]

_LACKING: Final = re.compile(r"\b\d+ Insufficient ([\w./-]*\w)")
_OWN_TAINTS: Final = "node.kubernetes.io/"  # those that the cluster sets by itself
_WORDS: Final = {"memory": "memory", "cpu": "CPU", "ephemeral-storage": "scratch disk (ephemeral-storage)"}

# Reasons about volumes, which no free node helps, then those about nodes that would be large enough.
_VOLUMES: Final = (
    ("volume node affinity conflict", "the volume lies where none of the nodes that would do can reach it: use a claim "
     "that they can reach (another spec.storage.storageClassName), or nodes beside the volume"),
    ("no available volume zone", "the volume lies in a zone without a node that would do: use a claim in their zone"),
    ("exceed max volume count", "the nodes hold as many volumes as they may: wait, or add a node"),
    ("didn't find available persistent volumes", "no volume is there for the claim: see `kubectl describe pvc`"),
    ("did not have enough free storage", "no node has room for the volume that the claim asks for: a smaller "
     "spec.storage.size in a new LTX2Training, or more room"),
    ("bound to non-existent pv", "the claim's volume is gone: see `kubectl describe pvc`"),
)  # fmt: skip
_NODES: Final = (
    ("Too many pods", "the nodes run as many pods as they may: wait, or add a node"),
    ("were unschedulable", "nodes that would do are cordoned: `kubectl uncordon` lets pods in again"),
    ("anti-affinity", "each of spec.nodes pods needs a node of its own: add a node, or fewer spec.nodes in a new "
     "LTX2Training"),
)  # fmt: skip


@dataclass(frozen=True)
class Unplaced:
    """A pod that the scheduler cannot place. nodes, plan: None where they are not known."""

    pod: Body
    text: str
    nodes: Sequence[Body] | None
    plan: Mapping[str, Any] | None

    @property
    def gpu_class(self) -> GpuClass | None:
        """The class of GPUs that the pod asks for, None if it asks for none."""
        plan = self.plan or {}
        return gpus.BY_NAME.get(str(plan.get("gpuClass"))) if plan.get("resourceName") else None

    @property
    def candidates(self) -> list[Body]:
        """The known nodes that are of the pod's GPU class."""
        cls = self.gpu_class
        return [node for node in self.nodes or () if cls is None or cls.on(node) > 0]


def why_unplaced(found: Unplaced) -> str:
    """What is lacking and what to change, then the scheduler's own words."""
    words = found.text.partition(" preemption:")[0].removesuffix(" no new claims to deallocate,").strip()
    parts = [sentence for phrase, sentence in _VOLUMES if phrase in words]
    parts += [_resource(name, found) for name in dict.fromkeys(_LACKING.findall(words))]
    if not parts:
        parts = [_taints(found)] if "taint" in words else []
        parts += [sentence for phrase, sentence in _NODES if phrase in words]
    if not parts and "node affinity/selector" in words:
        parts = [_selector(found)]
    return "; ".join([*parts, f"the scheduler: {words}"]) if parts else words


def short_of_gpus(plan: Mapping[str, Any], nodes: Sequence[Body] | None) -> str:
    """What this cluster lacks for a plan even if nobody else used it, empty if nothing or if nodes are not known.

    It may come: autoscalers add nodes for pods that wait.
    """
    cls, count, wanted = gpus.BY_NAME.get(str(plan.get("gpuClass"))), int(plan.get("gpuCount") or 0), plan.get("nodes")
    if nodes is None or cls is None or count == 0:
        return ""
    most = max((cls.on(node) for node in nodes), default=0)
    able = sum(cls.on(node) >= count for node in nodes)
    if most == 0:
        return f"no node offers {plan['resourceName']} of class {cls.name} now; a pool that grows from zero may"
    if able == 0:
        return (
            f"no node of this cluster has {count} x {plan['resourceName']} of class {cls.name}, at most {most} each: "
            f"it waits for one to be added; or make a new LTX2Training with gpu.count: {most}"
        )
    if able < int(wanted or 1):
        return (
            f"{able} of the {wanted} nodes that spec.nodes asks for exist with {count} x {plan['resourceName']} of "
            f"class {cls.name}: it waits for more to be added; or make a new LTX2Training with nodes: {able}"
        )
    return ""


def _resource(name: str, found: Unplaced) -> str:
    """One resource that no node has enough of."""
    plan = found.plan or {}
    if name == plan.get("resourceName"):
        return _gpus(found)
    requested, word = _requested(found.pod, name), _WORDS.get(name, name)
    if requested is None:
        return f"no node that would do has enough {word} free: wait until other pods have ended"
    total, asking = requested
    together = total != asking.value
    what = _quantity(name, total) if together else asking.text
    what += f" {word}" if name == "cpu" else f" of {word}"
    what += " for the pod's containers together" if together else ""
    most = max((_allocatable(node, name) for node in found.candidates), default=None)
    key = f"spec.podTemplate.spec.{asking.where}.resources.requests.{name}"
    change = f"ask for less with {key} (it may change while spec.suspend is true)"
    if most is not None and most < total:
        there = _quantity(name, most)
        return f"no node that would do has {what}, at most {there} for all its pods: add a larger node, or {change}"
    return f"no node that would do has {what} free: wait until other pods have ended, or {change}"


def _gpus(found: Unplaced) -> str:
    plan, cls = found.plan or {}, found.gpu_class
    count, resource = int(plan.get("gpuCount") or 1), plan.get("resourceName")
    lacking = short_of_gpus(plan, found.nodes)
    if lacking:
        return lacking
    help_ = "; or make a new LTX2Training with gpu.count: 1" if count > 1 else ""
    if found.nodes is None or cls is None:
        return f"no node has {count} x {resource} free{help_}"
    offer = "1 node offers" if len(found.candidates) == 1 else f"{len(found.candidates)} nodes offer"
    return f"{offer} {resource} but none has {count} free{help_}"


def _selector(found: Unplaced) -> str:
    """No node has the labels that the pod wants: those of its GPU class, or those of the user's template."""
    plan = found.plan or {}
    lacking = short_of_gpus({**plan, "gpuCount": 1, "nodes": 1}, found.nodes) if plan.get("resourceName") else ""
    if lacking:
        return lacking
    return (
        "no node has the labels that nodeSelector and affinity of spec.podTemplate ask for, or all that have them are "
        "in status.avoidNodes: label a node, or change them (they may change while spec.suspend is true)"
    )


def _taints(found: Unplaced) -> str:
    """The taints that keep the pod away; the newest schedulers only count them."""
    tolerations = (found.pod.get("spec") or {}).get("tolerations") or []
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for node in found.candidates:
        for taint in (node.get("spec") or {}).get("taints") or []:
            if _repels(taint) and not any(_tolerates(one, taint) for one in tolerations):
                key = str(taint.get("key")), str(taint.get("value") or ""), str(taint.get("effect"))
                nodes.setdefault(key, []).append(str(node["metadata"].get("name")))
    said = "nodes that would do have a taint that the pod does not tolerate"
    if not nodes:
        return f"{said}: add a toleration to spec.podTemplate.spec.tolerations, or take the taint away"
    return "; ".join([said, *(_taint(key, names) for key, names in sorted(nodes.items()))])


def _taint(taint: tuple[str, str, str], names: Sequence[str]) -> str:
    """One taint, the nodes that have it, and what to do about it."""
    key, value, effect = taint
    text = f"{key}{'=' if value else ''}{value}:{effect} on {names[0]}"
    text += f" and {len(names) - 1} more" if len(names) > 1 else ""
    if key.startswith(_OWN_TAINTS):
        return f"{text}, which says what is wrong with the node: see `kubectl describe node {names[0]}`"
    how = f"operator: Equal, value: {value}" if value else "operator: Exists"
    return (
        f"{text}: add {{key: {key}, {how}, effect: {effect}}} to spec.podTemplate.spec.tolerations, "
        "or take the taint away"
    )


def _repels(taint: Body) -> bool:
    """Whether it keeps pods away; for a cordoned node the scheduler has words of its own."""
    return taint.get("effect") in ("NoSchedule", "NoExecute") and taint.get("key") != f"{_OWN_TAINTS}unschedulable"


def _tolerates(toleration: Body, taint: Body) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#concepts"""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    same = toleration.get("key") == taint.get("key")
    return same and str(toleration.get("value") or "") == str(taint.get("value") or "")


@dataclass(frozen=True)
class _Asking:
    """How much of one resource a container asks for, in its own words, and where that is written."""

    value: float
    text: str
    where: str


def _asking(spec: Body, group: str, name: str) -> list[tuple[Body, _Asking]]:
    found = []
    for container in spec.get(group) or []:
        text = str(((container.get("resources") or {}).get("requests") or {}).get(name) or "")
        found.append((container, _Asking(quantity_value(text), text, f"{group}[name={container.get('name')}]")))
    return found


def _requested(pod: Body, name: str) -> tuple[float, _Asking] | None:
    """What a pod asks for of one resource, and who asks for most of it; None if nobody is known to.

    Counted as the scheduler does: containers and sidecars (init containers that are restarted) run together; any other
    init container runs beside the sidecars before it; the larger counts, and what the pod's runtime class needs on top.
    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    """
    spec = pod.get("spec") or {}
    sidecars: list[_Asking] = []
    starting: list[list[_Asking]] = []
    for container, one in _asking(spec, "initContainers", name):
        starting.append([*sidecars, one])
        if container.get("restartPolicy") == "Always":
            sidecars.append(one)
    running = sidecars + [one for _, one in _asking(spec, "containers", name)]
    counted = max((running, *starting), key=lambda group: sum(one.value for one in group))
    most = max(counted, key=lambda one: one.value, default=None)
    if most is None or not most.value:
        return None
    return sum(one.value for one in counted) + quantity_value(str((spec.get("overhead") or {}).get(name) or "")), most


def _quantity(name: str, value: float) -> str:
    return f"{value / 2**30:.1f}Gi" if name in ("memory", "ephemeral-storage") else f"{value:g}"


def _allocatable(node: Body, name: str) -> float:
    return quantity_value(str(((node.get("status") or {}).get("allocatable") or {}).get(name) or "0"))
