"""Plans: what fits where, which plan is first, what follows an out-of-memory, what is said when nothing fits."""

import json
from typing import Any

import pytest

from ltx2_job import estimate
from ltx2_job.config import Resolved, resolve
from ltx2_job.errors import ConfigError
from ltx2_operator import gpus, sizing
from ltx2_operator.api import Spec
from ltx2_operator.gpus import CPU, find

GIB = 2**30
CLIPS = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}


def given(
    frames: int = 49, resolution: int = 512, spec: dict[str, Any] | None = None, **config: Any
) -> tuple[Spec, Resolved]:
    """A training of clips of this size, with these keys of config.json."""
    datasets = [{**CLIPS, "resolution": resolution, "video": {"num_frames": frames, "min_frames": 1}}]
    typed = Spec.model_validate({"config": config, "datasets": datasets, **(spec or {})})
    return typed, resolve(config, datasets)


def node(product: str, count: int) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"nvidia.com/gpu.product": product}},
        "status": {"allocatable": {"nvidia.com/gpu": str(count)}},
    }


H100, H200, L40S, RTX = (
    node(product, 2) for product in ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S", "NVIDIA-GeForce-RTX-4090")
)


# --- ladders


def test_ladder_of_a_gpu_and_of_a_cpu() -> None:
    spec, resolved = given()
    gpu = ["bf16/resident/keep:48", "bf16/resident/keep:24", "bf16/resident/keep:0"]
    assert sizing.ladder(spec, resolved, find("h100-80g")) == gpu
    assert sizing.ladder(spec, resolved, CPU) == [name.replace("bf16", "fp32") for name in gpu]


def test_no_mixed_precision_is_fp32_on_a_gpu_too() -> None:
    spec, resolved = given(mixed_precision="no")
    assert sizing.ladder(spec, resolved, find("h200"))[0] == "fp32/resident/keep:48"


def test_a_named_plan_is_the_whole_ladder() -> None:
    spec, resolved = given(spec={"memory": "bf16/resident/keep:12"})
    assert sizing.ladder(spec, resolved, find("h200")) == ["bf16/resident/keep:12"]


@pytest.mark.parametrize(
    ("checkpointing", "memory", "expected"),
    [
        (True, None, [0]),
        (False, None, [48]),
        (None, None, [48, 24, 0]),
        (False, "auto", [48, 24, 0]),
        (True, "auto", [0]),
    ],
)
def test_a_flag_of_the_guide_pins_its_part(checkpointing: bool | None, memory: str | None, expected: list[int]) -> None:
    """Below a pinned plan only where `memory: auto` is written, not where it is merely the default."""
    config = {} if checkpointing is None else {"gradient_checkpointing": checkpointing}
    spec, resolved = given(spec={} if memory is None else {"memory": memory}, **config)
    assert [estimate.PlanName.parse(name).keep for name in sizing.ladder(spec, resolved, find("h200"))] == expected


@pytest.mark.parametrize(
    ("memory", "cls", "message"),
    [
        ("int8/resident/keep:0", "h200", "not supported yet"),
        ("bf16/streamed:8/keep:0", "h200", "not supported yet"),
        ("bf16/resident/keep:0", "cpu", "write fp32/"),
        ("fp32/resident/keep:0", "h200", "write bf16/"),
    ],
)
def test_a_plan_that_cannot_be_is_named(memory: str, cls: str, message: str) -> None:
    spec, resolved = given(spec={"memory": memory})
    with pytest.raises(ConfigError, match=rf"spec\.memory: {memory}.*{message}"):
        sizing.ladder(spec, resolved, find(cls))


def test_names_are_those_the_job_reads() -> None:
    from ltx2_job.memory.plan import MemoryPlan

    for cls in (CPU, find("h200")):
        spec, resolved = given()
        names = sizing.ladder(spec, resolved, cls)
        assert [str(rung) for rung in MemoryPlan.parse(names[0]).ladder()] == names


# --- what fits


@pytest.mark.parametrize(
    ("cls", "frames", "keep"),
    [("h200", 49, 48), ("h100-80g", 49, 48), ("h100-80g", 121, 24), ("l40s", 49, 0), ("h200", 121, 48)],
)
def test_the_fastest_plan_that_fits_is_taken(cls: str, frames: int, keep: int) -> None:
    spec, resolved = given(frames)
    plan = sizing.size(spec, resolved, find(cls))
    assert plan.memory == f"bf16/resident/keep:{keep}"
    assert sum(plan.terms.values()) <= find(cls).usable_bytes < find(cls).memory_bytes
    assert plan.predicted_peak_bytes == sum(plan.terms.values()) > estimate.allocated(plan.terms)


def test_the_base_of_the_guide_needs_48_gb() -> None:
    """The guide's field report: about 48 GB in bf16; a 32 GB card is refused, a 48 GB card is enough."""
    spec, resolved = given(17, 480, train_batch_size=2)
    assert sizing.size(spec, resolved, find("l40s")).memory == "bf16/resident/keep:0"
    with pytest.raises(sizing.NoFit):
        sizing.size(spec, resolved, find("rtx-5090"))


def test_a_rung_is_one_plan_smaller_and_the_ladder_ends() -> None:
    spec, resolved = given()
    plans = [sizing.size(spec, resolved, find("h200"), rung).memory for rung in range(3)]
    assert plans == ["bf16/resident/keep:48", "bf16/resident/keep:24", "bf16/resident/keep:0"]
    with pytest.raises(sizing.NoFit, match="no memory plan below bf16/resident/keep:0 on h200"):
        sizing.size(spec, resolved, find("h200"), 3)


def test_rungs_count_from_the_first_plan_that_fits() -> None:
    """Mutation caught: counting from the top, where "one rung down" would be the plan that just ran out of memory."""
    spec, resolved = given(121)
    plans = [sizing.size(spec, resolved, find("h100-80g"), rung).memory for rung in range(2)]
    assert plans == ["bf16/resident/keep:24", "bf16/resident/keep:0"]


def test_nothing_fits_says_what_would() -> None:
    spec, resolved = given(121, 1024, train_batch_size=4)
    with pytest.raises(sizing.NoFit) as caught:
        sizing.size(spec, resolved, find("h100-80g"))
    message = str(caught.value)
    assert "h100-80g has 78.9 GiB" in message and "needs" in message
    batch = int(message.split("train_batch_size: ")[1].split(",")[0])
    frames = int(message.split("video.num_frames: ")[1].split(",")[0])
    assert 1 <= batch < 4 and frames % 8 == 1 and frames < 121
    assert "gpu.class: h100-nvl" in message
    smaller = given(121, 1024, train_batch_size=batch)
    assert sizing.size(*smaller, find("h100-80g")).memory.endswith("keep:0")
    shorter = given(frames, 1024, train_batch_size=4)
    assert sizing.size(*shorter, find("h100-80g")).memory.endswith("keep:0")
    one_more = given(121, 1024, train_batch_size=batch + 1)
    with pytest.raises(sizing.NoFit):
        sizing.size(*one_more, find("h100-80g"))


def test_where_no_clip_is_small_enough_only_a_class_is_offered() -> None:
    with pytest.raises(
        sizing.NoFit, match=r"what would fit: gpu\.class: a40, or once it is built, memory: fp8/streamed"
    ):
        sizing.size(*given(), find("rtx-4090"))


@pytest.mark.parametrize(
    ("cls", "plan"),
    [
        ("rtx-4090", "fp8/streamed:24/keep:0"),
        ("rtx-3090", "int8/streamed:24/keep:0"),
        ("rx-7900-xtx", "int8/streamed:24/keep:0"),
        ("rtx-5090", "fp8/resident/keep:0"),
        ("a100-40g", "int8/resident/keep:24"),
        ("rtx-5080", "fp8/streamed:0/keep:0"),
    ],
)
def test_what_would_fit_names_a_class_and_the_plan_to_come(cls: str, plan: str) -> None:
    """The real model at 49 frames on small cards: what is predicted fits, what is built does not."""
    asked = given()
    with pytest.raises(sizing.NoFit) as caught:
        sizing.size(*asked, find(cls))
    assert f"what would fit: gpu.class: a40, or once it is built, memory: {plan} (" in str(caught.value)
    predicted = sizing.predict(*asked, find(cls))
    assert predicted is not None and predicted.memory == plan
    assert predicted.predicted_peak_bytes == sum(predicted.terms.values()) <= find(cls).usable_bytes
    assert sizing.size(*asked, find("a40")).memory == "bf16/resident/keep:0"
    with pytest.raises(ConfigError, match="not supported yet"):
        sizing.size(*given(spec={"memory": plan}), find(cls))


def test_smaller_work_is_both_where_neither_alone_will_do() -> None:
    asked = given(121, 1024, train_batch_size=16)
    with pytest.raises(sizing.NoFit) as caught:
        sizing.size(*asked, find("a40"))
    text = str(caught.value)
    assert "train_batch_size: 1 and video.num_frames: " in text
    frames = int(text.split("video.num_frames: ")[1].split(",")[0])
    assert sizing.size(*given(frames, 1024, train_batch_size=1), find("a40")).memory.endswith("keep:0")
    with pytest.raises(sizing.NoFit):
        sizing.size(*given(frames + 8, 1024, train_batch_size=1), find("a40"))


def test_where_nothing_at_all_fits_it_says_so() -> None:
    with pytest.raises(sizing.NoFit, match=r"no known class fits|train_batch_size"):
        sizing.size(*given(1201, 2048, train_batch_size=64), find("mi300x"))


def test_sample_clips_are_part_of_the_peak() -> None:
    """Mutation caught: planning for training only, and running out of memory at the first validation."""
    pinned = {"memory": "bf16/resident/keep:0"}
    clip = {"validation_num_video_frames": 241, "validation_resolution": "1280x704"}
    small = given(9, 256, pinned, validation_prompt="fox", **clip)
    plan = sizing.size(*small, find("h200"))
    assert "decoding" in plan.terms
    without = given(9, 256, pinned, validation_prompt="fox", validation_disable=True, **clip)
    assert "decoding" not in sizing.size(*without, find("h200")).terms


def test_a_sample_clip_that_does_not_fit_is_named_and_not_the_clips_trained_on() -> None:
    """Mutation caught: advice to train on fewer frames, which changes nothing for a sample clip."""
    clip = {"validation_prompt": "fox", "validation_num_video_frames": 241, "validation_resolution": "1280x704"}
    with pytest.raises(sizing.NoFit, match=r"what would fit: validation_disable: true, or gpu\.class"):
        sizing.size(*given(17, 256, **clip), find("l40s"))
    assert sizing.size(*given(17, 256, **clip, validation_disable=True), find("l40s")).memory.endswith("keep:24")
    with pytest.raises(sizing.NoFit, match=r"train_batch_size: \d+ with validation_disable: true") as caught:
        sizing.size(*given(17, 480, train_batch_size=8, **clip), find("l40s"))
    batch = int(str(caught.value).split("train_batch_size: ")[1].split()[0])
    changed = given(17, 480, train_batch_size=batch, validation_disable=True, **clip)
    assert sizing.size(*changed, find("l40s")).memory.endswith("keep:0")


def test_the_largest_data_set_decides() -> None:
    datasets = [
        {**CLIPS, "id": f"d{frames}", "video": {"num_frames": frames, "min_frames": 1}, "cache_dir": f"c{frames}"}
        for frames in (17, 121, 49)
    ]
    resolved = resolve({"train_batch_size": 3}, datasets)
    batch = sizing.batch_of(resolved)
    assert (batch.frames, batch.batch, batch.audio_latents) == (121, 3, 126)


def test_sound_that_is_off_costs_nothing() -> None:
    resolved = resolve({}, [{**CLIPS, "audio": {"auto_split": False}}])
    assert sizing.batch_of(resolved).audio_latents == 0


# --- plans


def test_a_plan_is_whole() -> None:
    spec, resolved = given(spec={"gpu": {"class": "h200", "count": 2}, "nodes": 2})
    plan = sizing.size(spec, resolved, find("h200"))
    assert (plan.stage, plan.gpu_class, plan.device, plan.vendor) == ("train", "h200", "cuda", "nvidia")
    assert (plan.resource_name, plan.gpu_count, plan.nodes, plan.processes) == ("nvidia.com/gpu", 2, 2, 2)
    assert (plan.flavour, plan.cache_memory) == ("cuda", "device")
    assert plan.memory_bytes > plan.shm_bytes > 0
    assert plan.predicted_seconds_per_step is not None and float(plan.predicted_seconds_per_step) > 0
    json.dumps(plan.dump())


def test_no_seconds_are_told_for_fp32_on_a_gpu() -> None:
    """The rates are of bf16: fp32 is many times slower. Mutation caught: a step in fp32 as fast as one in bf16."""
    plan = sizing.size(*given(mixed_precision="no"), find("b200"))
    assert plan.memory.startswith("fp32/") and plan.predicted_seconds_per_step is None


def test_amd_and_the_users_flavour() -> None:
    spec, resolved = given()
    plan = sizing.size(spec, resolved, find("mi300x"))
    assert (plan.vendor, plan.resource_name, plan.flavour, plan.device) == ("amd", "amd.com/gpu", "rocm", "cuda")
    other, resolved = given(spec={"flavour": "cuda"})
    assert sizing.size(other, resolved, find("mi300x")).flavour == "cuda"


def test_the_cache_stage_is_one_process_on_one_node() -> None:
    spec, resolved = given(spec={"gpu": {"class": "h200", "count": 4}, "nodes": 2})
    plan = sizing.size(spec, resolved, find("h200"), stage="cache")
    assert (plan.stage, plan.gpu_count, plan.nodes, plan.processes) == ("cache", 1, 1, 1)
    assert plan.predicted_seconds_per_step is None


def test_the_cache_ladder_goes_to_the_cpu() -> None:
    """A 24 GB card cannot hold the text encoder: it starts on the rung "cpu", with host memory for it."""
    spec, resolved = given()
    places = [sizing.size(spec, resolved, find("h200"), rung, "cache").cache_memory for rung in range(2)]
    assert places == ["device", "cpu"]
    with pytest.raises(sizing.NoFit):
        sizing.size(spec, resolved, find("h200"), 2, "cache")
    small = sizing.size(spec, resolved, find("rtx-4090"), 0, "cache")
    assert small.cache_memory == "cpu"
    host = sizing.size(spec, resolved, find("h200"), 0, "cache").memory_bytes
    assert small.memory_bytes - host > 4 * estimate.known_model("dev").text_encoder


@pytest.mark.parametrize("offload", [True, False])
def test_the_cache_stage_never_holds_two_models(offload: bool) -> None:
    """caching/encode.py has one in memory at a time whatever is configured: the same plan, without the VAE."""
    plan = sizing.size(*given(offload_during_startup=offload), find("h200"), stage="cache")
    assert "text encoder" in plan.terms and "video encoder" not in plan.terms


def test_the_cache_stage_has_host_memory_for_the_clips_decoded_ahead() -> None:
    short, long = (sizing.size(*given(frames, 1024), find("h200"), stage="cache") for frames in (9, 241))
    assert long.memory_bytes - short.memory_bytes >= 7 * 232 * 1024 * 1024 * 3 * 2 - GIB


def test_the_class_cpu_keeps_everything_in_host_memory() -> None:
    spec, resolved = given(
        pretrained_model_name_or_path="models/ltx-2-tiny.safetensors", spec={"gpu": {"class": "cpu"}}
    )
    plan = sizing.size(spec, resolved, CPU)
    assert (plan.device, plan.gpu_count, plan.resource_name, plan.flavour) == ("cpu", 0, None, "cpu")
    assert plan.memory == "fp32/resident/keep:48" and plan.memory_bytes > sum(plan.terms.values())
    assert plan.memory_bytes < 16 * GIB, "a tiny model must fit a small node"
    assert plan.predicted_seconds_per_step is None
    assert sizing.size(spec, resolved, CPU, stage="cache").cache_memory == "device"
    with pytest.raises(sizing.NoFit):
        sizing.size(spec, resolved, CPU, 1, "cache")


def test_count_on_the_class_cpu_is_processes() -> None:
    spec, resolved = given(pretrained_model_name_or_path="models/tiny", spec={"gpu": {"class": "cpu", "count": 2}})
    plan = sizing.size(spec, resolved, CPU)
    assert (plan.processes, plan.gpu_count, plan.cpu_milli) == (2, 0, 2000)


def test_the_real_model_on_a_cpu_is_sized_as_such() -> None:
    spec, resolved = given(pretrained_model_name_or_path="Lightricks/LTX-2")
    assert sizing.size(spec, resolved, CPU).memory_bytes > 80 * GIB


def test_known_sizes_replace_the_flavours() -> None:
    spec, resolved = given()
    tiny = estimate.known_model("small")
    plan = sizing.size(spec, resolved, find("rtx-4090"), model=tiny)
    assert plan.terms["weights"] == 2 * tiny.transformer


def test_volume_has_room_for_downloads_only_from_a_hub() -> None:
    hub = sizing.size(*given(pretrained_model_name_or_path="Lightricks/LTX-2"), find("h200")).volume_bytes
    own = sizing.size(*given(pretrained_model_name_or_path="models/ltx.safetensors"), find("h200")).volume_bytes
    assert hub - own > 60e9


# --- choosing a class


def choose(nodes: Any, stage: Any = "train", **spec: Any) -> str:
    return sizing.choose_class(*given(spec=spec), nodes, stage).name


def test_auto_takes_the_cheapest_that_fits() -> None:
    assert choose([H200, L40S, H100]) == "l40s"
    assert choose([H200, RTX, H100]) == "h100-80g", "a 24 GB card is cheaper but too small"
    assert choose([H200]) == "h200"


def test_auto_counts_gpus_of_one_node() -> None:
    assert choose([H200, node("NVIDIA-L40S", 1)], gpu={"count": 2}) == "h200"


def test_a_named_class_needs_no_nodes() -> None:
    assert choose(None, gpu={"class": "mi300x"}) == "mi300x"
    assert choose([], gpu={"class": "cpu"}) == "cpu"
    with pytest.raises(ConfigError, match=r"spec\.gpu\.class: h300 is no GPU class; did you mean"):
        choose(None, gpu={"class": "h300"})


def test_auto_without_nodes_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"spec\.gpu\.class: auto needs to read the cluster's nodes.*rbac\.nodeReader"
    ):
        choose(None)


def test_auto_on_a_mixed_pool_takes_the_cheapest_whose_node_has_enough() -> None:
    """Counts are per node and per class: two nodes with one GPU each are not one with two. Mutation caught: a sum."""
    a40, a100 = (node(product, count) for product, count in (("NVIDIA-A40", 1), ("NVIDIA-A100-SXM4-80GB", 4)))
    mi300x = {
        "metadata": {"labels": {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}},
        "status": {"allocatable": {"amd.com/gpu": "8"}},
    }
    t4, slices, bare = node("Tesla-T4", 8), node("NVIDIA-H100-80GB-HBM3-MIG-3g.40gb", 8), node("", 8)
    bare["metadata"]["labels"] = {}
    pool = [t4, slices, bare, RTX, a40, a40, a100, mi300x]
    assert choose(pool) == "a40"
    assert choose(pool, gpu={"count": 2}) == "a100-80g", (
        "each A40 node has one, 24 GB is too small, the rest is no class"
    )
    assert choose(pool, gpu={"count": 8}) == "mi300x"
    assert choose(pool, "cache") == "a40"
    assert choose(pool, "cache", gpu={"count": 8}) == "a40", "the cache stage is one process"
    with pytest.raises(sizing.NotOffered, match=r"at most 8; set spec\.gpu\.count: 8"):
        choose(pool, gpu={"count": 9})


def test_auto_among_what_is_no_class_names_it_and_whose_labels_are_missing() -> None:
    bare = node("", 4)
    bare["metadata"]["labels"] = {}
    with pytest.raises(sizing.NotOffered) as caught:
        choose([bare, node("Tesla-T4", 2), node("NVIDIA-L4-SHARED", 6)])
    message = str(caught.value)
    for part in (
        "4 x nvidia.com/gpu without the label nvidia.com/gpu.product", "2 x t4 (no bf16)", "6 x NVIDIA-L4-SHARED",
        "GPU feature discovery", "spec.gpu.class: auto",
    ):  # fmt: skip
        assert part in message, part


def test_a_named_class_without_bf16_is_refused_before_anything_is_sized() -> None:
    with pytest.raises(ConfigError, match=r"spec\.gpu\.class: t4 does not compute in bf16"):
        choose(None, gpu={"class": "t4"})
    with pytest.raises(ConfigError, match=r"v100 does not compute in bf16"):
        sizing.size(*given(), gpus.BY_NAME["v100"])


def test_auto_on_a_pool_that_is_empty_says_so() -> None:
    with pytest.raises(sizing.NotOffered, match="grows from zero"):
        choose([{"metadata": {"labels": {}}, "status": {"allocatable": {"cpu": "8"}}}])


def test_too_many_gpus_say_how_many_there_are() -> None:
    with pytest.raises(
        sizing.NotOffered, match=r"no node offers 4 GPUs of one known class, at most 2; set spec\.gpu\.count: 2"
    ):
        choose([H100, L40S], gpu={"count": 4})


def test_auto_where_none_fits_tells_of_the_largest() -> None:
    with pytest.raises(sizing.NoFit, match=r"rtx-4090 has 23\.3 GiB; what would fit: gpu\.class: a40"):
        choose([RTX])


def test_the_cache_stage_has_its_own_class() -> None:
    auto: dict[str, Any] = {"gpu": {"class": "h200"}, "cache": {"gpu": {"class": "auto"}}}
    assert choose([H200, L40S, RTX], "cache", **auto) == "l40s", "a 24 GB card would encode text on the CPU"
    assert choose([RTX], "cache", **auto) == "rtx-4090", "better than not at all"
    assert choose([H200, RTX], "cache", gpu={"class": "h200"}) == "h200"
    with pytest.raises(ConfigError, match=r"spec\.cache\.gpu\.class"):
        choose([H200], "cache", cache={"gpu": {"class": "nope"}})


# --- this machine


def here(found: list[str], model: estimate.Model | None = None, **spec: Any) -> str:
    return sizing.class_of_machine(*given(spec=spec), [find(name) for name in found], model=model).name


def test_a_machine_uses_its_gpu() -> None:
    assert here(["h100-80g"]) == "h100-80g"
    assert here(["h200", "l40s"]) == "l40s"
    assert here([], gpu={"class": "cpu"}) == "cpu"


def test_a_machine_without_gpu_trains_only_what_is_known_to_be_tiny() -> None:
    assert here([], estimate.known_model("small")) == "cpu"
    for unknown in (None, estimate.known_model("dev")):
        with pytest.raises(ConfigError, match="no GPU on this machine"):
            here([], unknown)


def test_what_is_wrong_with_the_class_of_the_cache_stage_is_said_of_its_own_field() -> None:
    spec, resolved = given(spec={"gpu": {"class": "h200"}, "cache": {"gpu": {"class": "h100-8g"}}})
    with pytest.raises(ConfigError, match=r"^spec\.cache\.gpu\.class: h100-8g is no GPU class"):
        sizing.class_of_machine(spec, resolved, [], "cache")


def test_a_gpu_is_not_left_for_the_cpu_even_by_a_tiny_model() -> None:
    assert here(["rtx-4090"], estimate.known_model("small")) == "rtx-4090"


def test_every_class_answers_with_a_plan_or_a_reason() -> None:
    for entry in gpus.CLASSES:
        for stage in ("cache", "train"):
            try:
                plan = sizing.size(*given(), entry, stage=stage)
            except sizing.NoFit as reason:
                assert entry.name in str(reason)
            except ConfigError as reason:
                assert not entry.bf16 and f"{entry.name} does not compute in bf16" in str(reason)
            else:
                assert plan.gpu_class == entry.name


@pytest.mark.parametrize("stage", ["train", "cache"])
def test_the_plan_tells_what_was_corrected(stage: sizing.Stage) -> None:
    """The files of a run are resolved: only the plan can tell the job. Mutation caught: corrections that end here."""
    spec, resolved = given(frames=61)
    plan = sizing.size(spec, resolved, find("h200"), 0, stage)
    assert plan.corrections == ["datasets[0].video.num_frames 61 → 57 (8k+1)"]
    assert plan.dump()["corrections"] == plan.corrections
