"""AdamW against its formulas in float64, and stochastic rounding against what it promises."""

import numpy as np
import pytest
import torch

from ltx2_job.training import optimizers
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.optimizers import FusedAdamW, StochasticAdamW, round_stochastically

SETTINGS = {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 0.01}


def adapters(dtype: torch.dtype = torch.float32, count: int = 600) -> AdapterSet:
    made = AdapterSet(2, 2.0, {"a": (count // 3, 2), "b": (count // 3,)}, dtype, torch.device("cpu"))
    made.weight.copy_(torch.randn(count, generator=torch.Generator().manual_seed(0)) * 0.1)
    return made


def gradients(steps: int, count: int = 600) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((steps, count)) * np.linspace(0.001, 1, count)


def reference(weight: np.ndarray, gradients: np.ndarray, rates: list[float]) -> np.ndarray:
    """AdamW as published (decoupled decay), float64."""
    w, m, v = weight.astype(np.float64), 0.0, 0.0
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        w = w - lr * 0.01 * w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


RATES = [1e-3, 5e-4, 2e-3, 0.0, 1e-3]


def run(optimizer: FusedAdamW | StochasticAdamW, made: AdapterSet, first: int = 0, last: int = 5) -> None:
    for number, gradient in list(enumerate(gradients(5), 1))[first:last]:
        made.gradient.copy_(torch.from_numpy(gradient))
        optimizer.step(number, RATES[number - 1])


def test_adamw_follows_its_formulas_with_a_changing_rate() -> None:
    made = adapters()
    expected = reference(made.weight.numpy().copy(), gradients(5), RATES)
    run(FusedAdamW(made, **SETTINGS), made)
    np.testing.assert_allclose(made.weight.numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_going_on_from_saved_moments_is_bit_equal(kind: torch.dtype) -> None:
    """Catches: a bias correction that starts again after resuming; random bits that depend on the history."""

    def make(made: AdapterSet) -> FusedAdamW | StochasticAdamW:
        return FusedAdamW(made, **SETTINGS) if kind == torch.float32 else StochasticAdamW(made, **SETTINGS, seed=5)

    whole, broken = adapters(kind), adapters(kind)
    run(make(whole), whole)
    first = make(broken)
    run(first, broken, last=2)
    second = make(broken)
    for name, flat in second.moments().items():
        flat.copy_(first.moments()[name])
    run(second, broken, first=2)
    assert torch.equal(whole.weight, broken.weight)


def test_bf16_weights_follow_adamw_within_their_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks, too: their borders must not show."""
    monkeypatch.setattr(optimizers, "CHUNK", 256)
    made = adapters(torch.bfloat16)
    expected = reference(made.weight.float().numpy().copy(), gradients(5), RATES)
    optimizer = StochasticAdamW(made, **SETTINGS, seed=0)
    run(optimizer, made)
    assert {made.weight.dtype, *(flat.dtype for flat in optimizer.moments().values())} == {torch.bfloat16}
    error = np.abs(made.weight.float().numpy() - expected)
    assert error.max() < 5 * 2**-8 * 0.5 and error.mean() < 2e-3


def test_small_changes_survive_on_average_in_bf16() -> None:
    """2,000 steps of 1e-5 on a weight of 1 (half a unit in the last place is 2^-9). Catches: rounding to nearest."""
    made = AdapterSet(1, 1.0, {"a": (4096,)}, torch.bfloat16, torch.device("cpu"))
    made.weight.fill_(1.0)
    optimizer = StochasticAdamW(made, betas=(0.0, 0.0), epsilon=1e-8, weight_decay=0.0, seed=0)
    made.gradient.fill_(1.0)
    for number in range(1, 201):
        optimizer.step(number, 1e-4)
    assert made.weight.float().mean().item() == pytest.approx(0.98, abs=1e-3)


def test_rounding_is_unbiased_and_goes_to_a_neighbour() -> None:
    value = torch.tensor([1.0, 1.001, -3.1415927, 1e-20, 0.0]).repeat_interleave(20000)
    bits = torch.randint(0, 1 << 16, value.shape, dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    rounded = round_stochastically(value, bits).float()
    step = value.abs() * 2**-7
    assert ((rounded - value).abs() <= step).all()
    means = rounded.view(5, -1).double().mean(1)
    torch.testing.assert_close(means, value.view(5, -1)[:, 0].double(), rtol=1e-4, atol=0)
    assert torch.equal(rounded[:20000], value[:20000]), "a value that bf16 holds stays"
    special = torch.tensor([float("inf"), float("-inf"), float("nan")])
    kept = round_stochastically(special, torch.full((3,), 65535, dtype=torch.int32))
    assert kept[0] == float("inf") and kept[1] == float("-inf") and kept[2].isnan()
