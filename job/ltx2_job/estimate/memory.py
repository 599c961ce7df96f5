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
    above = sum(value for name, value in terms.items() if name not in ("weights", "slots"))
    return with_overhead(terms, device, above * figure("device", "allocator_fraction"))


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
        "decoding": _vae_bytes(clip, size),
    }
    return with_overhead(terms, device, terms["decoding"] * figure("device", "vae_allocator_fraction"))


def cache_terms(model: Model, clip: Shape, *, form: Form, device: Literal["cuda", "cpu"] = "cuda") -> Terms:
    """Bytes where VAEs and text encoder run, by part, in the largest of the cache stage's passes."""
    return _largest(cache_passes(model, clip, form=form, device=device))


def later_cache_terms(model: Model, clip: Shape) -> dict[str, Terms]:
    """The same for rungs that are not built yet: the text encoder's layers in int8, or two of them at a time."""
    embedding = min(round(figure("device", "text_embedding")), model.text_encoder)
    layers = model.text_encoder - embedding
    rungs = {
        "text encoder in int8": 2 * embedding + layers,
        "text encoder streamed": 2 * embedding + SLOTS * 2 * layers // round(figure("device", "text_layers")),
    }
    return {name: _largest(cache_passes(model, clip, form="bf16", encoder=encoder)) for name, encoder in rungs.items()}


def cache_passes(
    model: Model, clip: Shape, *, form: Form, device: Literal["cuda", "cpu"] = "cuda", encoder: int | None = None
) -> dict[str, Terms]:
    """Bytes of each pass of the cache stage: "video", "audio", "text". encoder: the text encoder's, if not in `form`.

    Each pass has one model in memory (ltx2_job.caching.encode), whatever offload_during_startup says.
    """
    size, encoding = FORM_BYTES[form], _vae_bytes(clip, FORM_BYTES[form])
    states = figure("device", "text_hidden_states") * model.text_tokens * model.text_width * size
    video = {"video encoder": (model.video_encoder + model.video_decoder) * size, "encoding": encoding}
    text = {
        "text encoder": model.text_encoder * size if encoder is None else encoder,
        "connectors": model.connectors * size,
        "hidden states": round(states * figure("device", "text_states_copies")),
    }
    return {
        "video": with_overhead(video, device, encoding * figure("device", "vae_allocator_fraction")),
        "audio": with_overhead({"audio encoder": model.audio * 4}, device, 0),
        "text": with_overhead(text, device, 0),
    }


def _largest(passes: Mapping[str, Terms]) -> Terms:
    return max(passes.values(), key=lambda terms: sum(terms.values()))


def _vae_bytes(clip: Shape, size: int) -> int:
    """What the video VAE needs beside its weights to encode or decode a clip; `size`: bytes of a value."""
    return round((figure("device", "vae_bytes") + clip.pixels * figure("device", "vae_bytes_per_pixel")) * size / 2)


def with_overhead(terms: Terms, device: str, reserve: float) -> Terms:
    """The terms and, on a GPU, the context and what torch reserves above what is in use: `reserve` and a constant."""
    if device == "cpu":
        return terms
    held = round(figure("device", "allocator_bytes") + reserve)
    return {**terms, "context": round(figure("device", "context_bytes")), "allocator": held}


def allocated(terms: Mapping[str, int]) -> int:
    """The part of the terms that torch reports as allocated: all but the context and the allocator's reserve."""
    return sum(value for name, value in terms.items() if name not in RESERVE)
