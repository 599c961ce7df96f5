"""The keys of config.json about memory, several GPUs and compilation; each pins its part of the memory plan."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ltx2_job.config.keys import OURS, key, later
from ltx2_job.config.values import Bool, Float, Int, Text, Texts

_RAMTORCH = "weights streamed from host memory come later"
_GROUPS = "group offload comes later"
_SWAP = "block swap comes later"
_VAE = "saving memory inside the VAE comes later"
_FSDP = "sharding the base over GPUs comes later"
_COMPILE = "compilation comes later"
_RECOMPUTE = "whole blocks are recomputed, as many as the memory plan says"


class MemoryKeys(BaseModel):
    """Where weights and activations live."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    gradient_checkpointing: Bool | None = key(
        None, "recompute blocks in the backward pass: true pins all, false none; unset: the memory plan decides", OURS
    )
    gradient_checkpointing_interval: Int | None = later(None, "recompute every n-th block", _RECOMPUTE, idle=(1,))
    gradient_checkpointing_backend: Literal["torch", "torch-ffn", "unsloth", "unsloth-ffn"] = later(
        "torch", "how blocks are recomputed", _RECOMPUTE
    )
    gradient_checkpointing_segment_stride: Int | None = later(
        None, "blocks between two recomputed segments", _RECOMPUTE, idle=(1,)
    )
    gradient_checkpointing_offload_attention: Bool = later(
        False, "keep the attention's activations in host memory", _RECOMPUTE
    )
    ramtorch: Bool = later(False, "stream the base's linear weights from host memory", _RAMTORCH)
    ramtorch_text_encoder: Bool = later(False, "stream the text encoder's linear weights", _RAMTORCH)
    ramtorch_target_modules: Texts = later([], "which layers", _RAMTORCH, part_of="ramtorch")
    ramtorch_transformer_percent: Float = later(100.0, "share of layers", _RAMTORCH, part_of="ramtorch")
    ramtorch_text_encoder_percent: Float = later(100.0, "share of layers", _RAMTORCH, part_of="ramtorch_text_encoder")
    ramtorch_disable_sync_hooks: Bool = later(False, "no synchronisation", _RAMTORCH, part_of="ramtorch")
    ramtorch_disable_extensions: Bool = later(True, "linear layers only", _RAMTORCH, part_of="ramtorch")
    enable_group_offload: Bool = later(False, "keep blocks in host memory, in groups", _GROUPS)
    group_offload_type: Literal["block_level", "leaf_level"] = later(
        "block_level", "what a group is", _GROUPS, part_of="enable_group_offload"
    )
    group_offload_blocks_per_group: Int = later(1, "blocks in a group", _GROUPS, part_of="enable_group_offload", ge=1)
    group_offload_use_stream: Bool = later(False, "copy while computing", _GROUPS, part_of="enable_group_offload")
    group_offload_to_disk_path: Text | None = later(None, "groups on disk", _GROUPS, part_of="enable_group_offload")
    group_offload_text_encoder: Bool = later(False, "the text encoder as well", _GROUPS, part_of="enable_group_offload")
    group_offload_vae: Bool = later(False, "the VAE as well", _GROUPS, part_of="enable_group_offload")
    musubi_blocks_to_swap: Int = later(0, "last blocks kept in host memory", _SWAP, ge=0, le=47)
    musubi_block_swap_device: Text = later("cpu", "where they lie", _SWAP, part_of="musubi_blocks_to_swap")
    vae_enable_patch_conv: Bool = later(False, "convolve in chunks of time", _VAE)
    vae_enable_temporal_roll: Bool = later(False, "convolve in smaller chunks of time", _VAE)
    vae_enable_tiling: Bool = later(False, "encode and decode in tiles", _VAE)
    vae_enable_slicing: Bool = later(False, "encode a batch one by one", _VAE)


class ScaleKeys(BaseModel):
    """Several GPUs and compilation."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    fsdp_enable: Bool = later(False, "shard the base over GPUs (FSDP)", _FSDP)
    fsdp_version: Int = later(2, "its version", _FSDP, part_of="fsdp_enable", ge=1, le=2)
    fsdp_reshard_after_forward: Bool = later(True, "free gathered weights after use", _FSDP, part_of="fsdp_enable")
    fsdp_state_dict_type: Literal["SHARDED_STATE_DICT", "FULL_STATE_DICT"] = later(
        "SHARDED_STATE_DICT", "form of its checkpoints", _FSDP, part_of="fsdp_enable"
    )
    fsdp_auto_wrap_policy: Text = later("TRANSFORMER_BASED_WRAP", "what a shard is", _FSDP, part_of="fsdp_enable")
    fsdp_transformer_layer_cls_to_wrap: Text | None = later(None, "class of a shard", _FSDP, part_of="fsdp_enable")
    fsdp_cpu_offload: Bool = later(False, "shards in host memory", _FSDP, part_of="fsdp_enable")
    fsdp_cpu_ram_efficient_loading: Bool = later(False, "load on one rank", _FSDP, part_of="fsdp_enable")
    fsdp_limit_all_gathers: Bool = later(True, "limit gathers in flight", _FSDP, part_of="fsdp_enable")
    context_parallel_size: Int = later(
        1, "GPUs that share one sample", "context parallelism comes later", idle=(1,), ge=1
    )
    context_parallel_comm_strategy: Literal["allgather", "alltoall"] = later(
        "allgather", "how they talk", "context parallelism comes later", part_of="context_parallel_size"
    )
    dynamo_backend: Text = later("no", "torch.compile backend", _COMPILE)
    dynamo_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = later(
        None, "its mode", _COMPILE, part_of="dynamo_backend"
    )
    dynamo_fullgraph: Bool = later(False, "one graph", _COMPILE, part_of="dynamo_backend")
    dynamo_dynamic: Bool = later(False, "dynamic shapes", _COMPILE, part_of="dynamo_backend")
    dynamo_use_regional_compilation: Bool = later(False, "compile blocks", _COMPILE, part_of="dynamo_backend")
