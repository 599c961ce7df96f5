"""Sources and their order, aliases, and how each source is named in a message."""

import pytest

from ltx2_job.config import TrainingConfig, resolve
from ltx2_job.errors import ConfigError

CLIPS = [{"id": "clips", "instance_data_dir": "datasets/videos"}]


def read(config=None, environ=None, flags=()):
    return resolve(config or {}, CLIPS, environ=environ, flags=flags).training


def mistakes(config=None, environ=None, flags=()):
    with pytest.raises(ConfigError) as error:
        read(config, environ, flags)
    return str(error.value).splitlines()


def test_flags_beat_the_environment_beats_the_file():
    config, environ, flags = {"seed": 1}, {"LTX2_SEED": "2"}, ["--seed=3"]
    assert read(config).seed == 1
    assert read(config, environ).seed == 2
    assert read(config, environ, flags).seed == 3
    assert read(config, flags=flags).seed == 3


def test_the_order_holds_key_by_key():
    config = {"seed": 1, "lora_rank": 4, "train_batch_size": 2}
    found = read(config, {"LTX2_LORA_RANK": "8", "LTX2_TRAIN_BATCH_SIZE": "3"}, ["--train_batch_size=5"])
    assert (found.seed, found.lora_rank, found.train_batch_size) == (1, 8, 5)


def test_an_alias_in_a_flag_beats_the_key_in_the_file():
    """Catches aliases that are resolved only after the layers were put together."""
    assert read({"validation_step_interval": 10}, flags=["--validation_steps=20"]).validation_step_interval == 20
    assert read({"validation_steps": 10}, {"LTX2_VALIDATION_STEP_INTERVAL": "20"}).validation_step_interval == 20


def test_an_empty_flag_does_not_hide_the_file():
    assert read({"seed": 7}, {"LTX2_SEED": ""}, ["--seed="]).seed == 7


def test_objects_of_two_layers_are_not_mixed():
    """A tread_config on the command line replaces the file's, it is not merged into it."""
    flag = '--tread_config={"routes": []}'
    assert read({"tread_config": {"routes": [1], "other": 2}}, flags=[flag]).tread_config == {"routes": []}


def test_leading_dashes_in_keys_of_the_file():
    assert read({"--seed": 7, "--vae_enable_tiling": "true"}).seed == 7


@pytest.mark.parametrize(
    ("alias", "key", "value"),
    [
        ("frame_rate", "framerate", 24),
        ("validation_steps", "validation_step_interval", 7),
        ("checkpointing_steps", "checkpoint_step_interval", 7),
        ("save_total_limit", "checkpoints_total_limit", 7),
    ],
)
def test_aliases_of_config_json(alias, key, value):
    by_alias, by_key = resolve({alias: value}, CLIPS), resolve({key: value}, CLIPS)
    assert getattr(by_alias.training, key) == value
    assert by_alias.training == by_key.training and by_alias.digest == by_key.digest


def test_aliases_of_datasets():
    shown = [{**CLIPS[0], "cache_dir_vae": "cache/{model_family}/clips"}, {"id": "off", "disable": True}]
    (clips,) = resolve({}, shown).datasets
    assert clips.cache_dir == "cache/ltxvideo2/clips"


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"model_flavour": "2"}, {"model_flavour": "dev"}),
        ({"model_flavour": "2.0"}, {"model_flavour": "dev"}),
        ({"model_flavour": "2.5"}, {"model_flavour": "2.5-dev"}),
        ({"lr_scheduler": "cosine_with_warmup"}, {"lr_scheduler": "cosine"}),
        ({"optimizer": "torch-adamw"}, {"optimizer": "adamw"}),
        ({"caption_strategy": "instance_prompt", "instance_prompt": "x"}, {"caption_strategy": "instanceprompt"}),
        ({"flow_schedule_shift": 0}, {"flow_schedule_shift": None}),
    ],
)
def test_aliases_of_values(given, canonical):
    found = read(given)
    assert {name: getattr(found, name) for name in canonical} == canonical


def test_a_key_and_its_alias_that_disagree():
    assert mistakes({"framerate": 25, "frame_rate": 24}) == [
        "frame_rate: is given twice, also as framerate, with another value; keep one"
    ]
    assert read({"framerate": 25, "frame_rate": 25}).framerate == 25


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--seed=3"], "seed", 3),
        (["--seed", "3"], "seed", 3),
        (["--seed=1", "--seed=3"], "seed", 3),
        (["--ramtorch"], "ramtorch", True),
        (["--ramtorch", "--seed=1"], "ramtorch", True),
        (["--ramtorch", "false"], "ramtorch", False),
        (["--ramtorch=no"], "ramtorch", False),
        (["--gradient_checkpointing"], "gradient_checkpointing", True),
        (["--validation_prompt=a = b"], "validation_prompt", "a = b"),
        (["--validation_prompt", "a fox"], "validation_prompt", "a fox"),
        (["--learning_rate=1e-3"], "learning_rate", 1e-3),
        (["--lora_alpha", "16"], "lora_alpha", 16.0),
    ],
)
def test_forms_of_flags(flags, name, value):
    assert getattr(read(flags=flags), name) == value


def test_flags_that_cannot_be_read():
    assert mistakes(flags=["seed=3"]) == ["seed=3: is no flag; write --key=value"]
    assert mistakes(flags=["--seed"]) == ["--seed: needs a value; write --seed=value"]
    assert mistakes(flags=["--sed=3"]) == ["--sed: unknown key; did you mean --seed?"]
    assert mistakes(flags=["--sed"]) == ["--sed: unknown key; did you mean --seed?"]
    assert mistakes(flags=["--ramtorch", "maybe"]) == ["maybe: is no flag; write --key=value"]


def test_a_switch_that_is_no_field_is_not_lost():
    """A bare --compress_disk_cache asks for it, as =true does."""
    (said,) = mistakes(flags=["--compress_disk_cache"])
    assert said.startswith("--compress_disk_cache: known, not offered: ")
    assert read(flags=["--override_dataset_config", "--skip_file_discovery", "vae"]) == read()


def test_messages_name_the_source():
    assert mistakes({"seed": "x"}) == ["seed: must be a whole number, not 'x'"]
    assert mistakes(environ={"LTX2_SEED": "x"}) == ["LTX2_SEED: must be a whole number, not 'x'"]
    assert mistakes(flags=["--seed=x"]) == ["--seed: must be a whole number, not 'x'"]
    assert mistakes({"validation_steps": "x"}) == ["validation_steps: must be a whole number, not 'x'"]
    assert mistakes(environ={"LTX2_SEDD": "1"}) == ["LTX2_SEDD: unknown key; did you mean LTX2_SEED?"]


def test_only_the_winning_value_must_be_right():
    assert read({"seed": "x"}, flags=["--seed=3"]).seed == 3


def test_other_variables_are_not_looked_at():
    environ = {
        "PATH": "/bin",
        "SEED": "9",
        "LTX2JOB_UID": "u",
        "LTX2JOB_NODES": "2",
        "ltx2_seed": "8",
        "XLTX2_SEED": "7",
    }
    assert read(environ=environ).seed == 42


def test_links_to_services_are_not_looked_at():
    """Kubernetes puts these into every pod of a namespace that has a Service called ltx2-operator."""
    environ = {
        "LTX2_OPERATOR_SERVICE_HOST": "10.0.0.1",
        "LTX2_OPERATOR_SERVICE_PORT": "8080",
        "LTX2_OPERATOR_SERVICE_PORT_METRICS": "8080",
        "LTX2_OPERATOR_PORT": "tcp://10.0.0.1:8080",
        "LTX2_OPERATOR_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "LTX2_OPERATOR_PORT_8080_TCP_ADDR": "10.0.0.1",
        "LTX2_OPERATOR_PORT_8080_TCP_PORT": "8080",
        "LTX2_OPERATOR_PORT_8080_TCP_PROTO": "tcp",
    }
    assert read(environ=environ) == read()


def test_no_key_looks_like_a_link_to_a_service():
    """Otherwise its variable would be passed over in silence."""
    from ltx2_job.config.layers import _SERVICE_LINK, TRAINING

    assert [name for name in TRAINING.known() if _SERVICE_LINK.search("LTX2_" + name.upper())] == []


def test_the_process_environment_never_leaks(monkeypatch):
    """The operator's own variables must not change a user's run, neither through resolve nor through the model."""
    monkeypatch.setenv("SEED", "9")
    monkeypatch.setenv("LTX2_SEED", "9")
    assert TrainingConfig().seed == 42
    assert read().seed == 42


def test_json_in_variables_and_flags():
    datasets = '[{"id": "inline", "instance_data_dir": "clips"}]'
    for given in (
        {"environ": {"LTX2_DATA_BACKEND_CONFIG": datasets}},
        {"flags": [f"--data_backend_config={datasets}"]},
    ):
        assert [item.id for item in resolve({}, **given).datasets] == ["inline"]


def test_all_mistakes_at_once():
    """Catches stopping at the first mistake, and a check over several keys that waits until single ones are right."""
    clips = {"id": "a", "type": "locl", "instance_data_dir": "x", "video": {"num_frames": 0}}
    with pytest.raises(ConfigError) as error:
        resolve(
            {"sedd": 1, "seed": "x", "max_train_steps": 5, "num_train_epochs": 1, "optimizer": "adamv"},
            [clips, "nonsense"],
            environ={"LTX2_LORA_RANK": "0"},
            flags=["--ramtorch", "--enable_group_offload"],
        )
    assert sorted(problem.field for problem in error.value.problems) == [
        "LTX2_LORA_RANK",
        "config",
        "config",
        "datasets[0].type",
        "datasets[0].video.num_frames",
        "datasets[1]",
        "optimizer",
        "sedd",
        "seed",
    ]
