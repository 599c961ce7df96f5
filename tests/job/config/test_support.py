"""The second pass: what is not built yet is named, wherever it asks for something, and only there."""

import pytest

from ltx2_job.config import DatasetConfig, TrainingConfig, resolve
from ltx2_job.config.keys import facts
from ltx2_job.errors import ConfigError

CLIPS = {"id": "clips", "instance_data_dir": "datasets/videos"}


def later(config=None, **dataset):
    return [item.field for item in resolve(config or {}, [{**CLIPS, **dataset}]).unsupported]


def test_the_defaults_are_all_supported():
    found = resolve({}, [CLIPS])
    assert found.unsupported == () and found.corrections == ()
    found.require_supported()


@pytest.mark.parametrize(
    ("key", "asks"),
    [
        ("ramtorch", True),
        ("ramtorch_text_encoder", True),
        ("enable_group_offload", True),
        ("musubi_blocks_to_swap", 4),
        ("vae_enable_patch_conv", True),
        ("vae_enable_temporal_roll", True),
        ("vae_enable_tiling", True),
        ("vae_enable_slicing", True),
        ("vae_batch_size", 2),
        ("base_model_precision", "int8-torchao"),
        ("base_model_precision", "nf4-bnb"),
        ("base_model_precision", "uint4-sdnq"),
        ("text_encoder_1_precision", "int8-torchao"),
        ("model_flavour", "dev-fp8"),
        ("model_flavour", "dev-fp4"),
        ("model_flavour", "2.5"),
        ("model_flavour", "2.5-distilled"),
        ("model_type", "full"),
        ("mixed_precision", "fp16"),
        ("lora_type", "lycoris"),
        ("use_dora", True),
        ("peft_lora_target_modules", ["to_q"]),
        ("lora_init_type", "pissa"),
        ("optimizer", "prodigy"),
        ("optimizer", "adamw_schedulefree"),
        ("optimizer", "bnb-adamw8bit-paged"),
        ("optimizer", "optimi-stableadamw"),
        ("optimizer", "ao-adamw8bit"),
        ("optimizer_config", "d_coef=0.1"),
        ("caption_dropout_probability", 0.1),
        ("report_to", "wandb"),
        ("report_to", "wandb,tensorboard"),
        ("push_to_hub", True),
        ("push_checkpoints_to_hub", True),
        ("evaluation_type", "clip"),
        ("dynamo_backend", "inductor"),
        ("fsdp_enable", True),
        ("context_parallel_size", 2),
        ("attention_mechanism", "sageattention"),
        ("use_ema", True),
        ("loss_type", "huber"),
        ("flow_use_uniform_schedule", True),
        ("flow_sigmoid_scale", 0.5),
        ("tread_config", {"routes": [{"selection_ratio": 0.5}]}),
        ("crepa_enabled", True),
        ("scheduled_sampling_max_step_offset", 10),
        ("ltx2_prefix_conditioning_probability", 0.25),
        ("ltx2_intrinsic_conditioning", [{"type": "prefix"}]),
        ("validation_prompt_library", True),
        ("validation_prompt_library", "audio"),
        ("user_prompt_library", "prompts.json"),
        ("validation_using_datasets", True),
        ("validation_adapter_path", "me/adapter:file.safetensors"),
        ("validation_adapter_config", [{"path": "x"}]),
        ("validation_disable_unconditional", False),
        ("validation_audio_only", True),
        ("num_validation_images", 2),
        ("ltx2_validation_pipeline_mode", "spatial-upscale"),
        ("checkpoint_epoch_interval", 1),
        ("validation_epoch_interval", 1),
        ("minimum_image_size", 256),
        ("gradient_checkpointing_interval", 2),
    ],
)
def test_what_comes_later_is_named(key, asks):
    assert later({key: asks}) == [key]


@pytest.mark.parametrize("name", sorted(TrainingConfig.model_fields))
def test_a_value_that_asks_for_nothing_is_silent(name):
    """Every key at its own default, written out, and at null."""
    info = TrainingConfig.model_fields[name]
    default = info.get_default(call_default_factory=True, validated_data={})
    assert later({name: default}) == []


@pytest.mark.parametrize(
    ("key", "nothing"),
    [
        ("musubi_blocks_to_swap", "0"),
        ("ramtorch", "false"),
        ("minimum_image_size", 0),
        ("report_to", "none"),
        ("evaluation_type", "none"),
        ("dynamo_backend", "no"),
        ("dynamo_mode", ""),
        ("base_model_precision", "no_change"),
        ("caption_dropout_probability", "0.0"),
        ("context_parallel_size", 1),
        ("gradient_checkpointing_interval", 1),
        ("validation_prompt_library", "false"),
        ("tread_config", {}),
        ("ltx2_intrinsic_conditioning", []),
        ("scheduled_sampling_reflexflow", False),
        ("ltx2_reference_spatial_scale_factor", 1),
        ("vae_batch_size", "1"),
    ],
)
def test_values_without_effect_are_silent(key, nothing):
    assert later({key: nothing}) == []


@pytest.mark.parametrize(
    "config",
    [
        {"group_offload_use_stream": True, "group_offload_blocks_per_group": 4, "group_offload_type": "leaf_level"},
        {"musubi_block_swap_device": "cuda:1"},
        {"hub_model_id": "me/mine", "model_card_private": True},
        {"lycoris_config": {"algo": "lokr"}},
        {"tracker_project_name": "a", "tracker_run_name": "b"},
        {"crepa_lambda": 0.9, "crepa_block_index": 12},
        {"scheduled_sampling_probability": 0.5, "scheduled_sampling_reflexflow": True},
        {"dynamo_mode": "max-autotune"},
        {"ema_decay": 0.5},
        {"fsdp_version": 1},
        {"quantize_via": "cpu"},
        {"validation_adapter_strength": 0.5},
        {"ltx2_prefix_conditioning_frames": 3},
    ],
)
def test_details_of_a_feature_that_is_off_are_silent(config):
    assert later(config) == []


def test_a_feature_is_named_once_with_its_switch():
    assert later({"enable_group_offload": True, "group_offload_use_stream": True}) == ["enable_group_offload"]
    assert later({"lora_type": "lycoris", "lycoris_config": "x.json"}) == ["lora_type"]


def test_every_detail_names_a_switch_that_is_watched():
    """Otherwise a detail could switch itself on in silence."""
    for model in (TrainingConfig, DatasetConfig):
        for name, info in model.model_fields.items():
            switch = facts(info).part_of
            if switch:
                known = facts(model.model_fields[switch])
                assert (known.status == "later" and not known.part_of) or known.values, f"{name} of {switch}"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"dataset_type": "image"}, "dataset_type"),
        ({"type": "csv"}, "type"),
        ({"type": "webshart"}, "type"),
        ({"caption_strategy": "parquet"}, "caption_strategy"),
        ({"crop": True, "crop_style": "random"}, "crop_style"),
        ({"crop_aspect": "square"}, "crop_aspect"),
        ({"s2v_datasets": "voices"}, "s2v_datasets"),
        ({"conditioning_data": ["refs"], "conditioning_type": "reference_strict"}, "conditioning_data"),
        ({"train_batch_size": 2}, "train_batch_size"),
        ({"start_step": 100}, "start_step"),
        ({"maximum_image_size": 1024}, "maximum_image_size"),
        ({"video": {"bucket_strategy": "resolution_frames", "frame_interval": 25}}, "video.bucket_strategy"),
        ({"audio": {"audio_only": True}}, "audio.audio_only"),
        ({"audio": {"max_duration_seconds": 3}}, "audio.max_duration_seconds"),
        ({"audio": {"truncation_mode": "random"}}, "audio.truncation_mode"),
    ],
)
def test_what_comes_later_in_a_dataset_is_named_with_its_place(given, field):
    found = resolve({}, [CLIPS, {**CLIPS, "id": "second", **given}])
    assert [item.field for item in found.unsupported] == [f"datasets[1].{field}"]


@pytest.mark.parametrize(
    "given",
    [
        {"crop": True},
        {"crop": True, "crop_style": "center", "crop_aspect": "preserve"},
        {"repeats": 10, "probability": 0.5},
        {"caption_strategy": "filename"},
        {"dataset_type": "video", "type": "local"},
        {"video": {"frame_interval": 8}},
        {"video": {"num_frames": 49, "min_frames": 17}},
        {"minimum_image_size": 0},
        {"start_epoch": 1, "start_step": 0},
        {"vae_batch_size": 1},
        {"s2v_datasets": []},
    ],
)
def test_what_is_built_in_a_dataset_is_silent(given):
    assert later(**given) == []


def test_an_inherited_value_is_named_at_both_places():
    assert later({"caption_strategy": "parquet"}) == ["caption_strategy", "datasets[0].caption_strategy"]


def test_held_out_clips_are_built():
    found = resolve({}, [CLIPS, {**CLIPS, "id": "held", "dataset_type": "eval"}])
    assert found.unsupported == () and [item.dataset_type for item in found.clips] == ["video", "eval"]


@pytest.mark.parametrize("name", ["adamw", "torch-adamw", "adamw_bf16"])
def test_optimizers_that_are_built(name):
    assert later({"optimizer": name}) == []


@pytest.mark.parametrize(
    "name",
    ["constant", "constant_with_warmup", "linear", "sine", "cosine", "cosine_with_restarts", "polynomial"],
)
def test_schedules_that_are_built(name):
    assert later({"lr_scheduler": name}) == []


@pytest.mark.parametrize("name", ["dev", "2.0", "2", "2.3-dev", "2.3-distilled"])
def test_flavours_that_are_built(name):
    assert later({"model_flavour": name}) == []


def test_require_supported_names_all():
    found = resolve({"ramtorch": True, "tread_config": {"routes": [1]}}, [{**CLIPS, "crop_style": "face"}])
    with pytest.raises(ConfigError) as error:
        found.require_supported()
    assert sorted(problem.field for problem in error.value.problems) == [
        "datasets[0].crop_style",
        "ramtorch",
        "tread_config",
    ]
    for line in str(error.value).splitlines():
        assert ": not supported yet: " in line and line.endswith("remove the key to run without it")
