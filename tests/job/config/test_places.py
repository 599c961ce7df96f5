"""A path or a repository: never both, never a guess."""

from pathlib import Path

import pytest

from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError
from ltx2_job.places import FILES, REPOSITORIES, Repository, place_of

CLIPS = [{"id": "clips", "type": "local", "instance_data_dir": "clips", "caption_strategy": "textfile"}]


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("Lightricks/LTX-2", Repository("Lightricks/LTX-2", "main")),
        ("Lightricks/LTX-2@v1.0", Repository("Lightricks/LTX-2", "v1.0")),
        ("own/x_y.z@refs/pr/1", Repository("own/x_y.z", "refs/pr/1")),
        ("models/ltx", Repository("models/ltx", "main")),
        ("models/ltx.safetensors", None),
        ("./models/ltx", None),
        ("../models/ltx", None),
        ("/models/ltx", None),
        ("~/ltx", None),
    ],
)
def test_the_form_decides_where_nothing_exists(tmp_path, name, repository):
    assert place_of(name, tmp_path) == (repository or tmp_path / Path(name).expanduser())


def test_what_exists_is_a_path(tmp_path):
    (tmp_path / "Lightricks/LTX-2").mkdir(parents=True)
    assert place_of("Lightricks/LTX-2", tmp_path) == tmp_path / "Lightricks/LTX-2"


def test_what_begins_with_a_folder_of_the_workspace_is_a_path(tmp_path):
    """Catches a slip of the pen in models/… that would be looked for on the Hub."""
    (tmp_path / "models").mkdir()
    assert place_of("models/gema", tmp_path) == tmp_path / "models/gema"
    assert isinstance(place_of("modles/gemma", tmp_path), Repository)


@pytest.mark.parametrize(
    "name", ["ltx", "a/b/c", "own/my model", "own/..", "-own/x", "own/x@", "own/x:file", "a//b", "a--b/c"]
)
def test_neither_form_is_a_mistake(tmp_path, name):
    with pytest.raises(ConfigError, match="is no path of the workspace and no repository"):
        place_of(name, tmp_path)


def test_a_whole_commit_is_pinned():
    assert Repository("a/b", "0" * 40).is_pinned
    assert not Repository("a/b", "0" * 12).is_pinned and not Repository("a/b").is_pinned


@pytest.mark.parametrize("flavour", [*FILES, "2.3"])
def test_the_default_repository_follows_the_flavour(flavour):
    wanted = REPOSITORIES[{"2.3": "2.3-dev"}.get(flavour, flavour)]
    found = resolve({"max_train_steps": 1, "model_flavour": flavour}, CLIPS)
    assert found.training.pretrained_model_name_or_path == wanted
    assert not found.corrections  # the user wrote no name
    written = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": flavour, "max_train_steps": 1}
    corrected = resolve(written, CLIPS)
    assert corrected.training.pretrained_model_name_or_path == wanted
    assert len(corrected.corrections) == (wanted != "Lightricks/LTX-2")
    assert resolve(corrected.dump()["config"], CLIPS).digest == corrected.digest
    own = written | {"pretrained_model_name_or_path": "own/ltx"}
    assert resolve(own, CLIPS).training.pretrained_model_name_or_path == "own/ltx"


def test_both_names_of_the_file_are_one_key():
    for key in ("ltx2_combined_filename", "ltx2_checkpoint_filename"):
        found = resolve({"max_train_steps": 1, key: "a.safetensors"}, CLIPS)
        assert found.training.ltx2_combined_filename == "a.safetensors" and not found.unsupported
