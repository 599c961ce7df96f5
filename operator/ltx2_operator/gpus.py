"""The GPU classes: what a node must be called, what it holds, how fast it is.

One flat table. A class is chosen by name, or by `auto` among those that nodes offer. Memory is what the driver reports
for the whole card (MiB as `nvidia-smi` / `rocm-smi` print it), not the marketing number. `bf16_tflops` is the dense
matrix rate with fp32 accumulation, `link_gbps` host to device; figures marked "measured" were taken on such a card, the
others are the makers' data sheets, of which matrix products reach about 79 % (measured on H100: 779 of 989).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal

from ltx2_job.errors import ConfigError, Problem

MIB: Final = 2**20
NVIDIA_RESOURCE: Final = "nvidia.com/gpu"
AMD_RESOURCE: Final = "amd.com/gpu"
NVIDIA_PRODUCT: Final = "nvidia.com/gpu.product"  # written by GPU feature discovery
AMD_PRODUCT: Final = "amd.com/gpu.product-name"  # written by the AMD node labeller
AMD_DEVICE: Final = "amd.com/gpu.device-id"  # PCI device id, the same labeller; older ones write only this
AUTO: Final = "auto"
DATA_SHEET_FRACTION: Final = 0.79


@dataclass(frozen=True)
class GpuClass:
    """One kind of GPU.

    `labels`: node labels, any of which names this class by any of its values. `memory_bytes` and the rates are 0 for
    the class cpu, which asks for no device.
    """

    name: str
    vendor: Literal["nvidia", "amd", "none"]
    flavour: Literal["cuda", "rocm", "cpu"]
    memory_bytes: int
    bf16_tflops: float
    link_gbps: float
    labels: Mapping[str, tuple[str, ...]]
    source: str

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The device name the job computes on; torch calls AMD GPUs "cuda" too."""
        return "cpu" if self.vendor == "none" else "cuda"

    @property
    def resource(self) -> str | None:
        """The extended resource that a pod asks for."""
        return {"nvidia": NVIDIA_RESOURCE, "amd": AMD_RESOURCE, "none": None}[self.vendor]

    def on(self, node: Mapping[str, Any]) -> int:
        """GPUs of this class that a node can give to pods; 0 where its labels name another product."""
        labels = node.get("metadata", {}).get("labels") or {}
        if self.resource is None or not any(labels.get(key) in values for key, values in self.labels.items()):
            return 0
        return int((node.get("status", {}).get("allocatable") or {}).get(self.resource, 0))

    def affinity_terms(self) -> list[dict[str, Any]]:
        """nodeSelectorTerms (one of them must hold) that keep a pod on this class; none for the class cpu."""
        return [
            {"matchExpressions": [{"key": key, "operator": "In", "values": list(values)}]}
            for key, values in self.labels.items()
        ]


CLASSES: Final[tuple[GpuClass, ...]] = (
    GpuClass("cpu", "none", "cpu", 0, 0.0, 0.0, {}, "no device: for tiny models and tests"),
    GpuClass(
        "rtx-4090", "nvidia", "cuda", 24_564 * MIB, 165.2, 25.0,
        {NVIDIA_PRODUCT: ("NVIDIA-GeForce-RTX-4090",)},
        "memory: nvidia-smi; rate: NVIDIA Ada architecture whitepaper; link: PCIe 4.0 x16, 80 % of 31.5 GB/s",
    ),
    GpuClass(
        "rtx-5090", "nvidia", "cuda", 32_607 * MIB, 209.5, 50.0,
        {NVIDIA_PRODUCT: ("NVIDIA-GeForce-RTX-5090",)},
        "memory: nvidia-smi; rate: NVIDIA RTX Blackwell architecture whitepaper; link: PCIe 5.0 x16, 80 % of 63 GB/s",
    ),
    GpuClass(
        "l40s", "nvidia", "cuda", 46_068 * MIB, 362.0, 25.0,
        {NVIDIA_PRODUCT: ("NVIDIA-L40S",)},
        "memory: nvidia-smi with ECC; rate: NVIDIA L40S data sheet, dense; link: PCIe 4.0 x16, 80 % of 31.5 GB/s",
    ),
    GpuClass(
        "a100-80g", "nvidia", "cuda", 81_920 * MIB, 312.0, 25.0,
        {NVIDIA_PRODUCT: ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe")},
        "memory: nvidia-smi; rate: NVIDIA A100 data sheet, dense; link: PCIe 4.0 x16, 80 % of 31.5 GB/s",
    ),
    GpuClass(
        "h100-80g", "nvidia", "cuda", 81_559 * MIB, 989.0, 54.7,
        {NVIDIA_PRODUCT: ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe")},
        "memory: nvidia-smi; rate: NVIDIA H100 SXM data sheet, dense (779 measured); link: measured",
    ),
    GpuClass(
        "h200", "nvidia", "cuda", 143_771 * MIB, 989.0, 55.2,
        {NVIDIA_PRODUCT: ("NVIDIA-H200", "NVIDIA-H200-NVL")},
        "memory: nvidia-smi; rate: NVIDIA H200 SXM data sheet, dense (770 measured); link: measured",
    ),
    GpuClass(
        "rx-7900-xtx", "amd", "rocm", 24_560 * MIB, 122.8, 25.0,
        {AMD_PRODUCT: ("AMD_Radeon_RX_7900_XTX", "Radeon_RX_7900_XTX"), AMD_DEVICE: ("744c",)},
        "memory: rocm-smi; rate: AMD RX 7900 XTX product page; link: PCIe 4.0 x16, 80 % of 31.5 GB/s",
    ),
    GpuClass(
        "mi300x", "amd", "rocm", 196_592 * MIB, 1307.4, 50.0,
        {AMD_PRODUCT: ("AMD_Instinct_MI300X_OAM", "AMD_Instinct_MI300X"), AMD_DEVICE: ("74a1",)},
        "memory: rocm-smi; rate: AMD MI300X data sheet, dense; link: PCIe 5.0 x16, 80 % of 63 GB/s",
    ),
)  # fmt: skip

BY_NAME: Final = {entry.name: entry for entry in CLASSES}
CPU: Final = BY_NAME["cpu"]


def find(name: str, field: str = "spec.gpu.class") -> GpuClass:
    """The class of a name. Raises ConfigError that names the nearest one."""
    if name in BY_NAME:
        return BY_NAME[name]
    near = get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"known: {AUTO}, {', '.join(BY_NAME)}"
    raise ConfigError(Problem(field, f"{name} is no GPU class", remedy))


def of_product(product: str) -> GpuClass | None:
    """The class of a product as a driver's tool prints it ("NVIDIA H200"), None where the table does not hold it."""
    for entry in CLASSES:
        names = [value for key, values in entry.labels.items() if key != AMD_DEVICE for value in values]
        if _plain(product) in map(_plain, names):
            return entry
    return None


def _plain(product: str) -> str:
    """Labels replace blanks by dashes (NVIDIA) or underscores (AMD)."""
    return product.strip().lower().replace("-", " ").replace("_", " ")


def cheapest_first(classes: Iterable[GpuClass]) -> list[GpuClass]:
    """Least memory first (in whole GiB: cards of 80 differ by some MiB), then the lower rate; no prices here."""
    return sorted(classes, key=lambda entry: (round(entry.memory_bytes / 2**30), entry.bf16_tflops))


def offered(nodes: Iterable[Mapping[str, Any]], count: int = 1) -> list[GpuClass]:
    """The GPU classes of which a node has `count` or more, cheapest first. The class cpu is never among them."""
    nodes = list(nodes)
    return cheapest_first(entry for entry in CLASSES if any(entry.on(node) >= count > 0 for node in nodes))
