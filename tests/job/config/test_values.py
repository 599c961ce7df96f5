"""How values are read, and the arithmetic of frames and sizes."""

import pytest

from ltx2_job.config import TrainingConfig, resolve
from ltx2_job.config.values import frames_down, side_nearest
from ltx2_job.errors import ConfigError

CLIPS = [{"id": "clips", "instance_data_dir": "datasets/videos"}]


def read(**config):
    return resolve(config, CLIPS).training


@pytest.mark.parametrize("frames", [*range(1, 140), 257])
def test_frames_go_down_to_the_next_8k_plus_1(frames):
    """Catches 4k+1, rounding to nearest, and an off-by-one: compared with a search, not with the formula."""
    assert frames_down(frames) == max(n for n in range(1, frames + 1) if n % 8 == 1)


@pytest.mark.parametrize("frames", [0, -1, -8])
def test_no_frames_stay_none(frames):
    assert frames_down(frames) == 0


@pytest.mark.parametrize("pixels", [*range(1, 200), 480, 704, 720, 854, 1080, 1280])
def test_sides_go_to_the_nearest_multiple_of_32_ties_down(pixels):
    """And not below 64, which the VAE could not decode. Catches rounding half up or half to even (720 would be 736 or
    704, 848 would be 864 or 832).
    """
    grid = range(64, 2000, 32)
    assert side_nearest(pixels) == min(grid, key=lambda side: (abs(side - pixels), side))


def test_the_guides_sizes():
    assert (side_nearest(720), side_nearest(854), side_nearest(480), side_nearest(1280)) == (704, 864, 480, 1280)


@pytest.mark.parametrize("written", [True, "true", "True", " TRUE ", "yes", "on", "1", 1, 1.0])
def test_true_in_every_form(written):
    assert read(validation_disable=written).validation_disable is True


@pytest.mark.parametrize("written", [False, "false", "no", "off", "0", 0])
def test_false_in_every_form(written):
    assert read(gradient_checkpointing=written).gradient_checkpointing is False


@pytest.mark.parametrize("written", ["maybe", 2, [], {"a": 1}, "2"])
def test_other_booleans_are_refused_with_the_value(written):
    with pytest.raises(ConfigError) as error:
        read(validation_disable=written)
    assert str(error.value) == f"validation_disable: must be true or false, not {written!r}"


@pytest.mark.parametrize("written", ["1e-4", 1e-4, "0.0001", " 1E-04 ", "1.0e-4"])
def test_numbers_as_text(written):
    assert read(learning_rate=written).learning_rate == 1e-4


@pytest.mark.parametrize("written", [200, "200", 200.0, "200.0", "2e2"])
def test_whole_numbers_in_every_form(written):
    steps = read(max_train_steps=written).max_train_steps
    assert steps == 200 and type(steps) is int


@pytest.mark.parametrize(
    ("key", "written", "said"),
    [
        ("max_train_steps", "2.5", "must be a whole number, not '2.5'"),
        ("max_train_steps", True, "must be a whole number, not True"),
        ("max_train_steps", "many", "must be a whole number, not 'many'"),
        ("max_train_steps", -1, "must be 0 or more, not -1"),
        ("learning_rate", "fast", "must be a number, not 'fast'"),
        ("learning_rate", True, "must be a number, not True"),
        ("learning_rate", "nan", "must be a finite number, not 'nan'"),
        ("learning_rate", "inf", "must be a finite number, not 'inf'"),
        ("learning_rate", -1, "must be 0 or more, not -1.0"),
        ("lr_power", 0, "must be above 0, not 0.0"),
        ("adam_beta1", 1, "must be below 1, not 1.0"),
        ("ltx2_first_frame_conditioning_probability", 1.5, "must be 1 or less, not 1.5"),
        ("seed", -1, "must be 0 or more, not -1"),
        ("validation_prompt", ["a"], "must be text, not ['a']"),
        ("validation_resolution", "wide", "must be WxH, for example 768x512, not 'wide'"),
        ("validation_resolution", "1x2x3", "must be WxH, for example 768x512, not '1x2x3'"),
        ("validation_resolution", "0x512", "must be WxH with both above 0, not '0x512'"),
        ("validation_resolution", [], "must be WxH or a list of WxH, for example 768x512, not []"),
        ("tread_config", 5, "must be JSON (an object or a list), not 5"),
        ("lycoris_config", 5, "must be a path or JSON, not 5"),
    ],
)
def test_a_wrong_value_is_named(key, written, said):
    with pytest.raises(ConfigError) as error:
        read(**{key: written})
    assert str(error.value) == f"{key}: {said}"


def test_a_wrong_choice_names_the_nearest_or_all():
    with pytest.raises(ConfigError) as error:
        read(optimizer="adamwbf16", grad_clip_method="both", lr_scheduler="cosin", report_to="wandb,tensorbord")
    assert sorted(str(error.value).splitlines()) == [
        "grad_clip_method: unknown value 'both'; write one of norm, value",
        "lr_scheduler: unknown value 'cosin'; did you mean cosine?",
        "optimizer: unknown value 'adamwbf16'; did you mean adamw_bf16?",
        "report_to: unknown value 'tensorbord'; did you mean tensorboard?",
    ]


@pytest.mark.parametrize(
    ("written", "sizes"),
    [
        ("768x512", [(768, 512)]),
        ("768X512", [(768, 512)]),
        ("768x512, 512x768", [(768, 512), (512, 768)]),
        (512, [(512, 512)]),
        ("512", [(512, 512)]),
        ([[768, 512]], [(768, 512)]),
        (["768x512", "512"], [(768, 512), (512, 512)]),
    ],
)
def test_sizes_in_every_form(written, sizes):
    """Width first: swapping would turn 768x512 into a portrait."""
    assert read(validation_resolution=written).validation_resolution == sizes


@pytest.mark.parametrize("written", [[768, 512], [512, True]])
def test_bare_numbers_in_a_list_are_not_guessed_at(written):
    """[768, 512] could be one size or two squares."""
    with pytest.raises(ConfigError, match="validation_resolution: must be WxH"):
        read(validation_resolution=written)


@pytest.mark.parametrize("written", ["fox, snow", ["fox", "snow"], '["fox", "snow"]', ["fox ", "", " snow"]])
def test_lists_of_texts(written):
    assert read(trigger_words=written).trigger_words == ["fox", "snow"]


def test_json_inside_text_is_decoded():
    routes = '{"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]}'
    assert read(tread_config=routes).tread_config["routes"][0]["end_layer_idx"] == -2
    with pytest.raises(ConfigError, match="tread_config: is not valid JSON"):
        read(tread_config="{routes")


@pytest.mark.parametrize("nothing", [None, ""])
def test_null_and_empty_text_mean_unset(nothing):
    """Catches an empty text that reaches a typed field, and a null that overwrites a default."""
    config = {name: nothing for name in TrainingConfig.model_fields if name != "data_backend_config"}
    assert resolve(config, CLIPS).training == resolve({}, CLIPS).training


@pytest.mark.parametrize("nothing", [None, ""])
def test_null_and_empty_text_mean_unset_in_datasets(nothing):
    empty = {
        "resolution": nothing,
        "repeats": nothing,
        "video": {"num_frames": nothing},
        "audio": {"channels": nothing},
    }
    assert resolve({}, [{**CLIPS[0], **empty}]) == resolve({}, CLIPS)


def test_a_number_where_a_name_is_meant():
    """YAML reads an unquoted 2.3 as a number."""
    assert read(model_flavour=2.3).model_flavour == "2.3-dev"
    assert read(model_flavour=2).model_flavour == "dev"
