"""Optimizers over the flat LoRA buffer: one tensor of weights, one of gradients, the rate on the device."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ltx2_job.config import TrainingConfig
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.draw import generator

MOMENTS = ("exp_avg", "exp_avg_sq")
CHUNK = 1 << 24  # elements that `StochasticAdamW` works on at once: bounds its fp32 temporaries to 64 MiB each


class Optimizer(Protocol):
    """What the step needs: reads `adapters.gradient`, changes `adapters.weight`."""

    def step(self, number: int, rate: float) -> None:
        """Do optimizer step `number` (1 for the first) at this learning rate. No host read."""

    def moments(self) -> dict[str, Tensor]:
        """The flat state buffers by name, to be saved and filled."""


class FusedAdamW:
    """torch's fused AdamW on one fp32 tensor (Loshchilov & Hutter: decay decoupled from the gradient)."""

    def __init__(self, adapters: AdapterSet, *, betas: tuple[float, float], epsilon: float, weight_decay: float):
        # Shares the buffer: the layers' parameters are views of the same memory.
        self._parameter = nn.Parameter(adapters.weight)
        self._parameter.grad = adapters.gradient
        # As a tensor the rate can change under a captured step.
        self._rate = torch.zeros((), device=adapters.weight.device)
        self._adamw = torch.optim.AdamW(
            [self._parameter], lr=self._rate, betas=betas, eps=epsilon, weight_decay=weight_decay, fused=True
        )
        state = self._adamw.state[self._parameter]
        state["step"] = torch.zeros((), device=adapters.weight.device)
        for name in MOMENTS:
            state[name] = torch.zeros_like(adapters.weight)

    def step(self, number: int, rate: float) -> None:
        """See Optimizer."""
        self._rate.fill_(rate)
        # The count is derived from the run's step, so that it needs no place in a checkpoint.
        self._adamw.state[self._parameter]["step"].fill_(number - 1)
        self._adamw.step()

    def moments(self) -> dict[str, Tensor]:
        """See Optimizer: both moments, fp32."""
        state = self._adamw.state[self._parameter]
        return {name: state[name] for name in MOMENTS}


class StochasticAdamW:
    """AdamW with bf16 weights and moments, each rounded stochastically, so that small changes survive on average.

    The arithmetic of a step is the ordinary AdamW in fp32 on the widened values; only what is stored is rounded: to the
    neighbour above with the probability of the distance from the one below. The random bits come from (seed, step,
    chunk) alone. (The guide's trainer has an optimizer of this name with other arithmetic; its slips are not repeated.)
    """

    def __init__(
        self, adapters: AdapterSet, *, betas: tuple[float, float], epsilon: float, weight_decay: float, seed: int
    ):
        self._adapters, self._betas, self._epsilon, self._decay, self._seed = (
            adapters,
            betas,
            epsilon,
            weight_decay,
            seed,
        )
        self._moments = {name: torch.zeros_like(adapters.weight) for name in MOMENTS}

    def step(self, number: int, rate: float) -> None:
        """See Optimizer."""
        first, second = self._betas
        flats = (self._adapters.weight, self._adapters.gradient, *(self._moments[name] for name in MOMENTS))
        for index, chunk in enumerate(zip(*(flat.split(CHUNK) for flat in flats), strict=True)):
            weight, gradient, mean, square = chunk
            bits = _bits(self._seed, number, index, weight)
            new_mean = mean.float().lerp_(gradient, 1.0 - first)
            new_square = square.float().mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
            denominator = (new_square / (1.0 - second**number)).sqrt_().add_(self._epsilon)
            new_weight = weight.float().mul_(1.0 - rate * self._decay)
            new_weight.addcdiv_(new_mean, denominator, value=-rate / (1.0 - first**number))
            for stored, value, part in zip(
                (weight, mean, square), (new_weight, new_mean, new_square), bits, strict=True
            ):
                stored.copy_(round_stochastically(value, part))

    def moments(self) -> dict[str, Tensor]:
        """See Optimizer: both moments, bf16."""
        return self._moments


def round_stochastically(value: Tensor, bits: Tensor) -> Tensor:
    """fp32 -> bf16: add 16 random bits (int32, 0 .. 65535) below the kept ones, then cut them off.

    The expectation is the value itself. Infinities and NaN stay what they are.
    """
    raw = (value.contiguous().view(torch.int32) + bits).bitwise_and_(-65536).view(torch.float32)
    return torch.where(value.isfinite(), raw, value).to(torch.bfloat16)


def _bits(seed: int, number: int, chunk: int, like: Tensor) -> list[Tensor]:
    """Three int32 tensors of random 16-bit numbers, one per stored tensor of a chunk, made where they are used."""
    source = torch.Generator(like.device)
    source.manual_seed(int(generator(seed, number, "optimizer", chunk, "rounding").integers(0, 1 << 63)))
    drawn = torch.randint(0, 1 << 16, (3, like.numel()), generator=source, dtype=torch.int32, device=like.device)
    return list(drawn.unbind())


def weight_dtype(name: str) -> torch.dtype:
    """In which precision an optimizer keeps the LoRA weights."""
    return torch.bfloat16 if name == "adamw_bf16" else torch.float32


def build(config: TrainingConfig, adapters: AdapterSet) -> Optimizer:
    """The optimizer that the configuration names. Raises ConfigError for one that is not built."""
    settings: dict[str, Any] = {
        "betas": (config.adam_beta1, config.adam_beta2),
        "epsilon": config.adam_epsilon,
        "weight_decay": config.adam_weight_decay,
    }
    if config.optimizer == "adamw_bf16":
        return StochasticAdamW(adapters, **settings, seed=config.seed)
    if config.optimizer == "adamw":
        return FusedAdamW(adapters, **settings)
    raise ConfigError(Problem("optimizer", f"{config.optimizer!r} is not built", "use adamw or adamw_bf16"))
