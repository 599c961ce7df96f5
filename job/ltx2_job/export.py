"""LoRA files: the two forms that are written at the end of a run, and reading either one back.

`lora.safetensors` has the official names and alpha folded into B: its readers (the official trainer, ComfyUI,
diffusers) multiply B by A and nothing else. `lora.diffusers.safetensors` has diffusers' names, the weights as trained,
and the scale in the header entry that diffusers' pipeline loader reads. Both give the same model.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ltx2_job.errors import ConfigError, Problem
from ltx2_job.workspace import RunFolder, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

OFFICIAL: Final = "diffusion_model."
DIFFUSERS: Final = "transformer."
DIFFUSERS_SETTINGS: Final = "lora_adapter_metadata"  # the header entry that diffusers' LoraBaseMixin reads

# What other trainers call their files' tensors, and why such a file is refused.
_FOREIGN: Final = (
    (("model.diffusion_model.",), "a model, not a LoRA", "name the LoRA file here"),
    (("lokr_", "hada_", "oft_", "lycoris_"), "a LyCORIS file", "convert it to a plain LoRA"),
    (("dora_scale", "lora_magnitude_vector"), "a DoRA file", "DoRA is not supported; use a plain LoRA"),
    (
        ("lora_down", "lora_up", "lora_unet_"),
        "a Kohya file",
        "convert its names to diffusion_model.<layer>.lora_A/lora_B",
    ),
    (
        ("text_embedding_projection.", "connectors."),
        "a LoRA of the text path too",
        "use a LoRA of the transformer alone",
    ),
)


@dataclass(frozen=True)
class Facts:
    """What a LoRA file says about itself in its header."""

    base_model: str
    model_version: str
    steps: int
    config_hash: str
    data_hash: str
    trigger_words: tuple[str, ...] = ()

    def header(self, rank: int, alpha: float) -> dict[str, str]:
        """The entries of the header; every value a text, as the format wants."""
        entries = {
            "format": "pt",
            "base_model": self.base_model,
            "model_version": self.model_version,
            "lora_rank": str(rank),
            "lora_alpha": f"{alpha:g}",
            "training_steps": str(self.steps),
            "config_hash": self.config_hash,
            "data_hash": self.data_hash,
        }
        return entries | ({"trigger_words": json.dumps(self.trigger_words)} if self.trigger_words else {})


def write_lora(
    run: RunFolder,
    adapter: "Mapping[str, Tensor]",
    rank: int,
    alpha: float,
    facts: Facts,
    guard: Callable[[], None] = lambda: None,
) -> tuple[Path, Path]:
    """Write both forms of a LoRA given by official key; returns their paths. The same input gives the same bytes.

    `guard` is called before each file is put in place and may raise (the fence of the run).
    """
    tensors = {key: tensor.detach().float().cpu() for key, tensor in adapter.items()}
    scale = alpha / rank
    folded = {key: tensor * scale if ".lora_B." in key else tensor for key, tensor in tensors.items()}
    # In this form the scale is part of B, so its alpha is the rank whatever was trained with.
    official = facts.header(rank, rank) | {"trained_alpha": f"{alpha:g}"}
    guard()
    write_atomic(run.lora, to_bytes(folded, official))
    # Only the renamed modules of the transformer differ between the namings; adapted layers are in none of them.
    renamed = {DIFFUSERS + key.removeprefix(OFFICIAL): tensor for key, tensor in tensors.items()}
    modules = sorted({key.removeprefix(OFFICIAL).split(".lora_")[0] for key in tensors})
    settings = {"r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "target_modules": modules}
    prefixed = {DIFFUSERS + name: value for name, value in settings.items()}
    header = facts.header(rank, alpha) | {DIFFUSERS_SETTINGS: json.dumps(prefixed, sort_keys=True)}
    guard()
    write_atomic(run.lora_diffusers, to_bytes(renamed, header))
    return run.lora, run.lora_diffusers


def load_lora(path: Path) -> "dict[str, Tensor]":
    """Read a LoRA file of either form: official key (`diffusion_model.<layer>.lora_A|B.weight`) -> fp32, scale in B.

    The scale is taken from an `.alpha` tensor of the layer or from diffusers' header entry; without either it is 1. The
    few modules outside the blocks that diffusers renames keep the name that the file has for them. Raises ConfigError
    (field lora) naming the file and what it is for names of other kinds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key).float() for key in sorted(file.keys())}
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _refuse(path, f"cannot be read ({error})", "give a .safetensors LoRA file") from error
    layers = _layers(path, tensors)
    scales = _scales(header)
    result: dict[str, Tensor] = {}
    for (prefix, layer), parts in layers.items():
        if set(parts) - {"alpha"} != {"lora_A", "lora_B"}:
            raise _refuse(path, f"layer {layer} has {', '.join(sorted(parts))}", "a LoRA layer has lora_A and lora_B")
        a, b = parts["lora_A"], parts["lora_B"]
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            shapes = f"{list(a.shape)} and {list(b.shape)}"
            raise _refuse(path, f"layer {layer}: lora_A and lora_B have shapes {shapes}", "their ranks must agree")
        scale = float(parts["alpha"]) / a.shape[0] if "alpha" in parts else scales(prefix, layer, a.shape[0])
        result[f"{OFFICIAL}{layer}.lora_A.weight"] = a
        result[f"{OFFICIAL}{layer}.lora_B.weight"] = b * scale
    return result


def to_bytes(tensors: "Mapping[str, Tensor]", header: Mapping[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its content alone.

    The library writes the header's entries in the order of a hash table that is seeded per process; they are put in
    order here, so that two equal LoRAs are equal files.
    """
    from safetensors.torch import save

    raw = save({key: tensor.contiguous() for key, tensor in tensors.items()}, dict(header))
    (length,) = struct.unpack("<Q", raw[:8])
    entries = json.loads(raw[8 : 8 + length])
    entries["__metadata__"] = dict(sorted(entries["__metadata__"].items()))
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned to 8 bytes
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def _layers(path: Path, tensors: "Mapping[str, Tensor]") -> "dict[tuple[str, str], dict[str, Tensor]]":
    """(prefix, layer) -> its tensors by part: lora_A, lora_B, perhaps alpha."""
    for words, kind, remedy in _FOREIGN:
        for key in tensors:
            if any(word in key for word in words):
                raise _refuse(path, f"is {kind} (tensor {key})", remedy)
    layers: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        prefix = next((known for known in (OFFICIAL, DIFFUSERS) if key.startswith(known)), None)
        if prefix is None:
            remedy = f"names begin with {OFFICIAL} or {DIFFUSERS}; rename them"
            raise _refuse(path, f"has bare or unknown names (tensor {key})", remedy)
        layer, _, part = key.removeprefix(prefix).removesuffix(".weight").rpartition(".")
        if part not in ("lora_A", "lora_B", "alpha") or not layer:
            raise _refuse(
                path, f"tensor {key} is no part of a LoRA", "a layer has lora_A.weight, lora_B.weight and perhaps alpha"
            )
        layers.setdefault((prefix, layer), {})[part] = tensor
    if not layers:
        raise _refuse(path, "holds no tensor", "give a LoRA file")
    return layers


def _scales(header: Mapping[str, str]) -> Callable[[str, str, int], float]:
    """The scale of a layer of diffusers' form, from the settings in the header; 1 elsewhere."""
    settings = json.loads(header.get(DIFFUSERS_SETTINGS, "{}"))
    alpha = settings.get(f"{DIFFUSERS}lora_alpha")
    alphas = settings.get(f"{DIFFUSERS}alpha_pattern") or {}
    stabilised = settings.get(f"{DIFFUSERS}use_rslora", False)

    def scale(prefix: str, layer: str, rank: int) -> float:
        own = alphas.get(layer, alpha)
        if prefix != DIFFUSERS or own is None:
            return 1.0
        return own / rank**0.5 if stabilised else own / rank

    return scale


def _refuse(path: Path, message: str, remedy: str) -> ConfigError:
    return ConfigError(Problem("lora", f"{path} {message}", remedy))
