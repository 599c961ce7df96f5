"""In which number format a file holds its weights, and what its tensors would be without that format. Torch-free.

Known quantised forms (of the transformer's linear layers; everything else stays bf16 or fp32):

    fp8            weight F8_E4M3 beside an F32 weight_scale (and input_scale, which concerns activations)
    fp8 cast       weight F8 without any scale: a plain cast
    fp8 scaled     weight F8 beside scale_weight: another tool's spelling
    nvfp4          weight U8 [out, in / 2] beside weight_scale (F8_E4M3, padded and tiled) and weight_scale_2
    int8-convrot   weight I8 beside weight_scale and comfy_quant: rotated, so no plain int8
    int8           weight I8 without comfy_quant
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ltx2_job.models.header import Header, TensorEntry

_EXTRAS: Final = ("weight_scale", "weight_scale_2", "input_scale", "comfy_quant", "scale_weight", "scale_input")
_MARKS: Final = ("scaled_fp8",)
_FLOATS: Final = {"BF16": "bf16", "F32": "fp32", "F16": "fp16", "F64": "fp64"}
_BLOCK: Final = re.compile(r"(?:^|\.)transformer_blocks\.(\d+)\.")


@dataclass(frozen=True)
class Precision:
    """form: the commonest format of the weights. layers: quantised layers per form. blocks: those that hold any.

    contradictions: where the header's list of quantised layers says something else than the tensors.
    """

    form: str
    layers: Mapping[str, int]
    blocks: tuple[int, ...]
    contradictions: tuple[str, ...]

    def __str__(self) -> str:
        if not self.layers:
            return self.form
        parts = [f"{form} in {count} layers" for form, count in self.layers.items()]
        return ", ".join(parts) + (f" (blocks {ranges(self.blocks)})" if self.blocks else "")


def precision_of(header: Header) -> Precision:
    """The format of a file's weights, from its header."""
    found = _quantised(header)
    counts = Counter(found.values())
    blocks = sorted({int(match[1]) for layer in found if (match := _BLOCK.search(layer))})
    weight: Counter[str] = Counter()
    for entry in header.tensors.values():
        weight[_FLOATS.get(entry.dtype, entry.dtype)] += entry.elements
    form = counts.most_common(1)[0][0] if counts else (weight.most_common(1)[0][0] if weight else "nothing")
    return Precision(form, dict(counts), tuple(blocks), tuple(_contradictions(header, found)))


def plain(header: Header) -> Header:
    """The header as a file without quantisation would have it: no scales, whole shapes, the dtype of bf16 files."""
    found = _quantised(header)
    tensors: dict[str, TensorEntry] = {}
    for name, entry in header.tensors.items():
        stem, _, last = name.rpartition(".")
        if last in _EXTRAS or name in _MARKS:
            continue
        form = found.get(stem) if last == "weight" else None
        if form == "nvfp4":
            entry = replace(entry, shape=(*entry.shape[:-1], 2 * entry.shape[-1]))
        tensors[name] = replace(entry, dtype="BF16") if form else entry
    return replace(header, tensors=tensors)


def ranges(numbers: Iterable[int]) -> str:
    """Sorted numbers for people: 1-42, 45."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _quantised(header: Header) -> dict[str, str]:
    """Layer -> form, for every layer whose weight is no float of 16 bits or more."""
    found = {}
    for name, entry in header.tensors.items():
        stem, _, last = name.rpartition(".")
        if entry.dtype in _FLOATS or (last != "weight" and entry.dtype[:2] != "F8") or last in _EXTRAS:
            continue
        beside = {extra for extra in _EXTRAS if f"{stem}.{extra}" in header.tensors}
        if entry.dtype == "U8":
            form = "nvfp4" if {"weight_scale", "weight_scale_2"} <= beside else "a packed format"
        elif entry.dtype == "I8":
            form = "int8-convrot" if "comfy_quant" in beside else "int8"
        elif entry.dtype[:2] == "F8":
            form = "fp8" if "weight_scale" in beside else "fp8 scaled" if "scale_weight" in beside else "fp8 cast"
        else:
            form = entry.dtype
        found[stem if last == "weight" else name] = form
    return found


def _contradictions(header: Header, found: Mapping[str, str]) -> Iterable[str]:
    text = header.metadata.get("_quantization_metadata")
    if not text:
        return
    try:
        listed = set(json.loads(text)["layers"])
    except (ValueError, KeyError, TypeError):
        yield "the header's _quantization_metadata cannot be read"
        return
    for what, layers in (("names", listed - set(found)), ("does not name", set(found) - listed)):
        if layers:
            kind = "not quantised" if what == "names" else "quantised"
            yield f"_quantization_metadata {what} {len(layers)} layers that are {kind}, such as {min(layers)}"
