"""The cache stage: what is computed, what is computed again, what is skipped, what is said."""

import errno
import json
import os
import re
import shutil
import weakref
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache_bench import Bench, FakeCheckpoint, FakeStop
from ltx2_job import storage
from ltx2_job.caching import encode, work
from ltx2_job.caching.manage import collect, listing
from ltx2_job.caching.stage import run_cache
from ltx2_job.caching.survey import Workers
from ltx2_job.data.decoder import Decoder, Unusable
from ltx2_job.data.index import Index
from ltx2_job.data.plan import plan
from ltx2_job.errors import (
    ConfigError,
    DataError,
    GPUOutOfMemoryError,
    NoInputError,
    Stopped,
    StorageError,
    Superseded,
)
from ltx2_job.store import Store
from media import write_clip

PROMPTS = 3  # validation, negative, empty


def report(bench: Bench, name: str = "fox") -> dict[str, Any]:
    return json.loads((bench.workspace.root / "runs" / name / "report.json").read_text())


def test_a_run_finds_everything_in_the_store_by_its_index(bench: Bench) -> None:
    bench.clip("a", caption="one\ntwo\n")
    bench.clip("deep/b", layout=None)
    index, encoded = bench.run()
    assert encoded == {"video": 2, "audio": 2, "text": 3 + PROMPTS}
    assert Index.load(bench.workspace.root / "runs" / "fox" / "index.json") == index
    first, second = index.samples
    assert (first.id, first.dataset, first.path) == ("clips/a.mp4", "clips", "datasets/videos/a.mp4")
    assert (first.width, first.height, first.frames, first.fps, first.audio_latents) == (64, 64, 9, 25.0, 9)
    assert (first.sounding, second.sounding) == (True, False)
    assert second.id == "clips/deep/b.mp4" and len(first.text_keys) == 2
    store = index.store()
    assert store.get("video", first.video_key)["latents"].shape == (128, 2, 2, 2)
    assert store.get("video", first.video_key)["latents"].dtype == torch.bfloat16
    assert store.get("audio", first.audio_key or "")["latents"].shape == (9, 128)
    assert store.get("audio", first.audio_key or "")["latents"].dtype == torch.float32
    assert {name: value.dtype for name, value in store.get("text", first.text_keys[0]).items()} == {
        "video": torch.bfloat16, "audio": torch.bfloat16,
    }  # fmt: skip
    assert {name: prompt["text"] for name, prompt in index.prompts.items()} == {
        "validation": "a fox", "negative": "blurry, cropped, ugly", "empty": "",
    }  # fmt: skip
    needed = index.keys()
    assert all(store.has(kind, key) for kind, key in needed)
    assert plan(index.samples, bench.stage().config, 0, 1).samples == 1
    assert bench.calls.order == ["video", "audio", "text", "close text"]
    assert bench.reporter.states == ["loading", "caching", "done"]
    assert bench.reporter.result == {"clips": 2, "skipped": 0, "encoded": 10}


def test_pixels_are_in_minus_one_to_one_and_the_mode_is_stored(bench: Bench) -> None:
    """A trainer that encodes [0, 1], or draws from the posterior, fails here."""

    def halves(index: int, width: int, height: int) -> np.ndarray:
        image = np.zeros((height, width, 3), np.uint8)
        image[:, width // 2 :] = 255
        return image

    bench.clip("a", draw=halves, width=128, height=128, options={"crf": "1"})
    bench.dataset["resolution"] = 128
    index, _ = bench.run()
    assert bench.calls.pixels[0].min() < -0.98 and bench.calls.pixels[0].max() > 0.98
    latents = index.store().get("video", index.samples[0].video_key)["latents"].float()
    assert torch.allclose(latents[:3, :, :, :2], torch.tensor(-1.0), atol=0.03)
    assert torch.allclose(latents[:3, :, :, 2:], torch.tensor(1.0), atol=0.03)


def test_the_same_run_again_computes_nothing(bench: Bench) -> None:
    bench.clip("a")
    index, _ = bench.run()
    hashed = Counter(bench.calls.hashed)
    again, encoded = bench.run()
    assert again == index and not encoded and bench.calls.hashed == hashed
    assert [entry[2:] for entry in bench.reporter.counted] == [
        ("reused", "video"), ("reused", "audio"), *[("reused", "text")] * 4,
    ]  # fmt: skip
    assert report(bench)["cache"]["text"] == {"encoded": 0, "reused": 4}


def test_another_run_shares_the_store(bench: Bench) -> None:
    bench.clip("a")
    bench.run()
    bench.config["output_dir"] = "elsewhere/bar"
    _, encoded = bench.run("bar")
    assert not encoded and (bench.workspace.root / "elsewhere" / "bar" / "index.json").is_file()


def change(key: str, value: Any) -> Callable[[Bench], None]:
    def apply(bench: Bench) -> None:
        if key in bench.config:
            bench.config[key] = value
        else:
            bench.dataset[key] = value

    return apply


def rewrite(part: str) -> Callable[[Bench], None]:
    return lambda bench: (bench.model / f"{part}.bin").write_text(f"another {part}") and None


def recaption(bench: Bench) -> None:
    (bench.clips / "a.txt").write_text("a new caption")


def replace_clip(bench: Bench) -> None:
    bench.clip("a", caption="caption of a", level=0.1, frames=17)


def on_the_gpu(bench: Bench) -> None:
    bench.plan.device, bench.plan.cache_memory = "cuda", "cpu"


CHANGES: list[tuple[str, Callable[[Bench], None], dict[str, int]]] = [
    ("resolution", change("resolution", 96), {"video": 2}),
    ("resolution that gives the same size", change("resolution", 65), {}),
    ("frames", change("video", {"num_frames": 1}), {"video": 2, "audio": 2}),
    ("frame rate", change("video", {"num_frames": 9, "frame_rate": 30}), {"video": 2, "audio": 2}),
    ("the rate that the clips have", change("video", {"num_frames": 9, "frame_rate": 25}), {}),
    ("min_frames", change("video", {"num_frames": 9, "min_frames": 1}), {}),
    ("video VAE", rewrite("vae"), {"video": 2}),
    ("audio VAE", rewrite("audio_vae"), {"audio": 2}),
    ("connectors", rewrite("connectors"), {"text": 2 + PROMPTS}),
    ("text encoder", rewrite("text_encoder"), {"text": 2 + PROMPTS}),
    ("one caption", recaption, {"text": 1}),
    ("validation prompt", change("validation_prompt", "a wolf"), {"text": 1}),
    ("content of one clip", replace_clip, {"video": 1, "audio": 1}),
    ("repeats", change("repeats", 3), {}),
    ("crop", change("crop", True), {}),
    ("sound", change("audio", {"auto_split": False}), {}),
    ("a longer training", change("max_train_steps", 99), {}),
    ("models on the CPU of a GPU machine", on_the_gpu, {}),
]


@pytest.mark.parametrize(("what", "apply", "expected"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_change_computes_what_it_changes_and_nothing_else(
    bench: Bench, what: str, apply: Callable[[Bench], None], expected: dict[str, int]
) -> None:
    bench.clip("a")
    bench.clip("b", width=64, height=96, level=0.3, frames=20)
    bench.run()
    apply(bench)
    _, encoded = bench.run()
    assert encoded == expected
    _, encoded = bench.run()
    assert not encoded


def test_a_renamed_touched_or_doubled_file_is_never_computed_again(bench: Bench) -> None:
    path = bench.clip("a")
    before, _ = bench.run()
    path.with_suffix(".txt").rename(bench.clips / "new name.txt")
    path = path.rename(bench.clips / "new name.mp4")
    os.utime(path)
    shutil.copy(path, bench.clips / "copy.mp4")
    (bench.clips / "copy.txt").write_text("caption of a")
    index, encoded = bench.run()
    assert not encoded
    assert [sample.id for sample in index.samples] == ["clips/copy.mp4", "clips/new name.mp4"]
    assert {sample.video_key for sample in index.samples} == {before.samples[0].video_key}


def test_other_content_under_the_same_name_size_and_time_is_noticed(bench: Bench) -> None:
    path = bench.clip("a", layout=None)
    bench.run()
    status, raw = path.stat(), bytearray(path.read_bytes())
    raw[raw.index(b"mdat") - 4 : raw.index(b"mdat")] = raw[raw.index(b"mdat") - 4 : raw.index(b"mdat")]
    raw[-1] ^= 1  # the last byte of the encoder's name tag: the picture stays readable
    path.write_bytes(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns
    _, encoded = bench.run()
    assert encoded["video"] == 1


def test_texts_are_encoded_once_however_often_they_occur(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.clip(name, caption="a fox")
    _, encoded = bench.run()
    assert encoded["text"] == PROMPTS and sorted(bench.calls.texts) == ["", "a fox", "blurry, cropped, ugly"]


def test_a_run_without_any_sound_needs_no_audio_vae(bench: Bench) -> None:
    bench.clip("a", layout=None)
    bench.clip("b", level=0.0)
    (bench.model / "audio_vae.bin").unlink()
    index, encoded = bench.run()
    assert encoded == {"video": 2, "text": 2 + PROMPTS}
    assert {(sample.audio_latents, sample.audio_key, sample.sounding) for sample in index.samples} == {(0, None, False)}


def test_silent_clips_of_a_sounding_run_have_latents_of_silence(bench: Bench) -> None:
    bench.clip("a")
    bench.clip("b", layout=None)
    bench.clip("c", layout=None, width=96)
    index, encoded = bench.run()
    assert encoded["audio"] == 2  # one for the sound, one silence for both
    assert [sample.sounding for sample in index.samples] == [True, False, False]
    assert [sample.audio_latents for sample in index.samples] == [9, 9, 9]
    silence = index.store().get("audio", index.samples[1].audio_key or "")["latents"]
    assert torch.allclose(silence, torch.tensor(1e-5).log())


def test_train_silence_makes_silence_a_sound(bench: Bench) -> None:
    bench.clip("a", layout=None)
    bench.dataset["audio"] = {"train_silence": True}
    index, encoded = bench.run()
    assert encoded["audio"] == 1 and index.samples[0].sounding


def test_a_dataset_without_sound_stays_without(bench: Bench) -> None:
    bench.clip("a")
    write_clip(bench.workspace.root / "quiet" / "b.mp4", width=64, height=64, frames=9)
    bench.others.append(
        {**bench.dataset, "id": "quiet", "instance_data_dir": "quiet", "caption_strategy": "filename",
         "audio": {"auto_split": False}, "probability": 0.5, "repeats": 2},
    )  # fmt: skip
    index, encoded = bench.run()
    assert encoded["audio"] == 1
    assert [(sample.audio_latents, sample.sounding) for sample in index.samples] == [(9, True), (0, False)]
    assert [(sample.repeats, sample.probability) for sample in index.samples] == [(0, 1.0), (2, 0.5)]


def test_sound_follows_the_frame_rate(bench: Bench) -> None:
    bench.clip("a", fps=50, frames=40)
    bench.dataset["video"] = {"num_frames": 9, "frame_rate": 12.5}
    index, _ = bench.run()
    assert (index.samples[0].fps, index.samples[0].audio_latents) == (12.5, 18)


def test_held_out_clips_are_cached_and_not_trained(bench: Bench) -> None:
    bench.clip("a")
    write_clip(bench.workspace.root / "eval" / "b.mp4", width=64, height=64, frames=12)
    bench.others.append(
        {
            **bench.dataset,
            "id": "eval",
            "dataset_type": "eval",
            "instance_data_dir": "eval",
            "caption_strategy": "filename",
        }
    )
    index, encoded = bench.run()
    assert encoded["video"] == 2 and [sample.held_out for sample in index.samples] == [False, True]
    assert report(bench)["clips"]["held_out"] == 1


def damage(clip: Path) -> None:
    """Overwrite some pictures after the first ones; the table of contents stays whole."""
    raw = bytearray(clip.read_bytes())
    start = raw.index(b"mdat")
    length = int.from_bytes(raw[start - 4 : start], "big")
    first = start + length // 10
    raw[first : first + length // 20] = bytes(length // 20)
    clip.write_bytes(raw)


def test_what_cannot_be_used_is_listed_with_its_reason(bench: Bench) -> None:
    bench.clip("good")
    bench.clip("short", frames=5)
    bench.clip("uncaptioned").with_suffix(".txt").unlink()
    bench.clip("blank", caption=" \n")
    bench.clip("hdr", tags={"color_trc": 16})
    bench.clips.joinpath("text.mp4").write_text("no video")
    bench.clips.joinpath("empty.mov").touch()
    damage(bench.clip("broken", layout=None, frames=60, options={"g": "1"}))
    index, _ = bench.run()
    assert [sample.id for sample in index.samples] == ["clips/good.mp4"]
    rows = {Path(row["path"]).stem: row for row in report(bench)["skipped"]}
    reasons = {name: row["reason"] for name, row in rows.items()}
    assert re.fullmatch(r"frame \d of 9 is damaged|decoding broke at frame \d of 9: .*", reasons.pop("broken"))
    assert reasons == {
        "short": "5 frames at 25 fps, min_frames is 9",
        "uncaptioned": "its caption file uncaptioned.txt is missing",
        "blank": "its caption file blank.txt is empty",
        "hdr": "high dynamic range video with transfer PQ (SMPTE ST 2084); convert it to SDR (BT.709) first",
        "text": "it cannot be read as a video (Invalid data found when processing input)",
        "empty": "the file is empty (0 bytes)",
    }
    assert rows["short"] == {
        "dataset": "clips", "path": "datasets/videos/short.mp4", "reason": reasons["short"], "frames": 5, "fps": 25.0,
    }  # fmt: skip
    assert rows["uncaptioned"]["frames"] == 9 and rows["text"]["frames"] is None
    end = "skipped (7 of 8 clips skipped, see report.json)"
    assert f"datasets/videos/short.mp4: 5 frames at 25 fps, min_frames is 9; {end}" in bench.reporter.warnings
    assert sum(result == "skipped" for _, _, result, _ in bench.reporter.counted) == 7
    assert bench.reporter.result == {"clips": 1, "skipped": 7, "encoded": 7}


def test_what_failed_for_good_is_not_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.clip("good")
    bench.clip("bad", level=0.4)

    def frames(self: Decoder, path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.stem == "bad":
            raise Unusable("decoding broke at frame 3 of 9")
        return real(self, path, *args, **kwargs)

    real = Decoder.frames
    monkeypatch.setattr(Decoder, "frames", frames)
    _, encoded = bench.run()
    assert encoded == {"video": 1, "audio": 1, "text": 2 + PROMPTS}
    monkeypatch.setattr(Decoder, "frames", real)
    index, encoded = bench.run()
    assert not encoded and len(index.samples) == 1
    assert report(bench)["skipped"][0]["reason"] == "decoding broke at frame 3 of 9"


def test_a_crash_of_the_decoder_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.clip("good")
    bench.clip("bad", level=0.4)
    real = Decoder.probe

    def crash(self: Decoder, path: Path) -> dict[str, Any]:
        if path.stem == "bad":
            raise Unusable("the decoder crashed on it: the worker was killed by SIGSEGV", lasting=False)
        return real(self, path)

    monkeypatch.setattr(Decoder, "probe", crash)
    index, _ = bench.run()
    assert len(index.samples) == 1
    monkeypatch.setattr(Decoder, "probe", real)
    index, encoded = bench.run()
    assert len(index.samples) == 2 and encoded["video"] == 1


def test_a_decoder_of_another_version_is_asked_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.clip("good")
    bench.clip("bad", level=0.4)
    real = Decoder.frames

    def frames(self: Decoder, path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.stem == "bad":
            raise Unusable("decoding broke at frame 3 of 9")
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(Decoder, "frames", frames)
    bench.run()
    monkeypatch.setattr(Decoder, "frames", real)
    monkeypatch.setattr(work, "tools", lambda: "newer")
    index, encoded = bench.run()
    assert len(index.samples) == 2 and encoded["video"] == 1


@pytest.mark.parametrize("when", ["probe", "sound", "frames"])
def test_a_clip_replaced_while_the_stage_runs_is_not_stored_as_the_old_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Catches: facts and latents of other bytes, kept for good under the hash of those that were there before."""
    clip = bench.clip("a", frames=9, level=0.4)
    bench.clip("b")
    before, caption = clip.read_bytes(), clip.with_suffix(".txt").read_bytes()
    after = bench.clip("c", frames=17, layout=None).read_bytes()
    for path in (bench.clips / "c.mp4", bench.clips / "c.txt"):
        path.unlink()
    real = getattr(Decoder, when)

    def replaced(self: Decoder, path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == clip:
            clip.write_bytes(after)
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(Decoder, when, replaced)
    index, _ = bench.run()
    assert [sample.id for sample in index.samples] == ["clips/b.mp4"]
    assert report(bench)["skipped"][0]["reason"] == "it was changed while it was read (is it still being copied?)"
    monkeypatch.setattr(Decoder, when, real)
    clip.write_bytes(before)
    clip.with_suffix(".txt").write_bytes(caption)
    index, encoded = bench.run()
    assert [(sample.frames, sample.sounding) for sample in index.samples] == [(9, True), (9, True)]
    assert encoded["video"] == 1  # it was not computed before from the other file


def test_a_clip_touched_while_the_stage_runs_is_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = bench.clip("a")
    real = Decoder.frames

    def touched(self: Decoder, path: Path, *args: Any, **kwargs: Any) -> Any:
        clip.touch()
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(Decoder, "frames", touched)
    assert len(bench.run()[0].samples) == 1


def test_a_name_that_is_no_text_is_skipped_and_shown(bench: Bench) -> None:
    bench.clip("good")
    shutil.copy(bench.clips / "good.mp4", os.fsencode(bench.clips) + b"/caf\xe9.mp4")
    index, _ = bench.run()
    assert len(index.samples) == 1
    (skipped,) = report(bench)["skipped"]
    assert skipped["path"] == "datasets/videos/caf\\xe9.mp4" and "not UTF-8" in skipped["reason"]


def test_each_model_is_gone_before_the_next_one_comes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.clip("a")
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    made: list[int] = []

    def watched(name: str) -> None:
        make = getattr(FakeCheckpoint, name)

        def noted(self: FakeCheckpoint, *args: Any) -> Any:
            made.append(len(alive))
            model = make(self, *args)
            alive.add(model)
            return model

        monkeypatch.setattr(FakeCheckpoint, name, noted)

    for name in ("video_vae", "audio_vae", "text_encoder"):
        watched(name)
    bench.run()
    assert made == [0, 0, 0] and not alive


def test_nothing_usable_is_a_data_error_with_the_list(bench: Bench) -> None:
    bench.clip("a", frames=5)
    with pytest.raises(DataError, match=r"none of 1 clips can be trained on \(datasets/videos/a.mp4: 5 frames"):
        bench.run()
    assert report(bench)["clips"] == {"found": 1, "used": 0, "held_out": 0, "sounding": 0, "skipped": 1}
    assert not bench.calls.order and not (bench.workspace.root / "runs" / "fox" / "index.json").exists()


def test_nothing_there_is_no_input(bench: Bench) -> None:
    with pytest.raises(NoInputError, match="datasets/videos: there is no such folder yet"):
        bench.run()


def test_the_report_has_the_buckets(bench: Bench) -> None:
    bench.clip("a", frames=45)
    bench.clip("b", frames=9, width=160)
    bench.run()
    page = report(bench)
    assert page["clips"] == {"found": 2, "used": 2, "held_out": 0, "sounding": 2, "skipped": 0}
    assert page["footage"] == {"seconds": 2.16, "used_seconds": 0.72, "share_used": 0.3333}
    rows = {row["bucket"]: row for row in page["buckets"]}
    assert set(rows) == {"64x64@9", "96x32@9"}
    assert rows["96x32@9"]["share_of_footage_used"] == 1.0 and rows["96x32@9"]["clips"] == 1
    assert rows["64x64@9"]["share_of_footage_used"] == 0.2 and rows["64x64@9"]["audio_latents"] == 9


def test_an_uneven_frame_rate_is_a_warning(bench: Bench) -> None:
    bench.clip("a", fps=30, frames=30)
    bench.dataset["video"] = {"num_frames": 9, "frame_rate": 25}
    bench.run()
    assert any("1 clips of 30 fps, such as datasets/videos/a.mp4, are brought to 25 fps" in line and "dropped" in line
               for line in bench.reporter.warnings)  # fmt: skip


def test_a_bucket_that_is_too_small_for_a_step_is_a_warning(bench: Bench) -> None:
    bench.clip("a")
    bench.config["train_batch_size"] = 4
    bench.run()
    (line,) = bench.reporter.warnings
    assert "64x64@9 at 25 fps has 1 uses per epoch" in line and "4.0 times" in line


def test_stopping_keeps_what_is_done_and_the_next_run_goes_on(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.clip(name, level=0.1 + ord(name) / 1000)
    bench.stop = FakeStop(after=3 * 3 + 1)  # hash, probe and sound of three clips, then one encoded item
    with pytest.raises(Stopped):
        bench.run()
    done = bench.calls.count["video"]
    assert 1 <= done < 3 and not bench.calls.count["text"]
    bench.stop = FakeStop()
    _, encoded = bench.run()
    assert encoded == {"video": 3 - done, "audio": 3, "text": 3 + PROMPTS}


def test_a_superseded_attempt_writes_nothing(bench: Bench) -> None:
    bench.clip("a")

    def check() -> None:
        raise Superseded("attempt 2 owns this run")

    bench.fence.check = check
    with pytest.raises(Superseded):
        bench.run()
    assert not list(Store(bench.workspace.cache).items("video")) and not (bench.workspace.root / "runs").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, ["no space left", "more, ", "grow the claim", "or fox-data", "run it again", "nothing is lost"]),
     (errno.EROFS, ["Read-only file system", "user ", "run it again"])],
)  # fmt: skip
def test_a_volume_that_takes_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int, words: list[str]
) -> None:
    bench.clip("a")

    def refuse(self: Store, *args: Any) -> Path:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Store, "put", refuse)
    with pytest.raises(StorageError) as caught:
        bench.run()
    assert all(word in str(caught.value) for word in words), caught.value


def test_too_little_space_is_told_before_the_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.clip("a")
    monkeypatch.setattr(storage, "free", lambda root: 10)
    with pytest.raises(StorageError, match="no space left"):
        bench.run()
    assert not bench.calls.order


def test_gpu_memory_names_the_model(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.clip("a")

    def exhausted(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(encode, "encode_video", exhausted)
    with pytest.raises(GPUOutOfMemoryError, match="the video VAE does not fit on the GPU"):
        bench.run()


def test_several_processes_are_refused_by_name(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"plan.processes: 2 processes cache at once: not supported yet"):
        run_cache(bench.stage(world=2))


def test_caches_of_their_own(bench: Bench) -> None:
    bench.clip("a")
    bench.dataset["cache_dir"] = "fast/latents"
    bench.others.append({"id": "texts", "type": "local", "dataset_type": "text_embeds", "default": True,
                         "cache_dir": "cache/text/{model_family}"})  # fmt: skip
    index, _ = bench.run()
    root = bench.workspace.root
    assert len(list(Store(root / "fast" / "latents").items("video"))) == 1
    assert len(list(Store(root / "cache" / "text" / "ltxvideo2").items("text"))) == 1 + PROMPTS
    store, needed = Index.load(root / "runs" / "fox" / "index.json").store(), index.keys()
    assert all(store.has(kind, key) for kind, key in needed)
    assert sum(row.unused_items for row in listing(bench.workspace)) == 0 == collect(bench.workspace).items
    _, encoded = bench.run()
    assert not encoded


def test_the_pictures_of_a_clip_are_its_first_frames(bench: Bench) -> None:
    def shade(index: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), 20 + 6 * index, np.uint8)

    bench.clip("a", draw=shade, fps=50, frames=34, layout=None)
    bench.dataset["video"] = {"num_frames": 9, "frame_rate": 25}
    bench.run()
    shown = (bench.calls.pixels[0][0, 0, :, 32, 32] + 1) * 127.5
    assert shown.tolist() == pytest.approx([20 + 12 * k for k in range(9)], abs=2.5)


def test_sound_that_ends_before_the_picture_begins_is_no_sound(bench: Bench) -> None:
    bench.clip("a", start=Fraction(1, 2), frames=9)  # 0.36 s of each
    bench.clip("b", start=Fraction(1, 5), frames=9)
    index, _ = bench.run()
    assert [sample.sounding for sample in index.samples] == [False, True]


def test_a_media_worker_for_each_planned_core(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.clip("a")
    made: list[int | None] = []

    def make(cores: int | None) -> Workers:
        made.append(cores)
        return bench.workers

    for cores in (3, None):
        bench.plan.cores = cores
        run_cache(bench.stage(), make)
    assert made == [3, None]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    for cores, count in ((1, 1), (6, 6), (12, 8), (None, 8)):
        with Workers(cores) as workers:  # a worker's process starts with its first clip
            assert workers.count == count


def test_workers_give_results_in_order_and_hold_back(bench: Bench) -> None:
    running: list[int] = []

    def work(decoder: Decoder, item: int) -> int:
        running.append(item)
        return item * item

    with Workers(2) as workers:
        for number, (item, future) in enumerate(workers.ahead(work, range(20))):
            assert future.result() == item * item and item == number
            assert max(running) <= number + 3
