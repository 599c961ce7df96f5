"""The GPU classes: what a node must be called, what it holds, how fast it is, and what it cannot do.

The table is gpus.json, a source beside each number. A class is chosen by name, or by `auto` among those that nodes
offer. Memory is what the driver reports for the whole card (MiB as `nvidia-smi` / `rocm-smi` print it), not the
marketing number; what the driver keeps of it for itself stands in the same file. `bf16_tflops` is the dense matrix rate
with fp32 accumulation by the maker's data sheet, of which matrix products reach about 79 % (measured on H100 and H200);
`link_gbps` is host to device.

A slice of a GPU is never taken for one: GPU feature discovery calls MIG slices `...-MIG-1g.10gb` and time-sliced GPUs
`...-SHARED`, and neither is in the table.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from typing import Any, Final, Literal

from ltx2_job.errors import ConfigError, Problem

MIB: Final = 2**20
NVIDIA_RESOURCE: Final = "nvidia.com/gpu"
AMD_RESOURCE: Final = "amd.com/gpu"
RESOURCES: Final = {"nvidia": NVIDIA_RESOURCE, "amd": AMD_RESOURCE}
NVIDIA_PRODUCT: Final = "nvidia.com/gpu.product"  # written by GPU feature discovery
AMD_PRODUCT: Final = "amd.com/gpu.product-name"  # written by the AMD node labeller
AMD_DEVICE: Final = "amd.com/gpu.device-id"  # PCI device id, the same labeller; older ones write only this
PRODUCT_LABELS: Final = {"nvidia": NVIDIA_PRODUCT, "amd": AMD_PRODUCT}
AUTO: Final = "auto"
SAME_MEMORY: Final = 0.05  # how far the memory of one card may be from its class

Labels = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class GpuClass:
    """One kind of GPU.

    capability: CUDA's compute capability ("8.9") or AMD's instruction set ("gfx942"). usable_bytes: memory_bytes less
    what the driver keeps. nodes: node labels that name this class; all labels of one entry must hold, any entry will
    do. sources: of memory, rate, link and labels. The class cpu, which asks for no device, has zeros and no labels.
    """

    name: str
    vendor: Literal["nvidia", "amd", "none"]
    capability: str
    memory_bytes: int
    usable_bytes: int
    bf16_tflops: float
    link_gbps: float
    nodes: tuple[Labels, ...]
    sources: Mapping[str, str]

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The device name the job computes on; torch calls AMD GPUs "cuda" too."""
        return "cpu" if self.vendor == "none" else "cuda"

    @property
    def flavour(self) -> Literal["cuda", "rocm", "cpu"]:
        """The image flavour: torch's CUDA build (13, which holds Blackwell's kernels too), its ROCm build, or CPU."""
        flavours: dict[str, Literal["cuda", "rocm", "cpu"]] = {"nvidia": "cuda", "amd": "rocm", "none": "cpu"}
        return flavours[self.vendor]

    @property
    def resource(self) -> str | None:
        """The extended resource that a pod asks for."""
        return RESOURCES.get(self.vendor)

    @property
    def bf16(self) -> bool:
        """Whether its matrix units compute in bf16: CUDA 8.0 and later; every AMD GPU in the table. A CPU uses fp32."""
        return self.vendor != "nvidia" or _version(self.capability) >= (8, 0)

    @property
    def fp8(self) -> bool:
        """Whether its matrix units compute in fp8: CUDA 8.9 and later; CDNA 3 and 4, RDNA 4."""
        if self.vendor == "nvidia":
            return _version(self.capability) >= (8, 9)
        return self.capability.startswith(("gfx94", "gfx95", "gfx12"))

    def on(self, node: Mapping[str, Any]) -> int:
        """GPUs of this class that a node can give to pods; 0 where its labels name another product."""
        labels = node.get("metadata", {}).get("labels") or {}
        if self.resource is None or not any(_hold(entry, labels) for entry in self.nodes):
            return 0
        return _allocatable(node, self.resource)

    def affinity(self) -> dict[str, Any]:
        """The pod's affinity to nodes of this class."""
        required = {"nodeSelectorTerms": self.affinity_terms()}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}

    def affinity_terms(self) -> list[dict[str, Any]]:
        """nodeSelectorTerms (one of them must hold) that keep a pod on this class; none for the class cpu."""
        return [
            {
                "matchExpressions": [
                    {"key": key, "operator": "In", "values": list(values)} for key, values in entry.items()
                ]
            }
            for entry in self.nodes
        ]


def _version(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def _hold(entry: Labels, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) in values for key, values in entry.items())


def _allocatable(node: Mapping[str, Any], resource: str) -> int:
    return int((node.get("status", {}).get("allocatable") or {}).get(resource, 0))


def table() -> dict[str, Any]:
    """gpus.json as it stands: every number with its source, and the engine from which the rate follows."""
    loaded: dict[str, Any] = json.loads(files("ltx2_operator").joinpath("gpus.json").read_bytes())
    return loaded


def _load() -> tuple[GpuClass, ...]:
    """The class cpu, then the table's, cheapest first."""
    data = table()
    kept = {vendor: entry["value"] * MIB for vendor, entry in data["driver_mib"].items()}
    found = [
        GpuClass(
            name=row["name"],
            vendor=row["vendor"],
            capability=row["capability"],
            memory_bytes=row["memory_mib"]["value"] * MIB,
            usable_bytes=row["memory_mib"]["value"] * MIB - kept[row["vendor"]],
            bf16_tflops=float(row["bf16_tflops"]["value"]),
            link_gbps=float(row["link_gbps"]["value"]),
            nodes=tuple({key: tuple(values) for key, values in entry.items()} for entry in row["nodes"]),
            sources={
                "memory": row["memory_mib"]["source"],
                "rate": row["bf16_tflops"]["source"],
                "link": row["link_gbps"]["source"],
                "labels": row["nodes_source"],
            },
        )
        for row in data["classes"]
    ]
    cpu = GpuClass("cpu", "none", "", 0, 0, 0.0, 0.0, (), {"class": "no device: for tiny models and tests"})
    return (cpu, *cheapest_first(found))


def cheapest_first(classes: Iterable[GpuClass]) -> list[GpuClass]:
    """Least memory first (in whole GiB: cards of 80 differ by some MiB), then the lower rate; no prices here."""
    return sorted(classes, key=lambda entry: (round(entry.memory_bytes / 2**30), entry.bf16_tflops, entry.name))


CLASSES: Final = _load()
BY_NAME: Final = {entry.name: entry for entry in CLASSES}
CPU: Final = BY_NAME["cpu"]
TRAINING: Final = tuple(entry for entry in CLASSES if entry.bf16 and entry is not CPU)  # GPUs that can train LTX-2


def find(name: str, field: str = "spec.gpu.class") -> GpuClass:
    """The class of a name. Raises ConfigError that names the nearest one, or says that the class cannot train."""
    if name not in BY_NAME:
        longer = [known for known in BY_NAME if known.startswith(f"{name}-")]
        near = longer or get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"write {AUTO}, cpu or a class of `ltx2 gpus`"
        raise ConfigError(Problem(field, f"{name} is no GPU class", remedy))
    problem = refusal(BY_NAME[name], field)
    if problem is not None:
        raise ConfigError(problem)
    return BY_NAME[name]


def refusal(entry: GpuClass, field: str = "spec.gpu.class") -> Problem | None:
    """Why a class cannot train LTX-2 at all, None if it can."""
    if entry.bf16:
        return None
    least = ", ".join(other.name for other in TRAINING if round(other.memory_bytes / 2**30) == 24)
    return Problem(
        field,
        f"{entry.name} does not compute in bf16 (compute capability {entry.capability}, bf16 needs 8.0), and LTX-2 and "
        "its text encoder are made for bf16, whose range fp16 does not have",
        f"take a class that does, the least of them with 24 GB: {least}",
    )


def of_product(product: str) -> GpuClass | None:
    """The class of a product as a driver's tool prints it ("NVIDIA H200"), None where the table does not hold it."""
    for entry in CLASSES:
        names = [value for labels in entry.nodes for key in PRODUCT_LABELS.values() for value in labels.get(key, ())]
        if _plain(product) in map(_plain, names):
            return entry
    return None


def of_device(device: str, memory_mib: int) -> GpuClass | None:
    """The class of an AMD GPU by PCI device id (hex, no 0x) and memory: one id may stand for cards of several sizes."""
    for entry in CLASSES:
        same = abs(memory_mib * MIB - entry.memory_bytes) <= SAME_MEMORY * entry.memory_bytes
        if same and any(device.lower() in labels.get(AMD_DEVICE, ()) for labels in entry.nodes):
            return entry
    return None


def _plain(product: str) -> str:
    """Labels replace blanks by dashes (NVIDIA) or underscores (AMD)."""
    return product.strip().lower().replace("-", " ").replace("_", " ")


def offered(nodes: Iterable[Mapping[str, Any]], count: int = 1) -> list[GpuClass]:
    """The GPU classes that can train of which a node has `count` or more, cheapest first. Never the class cpu."""
    nodes = list(nodes)
    return [entry for entry in TRAINING if any(entry.on(node) >= count > 0 for node in nodes)]


def unknown(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What nodes offer that no class covers, in words: GPUs without a product label, and products of no class."""
    found: dict[str, int] = {}
    for node in nodes:
        labels = node.get("metadata", {}).get("labels") or {}
        for vendor, resource in RESOURCES.items():
            count = _allocatable(node, resource)
            known = next((entry for entry in CLASSES if entry.vendor == vendor and entry.on(node)), None)
            if count == 0 or (known is not None and known.bf16):
                continue
            product = labels.get(PRODUCT_LABELS[vendor])
            words = (
                f"{known.name} (no bf16)"
                if known
                else product or f"{resource} without the label {PRODUCT_LABELS[vendor]}"
            )
            found[words] = found.get(words, 0) + count
    return [f"{count} x {words}" for words, count in sorted(found.items())]
