"""Checks over several keys at once. Each gives a problem; none changes anything."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from ltx2_job.config.datasets import DatasetConfig
from ltx2_job.config.training import TrainingConfig
from ltx2_job.errors import Problem

CLIPS = ("video", "eval")  # types of datasets whose clips are cached
# The keys of each place that clips may lie in, the required one first.
SOURCES: Final = {
    "local": ("instance_data_dir",),
    "aws": ("aws_bucket_name", "aws_data_prefix", "aws_endpoint_url", "aws_region_name"),
    "huggingface": ("dataset_name", "revision", "data_prefix"),
}
_REQUIRED: Final = {
    "local": "name the folder of the clips",
    "aws": "name the bucket of the clips",
    "huggingface": "name the repository of the clips, owner/name",
}


def check_training(config: TrainingConfig, broken: frozenset[str]) -> list[Problem]:
    """Keys that exclude each other. A check whose keys could not be read (`broken`) is left out."""
    problems: list[Problem] = []
    if not broken & {"max_train_steps", "num_train_epochs"}:
        if config.max_train_steps and config.num_train_epochs:
            problems.append(
                Problem("config", "max_train_steps and num_train_epochs are both set", "set one of them to 0")
            )
        elif not config.max_train_steps and not config.num_train_epochs:
            problems.append(Problem("config", "max_train_steps and num_train_epochs are both 0", "set one of them"))
    streams = {
        "ramtorch": config.ramtorch,
        "musubi_blocks_to_swap": bool(config.musubi_blocks_to_swap),
        "enable_group_offload": config.enable_group_offload,
    }
    on = [name for name, active in streams.items() if active]
    if len(on) > 1:
        problems.append(
            Problem("config", f"{' and '.join(on)} exclude each other: each moves the same weights", "keep one of them")
        )
    if config.model_type == "full" and config.base_model_precision != "no_change":
        problems.append(
            Problem(
                "config",
                "model_type full and base_model_precision exclude each other: a quantised base is frozen",
                "write model_type: lora or base_model_precision: no_change",
            )
        )
    if config.optimizer == "deepspeed-adamw":
        problems.append(
            Problem(
                "optimizer", "known, not offered: deepspeed-adamw belongs to DeepSpeed", "write adamw_bf16 or adamw"
            )
        )
    return problems


def check_dataset(config: DatasetConfig, field: str) -> list[Problem]:
    """What one dataset needs. `field`: "datasets[0]"."""
    problems: list[Problem] = []
    problems += _check_source(config, field)
    if config.dataset_type in CLIPS:
        if config.caption_strategy == "instanceprompt" and not config.instance_prompt:
            problems.append(
                Problem(
                    f"{field}.instance_prompt", "is required with caption_strategy: instanceprompt", "write the caption"
                )
            )
        if config.prepend_instance_prompt and not config.instance_prompt:
            problems.append(
                Problem(f"{field}.instance_prompt", "is required with prepend_instance_prompt", "write the prefix")
            )
        longest = config.video.max_frames
        if longest is not None and longest < config.video.min_frames:
            problems.append(
                Problem(
                    f"{field}.video.max_frames",
                    f"is {longest}, min_frames is {config.video.min_frames}: no clip fits",
                    "raise max_frames or lower num_frames and min_frames",
                )
            )
    return problems


def _check_source(config: DatasetConfig, field: str) -> list[Problem]:
    """Where the files lie: what that needs, and no key of another place."""
    if config.type not in SOURCES:
        return []  # named as not supported yet
    if config.dataset_type == "text_embeds" and config.type != "local":
        what = f"is {config.type}: encoded captions are kept on the volume"
        return [Problem(f"{field}.type", what, "write type: local")]
    problems: list[Problem] = []
    required = SOURCES[config.type][0]
    if config.dataset_type in CLIPS and not getattr(config, required):
        problems.append(Problem(f"{field}.{required}", "is required", _REQUIRED[config.type]))
    defaults = type(config).model_fields
    for other, names in SOURCES.items():
        for name in names if other != config.type else ():
            if getattr(config, name) != defaults[name].default:
                what = f"is {getattr(config, name)!r}, but the type is {config.type}"
                problems.append(Problem(f"{field}.{name}", what, f"remove it, or write type: {other}"))
    return problems + (_check_form(config, field) if config.type != "local" else [])


def _check_form(config: DatasetConfig, field: str) -> list[Problem]:
    """Names that cannot be meant, told before anything is asked for."""
    problems = []
    if (bucket := config.aws_bucket_name) and not re.fullmatch(
        r"[A-Za-z0-9][\w.-]{1,253}[A-Za-z0-9]", bucket, re.ASCII
    ):
        remedy = "write the bucket alone, without s3:// and without a folder; the folder is aws_data_prefix"
        problems.append(Problem(f"{field}.aws_bucket_name", f"{bucket!r} is no name of a bucket", remedy))
    if (url := config.aws_endpoint_url) and not _is_address(url):
        remedy = "write https://host or http://host:port, without a name and a password in it"
        problems.append(Problem(f"{field}.aws_endpoint_url", f"{_shown(url)!r} is no address of a store", remedy))
    if (name := config.dataset_name) and not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
        problems.append(Problem(f"{field}.dataset_name", f"{name!r} is no repository", "write owner/name of the Hub"))
    for key in ("aws_data_prefix", "data_prefix"):
        prefix = getattr(config, key)
        if prefix and ({"", ".", ".."} & set(prefix.strip("/").split("/"))):
            problems.append(Problem(f"{field}.{key}", f"{prefix!r} is no folder", "write it as in footage/foxes"))
    return problems


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username and not parts.query


def _shown(url: str) -> str:
    """An address without what may be a password."""
    return re.sub(r"//[^/@]*@", "//…@", url)


def check_datasets(configs: Sequence[tuple[str, DatasetConfig]], complete: bool) -> list[Problem]:
    """What holds among the enabled datasets: unique ids, one default text_embeds entry, something to train on.

    complete: False where further entries could not be read; then nothing is said to be missing.
    """
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for field, config in configs:
        if config.id in seen:
            problems.append(
                Problem(f"{field}.id", f"{config.id!r} is also the id of {seen[config.id]}", "give each its own")
            )
        seen.setdefault(config.id, field)
    embeds = [config for _, config in configs if config.dataset_type == "text_embeds"]
    if sum(config.default for config in embeds) > 1:
        problems.append(Problem("datasets", "several text_embeds entries are the default", "keep one default: true"))
    if not complete:
        return problems
    names = {config.id for config in embeds}
    for field, config in configs:
        if config.text_embeds is not None and config.text_embeds not in names:
            problems.append(
                Problem(
                    f"{field}.text_embeds",
                    f"there is no text_embeds entry with id {config.text_embeds!r}",
                    f"write one of {', '.join(sorted(names))}" if names else "remove it",
                )
            )
    trained = [config for _, config in configs if config.dataset_type not in ("eval", "text_embeds")]
    if configs and not trained:
        problems.append(Problem("datasets", "no enabled dataset to train on", "add an entry with dataset_type: video"))
    if trained and not any(config.probability for config in trained):
        problems.append(Problem("datasets", "every dataset to train on has probability 0", "raise one of them"))
    return problems
