"""The keys of config.json about validation: sample clips, held-out loss, adapters, scores."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ltx2_job.config.keys import GUIDE, OFFICIAL, OURS, key, later
from ltx2_job.config.values import Bool, BoolOrText, Float, Int, PathOrJson, Sizes, Text

_INPUTS = "validation from an image or a sound comes later"
_ADAPTERS = "further adapters in validation come later"
_STAGES = "two-stage validation comes later"
_LIBRARY = "prompt libraries come later; validation_prompt holds one prompt"

AUDIO_GUIDANCE = 7.0  # the official audio scale


def _audio_guidance(fields: dict[str, Any]) -> float:
    # A distilled model is sampled with guidance 1, a single pass: the audio half must not bring the second pass back.
    return AUDIO_GUIDANCE if fields.get("validation_guidance", AUDIO_GUIDANCE) > 1 else 1.0


def _seed(fields: dict[str, Any]) -> int:
    return int(fields.get("seed", 42))


class ValidationKeys(BaseModel):
    """Sample clips made during training, and the loss on held-out clips."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    validation_disable: Bool = key(False, "make no sample clips at all", GUIDE)
    disable_benchmark: Bool = key(False, "make no sample clips of the untrained model (step 0)", GUIDE)
    validation_step_interval: Int = key(
        100, "optimizer steps between sample clips (alias `validation_steps`); 0: only at the end", GUIDE, ge=0
    )
    validation_epoch_interval: Float | None = later(
        None, "epochs between sample clips", "sample clips are counted in steps", ge=0
    )
    validation_prompt: Text | None = key(None, "the prompt of sample clips; unset: no clips are made", GUIDE)
    validation_negative_prompt: Text = key("blurry, cropped, ugly", "what guidance moves away from", GUIDE)
    validation_num_inference_steps: Int = key(40, "Euler steps", GUIDE, ge=1)
    validation_guidance: Float = key(5.0, "guidance of the video half; 1: one pass per step", GUIDE, ge=0)
    ltx2_validation_audio_guidance: Float = key(
        _audio_guidance, "guidance of the audio half; 7, or 1 where validation_guidance is 1 or less", OFFICIAL, ge=0
    )
    validation_num_video_frames: Int = key(49, "frames of a sample clip, 8k+1", OURS, ge=1)
    validation_resolution: Sizes = key(
        [(512, 768)], "width x height of sample clips, multiples of 32, at least 64; several with commas", GUIDE
    )
    validation_seed: Int = key(_seed, "seed of sample clips; unset: seed", GUIDE, ge=0)
    validation_disable_unconditional: Bool = later(
        True, "make no clip from the empty prompt", "clips from the empty prompt come later", source=OURS
    )
    eval_steps_interval: Int = key(
        100, "optimizer steps between held-out losses (datasets of type eval); 0: only at the ends", OURS, ge=0
    )
    eval_epoch_interval: Float | None = later(
        None, "epochs between held-out losses", "held-out losses are counted in steps", ge=0
    )
    eval_timesteps: Int | None = later(
        None, "noise levels of the held-out loss", "the levels are fixed, so that runs can be compared"
    )
    num_eval_images: Int | None = later(None, "clips of the held-out loss", "all held-out clips are used")
    eval_dataset_id: Text | None = later(
        None, "dataset of validation inputs", _INPUTS, part_of="validation_using_datasets"
    )
    evaluation_type: Literal["none", "clip"] = later("none", "score of sample clips", "scores come later")
    num_validation_images: Int = later(1, "clips per prompt", "one clip per prompt and size is made", ge=1)
    validation_prompt_library: BoolOrText = later(False, "built-in prompts", _LIBRARY)
    user_prompt_library: PathOrJson | None = later(None, "prompts from a file", _LIBRARY)
    validation_using_datasets: Bool = later(False, "take images or sound from a dataset", _INPUTS)
    validation_audio_only: Bool = later(False, "make sound alone", _INPUTS)
    validation_ltx2_video_conditioning: PathOrJson | None = later(None, "reference videos", _INPUTS)
    validation_adapter_path: Text | None = later(None, "adapter used in validation", _ADAPTERS)
    validation_adapter_config: PathOrJson | None = later(None, "several adapters used in validation", _ADAPTERS)
    validation_adapter_name: Text | None = later(None, "its label", _ADAPTERS, part_of="validation_adapter_path")
    validation_adapter_strength: Float = later(1.0, "its strength", _ADAPTERS, part_of="validation_adapter_path", gt=0)
    validation_adapter_mode: Literal["adapter_only", "comparison", "none"] = later(
        "adapter_only", "with or without it", _ADAPTERS, part_of="validation_adapter_path"
    )
    ltx2_validation_pipeline_mode: Literal["trained-stage", "spatial-upscale"] = later(
        "trained-stage", "one stage or two", _STAGES
    )
    ltx2_validation_spatial_upsampler_model: Text | None = later(
        None, "upsampler", _STAGES, part_of="ltx2_validation_pipeline_mode"
    )
    ltx2_validation_spatial_upsampler_filename: Text | None = later(
        None, "its file", _STAGES, part_of="ltx2_validation_pipeline_mode"
    )
