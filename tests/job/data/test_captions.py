"""Captions by each strategy, and finding clips."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ltx2_job.data.captions import captions
from ltx2_job.data.decoder import Unusable
from ltx2_job.discover import find_clips
from ltx2_job.errors import ConfigError, NoInputError


@dataclass(frozen=True)
class Dataset:
    id: str = "clips"
    caption_strategy: str = "textfile"
    instance_prompt: str | None = None
    prepend_instance_prompt: bool = False
    disable_multiline_split: bool = False


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "a_red_fox.txt").write_text("\ufeffa fox runs \n\n  a fox, running\r\na fox runs\n", encoding="utf-8")
    return tmp_path / "a_red_fox.mp4"


def test_each_line_is_an_alternative_once(clip: Path) -> None:
    assert captions(clip, Dataset()) == ("a fox runs", "a fox, running")


def test_the_whole_file_as_one_caption(clip: Path) -> None:
    assert captions(clip, Dataset(disable_multiline_split=True)) == ("a fox runs \n\n  a fox, running\na fox runs",)


def test_the_prompt_in_front(clip: Path) -> None:
    dataset = Dataset(instance_prompt=" sks style, ", prepend_instance_prompt=True)
    assert captions(clip, dataset) == ("sks style, a fox runs", "sks style, a fox, running")


def test_the_name_and_the_one_prompt(clip: Path) -> None:
    assert captions(clip, Dataset(caption_strategy="filename")) == ("a red fox",)
    assert captions(clip, Dataset(caption_strategy="instanceprompt", instance_prompt="sks")) == ("sks",)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("textfile", ("sks, red, a fox runs", "sks, red, a fox, running")),
        ("filename", ("sks, red, a red fox",)),
        ("instanceprompt", ("sks, red, style",)),
    ],
)
def test_trigger_words_stand_before_every_caption(clip: Path, strategy: str, expected: tuple[str, ...]) -> None:
    dataset = Dataset(caption_strategy=strategy, instance_prompt="style")
    assert captions(clip, dataset, ["sks", "red"]) == expected
    prefixed = Dataset(caption_strategy="filename", instance_prompt="style", prepend_instance_prompt=True)
    assert captions(clip, prefixed, ["sks"]) == ("sks, style a red fox",)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "x.txt is missing"), (b" \n\t\n", "x.txt is empty"), (b"\xff\xfe\x00", "not UTF-8")]
)
def test_captions_that_are_not_there(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(Unusable, match=reason):
        captions(tmp_path / "x.mp4", Dataset())


def test_a_caption_file_that_cannot_be_read_costs_its_clip(tmp_path: Path) -> None:
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(Unusable, match=r"x\.txt cannot be read"):
        captions(tmp_path / "x.mp4", Dataset())


@pytest.mark.parametrize(
    "dataset", [Dataset(caption_strategy="instanceprompt"), Dataset(prepend_instance_prompt=True, instance_prompt=" ")]
)
def test_a_prompt_that_is_needed_and_not_set(clip: Path, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"datasets\[clips\].instance_prompt: is not set"):
        captions(clip, dataset)


def test_other_strategies_are_named(clip: Path) -> None:
    with pytest.raises(ConfigError, match="parquet is not supported yet"):
        captions(clip, Dataset(caption_strategy="parquet"))


def test_clips_are_found_below_in_order_and_whatever_their_case(tmp_path: Path) -> None:
    for name in (
        "b.MP4",
        "a.mov",
        "sub/deep/c.webm",
        "notes.txt",
        "d.gif",
        ".hidden.mp4",
        ".git/e.mp4",
        "Z.mkv",
        "f.mp3",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in find_clips(tmp_path, "datasets/videos")]
    assert found == ["Z.mkv", "a.mov", "b.MP4", "sub/deep/c.webm"]


def test_nothing_there_yet(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"datasets/x: there is no such folder yet"):
        find_clips(tmp_path / "x", "datasets/x")
    with pytest.raises(NoInputError, match=r"datasets/videos: there is no video file in it yet"):
        find_clips(tmp_path, "datasets/videos")
