"""What the guide gets wrong, put right: pure functions from a typed configuration to the one that is used.

Every change of something the user wrote is one Correction; a default is adapted silently.
"""

from typing import Any

from ltx2_job import places
from ltx2_job.config.changes import Correction
from ltx2_job.config.datasets import DatasetConfig
from ltx2_job.config.training import TrainingConfig
from ltx2_job.config.values import frames_down, side_nearest

QUANTO = {"int8-quanto": "int8-torchao"}

_FRAMES = "8k+1"
_QUANTO_WHY = "the same format, int8 weights with one symmetric scale per output row; quanto itself is not used"


def correct_training(config: TrainingConfig) -> tuple[TrainingConfig, list[Correction]]:
    """Frames to 8k+1 (down), sizes to multiples of 32 (nearest, ties down, at least 64), names to what really runs."""
    changes: list[Correction] = []
    update: dict[str, Any] = {}

    repository = places.moved(config.pretrained_model_name_or_path, config.model_flavour)
    if repository is not None:
        if places.MODEL_KEY in config.model_fields_set:
            why = f"{config.model_flavour} lies there"
            changes.append(Correction(places.MODEL_KEY, config.pretrained_model_name_or_path, repository, why))
        update[places.MODEL_KEY] = repository

    frames = frames_down(config.validation_num_video_frames)
    if frames != config.validation_num_video_frames:
        changes.append(Correction("validation_num_video_frames", config.validation_num_video_frames, frames, _FRAMES))
        update["validation_num_video_frames"] = frames

    sizes = [(side_nearest(width), side_nearest(height)) for width, height in config.validation_resolution]
    for (width, height), (new_width, new_height) in zip(config.validation_resolution, sizes, strict=True):
        if (width, height) != (new_width, new_height):
            changes.append(
                Correction(
                    "validation_resolution",
                    f"{width}x{height}",
                    f"{new_width}x{new_height}",
                    "width x height in multiples of 32, at least 64",
                )
            )
    update["validation_resolution"] = sizes

    for name in ("base_model_precision", "text_encoder_1_precision"):
        asked = getattr(config, name)
        if asked in QUANTO:
            changes.append(Correction(name, asked, QUANTO[asked], _QUANTO_WHY))
            update[name] = QUANTO[asked]

    if config.lr_scheduler == "constant" and config.lr_warmup_steps:
        changes.append(
            Correction(
                "lr_scheduler", "constant", "constant_with_warmup", f"lr_warmup_steps is {config.lr_warmup_steps}"
            )
        )
        update["lr_scheduler"] = "constant_with_warmup"
    return config.model_copy(update=update), changes


def correct_dataset(config: DatasetConfig, field: str) -> tuple[DatasetConfig, list[Correction]]:
    """Frames of the video block to 8k+1 (down). `field`: "datasets[0]"."""
    changes: list[Correction] = []
    video: dict[str, Any] = {}
    for name in ("num_frames", "min_frames", "max_frames"):
        frames = getattr(config.video, name)
        if frames is None or frames_down(frames) == frames:
            continue
        video[name] = frames_down(frames)
        if name in config.video.model_fields_set:
            changes.append(Correction(f"{field}.video.{name}", frames, video[name], _FRAMES))

    return config.model_copy(update={"video": config.video.model_copy(update=video)}), changes
