"""The reference table says what the code does."""

import re

from ltx2_job.config import TrainingConfig
from ltx2_job.config.keys import facts
from ltx2_job.config.layers import AUDIO, DATASET, TRAINING, VIDEO
from ltx2_job.config.reference import reference_markdown


def tables():
    """The rows of config.json and of the dataset list: [key, type, default, source, what, status]."""
    training, _, datasets = reference_markdown().partition("## multidatabackend.json")
    return [
        [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in part.splitlines()
            if line.startswith("| `")
        ]
        for part in (training, datasets)
    ]


def test_every_key_has_one_row():
    """Catches a group of keys that the reference forgets, and a key that stands twice."""
    training, datasets = ([row[0].strip("`") for row in part] for part in tables())
    blocks = {f"video.{name}" for name in VIDEO.known()} | {f"audio.{name}" for name in AUDIO.known()}
    assert sorted(training) == sorted(TRAINING.known() - set(TRAINING.aliases))
    assert sorted(datasets) == sorted((DATASET.known() - set(DATASET.aliases)) | blocks)


def test_every_alias_is_named():
    for alias, name in {**TRAINING.aliases, **DATASET.aliases}.items():
        assert f"- `{alias}` = `{name}`" in reference_markdown()


def test_no_cell_is_left_open():
    for row in [row for part in tables() for row in part]:
        key, kind, _, source, does, status = row
        assert (kind and does and status and kind != "object") or key in ("`video`", "`audio`"), key
        assert source in ("guide", "official trainer", "this project"), key


def test_the_status_is_what_the_second_pass_says():
    statuses = {row[0].strip("`"): row[5] for row in tables()[0]}
    for name, info in TrainingConfig.model_fields.items():
        known, status = facts(info), statuses[name]
        if known.part_of:
            assert status == f"not supported yet, as `{known.part_of}`"
        elif known.status == "later":
            assert status == f"not supported yet: {known.why}"
        else:
            assert status.startswith("supported") and (not known.values or "not yet" in status), name
    assert statuses["optimizer"] == "supported: `adamw`, `adamw_bf16`; others not yet"
    assert statuses["lora_type"] == "supported, but not yet: `lycoris`"
    assert statuses["compress_disk_cache"].startswith("not offered: ")
    assert statuses["skip_file_discovery"].startswith("accepted, no effect: ")
    assert statuses["tokenizer_max_length"].startswith("fixed: ")


def test_types_and_defaults_read_well():
    cells = {row[0].strip("`"): (row[1], row[2]) for part in tables() for row in part}
    assert cells["seed"] == ("whole number", "`42`")
    assert cells["learning_rate"] == ("number", "`0.0001`")
    assert cells["validation_disable"] == ("true / false", "`false`")
    assert cells["validation_resolution"] == ("WxH, or several", "`512x768`")
    assert cells["lora_alpha"] == ("number", "")
    assert cells["data_backend_config"] == ("path or JSON", "")
    assert cells["tread_config"] == ("JSON", "")
    assert cells["grad_clip_method"] == ("`norm` / `value`", "`norm`")
    assert cells["max_train_steps"] == ("whole number", "`2000`")
    assert cells["id"] == ("text", "required")
    assert cells["video.min_frames"] == ("whole number", "`49`")
