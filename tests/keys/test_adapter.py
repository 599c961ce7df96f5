"""The keys about the adapter, seen in the checkpoints and LoRA files that a training leaves."""

import json
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from key_runs import Trainings
from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError
from ltx2_job.models.transformer import LTX2Transformer
from training_runs import DATASET

GRADIENT = {"adam_beta1": 0, "max_grad_norm": 0}  # the first moment is the gradient then


def refused(key: str, value: str) -> str:
    """What is said where a value is known and not built."""
    with pytest.raises(ConfigError) as error:
        resolve({key: value}, [DATASET]).require_supported()
    return str(error.value)


@pytest.mark.witness("lora_rank")
@pytest.mark.parametrize("rank", [2, 5])
def test_lora_rank(trainings: Trainings, rank: int) -> None:
    """The inner side of every pair of matrices in the file; the outer ones are the layer's."""
    files = trainings(lora_rank=rank).stage.run
    tensors = load_file(files.lora)
    assert len(tensors) == 2 * 48
    for key, tensor in tensors.items():
        assert tensor.shape[0 if ".lora_A." in key else 1] == rank, key
        assert rank not in tensor.shape[1 if ".lora_A." in key else 0 :][:1], key


@pytest.mark.witness("lora_alpha")
def test_lora_alpha(trainings: Trainings) -> None:
    """alpha / rank is a factor of what the adapter adds, so of the gradient of B, and of B in the official file."""
    unset, double, quarter = (trainings(lora_rank=4, lora_alpha=alpha, **GRADIENT) for alpha in (None, 8, 1))
    for key, gradient in unset.moments(1, "exp_avg").items():
        if ".lora_B." in key:
            assert gradient.abs().max() > 0
            torch.testing.assert_close(double.moments(1, "exp_avg")[key], 2 * gradient, rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(quarter.moments(1, "exp_avg")[key], gradient / 4, rtol=1e-4, atol=1e-9)
    for run, factor in ((unset, 1.0), (double, 2.0), (quarter, 0.25)):
        trained = run.adapter(1)
        for key, tensor in load_file(run.stage.run.lora).items():
            torch.testing.assert_close(tensor, trained[key] * (factor if ".lora_B." in key else 1.0))


@pytest.mark.witness("lora_dropout")
@pytest.mark.parametrize("share", [0.0, 0.25, 0.75])
def test_lora_dropout(trainings: Trainings, share: float) -> None:
    """That share of every adapter's inputs is zero while training, the rest scaled up; in samples none is."""
    seen: list[tuple[bool, Tensor]] = []

    def look(model: LTX2Transformer, step: int) -> list[Path]:
        layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
        for training in (False, True):
            model.train(training)
            seen.append((training, layer.lora_dropout["default"](torch.ones(100_000))))
        return []

    trainings(lora_dropout=share, validate=look, validation_disable=False)
    assert len(seen) == 4  # before and after the step
    for training, passed in seen:
        dropped = share if training else 0.0
        assert (passed == 0).float().mean().item() == pytest.approx(dropped, abs=0.01)
        assert passed.max().item() == pytest.approx(1 / (1 - dropped))


@pytest.mark.witness("init_lora")
def test_init_lora(trainings: Trainings, tmp_path: Path) -> None:
    first = trainings(root=tmp_path, name="first", learning_rate=1e-2).adapter(1)
    still = {"root": tmp_path, "learning_rate": 0}
    fresh = trainings(**still, name="fresh").adapter(1)
    started = trainings(**still, name="started", init_lora="runs/first/lora.safetensors").adapter(1)
    assert all(torch.equal(started[key], tensor) for key, tensor in first.items())
    assert not any(tensor.any() for key, tensor in fresh.items() if ".lora_B." in key)
    assert any(tensor.any() for key, tensor in first.items() if ".lora_B." in key)


@pytest.mark.witness("trigger_words")
@pytest.mark.parametrize("words", [["sks"], ["sks", "red style"], []])
def test_trigger_words_in_the_file(trainings: Trainings, words: list[str]) -> None:
    run = trainings(trigger_words=words).stage.run
    for path in (run.lora, run.lora_diffusers):
        with safe_open(path, "pt") as file:
            assert json.loads(file.metadata().get("trigger_words", "[]")) == words


@pytest.mark.witness("model_type", "lora")
@pytest.mark.witness("lora_type", "standard")
@pytest.mark.witness("base_model_precision", "no_change")
def test_a_plain_lora_on_an_unchanged_base(trainings: Trainings) -> None:
    """The base keeps every bit of its file, only the pairs A and B move; what would do otherwise is not built."""
    bases: list[dict[str, Tensor]] = []

    def look(model: LTX2Transformer, step: int) -> list[Path]:
        bases.append({name: value.clone() for name, value in model.named_parameters() if "lora_" not in name})
        return []

    run = trainings(validate=look, validation_disable=False, learning_rate=1e-2)
    in_file = load_file(trainings.model)
    before, after = bases
    assert all(torch.equal(before[name], value) for name, value in after.items())
    query = "transformer_blocks.1.attn1.to_q"
    assert torch.equal(after[f"{query}.base_layer.weight"], in_file[f"model.diffusion_model.{query}.weight"].float())
    tensors = load_file(run.stage.run.lora)
    assert {key.rsplit(".", 2)[1] for key in tensors} == {"lora_A", "lora_B"}
    assert all(tensor.any() for tensor in tensors.values())
    assert refused("model_type", "full").startswith("model_type: not supported yet: full")
    assert refused("lora_type", "lycoris").startswith("lora_type: not supported yet: lycoris")
    assert refused("base_model_precision", "int8-torchao").startswith("base_model_precision: not supported yet: int8")
