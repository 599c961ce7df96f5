"""Known keys of the guide that are no fields of our models: without effect, fixed by the model, or not offered."""

from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True)
class Outside:
    """One such key.

    kind: "idle" (accepted whatever its value, has no effect), "fixed" (the model leaves one value; another one is
    corrected with a warning) or "refused" (an error, unless the value asks for nothing). value: the fixed value, or a
    further value of a refused key that asks for nothing.
    """

    kind: Literal["idle", "fixed", "refused"]
    does: str
    why: str
    value: Any = None


_KEEPS_FILES: Final = "your files are never changed or removed; report.json names those that were skipped"
_STAGES: Final = "clips are cached by a stage of its own and training reads only the cache"

TRAINING: Final[dict[str, Outside]] = {
    "override_dataset_config": Outside(
        "idle",
        "let changed settings of a dataset win over stored ones",
        "they always win: the cache is keyed by content and settings, so no old value is ever taken",
    ),
    "skip_file_discovery": Outside(
        "idle",
        "stages of the search for files to leave out",
        "what is cached is found by its key and never made again, so there is nothing to skip",
    ),
    "allow_dataset_oversubscription": Outside(
        "idle",
        "repeat samples until a bucket fills a batch",
        "a bucket that is smaller than a batch is always filled by starting over; report.json names it",
    ),
    "flow_schedule_auto_shift": Outside(
        "idle",
        "shift the noise level by the number of tokens",
        "this is what happens unless flow_schedule_shift is set",
    ),
    "lora_format": Outside(
        "idle", "naming of the exported file", "both are written: lora.safetensors and lora.diffusers.safetensors"
    ),
    "validation_multigpu": Outside(
        "idle", "how GPUs share the sample clips", "the first GPU makes them; the clips are the same either way"
    ),
    "aspect_bucket_rounding": Outside(
        "fixed",
        "decimals of an aspect ratio",
        "aspect ratios are rounded to 2 decimals",
        2,
    ),
    "aspect_bucket_alignment": Outside("fixed", "grid of sizes in pixels", "the video VAE's grid is 32", 32),
    "tokenizer_max_length": Outside("fixed", "tokens of a caption", "LTX-2 reads 1024 tokens", 1024),
    "prediction_type": Outside(
        "fixed", "what the model predicts", "LTX-2 predicts the velocity of flow matching", "flow_matching"
    ),
    "compress_disk_cache": Outside(
        "refused", "compress the cache", "latents hardly compress, and uncompressed files are read without a copy"
    ),
    "delete_problematic_images": Outside("refused", "remove files that cannot be read", _KEEPS_FILES),
    "delete_unwanted_images": Outside("refused", "remove files that a filter drops", _KEEPS_FILES),
    "vae_cache_ondemand": Outside("refused", "encode clips during training", _STAGES),
    "vae_cache_disable": Outside("refused", "never write encoded clips", _STAGES),
    "deepspeed_config": Outside("refused", "DeepSpeed settings", "one way of sharding is enough: FSDP"),
    "webhook_config": Outside(
        "refused",
        "messages to a web address",
        "events, conditions, /progress and /metrics tell the same to any listener",
    ),
}

VIDEO: Final[dict[str, Outside]] = {
    "is_i2v": Outside(
        "idle",
        "the dataset is for image to video",
        "ltx2_first_frame_conditioning_probability says how often the first frame is given",
    ),
}

AUDIO: Final[dict[str, Outside]] = {
    "bucket_strategy": Outside(
        "idle", "how sounds are grouped", "sound is cut to the length of its clip, so it has no groups of its own"
    ),
    "allow_zero_audio": Outside(
        "idle",
        "keep clips without sound",
        "they are always kept: such a clip trains the video half only, or real silence with train_silence",
    ),
}

DATASET: Final[dict[str, Outside]] = {
    "disable_validation": Outside(
        "idle", "take no inputs of validation from here", "validation takes none from any dataset"
    ),
    "vae_cache_clear_each_epoch": Outside("refused", "encode anew every epoch", _STAGES),
}

ALIASES: Final[dict[str, str]] = {
    "frame_rate": "framerate",
    "validation_steps": "validation_step_interval",
    "checkpointing_steps": "checkpoint_step_interval",
    "save_total_limit": "checkpoints_total_limit",
}
# The guide writes frame_rate, which its own trainer refuses: worth a warning. The others are its trainer's own aliases.
WARNED_ALIASES: Final[dict[str, str]] = {"frame_rate": "the key is framerate; it is the rate of validation clips"}
DATASET_ALIASES: Final[dict[str, str]] = {"disable": "disabled", "cache_dir_vae": "cache_dir"}
