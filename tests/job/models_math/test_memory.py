"""Memory plans by name, and a runner whose recomputation changes nothing but memory."""

import pytest
import torch

from ltx2_job.errors import ConfigError
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.memory.runner import BlockRunner

from .conftest import AUDIO, FPS, GRID, build


@pytest.mark.parametrize("name", ["bf16/resident/keep:48", "fp32/resident/keep:0", "bf16/resident/keep:7"])
def test_a_name_and_its_plan(name):
    plan = MemoryPlan.parse(name)
    assert str(plan) == name
    assert (plan.form, plan.place, f"keep:{plan.keep}") == tuple(name.split("/"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fp64/resident/keep:1", "unknown form 'fp64'"),
        ("bf16/streamed/keep:1", "unknown place 'streamed'"),
        ("bf16/resident", "not a memory plan"),
        ("bf16/resident/keep:-1", "not a memory plan"),
        ("bf16/resident/48", "not a memory plan"),
        ("", "not a memory plan"),
    ],
)
def test_other_names_are_refused_with_the_remedy(name, message):
    with pytest.raises(ConfigError, match=f"memory: {message}.*; "):
        MemoryPlan.parse(name)
    with pytest.raises(ConfigError, match="-1 blocks cannot be kept"):
        MemoryPlan("bf16", keep=-1)


def test_forms():
    weight, table = "transformer_blocks.3.attn1.to_q.weight", "transformer_blocks.3.scale_shift_table_a2v_ca_video"
    bf16, fp32 = MemoryPlan("bf16"), MemoryPlan("fp32")
    assert bf16.form_of(weight, "meta").dtype == torch.bfloat16
    assert bf16.form_of(weight, "meta").device == torch.device("meta")
    assert bf16.form_of(table).dtype == torch.float32
    assert fp32.form_of(weight).dtype == torch.float32


def test_the_ladder_goes_down_from_a_plan():
    assert [str(plan) for plan in MemoryPlan("bf16").ladder()] == [
        "bf16/resident/keep:48",
        "bf16/resident/keep:24",
        "bf16/resident/keep:0",
    ]
    assert [plan.keep for plan in MemoryPlan("fp32", keep=30).ladder()] == [30, 24, 0]
    assert [plan.keep for plan in MemoryPlan("fp32", keep=0).ladder()] == [0]


def _step(keep, version="2.3"):
    """Gradients of every parameter after one step, and how often each block was called."""
    case = build(version)
    model = case.model.train()
    model.runner = BlockRunner(model.transformer_blocks, keep)
    calls = [0, 0]
    for index, block in enumerate(model.transformer_blocks):
        block.register_forward_pre_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))
    video, audio = model.velocity(case.video, case.audio, model.tables(GRID, FPS, AUDIO), a2v_scale=case.a2v_scale)
    (video.square().mean() + audio.square().mean()).backward()
    return {name: value.grad for name, value in model.named_parameters()}, calls


def test_recomputation_changes_no_gradient():
    """keep:0, keep:1 and keep:all are bit-equal, and the calls witness which blocks ran twice: all, the first, none."""
    everything, calls = _step(48)
    assert calls == [1, 1]
    assert all(grad is not None and grad.abs().max() > 0 for grad in everything.values())
    for keep, wanted in ((1, [2, 1]), (0, [2, 2])):
        gradients, calls = _step(keep)
        assert calls == wanted
        assert all(torch.equal(gradients[name], everything[name]) for name in everything)


def test_recomputation_frees_activations():
    """What is kept for the backward pass falls with `keep`."""

    def kept(keep):
        case = build("2.0")
        case.model.runner = BlockRunner(case.model.transformer_blocks, keep)
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            case.model.velocity(case.video, case.audio, case.model.tables(GRID, FPS, AUDIO))
        return sum(sizes)

    every, one, none = kept(2), kept(1), kept(0)
    assert none < 0.6 * one < 0.6 * every


def test_nothing_is_recomputed_without_gradients_and_keep_is_checked():
    case = build("2.0")
    case.model.runner = BlockRunner(case.model.transformer_blocks, 0)
    assert not any(out.requires_grad for out in case.run())
    with pytest.raises(ValueError, match="keep must be 0 or more"):
        BlockRunner(case.model.transformer_blocks, -1)


@pytest.mark.parametrize("dropout", [True, False])
def test_dropout_is_replayed_when_announced(dropout):
    """With active dropout the recomputation must draw the same numbers, or gradients are another function's."""

    class Noisy(torch.nn.Module):
        def forward(self, x, _context):
            return (torch.nn.functional.dropout(x * x, 0.5),)

    def gradient(keep):
        torch.manual_seed(5)
        x = torch.ones(1000, requires_grad=True)
        (out,) = BlockRunner([Noisy(), Noisy()], keep, dropout=dropout).run((x,), [None, None])
        out.sum().backward()
        return x.grad

    assert torch.equal(gradient(0), gradient(2)) is dropout
