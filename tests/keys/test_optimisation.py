"""The keys about batches, steps, learning rate and optimizer, in trainings of a few steps.

The gradients of two steps are measured once, with weights that do not move (the rate of the first step is 0 under a
warm-up of one step) and a first moment that forgets at once. What AdamW must make of them is computed in float64.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from key_runs import Trained, Trainings
from reference import schedules as reference
from training_runs import clip

RATE = 2e-3
TWO_STEPS = {"max_train_steps": 2, "lr_warmup_steps": 1, "learning_rate": RATE, "max_grad_norm": 0}
Weights = np.ndarray


def flat(tensors: dict[str, Tensor]) -> Weights:
    return torch.cat([tensors[key].double().flatten() for key in sorted(tensors)]).numpy()


@pytest.fixture(scope="module")
def measured(trainings: Trainings) -> tuple[Weights, Weights, Weights]:
    """The weights before the first step, and the gradients of both steps."""
    run = trainings(**TWO_STEPS, adam_beta1=0)
    return flat(run.adapter(1)), flat(run.moments(1, "exp_avg")), flat(run.moments(2, "exp_avg"))


def adamw(
    measured: tuple[Weights, Weights, Weights],
    rate: float = RATE,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    decay: float = 0.01,
    clip: Callable[[Weights], Weights] = lambda gradient: gradient,
) -> Weights:
    """The weights after both steps, by the published formulas."""
    weight, *gradients = measured
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for number, (gradient, now) in enumerate(zip(map(clip, gradients), (0.0, rate), strict=True), 1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        root = np.sqrt(square / (1 - beta2**number)) + epsilon
        weight = weight * (1 - now * decay) - now * mean / (1 - beta1**number) / root
    return weight


@pytest.fixture
def moved(trainings: Trainings) -> Callable[..., Weights]:
    """The weights after both steps under some settings."""
    return lambda **settings: flat(trainings(**{**TWO_STEPS, **settings}).adapter(2))


def assert_each_is(
    moved: Callable[..., Weights], expected: Callable[..., Weights], key: str, name: str, values: tuple[Any, Any]
) -> None:
    """Under each value the weights are those that the formula gives for it, and not those for the other one."""
    wanted = [expected(**{name: value}) for value in values]
    apart = np.abs(wanted[0] - wanted[1]).max()
    for value, own, other in zip(values, wanted, reversed(wanted), strict=True):
        found = moved(**{key: value})
        assert np.abs(found - own).max() < 0.01 * apart, f"{key}: {value}"
        assert np.abs(found - other).max() > 0.9 * apart, f"{key}: {value}"
        np.testing.assert_allclose(found, own, rtol=2e-4, atol=2e-6)


@pytest.mark.witness("learning_rate")
def test_learning_rate(moved, measured) -> None:
    assert_each_is(moved, partial(adamw, measured), "learning_rate", "rate", (2e-3, 5e-4))


@pytest.mark.witness("adam_beta1")
def test_adam_beta1(moved, measured) -> None:
    assert_each_is(moved, partial(adamw, measured), "adam_beta1", "beta1", (0.9, 0.5))


@pytest.mark.witness("adam_beta2")
def test_adam_beta2(moved, measured) -> None:
    assert_each_is(moved, partial(adamw, measured), "adam_beta2", "beta2", (0.999, 0.5))


@pytest.mark.witness("adam_epsilon")
def test_adam_epsilon(moved, measured) -> None:
    assert_each_is(moved, partial(adamw, measured), "adam_epsilon", "epsilon", (1e-8, 1e-2))


@pytest.mark.witness("adam_weight_decay")
def test_adam_weight_decay(moved, measured) -> None:
    assert_each_is(moved, partial(adamw, measured), "adam_weight_decay", "decay", (0.01, 10.0))


def by_norm(limit: float) -> Callable[[Weights], Weights]:
    return lambda gradient: gradient * min(1.0, limit / np.linalg.norm(gradient))


def by_value(limit: float) -> Callable[[Weights], Weights]:
    return lambda gradient: gradient.clip(-limit, limit)


@pytest.mark.witness("max_grad_norm")
@pytest.mark.witness("grad_clip_method", "norm", "value")
def test_clipping(moved, measured) -> None:
    """A coarse epsilon, since AdamW does not see the scale of its gradients otherwise; and 0, which clips nothing."""
    coarse = {"adam_epsilon": 1e-2}
    expected = partial(adamw, measured, epsilon=1e-2)
    largest = max(np.abs(gradient).max() for gradient in measured[1:])
    limits = (largest / 10, largest / 100)
    for method, clipping in (("norm", by_norm), ("value", by_value)):
        wanted = [expected(clip=clipping(limit)) for limit in limits]
        for limit, own in zip(limits, wanted, strict=True):
            found = moved(**coarse, max_grad_norm=limit, grad_clip_method=method)
            np.testing.assert_allclose(found, own, rtol=1e-3, atol=1e-8)
        assert np.abs(wanted[0] - wanted[1]).max() > 1e-5
    assert np.abs(expected(clip=by_norm(limits[0])) - expected(clip=by_value(limits[0]))).max() > 1e-5
    np.testing.assert_allclose(moved(**coarse, max_grad_norm=0), expected(), rtol=1e-3, atol=1e-8)


@pytest.mark.witness("optimizer", "adamw", "adamw_bf16")
def test_optimizer(trainings: Trainings, measured) -> None:
    """Both follow AdamW; adamw_bf16 keeps weights and moments in bf16, of 8 bits, and rounds to a neighbour."""
    expected = adamw(measured)
    full, half = (trainings(**TWO_STEPS, optimizer=name) for name in ("adamw", "adamw_bf16"))
    for run, dtype in ((full, torch.float32), (half, torch.bfloat16)):
        stored = [run.adapter(2), run.moments(2, "exp_avg"), run.moments(2, "exp_avg_sq")]
        assert {tensor.dtype for tensors in stored for tensor in tensors.values()} == {dtype}
    np.testing.assert_allclose(flat(full.adapter(2)), expected, rtol=2e-4, atol=2e-6)
    error = np.abs(flat(half.adapter(2)) - expected)
    assert error.max() > 1e-4 and error.max() < 2e-3 and error.mean() < 2e-4


# --- the learning rate over the run ---------------------------------------------------------------------------------

STEPS, DECAY = 6, 50.0


@pytest.fixture(scope="module")
def rates(trainings: Trainings) -> Callable[..., list[float]]:
    """The rate that the optimizer used in each of 6 steps, read off the weights.

    A gradient clipped to nothing leaves the decay alone: each step multiplies the weights by 1 - rate x decay.
    """

    before = float(np.linalg.norm(flat(trainings(learning_rate=0).adapter(1))))

    def run(**settings: Any) -> list[float]:
        still = {"max_grad_norm": 1e-30, "adam_weight_decay": DECAY, "learning_rate": RATE}
        done = trainings(**still, **{"max_train_steps": STEPS, "checkpoints_total_limit": 0, **settings})
        norms = [before, *(float(np.linalg.norm(flat(done.adapter(step)))) for step in range(1, STEPS + 1))]
        return [(1 - after / earlier) / DECAY for earlier, after in pairwise(norms)]

    return run


def closed(name: str, warmup: int = 0, end: float = 4e-7, power: float = 0.8, cycles: int = 1) -> Any:
    return pytest.approx(list(reference.rates(name, RATE, STEPS, warmup, end, power, cycles)), rel=1e-4, abs=1e-8)


SHAPES = ("constant", "constant_with_warmup", "linear", "sine", "cosine", "cosine_with_restarts", "polynomial")


@pytest.mark.witness(
    "lr_scheduler", "constant", "constant_with_warmup", "linear", "sine", "cosine", "cosine_with_restarts", "polynomial"
)
@pytest.mark.parametrize("name", SHAPES)
def test_lr_scheduler(rates, name: str) -> None:
    found = rates(lr_scheduler=name)
    assert found == closed(name)
    alike = [other for other in SHAPES if found == closed(other)]
    # Without a warm-up the two constants are one; one cycle of restarts is the cosine itself.
    groups = [{"constant", "constant_with_warmup"}, {"cosine", "cosine_with_restarts"}]
    assert set(alike) == next((group for group in groups if name in group), {name})


@pytest.mark.witness("lr_warmup_steps")
def test_lr_warmup_steps(rates) -> None:
    assert rates(lr_scheduler="linear", lr_warmup_steps=3) == closed("linear", warmup=3)
    assert rates(lr_warmup_steps=2) == closed("constant_with_warmup", warmup=2)
    assert closed("constant_with_warmup", warmup=2) != rates(lr_warmup_steps=0)


@pytest.mark.witness("lr_num_cycles")
def test_lr_num_cycles(rates) -> None:
    for name in ("cosine_with_restarts", "sine"):
        found = rates(lr_scheduler=name, lr_num_cycles=2)
        assert found == closed(name, cycles=2) and found != closed(name)


@pytest.mark.witness("lr_end")
def test_lr_end(rates) -> None:
    for end in (0, 1e-3):
        assert rates(lr_scheduler="polynomial", lr_end=end) == closed("polynomial", end=end)


@pytest.mark.witness("lr_power")
def test_lr_power(rates) -> None:
    for power in (1, 3):
        assert rates(lr_scheduler="polynomial", lr_power=power) == closed("polynomial", power=power)


# --- batches and length ---------------------------------------------------------------------------------------------

THREE = tuple(clip(name) for name in "abc")


def micro_batches(run: Trained) -> list[int]:
    return [len(batch.video) for batch, _ in run.work]


@pytest.mark.witness("train_batch_size")
def test_train_batch_size(trainings: Trainings) -> None:
    """Clips in one pass of the model; three clips fill a step of three without a repetition."""
    assert micro_batches(trainings(*THREE)) == [1]
    run = trainings(*THREE, train_batch_size=3)
    assert micro_batches(run) == [3] and len({tuple(each.flatten()[:9].tolist()) for each in run.work[0][0].video}) == 3


@pytest.mark.witness("gradient_accumulation_steps")
def test_gradient_accumulation_steps(trainings: Trainings) -> None:
    """Passes of the model per update, each weighed by the whole step."""
    assert micro_batches(trainings(*THREE)) == [1]
    run = trainings(*THREE, gradient_accumulation_steps=3)
    assert micro_batches(run) == [1, 1, 1] and run.done == [1]
    assert [batch.video_share.tolist() for batch, _ in run.work] == [[pytest.approx(1 / 3)]] * 3


@pytest.mark.witness("max_train_steps")
@pytest.mark.witness("num_train_epochs")
def test_the_length_of_the_training(trainings: Trainings) -> None:
    """Three clips one by one: three steps an epoch."""
    assert trainings(*THREE, max_train_steps=2).done == [1, 2]
    assert trainings(*THREE, max_train_steps=4).done == [1, 2, 3, 4]
    assert trainings(*THREE, max_train_steps=0, num_train_epochs=1).done == [1, 2, 3]
    assert trainings(*THREE, max_train_steps=0, num_train_epochs=2).done == [1, 2, 3, 4, 5, 6]
