"""What kind of file a header describes: decided by the names of its tensors, never by the name of the file.

Names are brought to those of the official combined file first: some files leave its prefixes out. Torch-free.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from ltx2_job.models.header import Header
from ltx2_job.models.layout import PREFIX
from ltx2_job.models.names import PARTS, Part, place

_LORA: Final = re.compile(r"\.lora_(A|B|down|up)(\.default)?\.weight$|\.(lokr|hada)_w\d")
_GEMMA: Final = re.compile(r"(^|\.)layers\.\d+\.(self_attn\.q_proj|mlp\.gate_proj)\.")
_VAE: Final = ("encoder.", "decoder.", "per_channel_statistics.")

LTX2: Final = "ltx-2"
LTX25: Final = "ltx-2.5"


@dataclass(frozen=True)
class Kind:
    """name: for programs. title: for people. parts: of LTX-2, those that the file holds at least a tensor of."""

    name: str
    title: str
    parts: tuple[Part, ...] = ()


def official(header: Header) -> Header:
    """The header with official names: a transformer or a video VAE without its prefix gets it."""
    names = header.tensors
    if "patchify_proj.weight" in names:
        added = {name: f"{PREFIX}{name}" for name in names}
    elif "diffusion_model.patchify_proj.weight" in names:
        added = {name: f"model.{name}" for name in names}
    elif "encoder.conv_in.conv.weight" in names or "decoder.conv_in.conv.weight" in names:
        added = {name: f"vae.{name}" if name.startswith(_VAE) else name for name in names}
    else:
        return header
    tensors = {added[name]: replace(entry, name=added[name]) for name, entry in names.items()}
    return replace(header, tensors=tensors)


def kind_of(header: Header) -> Kind:
    """The kind of a header with official names."""
    names = header.tensors
    loras = [name for name in names if _LORA.search(name)]
    if loras:
        return _lora(header, loras)
    parts = tuple(part for part in PARTS if any((at := place(name)) and at.part == part for name in names))
    if f"{PREFIX}patchify_proj.weight" in names:
        return _transformer(header, parts)
    if any(_GEMMA.search(name) for name in names):
        later = "gemma_config" in header.metadata or any(name.endswith(".layer_scalar") for name in names)
        if later:
            return Kind("gemma-4", "Gemma 4, the text encoder of LTX-2.5")
        return Kind("gemma-3", "Gemma 3, the text encoder of LTX-2.0 and 2.3 (one file of its folder)")
    if header.config.get("_class_name") == "LatentUpsampler" or "upsampler.0.weight" in names:
        return Kind("latent-upscaler", "a latent upscaler of LTX-2")
    if any(name.startswith("duration_head.") for name in names):
        return Kind("duration-head", "the duration head of LTX-2.5")
    if any(".diff_blocks." in name or ".det_stages." in name for name in names):
        return Kind("diffusion-vae", "the diffusion video VAE of LTX-2.5")
    if parts:
        shown = {"vae": "video VAE", "audio_vae": "audio VAE"}
        return Kind("part", f"of LTX-2 only: {', '.join(shown.get(part, part) for part in parts)}", parts)
    return Kind("unknown", "not a file of LTX-2")


def _transformer(header: Header, parts: tuple[Part, ...]) -> Kind:
    names, stamp = header.tensors, header.metadata.get("model_version", "")
    if f"{PREFIX}audio_patchify_proj.weight" not in names:
        return Kind("ltx-video", "LTX-Video 0.9: it has no sound")
    newer = stamp and not stamp.startswith(("2.0", "2.3"))
    whole = set(parts) == set(PARTS)
    if newer or f"{PREFIX}keyframes_abs_pos_embedding" in names:
        version = ".".join(stamp.split(".")[:2]) or "2.5"
        return Kind(
            LTX25, f"LTX-{version}, " + ("combined file" if whole else "transformer file of the split pack"), parts
        )
    gated = any(".to_gate_logits." in name for name in names)
    return Kind(LTX2, f"LTX-{'2.3' if gated else '2.0'}, " + ("combined file" if whole else "not all parts"), parts)


def _lora(header: Header, loras: list[str]) -> Kind:
    layers = {_LORA.split(name)[0] for name in loras}
    ranks = {min(header.tensors[name].shape) for name in loras if len(header.tensors[name].shape) == 2}
    audio = any("audio" in layer for layer in layers)
    widths = {
        header.tensors[name].shape[-1]
        for name in loras
        if ".attn1.to_q.lora_A" in name or ".attn1.to_q.lora_down" in name
    }
    if not any(".attn1." in layer or ".attn2." in layer for layer in layers):
        return Kind("lora", f"a LoRA of another model ({len(layers)} layers)")
    base = "LTX-Video 0.9" if widths == {2048} and not audio else "LTX-2"
    naming = "official names" if any("diffusion_model." in layer for layer in layers) else "diffusers' names"
    rank = f"rank {'-'.join(str(rank) for rank in sorted({min(ranks), max(ranks)}))}, " if ranks else ""
    return Kind("ltx-2-lora" if base == "LTX-2" else "lora", f"a LoRA of {base}: {len(layers)} layers, {rank}{naming}")
