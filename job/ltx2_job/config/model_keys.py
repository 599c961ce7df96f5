"""The keys of config.json that say what is trained: model, adapter, data and files."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from ltx2_job import places
from ltx2_job.config import names
from ltx2_job.config.keys import GUIDE, OFFICIAL, OURS, key, later
from ltx2_job.config.values import Bool, Float, Int, JsonValue, PathOrJson, Text, Texts, one_of, several_of

_CONDITIONING = "conditioning beyond the first frame comes later"
_ADAPTER_KINDS = "plain LoRA is built; other adapters come later"


class ModelKeys(BaseModel):
    """Checkpoint, flavour and what of it is trained."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    model_family: Literal["ltxvideo2"] = key("ltxvideo2", "the family; this program trains LTX-2 only", GUIDE)
    model_flavour: Annotated[str, one_of(names.FLAVOURS, names.FLAVOUR_ALIASES)] = key(
        "dev",
        "which release: `dev` (2.0; also written `2.0`), `2.3-dev`, `2.3-distilled`",
        GUIDE,
        values=names.FLAVOURS_LATER,
    )
    pretrained_model_name_or_path: Text = key(
        places.DEFAULT_REPOSITORY,
        "the checkpoint: a path in the workspace (combined .safetensors file, or diffusers folder), or `owner/name` of "
        "the Hub, `owner/name@revision` to pin a commit; it is downloaded once (docs/models.md)",
        GUIDE,
    )
    pretrained_gemma_model_name_or_path: Text | None = key(
        None,
        "the Gemma 3 text encoder: a path in the workspace, or `owner/name` of the Hub such as google/gemma-3-12b-it; "
        "unset: beside the checkpoint, or from its repository",
        GUIDE,
    )
    ltx2_combined_filename: Text | None = key(
        None, "the combined file in the repository (alias `ltx2_checkpoint_filename`); unset: the flavour's", GUIDE
    )
    model_type: Literal["lora", "full"] = key(
        "lora", "train an adapter, or all weights", OFFICIAL, values={"full": "training all weights comes later"}
    )
    mixed_precision: Literal["bf16", "no", "fp16", "fp8"] = key(
        "bf16",
        "precision of the computation on a GPU: `bf16`, or `no` = fp32; a CPU computes in fp32",
        GUIDE,
        values={
            "fp16": "activations of this model overflow fp16; fp16 with loss scaling comes later",
            "fp8": "fp8 computation comes with the quantised bases",
        },
    )
    base_model_precision: Annotated[str, one_of(names.PRECISIONS)] = key(
        "no_change", "form of the frozen base weights", GUIDE, values=names.PRECISIONS_LATER
    )
    base_model_default_dtype: Literal["bf16", "fp32"] = later(
        "bf16", "type of base weights that are not quantised", "it belongs to quantised bases, which come later"
    )
    text_encoder_1_precision: Annotated[str, one_of(names.PRECISIONS)] = later(
        "no_change", "form of the text encoder's weights", "a quantised text encoder comes later"
    )
    quantize_via: Literal["accelerator", "cpu", "pipeline"] = later(
        "accelerator", "where base weights are quantised", "quantised bases come later", part_of="base_model_precision"
    )
    attention_mechanism: Annotated[str, one_of(names.ATTENTION)] = later(
        "diffusers", "attention kernel; `diffusers` = torch's own", "other attention kernels come later"
    )
    seed: Int = key(42, "seed of every random draw; the same seed repeats the run at any number of GPUs", GUIDE, ge=0)


class AdapterKeys(BaseModel):
    """The adapter."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    lora_type: Literal["standard", "lycoris"] = key(
        "standard", "kind of adapter", GUIDE, values={"lycoris": "LyCORIS adapters come later"}
    )
    lora_rank: Int = key(32, "rank of the adapter", OFFICIAL, ge=1)
    lora_alpha: Float | None = key(
        None, "scale of the adapter is alpha / rank; unset: equal to the rank", OFFICIAL, gt=0
    )
    lora_dropout: Float = key(0.0, "share of adapter inputs set to zero", OFFICIAL, ge=0, lt=1)
    lora_init_type: Literal["default", "gaussian", "loftq", "olora", "pissa"] = later(
        "default", "start values of the adapter", "the start is uniform A (Kaiming), zero B; other starts come later"
    )
    init_lora: Text | None = key(None, "start from this LoRA file (either naming)", GUIDE)
    init_lokr_norm: Float | None = later(None, "perturbation of a LoKr's start", _ADAPTER_KINDS)
    use_dora: Bool = later(False, "weight-decomposed adapter", _ADAPTER_KINDS)
    peft_lora_mode: Literal["standard", "singlora"] = later("standard", "variant of LoRA", _ADAPTER_KINDS)
    peft_lora_target_modules: PathOrJson | None = later(
        None,
        "names of the layers to adapt",
        "to_q, to_k, to_v and to_out.0 of all six attentions are adapted; a choice comes later",
    )
    lycoris_config: PathOrJson | None = later(
        None, "LyCORIS settings; read only with lora_type: lycoris", "LyCORIS adapters come later", part_of="lora_type"
    )
    trigger_words: Texts = key(
        [],
        "words put before every caption, with commas, and into the LoRA's header; write them in a prompt to call what "
        "was trained",
        OURS,
    )


class DataKeys(BaseModel):
    """Defaults of datasets, captions and where files lie."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    data_backend_config: PathOrJson | None = key(
        None, "the list of datasets: a file's path in the workspace, or the list itself", GUIDE
    )
    resolution: Float = key(
        512.0, "size of training clips where a dataset names none; unit: resolution_type", GUIDE, gt=0
    )
    resolution_type: Literal["pixel_area", "pixel", "area"] = key(
        "pixel_area",
        "`pixel_area`: edge of the square of equal area; `pixel`: shorter edge; `area`: megapixels",
        GUIDE,
    )
    framerate: Float = key(
        25.0,
        "frames per second of validation clips (alias `frame_rate`); clips keep their own or video.frame_rate",
        GUIDE,
        gt=0,
        le=240,
    )
    minimum_image_size: Float | None = later(None, "smallest source size", "filters by source size come later", ge=0)
    maximum_image_size: Float | None = later(None, "largest source size", "filters by source size come later", ge=0)
    target_downsample_size: Float | None = later(
        None, "size before cropping", "filters by source size come later", ge=0
    )
    caption_strategy: Annotated[str, one_of(names.CAPTIONS, names.CAPTION_ALIASES)] = key(
        "textfile", "where captions come from, where a dataset does not say", OURS, values=names.CAPTIONS_LATER
    )
    instance_prompt: Text | None = key(
        None, "the caption of instanceprompt, and the prefix of prepend_instance_prompt", GUIDE
    )
    prepend_instance_prompt: Bool = key(False, "put instance_prompt before every caption", GUIDE)
    only_instance_prompt: Bool = later(False, "use instance_prompt alone", "write caption_strategy: instanceprompt")
    disable_multiline_split: Bool = key(False, "a caption file is one caption, not one per line", GUIDE)
    caption_dropout_probability: Float = later(
        0.0, "share of samples trained with the empty caption", "caption dropout comes later", ge=0, le=1
    )
    vae_batch_size: Int = later(1, "clips encoded at once", "clips are encoded one at a time", idle=(1,), ge=1)
    audio_only: Bool = later(False, "train the audio half alone", "training audio alone comes later")
    output_dir: Text | None = key(None, "folder of the run, in place of runs/<name>", GUIDE)
    resume_from_checkpoint: Text = key("latest", "`latest`, or a checkpoint's name or path", GUIDE)
    checkpoint_step_interval: Int = key(
        500, "optimizer steps between checkpoints (alias `checkpointing_steps`); 0: only at the end", GUIDE, ge=0
    )
    checkpoint_epoch_interval: Float | None = later(
        None, "epochs between checkpoints", "checkpoints are counted in steps", ge=0
    )
    checkpoints_total_limit: Int = key(
        5, "checkpoints kept, oldest removed first (alias `save_total_limit`); 0: all", GUIDE, ge=0
    )
    push_to_hub: Bool = later(False, "upload the result to the Hub", "uploads come later")
    push_checkpoints_to_hub: Bool = later(False, "upload every checkpoint to the Hub", "uploads come later")
    hub_model_id: Text | None = later(
        None, "repository of uploads; used only with push_to_hub", "uploads come later", part_of="push_to_hub"
    )
    model_card_private: Bool = later(False, "make the repository private", "uploads come later", part_of="push_to_hub")
    report_to: Annotated[str, several_of(names.TRACKERS)] = later(
        "none", "experiment tracker; metrics.jsonl and /metrics are always written", "trackers come later"
    )
    tracker_project_name: Text | None = later(
        None, "project in the tracker", "trackers come later", part_of="report_to"
    )
    tracker_run_name: Text | None = later(None, "run in the tracker", "trackers come later", part_of="report_to")
    ltx2_intrinsic_conditioning: JsonValue | None = later(
        None, "list of conditions {type, probability, …}", _CONDITIONING
    )
    ltx2_reference_spatial_scale_factor: Float | None = later(
        None, "scale of reference positions", _CONDITIONING, idle=(1,), gt=0
    )
    ltx2_reference_temporal_scale_factor: Float = later(1.0, "scale of reference times", _CONDITIONING, gt=0)
