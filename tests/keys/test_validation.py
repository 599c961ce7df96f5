"""The keys about sample clips and the held-out loss: when they are made, of what, and what the files hold."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from cache_bench import Bench, Calls, FakeTextEncoder
from job.validation.test_media import read
from key_runs import Trainings
from ltx2_job.config import resolve
from ltx2_job.data.index import Index
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.stage import Stage, StagePlan
from ltx2_job.store import TEXT, Store
from ltx2_job.validation import t2v
from ltx2_job.validation.sampler import Prompt, sample
from ltx2_job.validation.t2v import make_validator, requests
from ltx2_job.workspace import RunFolder, Workspace
from training_runs import DATASET, clip

SMALL = {
    "validation_prompt": "a fox",
    "validation_resolution": "96x64",
    "validation_num_video_frames": 9,
    "validation_num_inference_steps": 1,
}


# --- when ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(trainings: Trainings) -> Callable[..., list[int]]:
    """The steps at which clips are made in a training of 5."""

    def run(**settings: Any) -> list[int]:
        made: list[int] = []

        def validate(model: LTX2Transformer, step: int) -> list[Path]:
            made.append(step)
            return []

        usual = {"max_train_steps": 5, "checkpoint_step_interval": 0, "validation_disable": False, "learning_rate": 0}
        trainings(validate=validate, **{**usual, **settings})
        return made

    return run


@pytest.mark.witness("validation_step_interval")
@pytest.mark.witness("disable_benchmark")
@pytest.mark.witness("validation_disable")
def test_when_clips_are_made(shown: Callable[..., list[int]]) -> None:
    """Before the first step, at the interval, and at the end."""
    assert shown(validation_step_interval=2) == [0, 2, 4, 5]
    assert shown(validation_step_interval=3) == [0, 3, 5]
    assert shown(validation_step_interval=0) == [0, 5]
    assert shown(validation_step_interval=3, disable_benchmark=True) == [3, 5]
    assert shown(validation_step_interval=2, validation_disable=True) == []


@pytest.mark.witness("eval_steps_interval")
@pytest.mark.parametrize(("interval", "steps"), [(0, [0, 5]), (2, [0, 2, 4, 5])])
def test_eval_steps_interval(trainings: Trainings, interval: int, steps: list[int]) -> None:
    run = trainings(max_train_steps=5, eval_steps_interval=interval, checkpoint_step_interval=0, learning_rate=0)
    assert [step for step, _ in run.seen.measured] == steps


# --- of what ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tiny20: Path) -> Checkpoint:
    return Checkpoint.open(tiny20)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> LTX2Transformer:
    return checkpoint.transformer(MemoryPlan("fp32"), "cpu")


@pytest.fixture(scope="module")
def texts() -> dict[str, dict[str, Tensor]]:
    """Embeddings of a prompt and of what it is guided away from."""
    random = torch.Generator().manual_seed(1)
    return {
        key: {name: torch.randn(16, 64, generator=random).bfloat16() for name in ("video", "audio")}
        for key in ("validation", "negative")
    }


Latents = tuple[Tensor, Tensor]


@pytest.fixture
def sampled(model: LTX2Transformer, texts: dict[str, dict[str, Tensor]]) -> Iterator[Callable[..., Latents]]:
    """The latents of a clip's picture and sound under some settings; `sampled.passes` counts the model's passes."""
    velocity = LTX2Transformer.velocity

    def run(**settings: Any) -> Latents:
        (request,) = requests(resolve({**SMALL, **settings}, [DATASET]).training)
        run.passes = 0
        return sample(model, request, *(Prompt(**texts[key]) for key in ("validation", "negative")))

    def counted(*call: Any, **changes: Any) -> Any:
        run.passes += 1
        return velocity(*call, **changes)

    with mock.patch.object(LTX2Transformer, "velocity", counted):
        yield run


@pytest.mark.witness("validation_num_inference_steps")
def test_validation_num_inference_steps(sampled: Any) -> None:
    """Euler steps: passes of the model where nothing is guided, twice as many where something is."""
    for steps in (1, 3):
        sampled(validation_num_inference_steps=steps, validation_guidance=1)
        assert sampled.passes == steps
        sampled(validation_num_inference_steps=steps, validation_guidance=5)
        assert sampled.passes == 2 * steps


@pytest.mark.witness("validation_guidance")
@pytest.mark.witness("ltx2_validation_audio_guidance")
@pytest.mark.parametrize(
    ("key", "other", "moved", "still"),
    [
        ("validation_guidance", "ltx2_validation_audio_guidance", 0, 1),
        ("ltx2_validation_audio_guidance", "validation_guidance", 1, 0),
    ],
)
def test_guidance(sampled: Any, key: str, other: str, moved: int, still: int) -> None:
    """One step is linear in the scale: as far from the unguided clip as scale - 1 says; the other half stays."""
    unguided, three, seven = (sampled(**{key: scale, other: 1}) for scale in (1, 3, 7))
    away = three[moved] - unguided[moved]
    assert away.abs().mean() > 0.01
    torch.testing.assert_close(seven[moved] - unguided[moved], 3 * away, rtol=1e-3, atol=1e-4)
    assert torch.equal(three[still], unguided[still]) and torch.equal(seven[still], unguided[still])


@pytest.mark.witness("validation_seed")
def test_validation_seed(sampled: Any) -> None:
    """The noise that a clip begins with. Unset: the seed of the training."""
    first, again, other = (sampled(validation_seed=seed) for seed in (1, 1, 2))
    unset, named = sampled(seed=2), sampled(seed=3, validation_seed=1)
    for half in (0, 1):
        assert torch.equal(first[half], again[half]) and not torch.allclose(first[half], other[half], atol=0.1)
        assert torch.equal(unset[half], other[half]) and torch.equal(named[half], first[half])


class Asked(Exception):
    """Ends a validation where the model would be asked; args: prompt and what it is guided away from."""


@pytest.mark.witness("validation_prompt")
@pytest.mark.witness("validation_negative_prompt")
def test_the_texts_of_a_clip(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cache stage encodes is what the clip is made of; without a prompt no clip is made."""
    bench.clip("a")

    def ask(model: Any, request: Any, prompt: Prompt, negative: Prompt, check: Any) -> Latents:
        raise Asked(prompt, negative)

    monkeypatch.setattr(t2v, "sample", ask)
    for positive, negative in (("a fox", "blurry"), ("a wolf", "blurry"), ("a wolf", "grey")):
        bench.config |= {"validation_prompt": positive, "validation_negative_prompt": negative}
        index, _ = bench.run()
        validate = make_validator(bench.stage(), None, index, index.store())  # type: ignore[arg-type]  # not reached
        with pytest.raises(Asked) as asked:
            validate(None, 0)  # type: ignore[arg-type, misc]
        for given, (video, audio) in zip(
            asked.value.args, FakeTextEncoder(Calls()).encode([positive, negative]), strict=True
        ):
            assert torch.equal(given.video, video.bfloat16()) and torch.equal(given.audio, audio.bfloat16())
    bench.config["validation_prompt"] = None
    index, _ = bench.run()
    assert make_validator(bench.stage(), None, index, index.store()) is None  # type: ignore[arg-type]


# --- in which files --------------------------------------------------------------------------------------------------


@pytest.fixture
def files(
    tmp_path: Path, checkpoint: Checkpoint, model: LTX2Transformer, texts: dict[str, dict[str, Tensor]]
) -> Callable[..., dict[str, Path]]:
    """The clips of one validation under some settings, by name."""
    store = Store(tmp_path / "cache")
    for key, tensors in texts.items():
        store.put(TEXT, key, tensors, {})
    prompts = {key: {"text": key, "key": key} for key in texts}

    def make(**settings: Any) -> dict[str, Path]:
        config = resolve({**SMALL, "validation_guidance": 1, **settings}, [DATASET]).training
        run = RunFolder(tmp_path / "runs" / "fox")
        stage = Stage("train", config, (), StagePlan(), Workspace(tmp_path), run, "fox")
        validate = make_validator(stage, checkpoint, Index((clip("a"),), prompts, str(store.root)), store)
        assert validate is not None
        return {path.stem: path for path in validate(model, 1)}

    return make


@pytest.mark.witness("validation_resolution")
def test_validation_resolution(files: Callable[..., dict[str, Path]]) -> None:
    """Width x height; a clip for each size."""

    def sizes(value: str) -> dict[str, tuple[int, ...]]:
        return {name: read(path)[0].shape[2:0:-1] for name, path in files(validation_resolution=value).items()}

    assert sizes("96x64") == {"validation-96x64": (96, 64)}
    assert sizes("64x96,128x64") == {"validation-64x96": (64, 96), "validation-128x64": (128, 64)}


@pytest.mark.witness("validation_num_video_frames")
@pytest.mark.parametrize("frames", [9, 17])
def test_validation_num_video_frames(files: Callable[..., dict[str, Path]], frames: int) -> None:
    (path,) = files(validation_num_video_frames=frames).values()
    assert len(read(path)[0]) == frames


@pytest.mark.witness("framerate")
@pytest.mark.parametrize("rate", [25, 12.5])
def test_framerate(files: Callable[..., dict[str, Path]], rate: float) -> None:
    """Of the file, and so the length of its sound; the model is told as well, so the picture moves otherwise."""
    (path,) = files(framerate=rate, validation_num_video_frames=17).values()
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == rate
        heard = float(container.streams.audio[0].duration * container.streams.audio[0].time_base)
    assert heard == pytest.approx(17 / rate, abs=0.08)


def test_the_model_is_told_the_frame_rate(sampled: Any) -> None:
    """Catches a rate that only the file has."""
    slow, fast = (sampled(framerate=rate, validation_num_video_frames=17)[0] for rate in (12.5, 25))
    assert np.abs((slow - fast).numpy()).max() > 1e-3
