"""The GPU classes: which node carries which, and what is chosen first."""

from typing import Any

import pytest

from ltx2_job.errors import ConfigError
from ltx2_operator import gpus


def node(labels: dict[str, str], **allocatable: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": labels},
        "status": {"allocatable": {key.replace("_", ".") + "/gpu": value for key, value in allocatable.items()}},
    }


H100 = node({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, nvidia_com="8")
L40S = node({"nvidia.com/gpu.product": "NVIDIA-L40S"}, nvidia_com="1")
MI300X = node({"amd.com/gpu.device-id": "74a1"}, amd_com="8")
MIG = node({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"}, nvidia_com="7")
PLAIN = node({"kubernetes.io/os": "linux"})


@pytest.mark.parametrize(
    ("name", "where", "count"),
    [
        ("h100-80g", H100, 8), ("l40s", L40S, 1), ("h100-80g", L40S, 0), ("mi300x", MI300X, 8), ("cpu", H100, 0),
        ("h100-80g", MIG, 0), ("h100-80g", PLAIN, 0),
        ("mi300x", node({"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, amd_com="4"), 4),
        ("mi300x", node({"amd.com/gpu.device-id": "74a1"}, nvidia_com="4"), 0),
        ("h100-80g", {"metadata": {}, "status": {}}, 0),
        ("h100-80g", {"metadata": {"labels": None}, "status": {"allocatable": None}}, 0),
    ],
)  # fmt: skip
def test_count_on_a_node(name: str, where: dict[str, Any], count: int) -> None:
    """A MIG slice carries another product name: a tenth of a GPU must not pass for one."""
    assert gpus.find(name).on(where) == count


def test_offered_is_cheapest_first_and_counts_per_node() -> None:
    nodes = [MI300X, H100, L40S, PLAIN]
    assert [entry.name for entry in gpus.offered(nodes)] == ["l40s", "h100-80g", "mi300x"]
    assert [entry.name for entry in gpus.offered(nodes, 2)] == ["h100-80g", "mi300x"]
    assert gpus.offered(nodes, 9) == []
    assert gpus.offered(iter([L40S, H100]))[1].name == "h100-80g", "an iterator is read once"


def test_cheapest_is_least_memory_then_the_lower_rate() -> None:
    order = [entry.name for entry in gpus.cheapest_first(gpus.CLASSES)]
    assert order == [
        "cpu", "rx-7900-xtx", "rtx-4090", "rtx-5090", "l40s", "a100-80g", "h100-80g", "h200", "mi300x",
    ]  # fmt: skip


def test_a_typo_names_the_nearest_class() -> None:
    with pytest.raises(ConfigError, match=r"spec\.gpu\.class: h10-80g is no GPU class; did you mean h100-80g\?"):
        gpus.find("h10-80g")
    with pytest.raises(ConfigError, match=r"spec\.cache\.gpu\.class: zzz .* known: auto, cpu, rtx-4090"):
        gpus.find("zzz", "spec.cache.gpu.class")


@pytest.mark.parametrize("entry", gpus.CLASSES, ids=lambda entry: entry.name)
def test_rows_are_whole(entry: gpus.GpuClass) -> None:
    assert entry.source
    if entry is gpus.CPU:
        assert (entry.resource, entry.device, entry.flavour, entry.affinity_terms()) == (None, "cpu", "cpu", [])
        return
    assert entry.device == "cuda"
    assert {"nvidia": ("nvidia.com/gpu", "cuda"), "amd": ("amd.com/gpu", "rocm")}[entry.vendor] == (
        entry.resource,
        entry.flavour,
    )
    assert 20 * 2**30 < entry.memory_bytes < 200 * 2**30
    assert 50 < entry.bf16_tflops < 2000 and 10 < entry.link_gbps < 100
    assert len(entry.affinity_terms()) == len(entry.labels) >= 1


def test_a_node_matches_one_class_at_most() -> None:
    for entry in gpus.CLASSES:
        for key, values in entry.labels.items():
            for value in values:
                where = node({key: value}, nvidia_com="1", amd_com="1")
                assert [other.name for other in gpus.CLASSES if other.on(where)] == [entry.name]


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3\n", "h100-80g"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD Instinct MI300X OAM", "mi300x"),
        ("Tesla T4", None),
        ("744c", None),
    ],
)
def test_product_names_of_a_driver(product: str, name: str | None) -> None:
    found = gpus.of_product(product)
    assert (found.name if found else None) == name
