"""The real clips through the tiny model: decode, encode, store, find again."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from cache_bench import Bench
from clips import demo_clips
from ltx2_job.caching import stage as cache_stage
from ltx2_job.data.pixels import prepare
from ltx2_job.models.autoencoders import encode_video
from ltx2_job.models.load import Checkpoint


@pytest.fixture
def open_checkpoint() -> Callable[[Any], Checkpoint]:
    """The real one, which the bench replaces."""
    return cache_stage.open_checkpoint


def test_three_clips(
    open_checkpoint: Callable[[Any], Checkpoint], bench: Bench, monkeypatch: pytest.MonkeyPatch, tiny20: Path
) -> None:
    monkeypatch.setattr(cache_stage, "open_checkpoint", open_checkpoint)
    bench.dataset |= {"instance_data_dir": str(demo_clips()), "resolution": 96, "video": {"num_frames": 25}}
    bench.config["pretrained_model_name_or_path"] = str(tiny20)
    index, _ = bench.run()
    bunny, bikes, phone = index.samples
    assert (bunny.width, bunny.height, bunny.frames, bunny.fps, bunny.audio_latents) == (128, 64, 25, 25.0, 25)
    assert [sample.sounding for sample in index.samples] == [True, False, False]
    assert (bikes.width, bikes.height) == (160, 64) and phone.fps == pytest.approx(29.97, abs=0.001)
    assert phone.audio_latents == 21 and bikes.audio_latents == 25
    store = index.store()
    for sample in index.samples:
        video = store.get("video", sample.video_key)["latents"].float()
        assert video.shape == (128, 4, sample.height // 32, sample.width // 32) and 0.1 < video.std() < 5
        assert store.get("audio", sample.audio_key or "")["latents"].shape == (sample.audio_latents, 128)
        text = store.get("text", sample.text_keys[0])
        assert text["video"].shape[0] == text["audio"].shape[0] == Checkpoint.open(tiny20).text_tokens

    # The same numbers by the shortest way: a plain reader in this process, no worker, no store.
    with av.open(str(demo_clips() / "bikes.mp4")) as container:
        decoded = itertools.islice(container.decode(video=0), 25)
        frames = [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in decoded]
    pixels = prepare(frames, 25, Fraction(1), (160, 64))
    vae = Checkpoint.open(tiny20).video_vae("cpu", torch.float32)
    want = encode_video(vae, pixels[None])[0].numpy()
    got = store.get("video", bikes.video_key)["latents"].float().numpy()
    assert np.abs(got - want).mean() < 0.02 * np.abs(want).mean() + 0.02
