"""Keys that exclude each other, and what a dataset needs."""

import json

import pytest

from ltx2_job.config import TrainingConfig, resolve
from ltx2_job.errors import ConfigError

CLIPS = {"id": "clips", "instance_data_dir": "datasets/videos"}
EMBEDS = {"id": "text", "dataset_type": "text_embeds", "default": True}


def mistakes(config, datasets=(CLIPS,), **more):
    with pytest.raises(ConfigError) as error:
        resolve(config, list(datasets) if datasets is not None else None, **more)
    assert error.value.exit_code == 78
    return str(error.value).splitlines()


def test_steps_and_epochs_exclude_each_other():
    assert mistakes({"max_train_steps": 200, "num_train_epochs": 1}) == [
        "config: max_train_steps and num_train_epochs are both set; set one of them to 0"
    ]


def test_one_of_them_is_needed():
    assert mistakes({"max_train_steps": 0}) == [
        "config: max_train_steps and num_train_epochs are both 0; set one of them"
    ]


def test_steps_or_epochs():
    assert resolve({}, [CLIPS]).training.max_train_steps == 2000
    by_epoch = resolve({"num_train_epochs": 3}, [CLIPS]).training
    assert (by_epoch.max_train_steps, by_epoch.num_train_epochs) == (0, 3)
    by_step = resolve({"max_train_steps": 200, "num_train_epochs": 0}, [CLIPS]).training
    assert (by_step.max_train_steps, by_step.num_train_epochs) == (200, 0)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"ramtorch": True, "musubi_blocks_to_swap": 4}, "ramtorch and musubi_blocks_to_swap"),
        ({"ramtorch": True, "enable_group_offload": True}, "ramtorch and enable_group_offload"),
        ({"musubi_blocks_to_swap": 4, "enable_group_offload": True}, "musubi_blocks_to_swap and enable_group_offload"),
        (
            {"ramtorch": True, "musubi_blocks_to_swap": 4, "enable_group_offload": True},
            "ramtorch and musubi_blocks_to_swap and enable_group_offload",
        ),
    ],
)
def test_ways_of_moving_weights_exclude_each_other(config, named):
    assert mistakes(config) == [f"config: {named} exclude each other: each moves the same weights; keep one of them"]


@pytest.mark.parametrize("key", ["ramtorch", "musubi_blocks_to_swap", "enable_group_offload"])
def test_one_way_alone_is_no_mistake(key):
    assert [item.field for item in resolve({key: 1}, [CLIPS]).unsupported] == [key]


def test_full_training_of_a_quantised_base():
    (said,) = mistakes({"model_type": "full", "base_model_precision": "fp8-torchao"})
    assert said.startswith("config: model_type full and base_model_precision exclude each other")


def test_deepspeeds_optimizer_is_not_offered():
    (said,) = mistakes({"optimizer": "deepspeed-adamw"})
    assert said.startswith("optimizer: known, not offered: ")


def test_another_family_is_refused():
    assert mistakes({"model_family": "flux"}) == ["model_family: unknown value 'flux'; write one of ltxvideo2"]


def test_a_dataset_needs_an_id_and_a_folder():
    assert mistakes({}, [{"instance_data_dir": "x"}]) == ["datasets[0].id: is required; write it"]
    assert mistakes({}, [{"id": "", "instance_data_dir": "x"}]) == ["datasets[0].id: is required; write it"]
    assert mistakes({}, [{"id": "a"}]) == ["datasets[0].instance_data_dir: is required; name the folder of the clips"]
    assert mistakes({}, [{"id": "a", "dataset_type": "eval"}, CLIPS])[0].startswith("datasets[0].instance_data_dir")


def test_ids_are_unique():
    assert mistakes({}, [CLIPS, CLIPS]) == ["datasets[1].id: 'clips' is also the id of datasets[0]; give each its own"]
    resolve({}, [CLIPS, {**CLIPS, "disabled": True}])


def test_an_instance_prompt_is_needed_where_it_is_used():
    (said,) = mistakes({}, [{**CLIPS, "caption_strategy": "instanceprompt"}])
    assert said.startswith("datasets[0].instance_prompt: is required with caption_strategy: instanceprompt")
    (said,) = mistakes({"prepend_instance_prompt": True})
    assert said.startswith("datasets[0].instance_prompt: is required with prepend_instance_prompt")
    found = resolve({"caption_strategy": "instanceprompt", "instance_prompt": "a fox"}, [CLIPS])
    assert (found.datasets[0].caption_strategy, found.datasets[0].instance_prompt) == ("instanceprompt", "a fox")


def test_frames_that_no_clip_can_have():
    (said,) = mistakes({}, [{**CLIPS, "video": {"num_frames": 57, "max_frames": 33}}])
    assert said.startswith("datasets[0].video.max_frames: is 33, min_frames is 57: no clip fits")


def test_frames_are_compared_after_rounding():
    """57 and 62 are the same 8k+1."""
    resolve({}, [{**CLIPS, "video": {"num_frames": 62, "max_frames": 57}}])


def test_frames_below_one():
    assert mistakes({}, [{**CLIPS, "video": {"num_frames": 0, "min_frames": -3}}]) == [
        "datasets[0].video.num_frames: must be 1 or more, not 0",
        "datasets[0].video.min_frames: must be 1 or more, not -3",
    ]
    assert mistakes({"validation_num_video_frames": 0}) == ["validation_num_video_frames: must be 1 or more, not 0"]


def test_something_to_train_on():
    assert mistakes({}, [EMBEDS])[0].startswith("datasets: no enabled dataset to train on")
    assert mistakes({}, [{**CLIPS, "dataset_type": "eval"}])[0].startswith("datasets: no enabled dataset to train on")
    assert mistakes({}, [{**CLIPS, "disabled": "true"}])[0].startswith("datasets: there is no enabled dataset")
    assert mistakes({}, [])[0].startswith("datasets: there is no enabled dataset")
    assert mistakes({}, None)[0].startswith("datasets: there are none")
    assert mistakes({}, [{**CLIPS, "probability": 0}])[0].startswith("datasets: every dataset to train on has prob")


def test_an_entry_that_cannot_be_read_hides_no_dataset():
    """One wrong value gives one message, not a second one that there is nothing to train on."""
    assert mistakes({}, [{**CLIPS, "repeats": -1}, EMBEDS]) == ["datasets[0].repeats: must be 0 or more, not -1"]


def test_text_embeds_entries():
    assert mistakes({}, [CLIPS, EMBEDS, {**EMBEDS, "id": "more"}])[0].startswith("datasets: several text_embeds")
    assert mistakes({}, [{**CLIPS, "text_embeds": "none-such"}, EMBEDS]) == [
        "datasets[0].text_embeds: there is no text_embeds entry with id 'none-such'; write one of text"
    ]
    assert resolve({}, [{**CLIPS, "text_embeds": "text"}, EMBEDS]).datasets[0].text_embeds == "text"


def test_a_disabled_entry_is_skipped_unread():
    off = {"disabled": True, "whatever": 1, "dataset_type": "image"}
    found = resolve({}, [off, CLIPS])
    assert [item.id for item in found.datasets] == ["clips"] and found.unsupported == ()
    with pytest.raises(ConfigError, match="unknown key"):
        resolve({}, [{**off, "disabled": "no"}, CLIPS])


def test_entries_that_are_no_objects():
    assert mistakes({}, ["clips"])[0].startswith("datasets[0]: must be an object, not 'clips'")
    assert mistakes({}, [{**CLIPS, "video": 49}])[0].startswith("datasets[0].video: must be an object, not 49")
    with pytest.raises(ConfigError, match="datasets: must be a list"):
        resolve({}, {"clips": CLIPS})
    with pytest.raises(ConfigError, match="config: must be an object"):
        resolve([], [CLIPS])


def test_datasets_inline_or_in_a_file(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([CLIPS]))
    by_list = resolve({"data_backend_config": [CLIPS]})
    by_path = resolve({"data_backend_config": "data.json"}, workspace=tmp_path)
    by_absolute_path = resolve({"data_backend_config": str(tmp_path / "data.json")}, workspace=tmp_path)
    given = resolve({"data_backend_config": "not/there.json"}, [CLIPS])
    assert by_list == by_path == by_absolute_path == given == resolve({}, [CLIPS])
    assert by_path.training.data_backend_config is None


def test_a_dataset_file_that_cannot_be_read(tmp_path):
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "object.json").write_text("{}")
    for name, said in [
        ("missing.json", "data_backend_config: cannot read missing.json: No such file or directory"),
        ("broken.json", "data_backend_config: broken.json is not valid JSON"),
        ("object.json", "data_backend_config: must be a list of datasets"),
    ]:
        assert mistakes({"data_backend_config": name}, None, workspace=tmp_path)[0].startswith(said)
    (said,) = mistakes({"data_backend_config": "data.json"}, None)
    assert said.startswith("data_backend_config: data.json lies on the volume and cannot be read here")


def test_a_file_of_a_feature_that_is_off_may_be_missing(tmp_path):
    config = {"lycoris_config": "config/none-such.json", "hub_model_id": "me/mine", "eval_dataset_id": "x"}
    found = resolve(config, [CLIPS], workspace=tmp_path)
    assert found.unsupported == () and found.training.lycoris_config == "config/none-such.json"


def test_datasets_take_what_they_leave_unset_from_the_configuration():
    config = {
        "resolution": 480,
        "resolution_type": "pixel",
        "caption_strategy": "filename",
        "instance_prompt": "a fox",
        "prepend_instance_prompt": "yes",
        "disable_multiline_split": True,
    }
    own = {"id": "own", "resolution": 640, "resolution_type": "area", "caption_strategy": "textfile",
           "instance_prompt": "a hare", "prepend_instance_prompt": False, "disable_multiline_split": False}  # fmt: skip
    first, second = resolve(config, [CLIPS, {**CLIPS, **own}]).datasets
    names = list(config)
    assert [getattr(first, name) for name in names] == [480.0, "pixel", "filename", "a fox", True, True]
    assert [getattr(second, name) for name in names] == [640.0, "area", "textfile", "a hare", False, False]


def test_guidance_of_sound():
    """A distilled model is sampled in one pass, so its sound must not ask for the second one."""
    assert resolve({}, [CLIPS]).training.ltx2_validation_audio_guidance == 7.0
    assert resolve({"validation_guidance": 1}, [CLIPS]).training.ltx2_validation_audio_guidance == 1.0
    both = {"validation_guidance": 1, "ltx2_validation_audio_guidance": 3}
    assert resolve(both, [CLIPS]).training.ltx2_validation_audio_guidance == 3.0


def test_the_seed_of_validation_follows_the_seed():
    assert resolve({"seed": 7}, [CLIPS]).training.validation_seed == 7
    assert resolve({"seed": 7, "validation_seed": 0}, [CLIPS]).training.validation_seed == 0


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        TrainingConfig().seed = 3
