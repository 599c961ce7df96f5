"""`ltx2-job validate` and `ltx2-job export` on the folder of a run, and which captions validation takes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from job.validation.test_media import psnr, read
from ltx2_job import checkpoint
from ltx2_job.cli import main
from ltx2_job.config import resolve
from ltx2_job.data.index import Index
from ltx2_job.export import load_lora
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.stage import Stage
from ltx2_job.store import TEXT
from ltx2_job.training.trainer import run_training
from ltx2_job.validation import t2v
from ltx2_job.validation.lora import apply_lora
from ltx2_job.validation.t2v import make_validator
from ltx2_job.workspace import RunFolder, Workspace, write_json
from training_runs import CONFIG, DATASET, clip, make_stage

RANK, ALPHA = 4, 16.0
SETTINGS = {
    "learning_rate": 2e-2,
    "max_train_steps": 6,
    "checkpoint_step_interval": 2,
    "lora_rank": RANK,
    "lora_alpha": ALPHA,
    "validation_disable": False,
    "validation_prompt": "a red fox",
    "validation_resolution": "96x64",
    "validation_num_video_frames": 9,
    "validation_num_inference_steps": 3,
    "trigger_words": ["sks"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Stage:
    """A run of 6 steps as cache and train stage leave it, with checkpoints of steps 2, 4 and 6."""
    root = tmp_path_factory.mktemp("finished")
    samples = [clip("a"), clip("b")]
    stage = make_stage(root, tiny20, samples, name="fox", **SETTINGS)
    index = Index.load(stage.run.index)
    random = torch.Generator().manual_seed(1)
    for key in ("prompt", "negative"):
        texts = {name: torch.randn(16, 64, generator=random).bfloat16() for name in ("video", "audio")}
        index.store().put(TEXT, key, texts, {})
    index.prompts["validation"] = {"text": "a red fox", "key": "prompt"}
    index.prompts["negative"] = {"text": "", "key": "negative"}
    index.save(stage.run.index)
    resolved = resolve({"pretrained_model_name_or_path": str(tiny20), **CONFIG, **SETTINGS}, [DATASET])
    write_json(stage.run.config, resolved.dump()["config"])
    write_json(stage.run.datasets, resolved.dump()["datasets"])
    plan = {"gpuClass": "cpu", "device": "cpu", "nodes": 1, "processes": 1}
    write_json(stage.run.plan, {**plan, "memory": "fp32/resident/keep:48", "cacheMemory": "device"})
    run_training(stage, None)
    assert [path.name for path in checkpoint.listed(stage.run.checkpoints)] == [f"step-000000{n}" for n in (2, 4, 6)]
    return stage


def verb(stage: Stage, *words: str) -> int:
    return main([words[0], "--workspace", str(stage.workspace.root), "--run", "fox", *words[1:]])


def test_export_writes_what_the_training_wrote(
    finished: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte, the newest checkpoint by default. Catches another scale, other steps or hashes in the header."""
    assert verb(finished, "export", "--output", str(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    for theirs in (finished.run.lora, finished.run.lora_diffusers):
        written = tmp_path / "out" / theirs.name
        assert written.read_bytes() == theirs.read_bytes()
        assert str(written) in printed


def test_a_run_elsewhere_is_exported_by_its_name(finished: Stage, tmp_path: Path) -> None:
    moved = tmp_path / "output" / "elsewhere"
    shutil.copytree(finished.run.root, moved)
    place = Workspace(tmp_path)
    place.note_run("hen", RunFolder(moved))
    words = ["export", "--workspace", str(tmp_path), "--run", "hen", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert (tmp_path / "out" / "lora.safetensors").read_bytes() == finished.run.lora.read_bytes()


def test_export_takes_the_named_checkpoint(finished: Stage, tmp_path: Path) -> None:
    assert verb(finished, "export", "--checkpoint", "step-0000002", "--output", str(tmp_path)) == 0
    early, last = load_lora(tmp_path / "lora.safetensors"), load_lora(finished.run.lora)
    saved = checkpoint.load(finished.run.checkpoints / "step-0000002").adapter
    for key, tensor in saved.items():
        torch.testing.assert_close(early[key], tensor * (ALPHA / RANK if ".lora_B." in key else 1.0))
    assert any(not torch.equal(early[key], last[key]) for key in last)


def test_validate_makes_the_clip_of_the_trained_model(finished: Stage, tiny20: Path) -> None:
    """As the training would have made it at that step. Catches the base model's clip, and alpha left out."""
    base = Checkpoint.open(tiny20)
    index = Index.load(finished.run.index)
    make = make_validator(finished, base, index, index.store())
    assert make is not None
    films = {}
    for name, lora in (("base", None), ("trained", load_lora(finished.run.lora))):
        model = base.transformer(MemoryPlan("fp32"), "cpu")
        if lora is not None:
            apply_lora(model, lora)
        films[name] = read(make(model, 900)[0])[0]
    assert psnr(films["base"], films["trained"]) < 40, "the training is too weak for this test"
    assert verb(finished, "validate") == 0
    made = read(finished.run.validation / "step-0000006" / "validation-96x64.mp4")[0]
    assert np.abs(made.astype(int) - films["trained"]).mean() < 0.1  # equal, but for a rounding now and then


@pytest.mark.parametrize("words", [("validate",), ("export", "--output", "out")])
def test_a_mistyped_checkpoint_is_answered_with_those_that_are_there(
    finished: Stage, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(finished, words[0], "--checkpoint", "step-2", *words[1:]) == 66
    error = capsys.readouterr().err
    assert "no complete checkpoint step-2; there: step-0000002, step-0000004, step-0000006" in error


def test_validate_without_a_prompt_says_which_key_is_missing(
    finished: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    index = Index.load(finished.run.index)
    prompts = dict(index.prompts)
    del index.prompts["validation"]
    index.save(finished.run.index)
    try:
        assert verb(finished, "validate") == 78
    finally:
        index.prompts.update(prompts)
        index.save(finished.run.index)
    assert "validation_prompt: is not set" in capsys.readouterr().err


def test_the_prompt_leads_and_the_negative_prompt_repels(
    finished: Stage, tiny20: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model hardly hears its text, so its clips would not show this. Catches the two captions swapped."""
    base, index = Checkpoint.open(tiny20), Index.load(finished.run.index)
    heard = []

    def listen(model: object, request: object, prompt: t2v.Prompt, negative: t2v.Prompt, check: object) -> object:
        heard.append((prompt, negative))
        raise InterruptedError

    monkeypatch.setattr(t2v, "sample", listen)
    make = make_validator(finished, base, index, index.store())
    assert make is not None
    with pytest.raises(InterruptedError):
        make(base.transformer(MemoryPlan("fp32"), "cpu"), 0)
    for got, key in zip(heard[0], ("prompt", "negative"), strict=True):
        kept = index.store().get(TEXT, key)
        assert torch.equal(got.video, kept["video"]) and torch.equal(got.audio, kept["audio"])
