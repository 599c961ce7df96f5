"""Known keys of the guide that are no fields of our models: without effect, fixed by the model, or not offered."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from ltx2_job.config.values import Bool, Float, Int, Text, one_of, several_of


@dataclass(frozen=True)
class Outside:
    """One such key.

    kind: "idle" (any value that can be read is accepted, none has an effect), "fixed" (the model leaves one value,
    `value`; another one is corrected with a warning) or "refused" (an error, unless the value asks for nothing). form:
    the type that an idle or fixed value must have, so that a slip of the pen is told here as well.
    """

    kind: Literal["idle", "fixed", "refused"]
    does: str
    why: str
    form: Any = None
    value: Any = None


_KEEPS_FILES: Final = "your files are never changed or removed; report.json names those that were skipped"
_NO_GROUPS: Final = "sound is cut to the length of its clip, so it has no groups of its own"
_CREDENTIALS: Final = (
    "keys of an object store stand in no file; on a cluster name their Secret in spec.secrets.objectStore, on one "
    "machine set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
)
_STAGES: Final = "clips are cached by a stage of its own and training reads only the cache"

TRAINING: Final[dict[str, Outside]] = {
    "override_dataset_config": Outside(
        "idle",
        "let changed settings of a dataset win over stored ones",
        "they always win: the cache is keyed by content and settings, so no old value is ever taken",
        Bool,
    ),
    "skip_file_discovery": Outside(
        "idle",
        "stages of the search for files to leave out",
        "what is cached is found by its key and never made again, so there is nothing to skip",
        Annotated[str, several_of(("aspect", "vae", "text", "metadata"))],
    ),
    "allow_dataset_oversubscription": Outside(
        "idle",
        "repeat samples until a bucket fills a batch",
        "a bucket that is smaller than a batch is always filled by starting over; report.json names it",
        Bool,
    ),
    "flow_schedule_auto_shift": Outside(
        "idle",
        "shift the noise level by the number of tokens",
        "this is what happens unless flow_schedule_shift is set",
        Bool,
    ),
    "lora_format": Outside(
        "idle",
        "naming of the exported file",
        "both are written: lora.safetensors and lora.diffusers.safetensors",
        Annotated[str, one_of(("diffusers", "comfyui"))],
    ),
    "offload_during_startup": Outside(
        "idle",
        "keep the VAE and the text encoder from being on the GPU at once",
        "only one of them is ever in memory: each does all its work before the next one is loaded",
        Bool,
    ),
    "validation_multigpu": Outside(
        "idle",
        "how GPUs share the sample clips",
        "the first GPU makes them; the clips are the same either way",
        Annotated[str, one_of(("batch-parallel", "single-gpu"))],
    ),
    "aspect_bucket_rounding": Outside(
        "fixed", "decimals of an aspect ratio", "aspect ratios are rounded to 2 decimals", Int, 2
    ),
    "aspect_bucket_alignment": Outside("fixed", "grid of sizes in pixels", "the video VAE's grid is 32", Int, 32),
    "tokenizer_max_length": Outside("fixed", "tokens of a caption", "LTX-2 reads 1024 tokens", Int, 1024),
    "prediction_type": Outside(
        "fixed", "what the model predicts", "LTX-2 predicts the velocity of flow matching", Text, "flow_matching"
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
        Bool,
    ),
}

AUDIO: Final[dict[str, Outside]] = {
    "sample_rate": Outside(
        "fixed", "rate of the sound in Hz", "the audio VAE hears 16 kHz; every clip is resampled to it", Int, 16000
    ),
    "channels": Outside(
        "fixed", "channels of the sound", "the audio VAE hears stereo; mono is put on both channels", Int, 2
    ),
    "duration_interval": Outside("idle", "width of a group of sounds, in seconds", _NO_GROUPS, Float),
    "bucket_strategy": Outside("idle", "how sounds are grouped", _NO_GROUPS, Annotated[str, one_of(("duration",))]),
    "allow_zero_audio": Outside(
        "idle",
        "keep clips without sound",
        "they are always kept: such a clip trains the video half only, or real silence with train_silence",
        Bool,
    ),
}

DATASET: Final[dict[str, Outside]] = {
    "crop": Outside(
        "idle",
        "cut clips to their size, or distort them to it",
        "clips always cover their size and are cut at the centre, never distorted",
        Bool,
    ),
    "disable_validation": Outside(
        "idle", "take no inputs of validation from here", "validation takes none from any dataset", Bool
    ),
    "vae_cache_clear_each_epoch": Outside("refused", "encode anew every epoch", _STAGES),
    "aws_access_key_id": Outside("refused", "key of the object store", _CREDENTIALS),
    "aws_secret_access_key": Outside("refused", "secret of the object store", _CREDENTIALS),
}

ALIASES: Final[dict[str, str]] = {
    "frame_rate": "framerate",
    "validation_steps": "validation_step_interval",
    "checkpointing_steps": "checkpoint_step_interval",
    "save_total_limit": "checkpoints_total_limit",
    "ltx2_checkpoint_filename": "ltx2_combined_filename",
}
# The guide writes frame_rate, which its own trainer refuses: worth a warning. The others are its trainer's own aliases.
WARNED_ALIASES: Final[dict[str, str]] = {"frame_rate": "the key is framerate; it is the rate of validation clips"}
DATASET_ALIASES: Final[dict[str, str]] = {"disable": "disabled", "cache_dir_vae": "cache_dir"}
