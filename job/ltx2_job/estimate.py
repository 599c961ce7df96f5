"""Memory and time model: model shape + batch shape + memory plan -> named terms in bytes, and seconds of a step.

Torch-free, so that the operator can plan a pod without importing it. Every figure that is not arithmetic stands in
estimate_constants.json with its source: counted, measured, fitted to a measurement, or predicted. D and A are the
widths of the video and the audio half, L the blocks, n the blocks not recomputed, N tokens times batch.

    weights        P x bytes of the form (bf16 2, fp32 4)
    lora           R x 4, R = L x rank x (20 D + 28 A): q, k, v, out of six attentions, rank x (in + out) each
    gradients      R x 4, one flat buffer;  optimizer  R x 8, both Adam moments (adamw_bf16: 2 and 4)
    activations    n x (video N x D + audio N x A + text N x (D + A)) x fitted bytes, what autograd keeps of a block
    block inputs   (L - n) x (N x D + N x A) x bytes of the form, what recomputation starts from
    workspace      one block's activations, as in recomputing it, and (video N x D + audio N x A) x fitted bytes of
                   gradients beside them
    rope           fp32 cosine and sine over half the width: 4 bytes x (D + 2 A) x N video, 4 x 2 A x N audio
    text, latents  the batch itself
    context        CUDA context and libraries (0 on a CPU)
    allocator      what torch reserves above what is in use: a constant and a share of all but the weights (0 on a CPU)

The sum of the terms is what nvidia-smi shows, and what a plan compares with the card. The figures of a training step
are calibrated on this trainer's own measurements; "calibration" in estimate_constants.json names the rows, and those
that were left out to check.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

from ltx2_job.errors import CheckpointError, Problem

GIB: Final = 2**30
LATENT_CHANNELS: Final = 128
SPATIAL_COMPRESSION: Final = 32
TEMPORAL_COMPRESSION: Final = 8
AUDIO_LATENTS_PER_SECOND: Final = 25
SLOWEST_FRAME_RATE: Final = 24.0  # common rate with the most sound per frame
WIDEST_ASPECT: Final = 16 / 9
FORM_BYTES: Final = {"bf16": 2, "fp32": 4}
OPTIMIZER_BYTES: Final = {"adamw": (4, 4, 8), "adamw_bf16": (2, 4, 4)}  # weights, gradients, moments per parameter

Form = Literal["bf16", "fp32"]
Terms = dict[str, int]


@cache
def constants() -> dict[str, Any]:
    """The table of figures and their sources."""
    loaded: dict[str, Any] = json.loads(files("ltx2_job").joinpath("estimate_constants.json").read_text())
    return loaded


def _figure(group: str, name: str) -> float:
    return float(constants()[group][name]["value"])


# -------------------------------------------------------------------------------------------------------------- shapes


@dataclass(frozen=True)
class Model:
    """What of a model costs memory and time: sizes of the transformer, parameter counts of every part."""

    blocks: int
    width: int
    audio_width: int
    text_tokens: int
    text_width: int
    transformer: int
    connectors: int
    text_encoder: int
    video_encoder: int
    video_decoder: int
    audio: int  # audio VAE and vocoder

    def adapter(self, rank: int) -> int:
        """LoRA parameters of q, k, v and out of all six attentions."""
        return self.blocks * rank * (20 * self.width + 28 * self.audio_width)


def known_model(name: str) -> Model:
    """The real sizes of a flavour (dev, 2.3-dev, ...) or of an entry of the table (2.0, 2.3, small).

    Raises KeyError for a name that has no sizes.
    """
    table = constants()
    entry = table["models"][table["flavours"].get(name, name)]
    return Model(**{key: value for key, value in entry.items() if key != "source"})


def read_model(path: Path, text_encoder: Path | None = None) -> Model:
    """The sizes of a checkpoint on this machine, from headers alone: a combined file or a diffusers folder.

    `text_encoder`: Gemma's folder, if it is elsewhere than beside the file. Raises CheckpointError where a header
    cannot be read or holds no LTX-2 transformer.
    """
    if path.is_dir():
        parts = {name: _headers(path / name) for name in ("transformer", "connectors", "vae", "audio_vae", "vocoder")}
        gemma = text_encoder or path / "text_encoder"
    else:
        parts = _parts(_header(path))
        gemma = text_encoder or path.parent / "gemma"
    transformer, vae = parts["transformer"], parts["vae"]
    video_in = transformer.get("patchify_proj.weight") or transformer.get("proj_in.weight")
    audio_in = transformer.get("audio_patchify_proj.weight") or transformer.get("audio_proj_in.weight")
    blocks = {name.split(".")[1] for name in transformer if name.startswith("transformer_blocks.")}
    if not (video_in and audio_in and blocks):
        raise CheckpointError(Problem("model", f"{path} holds no LTX-2 transformer", "name a combined LTX-2 file"))
    registers = next((shape for name, shape in parts["connectors"].items() if name.endswith("registers")), video_in)
    return Model(
        blocks=len(blocks),
        width=video_in[0],
        audio_width=audio_in[0],
        text_tokens=known_model("2.0").text_tokens,
        text_width=registers[-1],
        transformer=_count(transformer),
        connectors=_count(parts["connectors"]),
        text_encoder=_count(_headers(gemma)),
        video_encoder=_count({name: shape for name, shape in vae.items() if name.startswith("encoder.")}),
        video_decoder=_count({name: shape for name, shape in vae.items() if name.startswith("decoder.")}),
        audio=_count(parts["audio_vae"]) + _count(parts["vocoder"]),
    )


Header = dict[str, list[int]]  # tensor name -> shape


def _header(path: Path) -> Header:
    """Names and shapes of a safetensors file: 8 bytes little-endian length, then JSON."""
    try:
        with path.open("rb") as file:
            entries = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return {name: entry["shape"] for name, entry in entries.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError, OverflowError) as error:
        raise CheckpointError(Problem("model", f"{path}: no safetensors header ({error})")) from None


def _headers(folder: Path) -> Header:
    return {name: shape for file in sorted(folder.glob("*.safetensors")) for name, shape in _header(file).items()}


def _parts(header: Header) -> dict[str, Header]:
    """A combined file's tensors by part, prefixes stripped; the longest prefix that fits a name decides."""
    prefixes = {
        "model.diffusion_model.video_embeddings_connector.": "connectors",
        "model.diffusion_model.audio_embeddings_connector.": "connectors",
        "text_embedding_projection.": "connectors",
        "model.diffusion_model.": "transformer",
        "vae.": "vae",
        "audio_vae.": "audio_vae",
        "vocoder.": "vocoder",
    }
    parts: dict[str, Header] = {part: {} for part in prefixes.values()}
    for name, sizes in header.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is not None:
            key = name if prefixes[prefix] == "connectors" else name.removeprefix(prefix)
            parts[prefixes[prefix]][key] = sizes
    return parts


def _count(header: Header) -> int:
    return sum(math.prod(sizes) for sizes in header.values())


@dataclass(frozen=True)
class Shape:
    """The largest batch of one process: `area` latent positions per frame, sizes in pixels and frames."""

    batch: int
    area: float
    frames: int
    audio_latents: int

    @property
    def video_tokens(self) -> int:
        """Video tokens of one clip: latent frames x latent area, (8k+1) frames making k+1."""
        return math.ceil(((self.frames - 1) // TEMPORAL_COMPRESSION + 1) * self.area)

    @property
    def pixels(self) -> float:
        """Pixels of one clip, all frames."""
        return self.frames * self.area * SPATIAL_COMPRESSION**2


def shape(width: int, height: int, frames: int, batch: int = 1, *, sound: bool = True) -> Shape:
    """The shape of clips of a known size."""
    area = width / SPATIAL_COMPRESSION * height / SPATIAL_COMPRESSION
    return Shape(batch, area, frames, audio_latents(frames) if sound else 0)


def audio_latents(frames: int, frame_rate: float = SLOWEST_FRAME_RATE) -> int:
    """Audio latents beside so many frames: F / fps x 25."""
    return round(frames / frame_rate * AUDIO_LATENTS_PER_SECOND)


def latent_area(resolution: float, kind: Literal["pixel_area", "pixel", "area"]) -> float:
    """The most latent positions of a frame for a data set's `resolution`, sides being rounded to the grid of 32.

    pixel_area: edge of the square of equal area; area: megapixels; pixel: shorter edge, the longer one at most 16:9.
    """
    edge = math.sqrt(resolution * 1e6) if kind == "area" else resolution
    short = edge / SPATIAL_COMPRESSION + 0.5
    long = short if kind != "pixel" else edge * WIDEST_ASPECT / SPATIAL_COMPRESSION + 0.5
    return short * long


# --------------------------------------------------------------------------------------------------------------- terms


def training_terms(
    model: Model,
    batch: Shape,
    *,
    form: Form,
    keep: int,
    rank: int,
    optimizer: str = "adamw",
    device: Literal["cuda", "cpu"] = "cuda",
) -> Terms:
    """Bytes on the device at the peak of an optimizer step, by part. `keep`: blocks that are not recomputed."""
    size, scale = FORM_BYTES[form], FORM_BYTES[form] / 2  # fitted figures are those of bf16
    kept = min(keep, model.blocks)
    video, audio = batch.batch * batch.video_tokens, batch.batch * batch.audio_latents
    text = batch.batch * model.text_tokens
    elements = video * model.width + audio * model.audio_width  # of what one block hands to the next
    block = scale * (
        elements * _figure("activations", "token_bytes_per_width")
        + text * (model.width + model.audio_width) * _figure("activations", "text_bytes_per_width")
    )
    weights, gradients, moments = (part * model.adapter(rank) for part in OPTIMIZER_BYTES[optimizer])
    terms = {
        "weights": model.transformer * size,
        "lora": weights,
        "gradients": gradients,
        "optimizer": moments,
        "activations": round(kept * block),
        "block inputs": (model.blocks - kept) * elements * size,
        "workspace": round(block + scale * elements * _figure("activations", "gradient_bytes_per_width")),
        "rope": 4 * (video * (model.width + 2 * model.audio_width) + audio * 2 * model.audio_width),
        "text": text * 2 * model.text_width * 2,
        "latents": (video + audio) * LATENT_CHANNELS * 4 * 4,  # clean, noise, mixed and target, fp32
    }
    return _with_overhead(terms, device)


def validation_terms(
    model: Model,
    clip: Shape,
    *,
    form: Form,
    rank: int,
    optimizer: str = "adamw",
    device: Literal["cuda", "cpu"] = "cuda",
) -> Terms:
    """Bytes on the device while a sample clip is decoded: the training's own state stays where it is."""
    state = sum(OPTIMIZER_BYTES[optimizer]) * model.adapter(rank)
    size = FORM_BYTES[form]
    terms = {
        "weights": model.transformer * size,
        "lora, gradients, optimizer": state,
        "decoders": max((model.video_decoder + model.video_encoder) * size, model.audio * 4),  # one after the other
        "decoding": round(clip.pixels * _figure("device", "vae_bytes_per_pixel") * size / 2),
    }
    return _with_overhead(terms, device)


def cache_terms(model: Model, clip: Shape, *, form: Form, device: Literal["cuda", "cpu"] = "cuda") -> Terms:
    """Bytes where VAEs and text encoder run, by part, in the largest of the cache stage's passes.

    Each pass has one model in memory (ltx2_job.caching.encode), whatever offload_during_startup says.
    """
    size = FORM_BYTES[form]
    states = _figure("device", "text_hidden_states") * model.text_tokens * model.text_width
    passes: list[Terms] = [
        {
            "video encoder": (model.video_encoder + model.video_decoder) * size,
            "encoding": round(clip.pixels * _figure("device", "vae_bytes_per_pixel") * size / 2),
        },
        {"audio encoder": model.audio * 4},
        {
            "text encoder": model.text_encoder * size,
            "connectors": model.connectors * size,
            "hidden states": round(2 * states * size),  # as they leave the encoder, and stacked for the connectors
        },
    ]
    return _with_overhead(max(passes, key=lambda part: sum(part.values())), device)


def _with_overhead(terms: Terms, device: str) -> Terms:
    if device == "cpu":
        return terms
    above = sum(value for name, value in terms.items() if name != "weights")
    reserve = _figure("device", "allocator_bytes") + above * _figure("device", "allocator_fraction")
    return {**terms, "context": round(_figure("device", "context_bytes")), "allocator": round(reserve)}


def allocated(terms: Mapping[str, int]) -> int:
    """The part of the terms that torch reports as allocated: all but the context and the allocator's reserve."""
    return sum(value for name, value in terms.items() if name not in ("context", "allocator"))


# ---------------------------------------------------------------------------------------------------------------- time


def forward_flop(model: Model, batch: Shape) -> float:
    """Floating point operations of one forward pass of a batch: products with the weights, and attention.

    Weights a token meets in a block (2 operations each): video 14 D^2 + 4 D A (self 4, text 2, feed-forward 8, both
    crossings), audio 18 A^2, text 2 (D^2 + A^2). Attention of N queries over M keys of width W adds 4 N M W.
    """
    wide, thin, text = model.width, model.audio_width, model.text_tokens
    video, audio = batch.video_tokens, batch.audio_latents
    products = video * (14 * wide**2 + 4 * wide * thin) + audio * 18 * thin**2 + text * 2 * (wide**2 + thin**2)
    pairs = wide * video * (video + text) + thin * audio * (audio + text) + 2 * thin * video * audio
    return batch.batch * model.blocks * (2.0 * products + 4.0 * pairs)


def seconds_per_step(model: Model, batch: Shape, *, keep: int, accumulation: int, tflops: float) -> float:
    """Seconds of an optimizer step at this data sheet rate: the larger of arithmetic and kernel launches."""
    recomputed = (model.blocks - min(keep, model.blocks)) / model.blocks
    passes = 1 + _figure("time", "backward_factor") + recomputed
    rate = tflops * 1e12 * _figure("time", "matmul_fraction")
    launches = model.blocks * (2 + recomputed) * _figure("time", "eager_seconds_per_block_pass")
    return accumulation * max(forward_flop(model, batch) * passes / rate, launches)


# ---------------------------------------------------------------------------------------------------------- host, disk


@dataclass(frozen=True)
class Host:
    """What a pod needs beside the device, for all processes of one node. Bytes; CPU in thousandths of a core."""

    cpu_milli: int
    memory: int
    shm: int
    scratch: int


def host(device: Literal["cuda", "cpu"], processes: int, extra: int) -> Host:
    """Resources of a pod. `extra`: bytes each process holds in host memory beside its own start, such as weights."""
    kind = "cpu" if device == "cpu" else "gpu"
    shm = _figure("host", "shm_bytes" if processes > 1 else "shm_bytes_single") * processes
    each = _figure("host", f"{kind}_process_bytes") + extra
    if device != "cpu":
        each += _figure("host", "spare_bytes")
    return Host(
        cpu_milli=round(_figure("host", f"{kind}_cpu_milli")) * processes,
        memory=round_up(processes * each + shm, GIB),
        shm=round(shm),
        scratch=round(_figure("host", f"{kind}_scratch_bytes")),
    )


def decoded_clips(clip: Shape, form: Form) -> int:
    """Host bytes of the clips that the cache stage has decoded ahead of the video encoder: 3 values a pixel."""
    return round(_figure("host", "decoded_ahead") * clip.pixels * 3 * FORM_BYTES[form])


def volume(model: Model, clip: Shape, *, rank: int, checkpoints: int, downloads: bool) -> int:
    """Bytes on the volume: downloads, sources, cache, checkpoints, samples; rounded up to 10 GiB with a fifth to spare.

    The number of clips is not known before the volume is mounted; estimate_constants.json says what is assumed.
    """
    clips = _figure("disk", "clips")
    latents = clip.video_tokens * LATENT_CHANNELS * 2 + clip.audio_latents * LATENT_CHANNELS * 4
    need = clips * (_figure("disk", "caption_bytes") + _figure("disk", "source_bytes_per_clip") + latents)
    need += (checkpoints + 2) * 12 * model.adapter(rank) + _figure("disk", "samples_bytes")
    if downloads:
        parts = model.transformer + model.connectors + model.video_encoder + model.video_decoder + model.audio
        need += 2 * (parts + model.text_encoder)
    return round_up(1.2 * need, 10 * GIB)


def round_up(value: float, unit: int) -> int:
    """The next multiple of a unit."""
    return math.ceil(value / unit) * unit
