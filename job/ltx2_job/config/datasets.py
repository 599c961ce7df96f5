"""DatasetConfig: one entry of the guide's multidatabackend.json, typed."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict

from ltx2_job.config import names
from ltx2_job.config.keys import GUIDE, OFFICIAL, OURS, key, later
from ltx2_job.config.values import Bool, Float, Int, JsonValue, Text, Texts, one_of

_SOURCES = "clips come from the volume, an object store or the Hub; other storage comes later"
_FILTERS = "filters by source size come later"
_MIXED = "mixed lengths come later"
_CONDITIONING = "reference videos and masks come later"
_AUDIO = "audio datasets of their own come later"
_WINDOW = "datasets that join or leave during the run come later"
_CROPS = "clips are covered and cut at the centre, as the official trainer does; other crops come later"


def _frames(fields: dict[str, Any]) -> int:
    return int(fields.get("num_frames", 49))


class VideoOptions(BaseModel):
    """The `video` block of a dataset. Frames are counted after resampling to frame_rate."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    num_frames: Int = key(49, "frames of a training clip, 8k+1, taken from the start of the file", OURS, ge=1)
    min_frames: Int = key(
        _frames,
        "shorter files are skipped; a file between min_frames and num_frames trains at its own 8k+1; unset: num_frames",
        GUIDE,
        ge=1,
    )
    max_frames: Int | None = key(None, "longer files are skipped", GUIDE, ge=1)
    frame_rate: Float | None = key(None, "resample to this rate; unset: each file keeps its own", OURS, gt=0, le=240)
    bucket_strategy: Literal["aspect_ratio", "resolution_frames"] = key(
        "aspect_ratio", "how clips are grouped", GUIDE, values={"resolution_frames": _MIXED}
    )
    frame_interval: Int | None = later(
        None, "step of clip lengths; only with resolution_frames", _MIXED, part_of="bucket_strategy"
    )


class AudioOptions(BaseModel):
    """The `audio` block of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    auto_split: Bool = key(True, "train on the clips' own sound", GUIDE)
    train_silence: Bool = key(
        False, "train a silent track as real silence; false: such a clip trains the video half only", OURS
    )
    max_duration_seconds: Float | None = later(None, "longest sound", _AUDIO, gt=0)
    truncation_mode: Literal["beginning", "end", "random"] = later("beginning", "which part of a long sound", _AUDIO)
    audio_only: Bool = later(False, "sound without pictures", "training audio alone comes later")
    source_from_video: Bool = later(False, "sound taken from a video dataset", _AUDIO)


class DatasetConfig(BaseModel):
    """One dataset: where its clips lie, how they are captioned, cut and repeated.

    Sizes and captions that an entry leaves unset come from config.json.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    id: Text = key(..., "name of the dataset, unique; required", GUIDE, min_length=1)
    type: Literal["local", "aws", "csv", "huggingface", "webshart"] = key(
        "local",
        "where the files lie: `local` on the volume, `aws` in an S3-compatible object store, `huggingface` on the Hub",
        GUIDE,
        values=dict.fromkeys(("csv", "webshart"), _SOURCES),
    )
    dataset_type: Annotated[str, one_of(names.DATASET_TYPES)] = key(
        "video",
        "`video`; `eval`: held out, only for the held-out loss; `text_embeds`: where encoded captions are kept",
        OURS,
        values=names.DATASET_TYPES_LATER,
    )
    instance_data_dir: Text | None = key(
        None, "folder of the clips, searched with its sub-folders; required with type: local", GUIDE
    )
    aws_bucket_name: Text | None = key(None, "bucket of the clips; required with type: aws", GUIDE)
    aws_data_prefix: Text = key("", "folder in the bucket, searched with its sub-folders; unset: all of it", GUIDE)
    aws_endpoint_url: Text | None = key(None, "address of an S3-compatible store; unset: AWS_ENDPOINT_URL, AWS", GUIDE)
    aws_region_name: Text | None = key(None, "region of the bucket; unset: AWS_REGION, or as the store says", GUIDE)
    dataset_name: Text | None = key(
        None, "data set repository on the Hub, owner/name; required with type: huggingface", GUIDE
    )
    revision: Text = key("main", "branch, tag or commit of that repository; a run keeps to the commit", GUIDE)
    data_prefix: Text = key("", "folder in that repository, searched with its sub-folders; unset: all of it", OURS)
    caption_strategy: Annotated[str, one_of(names.CAPTIONS, names.CAPTION_ALIASES)] = key(
        "textfile",
        "`textfile`: the .txt beside a clip; `filename`; `instanceprompt`; unset: as in config.json",
        OURS,
        values=names.CAPTIONS_LATER,
    )
    instance_prompt: Text | None = key(
        None, "the caption of instanceprompt, and the prefix of prepend_instance_prompt", GUIDE
    )
    prepend_instance_prompt: Bool = key(False, "put instance_prompt before every caption", GUIDE)
    only_instance_prompt: Bool = later(False, "use instance_prompt alone", "write caption_strategy: instanceprompt")
    disable_multiline_split: Bool = key(False, "a caption file is one caption, not one per line", GUIDE)
    caption_filter_list: Texts = later([], "texts removed from captions", "filters of captions come later")
    resolution: Float = key(512.0, "size of training clips; unset: as in config.json", GUIDE, gt=0)
    resolution_type: Literal["pixel_area", "pixel", "area"] = key("pixel_area", "unit of resolution", GUIDE)
    crop_style: Literal["center", "random", "corner", "face"] = key(
        "center", "where the cut lies", OFFICIAL, values=dict.fromkeys(("random", "corner", "face"), _CROPS)
    )
    crop_aspect: Literal["preserve", "square", "closest", "random"] = key(
        "preserve", "aspect of the cut", OURS, values=dict.fromkeys(("square", "closest", "random"), _CROPS)
    )
    crop_aspect_buckets: JsonValue | None = later(None, "aspects to choose from", _CROPS, part_of="crop_aspect")
    minimum_image_size: Float | None = later(None, "smallest source size", _FILTERS, ge=0)
    maximum_image_size: Float | None = later(None, "largest source size", _FILTERS, ge=0)
    target_downsample_size: Float | None = later(None, "size before cropping", _FILTERS, ge=0)
    repeats: Int = key(0, "further passes per epoch: n gives n + 1", GUIDE, ge=0)
    probability: Float = key(
        1.0, "how often its samples are used, relative to the dataset with the largest value", GUIDE, ge=0
    )
    disabled: Bool = key(False, "skip this entry (alias `disable`)", GUIDE)
    default: Bool = key(False, "the text_embeds entry used where a dataset names none", GUIDE)
    text_embeds: Text | None = key(None, "id of the text_embeds entry for this dataset's captions", GUIDE)
    cache_dir: Text | None = key(
        None, "folder of this dataset's cache, in place of cache/ (alias `cache_dir_vae`)", GUIDE
    )
    vae_batch_size: Int = later(1, "clips encoded at once", "clips are encoded one at a time", idle=(1,), ge=1)
    train_batch_size: Int | None = later(
        None, "another batch size for this dataset", "one batch size for all datasets is built", ge=1
    )
    s2v_datasets: Texts = later([], "audio datasets matched by file name", _AUDIO)
    conditioning_data: Texts = later([], "reference or mask datasets", _CONDITIONING)
    conditioning_type: Text | None = later(None, "kind of conditioning", _CONDITIONING, part_of="conditioning_data")
    parquet: JsonValue | None = later(None, "table of captions", "captions in tables come later")
    ignore_epochs: Bool = later(False, "leave this dataset out of the count of epochs", _WINDOW)
    start_epoch: Int = later(0, "first epoch with this dataset", _WINDOW, idle=(1,), ge=0)
    end_epoch: Int | None = later(None, "last epoch with this dataset", _WINDOW)
    start_step: Int = later(0, "first step with this dataset", _WINDOW, idle=(1,), ge=0)
    end_step: Int | None = later(None, "last step with this dataset", _WINDOW)
    video: VideoOptions = key(VideoOptions, "options of the pictures", GUIDE)
    audio: AudioOptions = key(AudioOptions, "options of the sound", GUIDE)
