"""The trainable LoRA: one flat weight buffer and one flat gradient buffer, with a view per tensor.

peft creates the layers (so that LoRA files, diffusers' switches and everybody's tools know them); their parameters are
then views into the flat buffers. So the optimizer, clipping, the exchange between processes and a checkpoint each
handle one tensor, and nothing but official names is ever written to disk.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltx2_job.errors import ConfigError, Problem
from ltx2_job.training.draw import generator

NAME: Final = "default"  # peft's name of the one adapter
PREFIX: Final = "diffusion_model."  # of official LoRA files
TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0")
"""Last parts of the adapted layers' names: of all six attentions of a block, so 24 layers a block."""

REPORTED: Final = 5  # spare places behind the gradients, for scalars that travel with them (step.py)


class _Master(nn.Linear):
    """A bias-free linear layer whose weight is kept in its own precision and used in the input's."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype))


class AdapterSet:
    """The LoRA layers of one transformer.

    `weight` [n]: all weights (fp32, or bf16 for an optimizer that rounds stochastically). `gradient` [n]: fp32, the sum
    that backward passes add to. `exchange` [n + REPORTED]: the buffer that begins with `gradient`; its tail is for
    scalars that are summed over the processes together with it. `views`: official key -> view into `weight`.
    """

    def __init__(
        self, rank: int, alpha: float, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device
    ):
        self.rank, self.alpha, self.shapes = rank, alpha, dict(shapes)
        count = sum(math.prod(shape) for shape in shapes.values())
        self.weight = torch.zeros(count, dtype=dtype, device=device)
        self.exchange = torch.zeros(count + REPORTED, dtype=torch.float32, device=device)
        self.gradient = self.exchange[:count]
        self.reported = self.exchange[count:]
        self.views = self.split(self.weight)

    @staticmethod
    def create(
        transformer: nn.Module,
        *,
        rank: int,
        alpha: float,
        seed: int,
        dropout: float = 0.0,
        dtype: torch.dtype = torch.float32,
        targets: tuple[str, ...] = TARGETS,
    ) -> "AdapterSet":
        """Freeze the transformer and give every target layer a LoRA: B = 0, A uniform in +-1/sqrt(width of its input).

        A comes from (seed, key) alone, so it is the same on every process. Raises ConfigError where no layer is a
        target.
        """
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        transformer.requires_grad_(False)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # declared as int, used as a number
            lora_dropout=dropout,
            target_modules=list(targets),
            bias="none",
        )
        try:
            # On the meta device: the weights are made below, in the flat buffer.
            inject_adapter_in_model(config, transformer, adapter_name=NAME, low_cpu_mem_usage=True)
        except ValueError as error:
            raise ConfigError(Problem("model", f"no layer of the transformer is named {', '.join(targets)}")) from error
        layers = {path: layer for path, layer in transformer.named_modules() if isinstance(layer, LoraLayer)}
        shapes: dict[str, tuple[int, ...]] = {}
        for path, layer in layers.items():
            base = cast(nn.Linear, layer.get_base_layer())
            outputs, inputs = base.weight.shape
            shapes[f"{PREFIX}{path}.lora_A.weight"] = (rank, inputs)
            shapes[f"{PREFIX}{path}.lora_B.weight"] = (outputs, rank)
        device = next(transformer.parameters()).device
        adapters = AdapterSet(rank, alpha, shapes, dtype, device)
        gradients = adapters.split(adapters.gradient)
        for path, layer in layers.items():
            # The input keeps the compute precision; the weights come to it, not the other way round.
            layer.cast_input_dtype_enabled = False
            for part in ("lora_A", "lora_B"):
                key = f"{PREFIX}{path}.{part}.weight"
                getattr(layer, part)[NAME] = adapters._linear(key, gradients[key])
        for key, view in adapters.views.items():
            if ".lora_A." in key:
                bound = 1.0 / math.sqrt(view.shape[1])
                values = generator(seed, "initial", key, 0, "lora_A").random(tuple(view.shape), dtype=np.float32)
                view.copy_(torch.from_numpy(values).mul_(2.0 * bound).sub_(bound))
        return adapters

    def _linear(self, key: str, gradient: Tensor) -> nn.Linear:
        rows, columns = self.shapes[key]
        layer = _Master(columns, rows, bias=False, device="meta")
        layer.weight = nn.Parameter(self.views[key])
        # A bf16 weight may have an fp32 gradient: sums over many micro-batches must not be rounded to 8 bits.
        layer.weight.grad_dtype = torch.float32
        # Backward adds in place to a gradient that is there, so this view stays the place for good.
        layer.weight.grad = gradient
        return layer

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Official key -> view into a flat buffer of this layout (weights, gradients or optimizer moments)."""
        views, start = {}, 0
        for key, shape in self.shapes.items():
            count = math.prod(shape)
            views[key] = flat[start : start + count].view(shape)
            start += count
        return views

    def load(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take weights by official key. Raises ConfigError naming what is missing, foreign or of another shape."""
        self.fill(self.weight, tensors, origin)

    def fill(self, flat: Tensor, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Copy tensors by key into a flat buffer of this layout. Raises ConfigError as `load` does."""
        problems = list(self._differences(tensors))
        if problems:
            shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
            remedy = "use the same base model, lora_rank and targets"
            raise ConfigError(Problem(origin, f"does not fit this LoRA: {shown}", remedy))
        for key, view in self.split(flat).items():
            view.copy_(tensors[key])

    def _differences(self, tensors: Mapping[str, Tensor]) -> Iterator[str]:
        for key, shape in self.shapes.items():
            if key not in tensors:
                yield f"{key} is missing"
            elif tuple(tensors[key].shape) != shape:
                yield f"{key} has shape {list(tensors[key].shape)}, wanted {list(shape)}"
        yield from (f"{key} is not adapted here" for key in tensors if key not in self.shapes)
