"""The resources that the operator reads and writes, and their paths; docs/architecture.md lists the rights it needs.

shapes.py says what is kept of those that are watched.
"""

from dataclasses import dataclass
from typing import Any, Final

from ltx2_operator.fields import GROUP, PLURAL, VERSION
from ltx2_operator.pods import TRAINING_LABEL
from ltx2_operator.runtime import shapes

Body = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One resource of the API."""

    kind: str
    plural: str
    api_version: str
    selector: str = ""
    shape: Any = dict[str, Any]

    def kept(self, body: Body) -> Body:
        """Of an object that the server answered, what a list would have kept."""
        return {**shapes.kept(body, self.shape), "kind": self.kind, "apiVersion": self.api_version}

    def path(self, namespace: str | None = None, name: str = "", sub: str = "") -> str:
        """`/apis/batch/v1/namespaces/ml/jobs/fox-train-1`; without namespace all of them."""
        root = "/api" if self.api_version == "v1" else "/apis"
        parts = [root, self.api_version, *(("namespaces", namespace) if namespace else ()), self.plural]
        return "/".join([*parts, *([name] if name else ()), *([sub] if sub else ())])


TRAININGS: Final = Kind("LTX2Training", PLURAL, f"{GROUP}/{VERSION}", shape=shapes.Training)
JOBS: Final = Kind("Job", "jobs", "batch/v1", TRAINING_LABEL, shapes.Job)
PODS: Final = Kind("Pod", "pods", "v1", TRAINING_LABEL, shapes.Pod)
NODES: Final = Kind("Node", "nodes", "v1", "", shapes.Node)
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
