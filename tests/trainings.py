"""Training objects, plans and pod contexts for the operator's tests, each changed by what a test names."""

from typing import Any

from ltx2_operator.api import Plan, parse
from ltx2_operator.pods import Context
from ltx2_operator.settings import Settings

DIGEST = "d" * 64


def manifest(name: str = "my-style", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """The shortest training object, with these fields of spec."""
    obj: dict[str, Any] = {
        "apiVersion": "ltx2.dev/v1alpha1",
        "kind": "LTX2Training",
        "metadata": {"name": name, "namespace": "team", "uid": "0a1b-2c3d"},
        "spec": {"config": {"max_train_steps": 100}, **spec},
    }
    if status is not None:
        obj["status"] = status
    return obj


def plan(**changed: Any) -> Plan:
    """A plan of the train stage on one H100, with these fields changed."""
    fields: dict[str, Any] = {
        "stage": "train",
        "gpu_class": "h100-80g",
        "device": "cuda",
        "vendor": "nvidia",
        "resource_name": "nvidia.com/gpu",
        "gpu_count": 1,
        "nodes": 1,
        "processes": 1,
        "flavour": "cuda",
        "memory": "bf16/resident/keep:48",
        "cpu_milli": 6000,
        "memory_bytes": 14 * 2**30,
        "shm_bytes": 2**28,
        "ephemeral_bytes": 10 * 2**30,
        "volume_bytes": 140 * 2**30,
        "predicted_peak_bytes": 64 * 2**30,
        "predicted_seconds_per_step": 1.7568,
        "terms": {"weights": 2**35},
        **changed,
    }
    return Plan(**fields)


def cpu_plan(**changed: Any) -> Plan:
    """A plan of the class cpu."""
    fields = {"gpu_class": "cpu", "device": "cpu", "vendor": "none", "resource_name": None, "gpu_count": 0}
    return plan(**{**fields, "flavour": "cpu", "memory": "fp32/resident/keep:48", **changed})


def amd_plan(**changed: Any) -> Plan:
    """A plan on one MI300X."""
    fields = {"gpu_class": "mi300x", "vendor": "amd", "resource_name": "amd.com/gpu", "flavour": "rocm"}
    return plan(**{**fields, **changed})


def context(
    stage_plan: Plan | None = None,
    settings: Settings | None = None,
    attempt: int = 1,
    avoid: list[str] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Context:
    """What the pod's modifiers look at, for a training with these fields of spec; avoid: nodes where it crashed."""
    return Context(
        training=parse(manifest(status={"avoidNodes": avoid or [], **(status or {})}, **spec)),
        plan=stage_plan or plan(),
        attempt=attempt,
        digest=DIGEST,
        config_map="my-style-12345678",
        claim="my-style-data",
        service="my-style-peers",
        settings=settings or Settings(),
    )
