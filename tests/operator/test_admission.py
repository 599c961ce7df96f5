"""What the admission policy knows; what it says is tested on a real API server in tests/cluster."""

import pytest

from ltx2_job.config.keys import facts
from ltx2_job.config.layers import AUDIO, DATASET, TRAINING, VIDEO, Names
from ltx2_operator import admission

OBJECTS = [TRAINING, DATASET, VIDEO, AUDIO]


@pytest.mark.parametrize("names", OBJECTS)
def test_every_key_and_alias_is_known(names: Names) -> None:
    assert set(admission.known(names).names) == names.known()


@pytest.mark.parametrize("names", OBJECTS)
def test_keys_that_are_not_built_yet_keep_their_words_for_no(names: Names) -> None:
    """`later` keys take false, none and no, whatever their type: that is left to the operator."""
    found = admission.known(names)
    judged = {key for keys in found.forms.values() for key in keys} | set(found.choices)
    later = {name for name, info in names.model.model_fields.items() if facts(info).status == "later"}
    assert later or names is VIDEO
    assert not judged & later


def test_aliases_are_judged_like_their_keys() -> None:
    numbers = admission.known(TRAINING).forms["number"]
    assert {"framerate", "frame_rate", "checkpoint_step_interval", "checkpointing_steps"} <= set(numbers)
    assert {"disabled", "disable"} <= set(admission.known(DATASET).forms["boolean"])


def test_aliases_of_a_choice_may_be_chosen() -> None:
    choices = admission.known(TRAINING).choices
    assert {"dev", "2.3"} <= set(choices["model_flavour"]) and "torch-adamw" in choices["optimizer"]


def test_blocks_of_a_dataset_are_objects() -> None:
    assert admission.known(DATASET).forms["block"] == ["video", "audio"]
