"""The keys of a dataset and their defaults in config.json, on real clips by way of the cache stage and the plan."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache_bench import Bench
from ltx2_job.config import resolve
from ltx2_job.data.index import Index
from ltx2_job.data.plan import Planner
from ltx2_job.errors import ConfigError
from ltx2_job.store import Store
from ltx2_job.workspace import read_json

PROMPTS = {"a fox", "blurry, cropped, ugly", ""}  # that the bench's configuration adds to the captions


def skipped(bench: Bench) -> dict[str, str]:
    """Why clips were left out, by the clip's name."""
    page = read_json(bench.workspace.root / "runs" / "fox" / "report.json")
    return {Path(row["path"]).stem: row["reason"] for row in page["skipped"]}


def second(bench: Bench, name: str, **settings: Any) -> dict[str, Any]:
    """Another dataset beside the first, with one clip in a folder of its own."""
    bench.clip(f"../{name}/b", level=0.1)
    entry = {**bench.dataset, "id": name, "instance_data_dir": f"datasets/{name}", **settings}
    bench.others.append(entry)
    return entry


def refused(dataset: dict[str, Any]) -> str:
    """What is said of a value that is known and not built."""
    with pytest.raises(ConfigError) as error:
        resolve({}, [dataset]).require_supported()
    return str(error.value)


@pytest.fixture(params=["config.json", "dataset"])
def place(request: pytest.FixtureRequest, bench: Bench) -> dict[str, Any]:
    """Where a default is written: for all datasets, or for the one. The dataset's own value wins."""
    for key in ("resolution", "caption_strategy"):
        bench.dataset.pop(key)
    bench.config["resolution"] = 64
    if request.param == "config.json":
        return bench.config
    bench.config |= {"resolution_type": "area", "instance_prompt": "not this one", "caption_strategy": "filename"}
    bench.config |= {"prepend_instance_prompt": False, "disable_multiline_split": True}
    bench.dataset |= {"resolution": 64, "resolution_type": "pixel_area", "caption_strategy": "textfile"}
    bench.dataset |= {"disable_multiline_split": False}
    return bench.dataset


# --- which clips -----------------------------------------------------------------------------------------------------


@pytest.mark.witness("dataset.id")
def test_id(bench: Bench) -> None:
    """In the samples' names, the report, and what refers to the dataset."""
    bench.clip("a")
    bench.clip("b").with_suffix(".txt").unlink()
    for name in ("clips", "fox clips"):
        bench.dataset["id"] = name
        index, _ = bench.run()
        assert [(sample.id, sample.dataset) for sample in index.samples] == [(f"{name}/a.mp4", name)]
        page = read_json(bench.workspace.root / "runs" / "fox" / "report.json")
        assert [row["dataset"] for row in page["skipped"]] == [name]


@pytest.mark.witness("dataset.type", "local")
def test_type(bench: Bench) -> None:
    """Files of the volume are read; other storage is refused by name."""
    bench.clip("a")
    assert [sample.path for sample in bench.run()[0].samples] == ["datasets/videos/a.mp4"]
    for other in ("csv", "webshart"):
        assert refused({**bench.dataset, "type": other}).startswith(f"datasets[0].type: not supported yet: {other}")


@pytest.mark.witness("dataset.dataset_type", "video", "eval", "text_embeds")
def test_dataset_type(bench: Bench) -> None:
    """Trained on; held out and only measured; no clips at all, but where captions are kept."""
    bench.clip("a")
    second(bench, "held", dataset_type="eval")
    bench.others.append({"id": "texts", "dataset_type": "text_embeds", "cache_dir": "texts"})
    index, _ = bench.run()
    assert [(sample.dataset, sample.held_out) for sample in index.samples] == [("clips", False), ("held", True)]
    assert {sample.dataset for sample in uses(bench, index)} == {"clips"}
    assert len(list(Store(bench.workspace.root / "texts").items("text"))) == 2 + len(PROMPTS)


@pytest.mark.witness("dataset.instance_data_dir")
def test_instance_data_dir(bench: Bench) -> None:
    bench.clip("a")
    bench.clip("../more/b")
    for folder, name in (("datasets/videos", "a"), ("datasets/more", "b"), (str(bench.clips), "a")):
        bench.dataset["instance_data_dir"] = folder
        assert [sample.id for sample in bench.run()[0].samples] == [f"clips/{name}.mp4"]


@pytest.mark.witness("dataset.disabled")
def test_disabled(bench: Bench) -> None:
    bench.clip("a")
    entry = second(bench, "other")
    for value, names in ((False, ["clips", "other"]), (True, ["clips"])):
        entry["disabled"] = value
        assert [sample.dataset for sample in bench.run()[0].samples] == names


# --- captions --------------------------------------------------------------------------------------------------------


def captions(bench: Bench) -> set[str]:
    """What the text encoder is asked by a run, beside the prompts."""
    bench.calls.texts.clear()
    index, _ = bench.run()
    assert len(index.samples[0].text_keys) == len(set(bench.calls.texts) - PROMPTS) or not bench.calls.texts
    return set(bench.calls.texts) - PROMPTS


@pytest.mark.witness("caption_strategy", "textfile", "filename", "instanceprompt")
@pytest.mark.witness("dataset.caption_strategy", "textfile", "filename", "instanceprompt")
def test_caption_strategy(bench: Bench, place: dict[str, Any]) -> None:
    bench.clip("a_red_fox", caption="it runs")
    place["instance_prompt"] = "one for all"
    for value, caption in (("textfile", "it runs"), ("filename", "a red fox"), ("instanceprompt", "one for all")):
        place["caption_strategy"] = value
        assert captions(bench) == {caption}


@pytest.mark.witness("instance_prompt")
@pytest.mark.witness("dataset.instance_prompt")
def test_instance_prompt(bench: Bench, place: dict[str, Any]) -> None:
    bench.clip("a")
    place["caption_strategy"] = "instanceprompt"
    for value in ("sks style", "in oil"):
        place["instance_prompt"] = value
        assert captions(bench) == {value}


@pytest.mark.witness("prepend_instance_prompt")
@pytest.mark.witness("dataset.prepend_instance_prompt")
def test_prepend_instance_prompt(bench: Bench, place: dict[str, Any]) -> None:
    bench.clip("a", caption="a fox runs")
    place["instance_prompt"] = "sks style,"
    for value, caption in ((False, "a fox runs"), (True, "sks style, a fox runs")):
        place["prepend_instance_prompt"] = value
        assert captions(bench) == {caption}


@pytest.mark.witness("disable_multiline_split")
@pytest.mark.witness("dataset.disable_multiline_split")
def test_disable_multiline_split(bench: Bench, place: dict[str, Any]) -> None:
    bench.clip("a", caption="one\ntwo\n")
    for value, wanted in ((False, {"one", "two"}), (True, {"one\ntwo"})):
        place["disable_multiline_split"] = value
        assert captions(bench) == wanted


@pytest.mark.witness("trigger_words")
def test_trigger_words_before_captions(bench: Bench) -> None:
    """Every caption; no prompt, which says for itself whether it calls for what was trained."""
    bench.clip("a", caption="a fox runs\na red fox")
    for value, start in (([], ""), (["sks"], "sks, "), ("sks, red", "sks, red, ")):
        bench.config["trigger_words"] = value
        assert captions(bench) == {f"{start}a fox runs", f"{start}a red fox"}
    assert {prompt["text"] for prompt in bench.run()[0].prompts.values()} == PROMPTS


# --- sizes and cuts --------------------------------------------------------------------------------------------------


def sizes(bench: Bench) -> list[tuple[int, int]]:
    """The training sizes, as the index says and as the VAE was given the pixels."""
    bench.calls.pixels.clear()
    index, _ = bench.run()
    found = [(sample.width, sample.height) for sample in index.samples]
    assert {(pixels.shape[4], pixels.shape[3]) for pixels in bench.calls.pixels} <= set(found)
    return found


@pytest.mark.witness("resolution")
@pytest.mark.witness("dataset.resolution")
def test_resolution(bench: Bench, place: dict[str, Any]) -> None:
    bench.clip("a", width=128, height=128)
    for value in (64, 96):
        place["resolution"] = value
        assert sizes(bench) == [(value, value)]


@pytest.mark.witness("resolution_type", "pixel_area", "pixel", "area")
@pytest.mark.witness("dataset.resolution_type", "pixel_area", "pixel", "area")
def test_resolution_type(bench: Bench, place: dict[str, Any]) -> None:
    """Twice as wide as high: edge of a square of the same area, shorter edge, megapixels."""
    bench.clip("a", width=256, height=128)
    for kind, value, size in (
        ("pixel_area", 128, (192, 96)), ("pixel", 128, (256, 128)), ("area", 128 * 128 / 1e6, (192, 96)),
        ("area", 64 * 64 / 1e6, (96, 32)),
    ):  # fmt: skip
        place.update(resolution_type=kind, resolution=value)
        assert sizes(bench) == [size]


@pytest.mark.witness("dataset.crop_style", "center")
@pytest.mark.witness("dataset.crop_aspect", "preserve")
def test_cut(bench: Bench) -> None:
    """A clip twice as wide as high, made three times as wide: it is scaled until it covers that (96 x 48), and as much
    is cut above as below; it is not made square. Other cuts are refused.
    """

    def rows(index: int, width: int, height: int) -> np.ndarray:
        image = np.zeros((height, width, 3), np.uint8)
        image[: height // 4] = image[-(height // 4) :] = 255
        return image

    bench.clip("a", width=128, height=64, draw=rows, options={"crf": "1"})
    assert sizes(bench) == [(96, 32)]
    lines = bench.calls.pixels[0][0, 0, 0].mean(1)
    white = (lines > 0).tolist()
    assert white == white[::-1] and 2 <= white.index(False) <= 6  # 4 of 12 white lines are left on either side
    for key, others in (("crop_style", ("random", "corner", "face")), ("crop_aspect", ("square", "closest", "random"))):
        for other in others:
            assert refused({**bench.dataset, key: other}).startswith(f"datasets[0].{key}: not supported yet: {other}")


# --- how often -------------------------------------------------------------------------------------------------------


def uses(bench: Bench, index: Index, epochs: int = 1) -> list[Any]:
    """The samples of whole epochs, one by one."""
    planner = Planner(index.samples, bench.stage().config, 1)
    steps = [planner.step(step) for step in range(epochs * planner.steps_per_epoch)]
    return [pick.sample for step in steps for micro in step.ranks[0] for pick in micro.picks]


def counts(bench: Bench, epochs: int = 1) -> Counter[str]:
    return Counter(sample.dataset for sample in uses(bench, bench.run()[0], epochs))


@pytest.mark.witness("dataset.repeats")
def test_repeats(bench: Bench) -> None:
    """n gives n + 1 passes."""
    bench.clip("a")
    entry = second(bench, "other")
    for value in (0, 1, 4):
        entry["repeats"] = value
        assert counts(bench) == {"clips": 1, "other": value + 1}


@pytest.mark.witness("dataset.probability")
def test_probability(bench: Bench) -> None:
    """Of 4 passes of the other dataset, 4, 1 or none."""
    bench.clip("a")
    entry = second(bench, "other", repeats=3)
    for value, times in ((1, 4), (0.25, 1), (0, 0)):
        entry["probability"] = value
        assert counts(bench, epochs=2) == Counter({"clips": 2, "other": 2 * times})


# --- where the cache lies --------------------------------------------------------------------------------------------


def held(bench: Bench, folder: str, kind: str) -> int:
    return len(list(Store(bench.workspace.root / folder).items(kind)))


@pytest.mark.witness("dataset.cache_dir")
def test_cache_dir(bench: Bench) -> None:
    bench.clip("a")
    bench.run()
    assert held(bench, "cache", "video") == 1
    for folder in ("fast/one", "fast/two"):
        bench.dataset |= {"cache_dir": folder, "resolution": bench.dataset["resolution"] + 32}
        bench.run()
        assert held(bench, folder, "video") == 1 and held(bench, "cache", "video") == 1


@pytest.mark.witness("dataset.text_embeds")
@pytest.mark.witness("dataset.default")
def test_text_embeds_and_default(bench: Bench) -> None:
    """Captions lie where their dataset says, else in the default entry, as the prompts do."""
    bench.clip("a")
    stores = [{"id": name, "dataset_type": "text_embeds", "cache_dir": name} for name in ("first", "second", "third")]
    bench.others += stores
    all_texts = 1 + len(PROMPTS)
    for default in (1, 2):
        for place, entry in enumerate(stores):
            entry["default"] = place == default
        bench.run()
        assert [held(bench, entry["id"], "text") for entry in stores] == [
            0,
            all_texts,
            all_texts if default == 2 else 0,
        ]
    for name, before in (("first", 0), ("second", all_texts)):
        bench.dataset["text_embeds"] = name
        (bench.clips / "a.txt").write_text(f"a caption for {name}")
        bench.run()
        assert held(bench, name, "text") == before + 1 and held(bench, "third", "text") == all_texts


# --- the block video -------------------------------------------------------------------------------------------------


@pytest.fixture
def frames(bench: Bench) -> Callable[..., dict[str, int]]:
    """Frames of the training clips made of files of 9, 17, 25 and 33 frames, under a `video` block."""
    for count in (9, 17, 25, 33):
        bench.clip(f"{count:02}", frames=count)

    def run(**video: Any) -> dict[str, int]:
        bench.dataset["video"] = video
        bench.calls.pixels.clear()
        index, _ = bench.run()
        assert {pixels.shape[2] for pixels in bench.calls.pixels} <= {sample.frames for sample in index.samples}
        return {Path(sample.path).stem: sample.frames for sample in index.samples}

    return run


@pytest.mark.witness("video.num_frames")
@pytest.mark.witness("video.min_frames")
@pytest.mark.witness("video.max_frames")
def test_frames(bench: Bench, frames: Callable[..., dict[str, int]]) -> None:
    """How many are taken, which files are too short for that, and which too long."""
    assert frames(num_frames=25) == {"25": 25, "33": 25}
    assert frames(num_frames=17) == {"17": 17, "25": 17, "33": 17}
    assert skipped(bench) == {"09": "9 frames at 25 fps, min_frames is 17"}
    assert frames(num_frames=25, min_frames=17) == {"17": 17, "25": 25, "33": 25}
    assert frames(num_frames=25, min_frames=9) == {"09": 9, "17": 17, "25": 25, "33": 25}
    assert frames(num_frames=9, max_frames=25) == {"09": 9, "17": 9, "25": 9}
    assert skipped(bench) == {"33": "33 frames at 25 fps, max_frames is 25"}
    assert frames(num_frames=9, max_frames=17) == {"09": 9, "17": 9}


@pytest.mark.witness("video.frame_rate")
def test_frame_rate(bench: Bench) -> None:
    """At 50 fps, its own, every picture; at 25 every second one; at 10 every fifth. The model is told."""

    def shade(index: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), 20 + 4 * index, np.uint8)

    bench.clip("a", draw=shade, fps=50, frames=45, layout=None)
    for value, rate, step in ((None, 50, 1), (25, 25, 2), (10, 10, 5)):
        bench.dataset["video"] = {"num_frames": 9, "frame_rate": value}
        index, _ = bench.run()
        shown = (bench.calls.pixels[-1][0, 0, :, 32, 32] + 1) * 127.5
        assert shown.tolist() == pytest.approx([20 + 4 * step * k for k in range(9)], abs=2.5)
        assert index.samples[0].fps == rate


@pytest.mark.witness("video.bucket_strategy", "aspect_ratio")
def test_bucket_strategy(bench: Bench) -> None:
    """Clips of one aspect share steps and clips of two do not; groups by resolution and length are refused."""
    for name, width in (("a", 64), ("b", 64), ("c", 160), ("d", 160)):
        bench.clip(name, width=width, level=0.1 + ord(name) / 1000)
    bench.config["train_batch_size"] = 2
    planner = Planner(bench.run()[0].samples, bench.stage().config, 1)
    steps = [planner.step(step).ranks[0][0].picks for step in range(planner.steps_per_epoch)]
    assert sorted(sorted(Path(pick.sample.path).stem for pick in picks) for picks in steps) == [["a", "b"], ["c", "d"]]
    other = {**bench.dataset, "video": {"bucket_strategy": "resolution_frames"}}
    assert refused(other).startswith("datasets[0].video.bucket_strategy: not supported yet: resolution_frames")


# --- the block audio -------------------------------------------------------------------------------------------------


@pytest.mark.witness("audio.auto_split")
def test_auto_split(bench: Bench) -> None:
    """Whether the clips' own sound is encoded and trained, beside another dataset whose sound always is."""
    bench.clip("a")
    second(bench, "other")
    for value, length in ((True, 9), (False, 0)):
        bench.dataset["audio"] = {"auto_split": value}
        index, _ = bench.run()
        sample, other = index.samples
        assert (sample.audio_latents, sample.sounding, sample.audio_key is not None) == (length, value, value)
        assert (other.audio_latents, other.sounding) == (9, True)
    bench.others.clear()
    assert {sample.audio_latents for sample in bench.run()[0].samples} == {0}


@pytest.mark.witness("audio.train_silence")
def test_train_silence(bench: Bench) -> None:
    """Whether a clip without sound has an audio loss, of silence."""
    bench.clip("a")
    bench.clip("quiet", layout=None)
    for value in (False, True):
        bench.dataset["audio"] = {"train_silence": value}
        index, _ = bench.run()
        sounding = {Path(sample.path).stem: sample.sounding for sample in index.samples}
        assert sounding == {"a": True, "quiet": value}
        silence = index.store().get("audio", index.samples[1].audio_key or "")["latents"]
        assert torch.allclose(silence, torch.tensor(1e-5).log())
