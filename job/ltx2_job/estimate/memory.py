"""Bytes on the device, by named terms: of a training step, of a sample clip, and of the cache stage's passes."""

from collections.abc import Mapping
from typing import Final, Literal

from ltx2_job.estimate.constants import figure
from ltx2_job.estimate.models import Model
from ltx2_job.estimate.plans import FORM_BYTES, SLOTS, Form, activation_bytes, weight_terms
from ltx2_job.estimate.shapes import LATENT_CHANNELS, Shape

OPTIMIZER_BYTES: Final = {"adamw": (4, 4, 8), "adamw_bf16": (2, 4, 4)}  # weights, gradients, moments per parameter
RESERVE: Final = ("context", "allocator")  # what torch does not report as allocated

Terms = dict[str, int]


def training_terms(
    model: Model,
    batch: Shape,
    *,
    form: Form,
    keep: int,
    rank: int,
    optimizer: str = "adamw",
    device: Literal["cuda", "cpu"] = "cuda",
    resident: int | None = None,
) -> Terms:
    """Bytes on the device at the peak of an optimizer step, by part.

    keep: blocks that are not recomputed. resident: blocks whose weights stay on the device, None for all.
    """
    size = activation_bytes(form)
    scale = size / 2  # fitted figures are those of bf16
    kept = min(keep, model.blocks)
    video, audio = batch.batch * batch.video_tokens, batch.batch * batch.audio_latents
    text = batch.batch * model.text_tokens
    elements = video * model.width + audio * model.audio_width  # of what one block hands to the next
    block = scale * (
        elements * figure("activations", "token_bytes_per_width")
        + text * (model.width + model.audio_width) * figure("activations", "text_bytes_per_width")
    )
    weights, gradients, moments = (part * model.adapter(rank) for part in OPTIMIZER_BYTES[optimizer])
    terms = {
        **weight_terms(model, form, resident),
        "lora": weights,
        "gradients": gradients,
        "optimizer": moments,
        "activations": round(kept * block),
        "block inputs": (model.blocks - kept) * elements * size,
        "workspace": round(block + scale * elements * figure("activations", "gradient_bytes_per_width")),
        "rope": 4 * (video * (model.width + 2 * model.audio_width) + audio * 2 * model.audio_width),
        "text": text * 2 * model.text_width * 2,
        "latents": (video + audio) * LATENT_CHANNELS * 4 * 4,  # clean, noise, mixed and target, fp32
    }
    return with_overhead(terms, device)


def validation_terms(
    model: Model,
    clip: Shape,
    *,
    form: Form,
    rank: int,
    optimizer: str = "adamw",
    device: Literal["cuda", "cpu"] = "cuda",
    resident: int | None = None,
) -> Terms:
    """Bytes on the device while a sample clip is decoded: the training's own state stays where it is."""
    state = sum(OPTIMIZER_BYTES[optimizer]) * model.adapter(rank)
    size = activation_bytes(form)
    terms = {
        **weight_terms(model, form, resident),
        "lora, gradients, optimizer": state,
        "decoders": max((model.video_decoder + model.video_encoder) * size, model.audio * 4),  # one after the other
        "decoding": round(clip.pixels * figure("device", "vae_bytes_per_pixel") * size / 2),
    }
    return with_overhead(terms, device)


def cache_terms(model: Model, clip: Shape, *, form: Form, device: Literal["cuda", "cpu"] = "cuda") -> Terms:
    """Bytes where VAEs and text encoder run, by part, in the largest of the cache stage's passes.

    Each pass has one model in memory (ltx2_job.caching.encode), whatever offload_during_startup says.
    """
    return _largest_pass(model, clip, form, model.text_encoder * FORM_BYTES[form], device)


def later_cache_terms(model: Model, clip: Shape) -> dict[str, Terms]:
    """The same for rungs that are not built yet: the text encoder's layers in int8, or two of them at a time."""
    embedding = min(round(figure("device", "text_embedding")), model.text_encoder)
    layers = model.text_encoder - embedding
    rungs = {
        "text encoder in int8": 2 * embedding + layers,
        "text encoder streamed": 2 * embedding + SLOTS * 2 * layers // round(figure("device", "text_layers")),
    }
    return {name: _largest_pass(model, clip, "bf16", encoder, "cuda") for name, encoder in rungs.items()}


def _largest_pass(model: Model, clip: Shape, form: Form, encoder: int, device: Literal["cuda", "cpu"]) -> Terms:
    size = FORM_BYTES[form]
    states = figure("device", "text_hidden_states") * model.text_tokens * model.text_width
    passes: list[Terms] = [
        {
            "video encoder": (model.video_encoder + model.video_decoder) * size,
            "encoding": round(clip.pixels * figure("device", "vae_bytes_per_pixel") * size / 2),
        },
        {"audio encoder": model.audio * 4},
        {
            "text encoder": encoder,
            "connectors": model.connectors * size,
            "hidden states": round(2 * states * size),  # as they leave the encoder, and stacked for the connectors
        },
    ]
    return with_overhead(max(passes, key=lambda part: sum(part.values())), device)


def with_overhead(terms: Terms, device: str) -> Terms:
    """The terms and, on a GPU, the context and what torch reserves above what is in use."""
    if device == "cpu":
        return terms
    above = sum(value for name, value in terms.items() if name not in ("weights", "slots"))
    reserve = figure("device", "allocator_bytes") + above * figure("device", "allocator_fraction")
    return {**terms, "context": round(figure("device", "context_bytes")), "allocator": round(reserve)}


def allocated(terms: Mapping[str, int]) -> int:
    """The part of the terms that torch reports as allocated: all but the context and the allocator's reserve."""
    return sum(value for name, value in terms.items() if name not in RESERVE)
