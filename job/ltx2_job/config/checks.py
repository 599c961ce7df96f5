"""Checks over several keys at once. Each gives a problem; none changes anything."""

from collections.abc import Sequence

from ltx2_job.config.datasets import DatasetConfig
from ltx2_job.config.training import TrainingConfig
from ltx2_job.errors import Problem

CLIPS = ("video", "eval")  # types of datasets whose clips are cached


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
    if config.dataset_type in CLIPS:
        if config.type == "local" and not config.instance_data_dir:
            problems.append(Problem(f"{field}.instance_data_dir", "is required", "name the folder of the clips"))
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
