"""The GPU classes: which node carries which, and what is chosen first."""

import re
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
    order = [entry.name for entry in gpus.CLASSES]
    assert order[0] == "cpu" and list(gpus.CLASSES) == [gpus.CPU, *gpus.cheapest_first(gpus.CLASSES[1:])]
    for cheaper, dearer in (
        ("l4", "rtx-3090"), ("rtx-3090", "rtx-4090"), ("rtx-4090", "rtx-5090"), ("l40s", "rtx-6000-ada"),
        ("rtx-6000-ada", "mi210"), ("mi210", "mi250x"), ("a100-80g", "h100-pcie"), ("h100-pcie", "h100-80g"),
        ("h100-80g", "rtx-pro-6000"), ("h200", "b200"), ("mi300x", "mi325x"), ("b300", "mi355x"),
    ):  # fmt: skip
        assert order.index(cheaper) < order.index(dearer), (cheaper, dearer)


def test_a_typo_names_the_nearest_class() -> None:
    with pytest.raises(ConfigError, match=r"spec\.gpu\.class: h10-80g is no GPU class; did you mean h100-80g\?"):
        gpus.find("h10-80g")
    with pytest.raises(ConfigError, match=r"spec\.cache\.gpu\.class: zzz .* write auto, cpu or a class of `ltx2 gpus`"):
        gpus.find("zzz", "spec.cache.gpu.class")


# --- the table


@pytest.mark.parametrize("name", ["t4", "v100", "rtx-2080-ti"])
def test_a_class_without_bf16_is_known_and_refused_with_what_to_take(name: str) -> None:
    """Mutation caught: a card that is simply missing from the table, of which a user learns nothing."""
    with pytest.raises(ConfigError) as caught:
        gpus.find(name, "spec.cache.gpu.class")
    text = str(caught.value)
    assert text.startswith(f"spec.cache.gpu.class: {name} does not compute in bf16 (compute capability 7.")
    assert "rtx-3090" in text and "rx-7900-xtx" in text, "the cheapest that people have"
    assert not gpus.BY_NAME[name].bf16 and gpus.BY_NAME[name] not in gpus.TRAINING


def test_what_the_matrix_units_compute() -> None:
    bf16 = {entry.name for entry in gpus.CLASSES if entry.bf16}
    fp8 = {entry.name for entry in gpus.CLASSES if entry.fp8}
    assert set(gpus.BY_NAME) - bf16 == {"t4", "v100", "rtx-2080-ti"}
    assert fp8 < bf16
    for name in ("rtx-3090", "a100-80g", "a10", "rtx-a6000", "rx-7900-xtx", "mi210", "mi250x", "cpu"):
        assert name not in fp8, name
    for name in ("rtx-4090", "l4", "l40s", "rtx-6000-ada", "h100-80g", "h200", "b200", "rtx-5090", "mi300x", "mi355x"):
        assert name in fp8, name


ROWS = gpus.table()["classes"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_number_has_a_source_and_is_plausible(row: dict[str, Any]) -> None:
    """Memory against the name plate, rates against units x clock x operations: typing errors in either do not pass."""
    for key in ("memory_mib", "bf16_tflops", "link_gbps"):
        assert set(row[key]) == {"value", "source"} and len(row[key]["source"]) > 8, key
    assert len(row["nodes_source"]) > 20
    plate = row["nameplate_gib"] * 1024 * {"inline": 15 / 16, "own": 1, "none": 1}[row["ecc"]]
    assert 0.97 * plate <= row["memory_mib"]["value"] <= plate
    engine = row["engine"]
    computed = engine["units"] * engine["mhz"] * 1e6 * engine["flop_per_unit_and_clock"] / 1e12
    assert row["bf16_tflops"]["value"] == pytest.approx(computed, rel=0.025)
    assert row["link_gbps"]["value"] in (12.6, 25.0, 50.0, 54.7, 55.2, 360.0)
    assert (row["bf16_tflops"]["value"] > 0) == gpus.BY_NAME[row["name"]].bf16


def test_names_and_labels_are_those_of_the_vendor() -> None:
    assert len({row["name"] for row in ROWS}) == len(ROWS) >= 35
    for row in ROWS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["name"]) and len(row["name"]) <= 20
        keys = {key for entry in row["nodes"] for key in entry}
        if row["vendor"] == "nvidia":
            assert keys == {gpus.NVIDIA_PRODUCT}
        else:
            assert (
                {gpus.AMD_PRODUCT, gpus.AMD_DEVICE} <= keys <= {gpus.AMD_PRODUCT, gpus.AMD_DEVICE, "amd.com/gpu.vram"}
            )
        for entry in row["nodes"]:
            for value in (value for values in entry.values() for value in values):
                assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,61}[A-Za-z0-9]", value), value


@pytest.mark.parametrize("entry", gpus.CLASSES, ids=lambda entry: entry.name)
def test_rows_become_classes(entry: gpus.GpuClass) -> None:
    if entry is gpus.CPU:
        assert (entry.resource, entry.device, entry.flavour, entry.affinity_terms()) == (None, "cpu", "cpu", [])
        return
    assert entry.device == "cuda"
    assert {"nvidia": ("nvidia.com/gpu", "cuda"), "amd": ("amd.com/gpu", "rocm")}[entry.vendor] == (
        entry.resource,
        entry.flavour,
    )
    assert 10 * 2**30 < entry.usable_bytes <= entry.memory_bytes < 300 * 2**30
    assert entry.memory_bytes - entry.usable_bytes == (720 * 2**20 if entry.vendor == "nvidia" else 0)
    assert len(entry.affinity_terms()) == len(entry.nodes) >= 1
    assert set(entry.sources) == {"memory", "rate", "link", "labels"}


def test_a_node_matches_one_class_at_most_and_its_affinity_says_the_same() -> None:
    for entry in gpus.CLASSES:
        for labels in entry.nodes:
            for value in next(iter(labels.values())):
                carried = {key: values[0] for key, values in labels.items()} | {next(iter(labels)): value}
                where = node(carried, nvidia_com="1", amd_com="1")
                assert [other.name for other in gpus.CLASSES if other.on(where)] == [entry.name]
                assert [other.name for other in gpus.CLASSES if selected(other, carried)] == [entry.name]


def selected(entry: gpus.GpuClass, labels: dict[str, str]) -> bool:
    """What a scheduler makes of the affinity: terms are alternatives, the expressions of one must all hold."""
    return any(
        all(labels.get(one["key"]) in one["values"] and one["operator"] == "In" for one in term["matchExpressions"])
        for term in entry.affinity_terms()
    )


@pytest.mark.parametrize(
    ("device", "vram", "name"), [("744c", "24G", "rx-7900-xtx"), ("744c", "20G", "rx-7900-xt"), ("744c", "16G", None)]
)
def test_one_device_id_of_several_cards_needs_the_memory_too(device: str, vram: str, name: str | None) -> None:
    """744c is the 7900 XTX, XT, GRE and M: a 20 GB card must not pass for one of 24 GB."""
    where = node({"amd.com/gpu.device-id": device, "amd.com/gpu.vram": vram}, amd_com="1")
    assert [entry.name for entry in gpus.offered([where])] == ([name] if name else [])
    found = gpus.of_device(device.upper(), int(vram[:-1]) * 1024 - 16)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    "product", ["NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "NVIDIA-L4-SHARED", "NVIDIA-RTX-6000-Ada-Generation-SHARED"]
)
def test_a_slice_is_never_a_whole_gpu(product: str) -> None:
    where = node({"nvidia.com/gpu.product": product}, nvidia_com="4")
    assert gpus.offered([where]) == []
    assert gpus.unknown([where]) == [f"4 x {product}"]


def test_unknown_says_what_nodes_offer_instead() -> None:
    t4 = node({"nvidia.com/gpu.product": "Tesla-T4"}, nvidia_com="2")
    bare = node({}, nvidia_com="8")
    assert gpus.unknown([t4, bare, bare, H100, PLAIN]) == [
        "16 x nvidia.com/gpu without the label nvidia.com/gpu.product", "2 x t4 (no bf16)",
    ]  # fmt: skip
    assert gpus.offered([t4, bare]) == []


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3\n", "h100-80g"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 3090 Ti", "rtx-3090-ti"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000"),
        ("AMD Instinct MI300X OAM", "mi300x"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4060", None),
        ("744c", None),
    ],
)
def test_product_names_of_a_driver(product: str, name: str | None) -> None:
    found = gpus.of_product(product)
    assert (found.name if found else None) == name
