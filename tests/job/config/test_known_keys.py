"""Every key and alias that the pages on the guide's trainer name is known; the lists were written from those pages."""

import pytest

from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError

CLIPS = {"id": "clips", "instance_data_dir": "datasets/videos"}

GENERAL = """
model_family model_flavour pretrained_model_name_or_path model_type train_batch_size learning_rate lr_warmup_steps
lr_scheduler lr_power lr_end lr_num_cycles optimizer max_grad_norm grad_clip_method max_train_steps num_train_epochs
checkpoint_step_interval checkpoint_epoch_interval checkpoints_total_limit resume_from_checkpoint output_dir seed
mixed_precision base_model_precision quantize_via gradient_checkpointing gradient_checkpointing_interval
gradient_checkpointing_backend disable_benchmark dynamo_mode dynamo_backend offload_during_startup ramtorch
ramtorch_text_encoder enable_group_offload group_offload_type group_offload_blocks_per_group group_offload_use_stream
musubi_blocks_to_swap musubi_block_swap_device vae_batch_size vae_enable_patch_conv vae_enable_temporal_roll
vae_enable_tiling vae_enable_slicing resolution resolution_type minimum_image_size skip_file_discovery
override_dataset_config data_backend_config scheduled_sampling_reflexflow lycoris_config lora_type lora_rank lora_alpha
lora_dropout hub_model_id push_to_hub report_to tracker_project_name tracker_run_name tread_config evaluation_type
aspect_bucket_alignment tokenizer_max_length framerate prediction_type gradient_accumulation_steps
"""
ALIASES = "validation_steps checkpointing_steps save_total_limit frame_rate"
VALIDATION = """
validation_disable validation_disable_unconditional validation_step_interval validation_epoch_interval
validation_guidance validation_num_inference_steps validation_num_video_frames validation_prompt
validation_negative_prompt validation_prompt_library user_prompt_library validation_resolution validation_seed
validation_using_datasets eval_dataset_id validation_adapter_path validation_adapter_config validation_adapter_name
validation_adapter_strength validation_adapter_mode validation_multigpu num_validation_images num_eval_images
eval_steps_interval eval_timesteps validation_audio_only validation_ltx2_video_conditioning
"""
NOT_SETTABLE_ELSEWHERE = """
audio_loss_weight crepa_cumulative_neighbors ltx2_combined_filename ltx2_checkpoint_filename
"""
LTX2 = """
ltx2_first_frame_conditioning_probability ltx2_prefix_conditioning_probability ltx2_suffix_conditioning_probability
ltx2_prefix_conditioning_frames ltx2_suffix_conditioning_frames ltx2_mask_conditioning_probability
ltx2_intrinsic_conditioning ltx2_reference_spatial_scale_factor ltx2_reference_temporal_scale_factor
ltx2_validation_pipeline_mode ltx2_validation_spatial_upsampler_model ltx2_validation_spatial_upsampler_filename
ltx2_validation_audio_guidance flow_schedule_shift flow_schedule_auto_shift context_parallel_size
context_parallel_comm_strategy attention_mechanism pretrained_gemma_model_name_or_path
"""
DATA = """
caption_dropout_probability compress_disk_cache caption_strategy instance_prompt prepend_instance_prompt
delete_problematic_images delete_unwanted_images aspect_bucket_rounding allow_dataset_oversubscription
vae_cache_ondemand vae_cache_disable maximum_image_size target_downsample_size audio_only
"""
STEP = """
flow_sigmoid_scale flow_use_uniform_schedule flow_use_beta_schedule flow_beta_schedule_alpha flow_beta_schedule_beta
flow_custom_timesteps input_perturbation loss_type huber_c huber_schedule peft_lora_target_modules lora_init_type
use_dora peft_lora_mode init_lora init_lokr_norm optimizer_config base_model_default_dtype text_encoder_1_precision
use_ema ema_decay ema_update_interval ema_device adam_beta1 adam_beta2 adam_epsilon adam_weight_decay
gradient_checkpointing_segment_stride gradient_checkpointing_offload_attention
"""
FEATURES = """
crepa_enabled crepa_block_index crepa_lambda crepa_adjacent_distance crepa_adjacent_tau crepa_encoder
crepa_encoder_image_size crepa_encoder_frames_batch_size crepa_normalize_by_frames crepa_spatial_align
crepa_normalize_neighbour_sum crepa_drop_vae_encoder crepa_use_tae crepa_feature_source crepa_scheduler
crepa_self_flow_mask_ratio crepa_similarity_ema_decay crepa_teacher_block_index
crepa_warmup_steps crepa_decay_steps crepa_lambda_end crepa_power crepa_cutoff_step crepa_similarity_threshold
crepa_threshold_mode scheduled_sampling_max_step_offset scheduled_sampling_strategy scheduled_sampling_probability
scheduled_sampling_prob_start scheduled_sampling_prob_end scheduled_sampling_ramp_steps scheduled_sampling_start_step
scheduled_sampling_ramp_shape scheduled_sampling_sampler scheduled_sampling_order scheduled_sampling_reflexflow_alpha
scheduled_sampling_reflexflow_beta1 scheduled_sampling_reflexflow_beta2 ramtorch_target_modules
ramtorch_transformer_percent ramtorch_text_encoder_percent ramtorch_disable_sync_hooks ramtorch_disable_extensions
group_offload_text_encoder group_offload_to_disk_path group_offload_vae fsdp_enable fsdp_version
fsdp_reshard_after_forward fsdp_state_dict_type fsdp_auto_wrap_policy fsdp_cpu_offload fsdp_cpu_ram_efficient_loading
fsdp_limit_all_gathers deepspeed_config dynamo_fullgraph dynamo_dynamic dynamo_use_regional_compilation lora_format
push_checkpoints_to_hub webhook_config
"""
DATASET = """
id type dataset_type instance_data_dir caption_strategy instance_prompt prepend_instance_prompt disable_multiline_split
resolution resolution_type crop crop_style crop_aspect crop_aspect_buckets minimum_image_size maximum_image_size
target_downsample_size video audio s2v_datasets repeats probability disabled disable default text_embeds cache_dir
cache_dir_vae conditioning_data conditioning_type vae_batch_size ignore_epochs caption_filter_list
vae_cache_clear_each_epoch parquet aws_bucket_name aws_data_prefix aws_endpoint_url aws_region_name aws_access_key_id
aws_secret_access_key dataset_name revision train_batch_size start_epoch end_epoch start_step end_step
disable_validation
"""
VIDEO = "num_frames min_frames max_frames frame_rate bucket_strategy frame_interval is_i2v"
AUDIO = """
auto_split sample_rate channels duration_interval max_duration_seconds truncation_mode allow_zero_audio audio_only
source_from_video bucket_strategy
"""
BNB = "adam adamw lion ademamix adagrad rmsprop lars lamb sgd"
VALUES = {
    "model_family": "ltxvideo2",
    "model_flavour": "dev dev-fp4 dev-fp8 2.0 2 2.3-dev 2.3-distilled 2.5 2.5-dev 2.5-distilled",
    "model_type": "full lora",
    "lora_type": "standard lycoris",
    "lr_scheduler": "linear sine cosine cosine_with_restarts cosine_with_warmup polynomial constant "
    "constant_with_warmup",
    "grad_clip_method": "norm value",
    "mixed_precision": "no fp16 bf16 fp8",
    "base_model_precision": "no_change int2-quanto int4-quanto int8-quanto fp8-quanto fp8uz-quanto int8-torchao "
    "int8dq-torchao int8dq-int4-torchao fp8-torchao fp8wo-torchao fp8-int4-torchao fp8-native fp8-transformerengine "
    "int8-sdnq uint8-sdnq int16-sdnq uint16-sdnq fp16-sdnq fp8-sdnq int6-sdnq int5-sdnq uint5-sdnq uint4-sdnq "
    "uint3-sdnq uint2-sdnq nf4-bnb int4-torchao",
    "quantize_via": "accelerator cpu pipeline",
    "gradient_checkpointing_backend": "torch torch-ffn unsloth unsloth-ffn",
    "dynamo_mode": "default reduce-overhead max-autotune max-autotune-no-cudagraphs",
    "dynamo_backend": "no inductor",
    "group_offload_type": "block_level leaf_level",
    "musubi_block_swap_device": "cpu cuda:1",
    "resolution_type": "pixel area pixel_area",
    "skip_file_discovery": "aspect vae text metadata vae,text",
    "report_to": "simpletuner tensorboard wandb swanlab comet_ml custom-tracker all none wandb,tensorboard",
    "evaluation_type": "none clip",
    "validation_prompt_library": "true false audio music image",
    "validation_adapter_mode": "adapter_only comparison none",
    "validation_multigpu": "batch-parallel single-gpu",
    "ltx2_validation_pipeline_mode": "trained-stage spatial-upscale",
    "context_parallel_comm_strategy": "allgather alltoall",
    "attention_mechanism": "diffusers xformers sageattention flash-attn flash-attn-3 flash-attn-3-hub flex "
    "metal-flash-attention",
    "loss_type": "l2 huber smooth_l1",
    "huber_schedule": "snr exponential constant",
    "lora_init_type": "default gaussian loftq olora pissa",
    "peft_lora_mode": "singlora",
    "lora_format": "diffusers comfyui",
    "crepa_feature_source": "encoder backbone self_flow",
    "crepa_scheduler": "constant linear cosine polynomial",
    "crepa_threshold_mode": "permanent recoverable",
    "crepa_encoder": "dinov2_vitg14 dinov2_vits14",
    "scheduled_sampling_strategy": "uniform biased_early biased_late",
    "scheduled_sampling_ramp_shape": "linear cosine",
    "scheduled_sampling_sampler": "unipc",
    "fsdp_state_dict_type": "SHARDED_STATE_DICT FULL_STATE_DICT",
    "caption_strategy": "textfile instance_prompt instanceprompt filename parquet huggingface csv webshart",
    "resume_from_checkpoint": "latest",
    "optimizer": "adamw_bf16 adamw_schedulefree adamw_schedulefree+aggressive adamw_schedulefree+no_kahan prodigy soap "
    "muon torch-adam torch-adamw torch-sgd torch-radam torch-nadam torch-rmsprop torch-adagrad torch-adadelta "
    "torch-adafactor torch-adamax torch-asgd torch-sparseadam ao-adamw8bit ao-adamw4bit ao-adamfp8 ao-adamwfp8 "
    "optimi-adamw optimi-adan optimi-adam optimi-lion optimi-radam optimi-ranger optimi-sgd optimi-stableadamw "
    + " ".join(f"bnb-{name}{form}" for name in BNB.split() for form in ("", "8bit", "-paged", "8bit-paged")),
}
DATASET_VALUES = {
    "dataset_type": "image video audio conditioning eval text_embeds image_embeds caption",
    "caption_strategy": "textfile instanceprompt instance_prompt filename parquet huggingface csv webshart",
    "resolution_type": "pixel area pixel_area",
    "crop": "true false",
    "crop_style": "random center corner face",
    "crop_aspect": "square preserve closest random",
    "conditioning_type": "reference_strict reference_loose mask",
    "video.bucket_strategy": "aspect_ratio resolution_frames",
    "audio.truncation_mode": "beginning end random",
    "audio.bucket_strategy": "duration",
}
TRAINING = " ".join([GENERAL, ALIASES, VALIDATION, NOT_SETTABLE_ELSEWHERE, LTX2, DATA, STEP, FEATURES]).split()


def unknown(config, datasets):
    try:
        resolve(config, datasets)
    except ConfigError as error:
        return [problem for problem in error.problems if "unknown key" in problem.message]
    return []


@pytest.mark.parametrize("key", TRAINING)
def test_a_key_of_config_json_is_known(key):
    """An empty value asks for nothing, so whatever the key's support, nothing may be said."""
    assert unknown({key: ""}, [CLIPS]) == []
    assert resolve({key: None}, [CLIPS]).unsupported == ()


@pytest.mark.parametrize("key", DATASET.split())
def test_a_key_of_a_dataset_is_known(key):
    assert unknown({}, [{**CLIPS, key: CLIPS.get(key, "")}]) == []


@pytest.mark.parametrize(("block", "key"), [("video", key) for key in VIDEO.split()])
def test_a_key_of_the_video_block_is_known(block, key):
    assert unknown({}, [{**CLIPS, block: {key: ""}}]) == []


@pytest.mark.parametrize(("block", "key"), [("audio", key) for key in AUDIO.split()])
def test_a_key_of_the_audio_block_is_known(block, key):
    assert unknown({}, [{**CLIPS, block: {key: ""}}]) == []


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in VALUES.items() for value in values.split()])
def test_a_named_value_is_known(key, value):
    """Supported or not yet, it is read; what it needs beside it is there."""
    resolve({key: value, "instance_prompt": "sks"}, [CLIPS])


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in DATASET_VALUES.items() for value in values.split()]
)
def test_a_named_value_of_a_dataset_is_known(key, value):
    block, _, name = key.rpartition(".")
    given = {block: {name: value}} if block else {name: value}
    resolve({"instance_prompt": "sks"}, [CLIPS | {"id": "first"}, {**CLIPS, **given}])


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("local", CLIPS), ("csv", CLIPS), ("webshart", CLIPS), ("aws", {"aws_bucket_name": "footage"}),
        ("huggingface", {"dataset_name": "me/footage"}),
    ],
)  # fmt: skip
def test_a_type_of_a_dataset_is_known(value, place):
    resolve({}, [{"id": "clips", "type": value, **place}])


def test_the_lists_themselves_are_not_empty():
    assert len(TRAINING) > 190 and len(set(TRAINING)) == len(TRAINING)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("max_train_step", "max_train_steps"),
        ("learning_rte", "learning_rate"),
        ("Seed", "seed"),
        ("validation_resolutions", "validation_resolution"),
        ("ram_torch", "ramtorch"),
        ("override_dataset_confg", "override_dataset_config"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    with pytest.raises(ConfigError) as error:
        resolve({key: 1}, [CLIPS])
    assert str(error.value) == f"{key}: unknown key; did you mean {nearest}?"


def test_an_unknown_key_is_an_error_even_when_empty():
    """A typing mistake stays one when its value is null."""
    with pytest.raises(ConfigError, match="learning_rte: unknown key"):
        resolve({"learning_rte": None}, [CLIPS])


def test_unknown_keys_in_datasets_are_named_with_their_place():
    clips = {**CLIPS, "reapeats": 1, "video": {"num_framez": 57}, "audio": {"chanels": 2}}
    with pytest.raises(ConfigError) as error:
        resolve({}, [CLIPS | {"id": "a"}, clips])
    assert str(error.value).splitlines() == [
        "datasets[1].reapeats: unknown key; did you mean repeats?",
        "datasets[1].video.num_framez: unknown key; did you mean num_frames?",
        "datasets[1].audio.chanels: unknown key; did you mean channels?",
    ]


def test_a_key_in_the_wrong_place_is_sent_to_the_right_one():
    with pytest.raises(ConfigError) as error:
        resolve({"repeats": 3}, [{**CLIPS, "num_frames": 57, "auto_split": False, "lora_rank": 4}])
    assert str(error.value).splitlines() == [
        "repeats: unknown key; it belongs in a dataset",
        "datasets[0].num_frames: unknown key; it belongs in a dataset's video block",
        "datasets[0].auto_split: unknown key; it belongs in a dataset's audio block",
        "datasets[0].lora_rank: unknown key; it belongs in config",
    ]


def test_nonsense_is_sent_to_the_reference():
    with pytest.raises(ConfigError, match="xyzzy: unknown key; `ltx2-job config reference` lists every key"):
        resolve({"xyzzy": 1}, [CLIPS])


REFUSED = [
    "compress_disk_cache",
    "delete_problematic_images",
    "delete_unwanted_images",
    "vae_cache_ondemand",
    "vae_cache_disable",
    "deepspeed_config",
    "webhook_config",
]


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_offered_is_an_error_with_its_reason(key):
    with pytest.raises(ConfigError) as error:
        resolve({key: "true"}, [CLIPS])
    assert str(error.value).startswith(f"{key}: known, not offered: ")


@pytest.mark.parametrize("key", REFUSED)
@pytest.mark.parametrize("nothing", ["", None, False, 0, "none", "no", "false"])
def test_what_is_not_offered_is_silent_where_nothing_is_asked(key, nothing):
    found = resolve({key: nothing}, [CLIPS])
    assert found.corrections == () and found.unsupported == ()


def test_what_is_not_offered_in_a_dataset():
    with pytest.raises(ConfigError, match=r"datasets\[0\].vae_cache_clear_each_epoch: known, not offered"):
        resolve({}, [{**CLIPS, "vae_cache_clear_each_epoch": True}])
    resolve({}, [{**CLIPS, "vae_cache_clear_each_epoch": False}])


@pytest.mark.parametrize(
    "given",
    [
        {"override_dataset_config": True},
        {"offload_during_startup": False},
        {"override_dataset_config": False},
        {"skip_file_discovery": "vae,text"},
        {"flow_schedule_auto_shift": True},
        {"lora_format": "comfyui"},
        {"allow_dataset_oversubscription": True},
        {"validation_multigpu": "single-gpu"},
    ],
)
def test_keys_without_effect_change_nothing(given):
    """Catches such a key leaking into the digest, by which a run folder is recognised."""
    assert resolve(given, [CLIPS]) == resolve({}, [CLIPS])
    assert resolve(given, [CLIPS]).digest == resolve({}, [CLIPS]).digest


def test_keys_without_effect_in_datasets_change_nothing():
    audio = {"allow_zero_audio": True, "bucket_strategy": "duration", "duration_interval": 3.0}
    given = {"video": {"is_i2v": True}, "audio": audio, "crop": True, "disable_validation": True}
    assert resolve({}, [{**CLIPS, **given}]) == resolve({}, [CLIPS])
    assert resolve({}, [{**CLIPS, **given}]).digest == resolve({}, [CLIPS]).digest


@pytest.mark.parametrize(
    ("config", "dataset", "said"),
    [
        ({"override_dataset_config": "maybe"}, {}, "override_dataset_config: must be true or false, not 'maybe'"),
        ({"skip_file_discovery": "vea"}, {}, "skip_file_discovery: unknown value 'vea'; did you mean vae?"),
        ({"lora_format": "comfy"}, {}, "lora_format: unknown value 'comfy'; did you mean comfyui?"),
        ({"aspect_bucket_alignment": "wide"}, {}, "aspect_bucket_alignment: must be a whole number, not 'wide'"),
        ({}, {"crop": 2}, "datasets[0].crop: must be true or false, not 2"),
        ({}, {"audio": {"channels": "mono"}}, "datasets[0].audio.channels: must be a whole number, not 'mono'"),
        ({}, {"audio": {"duration_interval": []}}, "datasets[0].audio.duration_interval: must be a number, not []"),
        ({}, {"video": {"is_i2v": "so"}}, "datasets[0].video.is_i2v: must be true or false, not 'so'"),
    ],
)
def test_a_slip_of_the_pen_is_told_even_where_the_key_has_no_effect(config, dataset, said):
    with pytest.raises(ConfigError) as error:
        resolve(config, [{**CLIPS, **dataset}])
    assert str(error.value) == said
