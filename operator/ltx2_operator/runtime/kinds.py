"""The resources that the operator reads and writes, and their paths; docs/architecture.md lists the rights it needs.

Fields that nobody looks at are dropped before an object is kept: they are most of its size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ltx2_operator.fields import GROUP, PLURAL, VERSION
from ltx2_operator.pods import TRAINING_LABEL

Body = dict[str, Any]


def _plain(body: Body) -> None:
    body.get("metadata", {}).pop("managedFields", None)


def _pod(body: Body) -> None:
    """Of a pod's spec, only where it runs, how long it may take to leave, and what limits its containers."""
    _plain(body)
    spec = body.get("spec") or {}
    body["spec"] = {key: spec[key] for key in ("nodeName", "terminationGracePeriodSeconds") if key in spec}
    limited = [{key: one[key] for key in ("name", "resources") if key in one} for one in spec.get("containers") or []]
    body["spec"]["containers"] = limited


def _job(body: Body) -> None:
    """A Job's template is a copy of what the operator sent."""
    _plain(body)
    (body.get("spec") or {}).pop("template", None)
    (body.get("spec") or {}).pop("podFailurePolicy", None)


def _node(body: Body) -> None:
    """A node's list of images and its annotations are of no interest."""
    _plain(body)
    body["metadata"].pop("annotations", None)
    (body.get("status") or {}).pop("images", None)


@dataclass(frozen=True)
class Kind:
    """One resource of the API."""

    kind: str
    plural: str
    api_version: str
    selector: str = ""
    trim: Callable[[Body], None] = _plain

    def path(self, namespace: str | None = None, name: str = "", sub: str = "") -> str:
        """`/apis/batch/v1/namespaces/ml/jobs/fox-train-1`; without namespace all of them."""
        root = "/api" if self.api_version == "v1" else "/apis"
        parts = [root, self.api_version, *(("namespaces", namespace) if namespace else ()), self.plural]
        return "/".join([*parts, *([name] if name else ()), *([sub] if sub else ())])


TRAININGS: Final = Kind("LTX2Training", PLURAL, f"{GROUP}/{VERSION}")
JOBS: Final = Kind("Job", "jobs", "batch/v1", TRAINING_LABEL, _job)
PODS: Final = Kind("Pod", "pods", "v1", TRAINING_LABEL, _pod)
NODES: Final = Kind("Node", "nodes", "v1", "", _node)
CONFIG_MAPS: Final = Kind("ConfigMap", "configmaps", "v1")
CLAIMS: Final = Kind("PersistentVolumeClaim", "persistentvolumeclaims", "v1")
SERVICES: Final = Kind("Service", "services", "v1")
SECRETS: Final = Kind("Secret", "secrets", "v1")
CORE_EVENTS: Final = Kind("Event", "events", "v1")
EVENTS: Final = Kind("Event", "events", "events.k8s.io/v1")
# Kueue serves one of these, or both.
WORKLOADS: Final = tuple(Kind("Workload", "workloads", f"kueue.x-k8s.io/{one}") for one in ("v1beta2", "v1beta1"))
LEASES: Final = Kind("Lease", "leases", "coordination.k8s.io/v1")

BY_KIND: Final = {one.kind: one for one in (JOBS, PODS, CONFIG_MAPS, CLAIMS, SERVICES)}
