"""Flat buffers and their views, names, initial values, and the LoRA as peft computes it."""

import math
from collections.abc import Callable

import pytest
import torch

from ltx2_job.errors import ConfigError
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.training.adapters import AdapterSet

ATTENTIONS = ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn")
Load = Callable[[], LTX2Transformer]


def test_twenty_four_layers_a_block_by_their_official_names(transformer: Load) -> None:
    adapters = AdapterSet.create(transformer(), rank=4, alpha=8.0, seed=0)
    expected = {
        f"diffusion_model.transformer_blocks.{block}.{attention}.{layer}.lora_{part}.weight"
        for block in range(2)
        for attention in ATTENTIONS
        for layer in ("to_q", "to_k", "to_v", "to_out.0")
        for part in "AB"
    }
    assert set(adapters.views) == expected


def test_only_the_lora_is_trained_and_everything_lies_in_the_flat_buffers(transformer: Load) -> None:
    """Catches: a layer whose weight or gradient is a copy, so that the optimizer never sees it."""
    model = transformer()
    adapters = AdapterSet.create(model, rank=4, alpha=8.0, seed=0)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == len(adapters.views) and all(".lora_" in name for name in trained)
    assert sum(p.numel() for p in trained.values()) == adapters.weight.numel() == adapters.gradient.numel()
    for parameter in trained.values():
        for tensor, flat in ((parameter, adapters.weight), (parameter.grad, adapters.gradient)):
            offset = tensor.data_ptr() - flat.data_ptr()
            assert 0 <= offset < flat.numel() * flat.element_size()
    adapters.weight.fill_(0.5)
    assert all(bool((p == 0.5).all()) for p in trained.values())
    sum(p.sum() for p in trained.values()).backward()
    assert bool((adapters.gradient == 1.0).all()) and bool((adapters.reported == 0.0).all())


def test_a_new_lora_changes_nothing_and_starts_the_same_everywhere(transformer: Load) -> None:
    """B = 0; A uniform in +-1/sqrt(inputs), from seed and name, whatever torch's own generator is at."""
    torch.manual_seed(1)
    first = AdapterSet.create(transformer(), rank=8, alpha=8.0, seed=3)
    torch.manual_seed(2)
    second = AdapterSet.create(transformer(), rank=8, alpha=8.0, seed=3)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, AdapterSet.create(transformer(), rank=8, alpha=8.0, seed=4).weight)
    for key, view in first.views.items():
        bound = 1 / math.sqrt(view.shape[1])
        if ".lora_B." in key:
            assert not view.any()
        else:
            assert view.abs().max() <= bound and abs(view.std() - bound / math.sqrt(3)) < 0.15 * bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_computes_w_x_plus_scaled_b_a_x(transformer: Load, dtype: torch.dtype) -> None:
    """Against the plain formula; fp32 and bf16 masters both compute in the input's precision."""
    model = transformer()
    layer = model.transformer_blocks[0].attn1.to_q
    x = torch.randn(2, 3, layer.in_features)
    base = layer(x)
    adapters = AdapterSet.create(model, rank=4, alpha=10.0, seed=0, dtype=dtype)
    adapters.weight.normal_(generator=torch.Generator().manual_seed(0))
    stem = "diffusion_model.transformer_blocks.0.attn1.to_q.lora_"
    a, b = (adapters.views[f"{stem}{part}.weight"].float() for part in "AB")
    torch.testing.assert_close(
        model.transformer_blocks[0].attn1.to_q(x), base + 2.5 * x @ a.T @ b.T, rtol=1e-5, atol=1e-5
    )


def test_gradients_of_bf16_weights_add_up_in_fp32(transformer: Load) -> None:
    """1 + 2^-12 is lost in bf16. Catches: a gradient buffer in the weights' precision."""
    model = transformer()
    adapters = AdapterSet.create(model, rank=4, alpha=4.0, seed=0, dtype=torch.bfloat16)
    weight = model.transformer_blocks[0].attn1.to_q.lora_B["default"].weight
    for factor in (1.0, 2.0**-12):
        (weight.float() * factor).sum().backward()
    assert (
        adapters.split(adapters.gradient)["diffusion_model.transformer_blocks.0.attn1.to_q.lora_B.weight"][0, 0]
        == 1 + 2.0**-12
    )


def test_weights_that_do_not_fit_are_named(transformer: Load) -> None:
    adapters = AdapterSet.create(transformer(), rank=4, alpha=4.0, seed=0)
    tensors = {key: view.clone() for key, view in adapters.views.items()}
    key = next(iter(tensors))
    with pytest.raises(ConfigError, match=f"there.pt.*{key} is missing"):
        adapters.load({k: v for k, v in tensors.items() if k != key}, "there.pt")
    with pytest.raises(ConfigError, match=r"has shape \[8, 64\], wanted \[4, 64\]"):
        adapters.load(tensors | {key: torch.zeros(8, 64)}, "there.pt")
    with pytest.raises(ConfigError, match="extra is not adapted here"):
        adapters.load(tensors | {"extra": torch.zeros(1)}, "there.pt")


def test_a_model_without_targets_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layer of the transformer is named to_q"):
        AdapterSet.create(torch.nn.Sequential(torch.nn.Linear(2, 2)), rank=1, alpha=1.0, seed=0)
