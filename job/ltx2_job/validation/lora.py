"""Using a LoRA file on a model that is not trained: beside the weights, never merged into them.

A bf16 weight plus a small update, rounded to bf16 again, is another model than the one that was trained; so the two
small products are added to each layer's output, which is the computation of the training itself.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ltx2_job.errors import ConfigError, Problem
from ltx2_job.models.layout import PREFIX
from ltx2_job.models.names import place

LORA_PREFIX = "diffusion_model."  # of official LoRA keys; PREFIX is the model file's


def apply_lora(model: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    """Add a LoRA to the linear layers that it names; returns how many layers it changes.

    tensors: official keys `diffusion_model.<layer>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r], scale folded
    in. Raises ConfigError listing keys without a partner, layers that the model does not have, and shapes that do not
    fit.
    """
    layers, problems = {}, []
    modules = dict(model.named_modules())
    bases = {key.removesuffix(suffix) for key in tensors for suffix in (A, B) if key.endswith(suffix)}
    for key in tensors:
        if not key.endswith((A, B)):
            problems.append(f"{key} is neither lora_A nor lora_B")
    for base in sorted(bases):
        down, up = tensors.get(base + A), tensors.get(base + B)
        if down is None or up is None:
            problems.append(f"{base} has only one of lora_A and lora_B")
            continue
        path = module_path(base)
        layer = modules.get(path) if path else None
        if not isinstance(layer, nn.Linear):
            problems.append(f"{base} is no linear layer of this model")
        elif (up.shape[0], down.shape[1]) != (layer.out_features, layer.in_features) or up.shape[1] != down.shape[0]:
            problems.append(
                f"{base} is {list(up.shape)} x {list(down.shape)}, the layer {layer.out_features} x {layer.in_features}"
            )
        else:
            layers[layer] = (down, up)
    if problems or not layers:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise ConfigError(Problem("lora", shown or "holds no LoRA tensors", "use a LoRA of this model's generation"))
    for layer, (down, up) in layers.items():
        _attach(layer, down, up)
    return len(layers)


A, B = ".lora_A.weight", ".lora_B.weight"


def module_path(base: str) -> str | None:
    """`diffusion_model.<official layer>` -> the module's path in the transformer; None for another part or prefix."""
    if not base.startswith(LORA_PREFIX):
        return None
    found = place(PREFIX + base.removeprefix(LORA_PREFIX))
    return found.name if found is not None and found.part == "transformer" else None


def _attach(layer: nn.Linear, down: Tensor, up: Tensor) -> None:
    weight = layer.weight
    # Copies: a file's tensors lie where its header puts them, and products of matrices round by their alignment.
    down, up = (each.to(weight.device, weight.dtype, copy=True) for each in (down, up))

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + F.linear(F.linear(inputs[0], down), up)

    layer.register_forward_hook(add)
