"""The sizes of a model: what of it costs memory and time, known by flavour or read from a checkpoint's header."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ltx2_job.errors import CheckpointError, Problem
from ltx2_job.estimate.constants import constants


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

    @property
    def block_weights(self) -> int:
        """Weights of one block's linear layers, which a form stores and a placement moves: 16 D^2 + 20 A^2 + 4 D A.

        Video: self and text attention 4 D^2 each, feed-forward 8 D^2; audio the same in A; each crossing attention
        2 D A + 2 A^2.
        """
        wide, thin = self.width, self.audio_width
        return 16 * wide**2 + 20 * thin**2 + 4 * wide * thin

    @property
    def block_rows(self) -> int:
        """Output rows of those layers, each of which has a scale: 14 D + 20 A."""
        return 14 * self.width + 20 * self.audio_width


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
