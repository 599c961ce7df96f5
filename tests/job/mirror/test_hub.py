"""Mirroring a data set repository of the Hub over real HTTP: commits, tokens, what is fetched and what is not."""

import pytest

from hub_server import TOKEN
from ltx2_job.errors import AuthError, ConfigError, NoInputError
from ltx2_job.mirror.bring import require
from ltx2_job.workspace import read_json

NAME = "datasets/me/foxes"
FILES = {"clips/a.mp4": b"a" * 9000, "clips/a.txt": b"a fox", "clips/b.mp4": b"clip b", "other/c.mp4": b"clip c"}
HELD = {"a.mp4": b"a" * 9000, "a.txt": b"a fox", "b.mp4": b"clip b"}


@pytest.fixture
def foxes(hub, here):
    """`foxes()` mirrors the folder clips of me/foxes."""
    hub.add(NAME, FILES)

    def update(**keys):
        here.update(**{"type": "huggingface", "dataset_name": "me/foxes", "data_prefix": "clips", **keys})

    return update


def fetched(hub):
    return sorted({path.rpartition("/")[2] for _, path, _, status in hub.requests if "/resolve/" in path})


def test_a_folder_comes_and_its_commit_is_noted(hub, here, foxes):
    foxes()
    assert here.files() == HELD and fetched(hub) == ["a.mp4", "a.txt", "b.mp4"]
    commit = hub.repos[NAME].names["main"]
    assert read_json(here.workspace.run("fox").sources) == {"hf://datasets/me/foxes/clips/": commit}
    assert hub.leaked == []


def test_a_run_keeps_to_its_commit_without_asking_and_another_takes_the_newest(hub, here, foxes):
    foxes()
    old = hub.repos[NAME].names["main"]
    new = hub.add(NAME, FILES | {"clips/b.mp4": b"clip B", "clips/d.mp4": b"clip d"})
    hub.requests.clear()
    foxes()
    assert hub.requests == [] and here.files() == HELD
    foxes(run="vixen")
    assert fetched(hub) == ["b.mp4", "d.mp4"]  # by its digest, a.mp4 is what it was
    assert here.files() == HELD | {"b.mp4": b"clip B", "d.mp4": b"clip d"}
    assert list(read_json(here.workspace.run("vixen").sources).values()) == [new]
    foxes()
    assert here.files() == HELD, "the first run went on with the clips of the second"
    assert list(read_json(here.workspace.run("fox").sources).values()) == [old]


def test_without_a_network_what_is_here_serves_the_run_that_brought_it(hub, here, foxes, monkeypatch):
    foxes()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    foxes()
    (here.mirror.files / "a.txt").unlink()
    with pytest.raises(NoInputError, match=r"me/foxes.* is not in downloads/, and HF_HUB_OFFLINE forbids to ask"):
        foxes()


def test_a_private_repository_needs_the_token(hub, here, foxes, monkeypatch):
    hub.repos[NAME].private = True
    with pytest.raises(AuthError, match=r"me/foxes on http.* HF_TOKEN \(on a cluster: a Secret named in spec"):
        foxes()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    foxes()
    assert here.files() == HELD and hub.leaked == []


def test_a_repository_of_models_is_none_of_data_sets(hub, here, foxes):
    hub.add("me/model", FILES)
    with pytest.raises(AuthError, match="me/model"):
        foxes(dataset_name="me/model")


def test_what_is_not_there_is_named_with_its_field(hub, here, foxes, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match=r"datasets\[clips\].dataset_name: me/none is no repository of data sets on"):
        foxes(dataset_name="me/none")
    with pytest.raises(ConfigError, match=r"has no revision 'v9'; look at http.*/datasets/me/foxes/commits/main"):
        foxes(revision="v9")
    with pytest.raises(NoInputError, match="hf://datasets/me/foxes/wolves/: there is no video file there yet"):
        foxes(data_prefix="wolves")
    assert not here.workspace.downloads.exists()


def test_a_cut_goes_on_where_it_was(hub, here, foxes):
    hub.cuts["clips/a.mp4"] = [4000]
    foxes()
    assert here.files() == HELD
    assert "bytes=4000-" in [wanted for _, path, wanted, _ in hub.requests if path.endswith("a.mp4")]


def test_a_look_asks_for_one_clip_and_writes_nothing(hub, here, foxes):
    keys = {"type": "huggingface", "dataset_name": "me/foxes"}
    run = here.workspace.run("fox")
    require(here.dataset(**keys, data_prefix="other"), run)
    with pytest.raises(NoInputError):
        require(here.dataset(**keys, data_prefix="none"), run)
    assert fetched(hub) == [] and list(here.workspace.root.iterdir()) == []
