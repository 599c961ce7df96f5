"""Which LTX-2 a file holds: refusals by name, the generation, and the sizes, read off the tensors' shapes.

Shapes are the truth for sizes. Where a tensor that would tell a size is absent, the published size stands in, so that
the comparison that follows can still list what is missing. Torch-free.
"""

import re
from collections.abc import Mapping

from ltx2_job.models.header import Header, fault
from ltx2_job.models.layout import (
    PREFIX,
    Architecture,
    AudioVAE,
    Connector,
    Generator,
    Shape,
    Text,
    Transformer,
    Version,
    VideoVAE,
    Vocoder,
)

_SUPPORTED = "take the bf16 file of LTX-2 (ltx-2-19b-dev) or LTX-2.3"
_FLOAT_TYPES = {"BF16", "F32"}
_QUANTISED = {
    "F8_E4M3": "fp8", "F8_E5M2": "fp8", "F8_E8M0": "fp8", "U8": "fp4 or another packed format", "I8": "int8 (convrot)",
}  # fmt: skip


def refuse_unsupported(header: Header) -> None:
    """Raise CheckpointError for files that are known but not supported yet, and for files that are no LTX-2 at all.

    Known: fp8, fp4 and int8 flavours, LTX-2.5 (whole or in parts), LTX-Video 0.9, LoRA files.
    """
    names, path = header.tensors, header.path
    if any(name.endswith((".lora_A.weight", ".lora_down.weight")) for name in names):
        raise fault(
            f"{path} is a LoRA, not a model", "name the base model here, and the LoRA where a LoRA is asked for"
        )
    refuse_quantised(header)
    stamp = header.metadata.get("model_version", "")
    newer = stamp and not stamp.startswith(("2.0", "2.3"))
    if newer or "gemma_source_checkpoint" in header.metadata or f"{PREFIX}keyframes_abs_pos_embedding" in names:
        raise fault(f"{path} is LTX-{'.'.join(stamp.split('.')[:2]) or '2.5'}: not supported yet", _SUPPORTED)
    if f"{PREFIX}patchify_proj.weight" not in names:
        raise fault(f"{path} holds no LTX-2 transformer (no tensor {PREFIX}patchify_proj.weight)",
                    "name the combined file; parts of a split pack are not supported yet")  # fmt: skip
    if f"{PREFIX}audio_patchify_proj.weight" not in names:
        width = names[f"{PREFIX}patchify_proj.weight"].shape[0]
        raise fault(
            f"{path} has no audio stream (no tensor audio_patchify_proj.weight; patchify_proj.weight has {width} rows, "
            "LTX-2 has 4096); is this file LTX-Video 0.9?",
            _SUPPORTED,
        )


def refuse_quantised(header: Header) -> None:
    """Raise CheckpointError for weights that are not plain bf16 or fp32: fp8, fp4 and int8 flavours."""
    path = header.path
    for name, entry in header.tensors.items():
        if name.endswith((".weight_scale", ".scale_weight", ".comfy_quant", ".weight_scale_2", ".scaled_fp8")):
            raise fault(f"{path} is quantised (it holds {_short(name)}): not supported yet", _SUPPORTED)
        if entry.dtype not in _FLOAT_TYPES:
            form = _QUANTISED.get(entry.dtype, entry.dtype)
            raise fault(f"{path} holds {form} weights ({_short(name)}): not supported yet", _SUPPORTED)
    if "_quantization_metadata" in header.metadata:
        raise fault(f"{path} is quantised (its header has _quantization_metadata): not supported yet", _SUPPORTED)


def version_of(header: Header) -> Version:
    """The generation, decided from the tensors and checked against `model_version` if the file has one."""
    gated = any(".to_gate_logits." in name or ".video_aggregate_embed." in name for name in header.tensors)
    version: Version = "2.3" if gated else "2.0"
    stamp = header.metadata.get("model_version", "")
    if stamp and not stamp.startswith(version):
        raise fault(f"{header.path}: the header says model_version {stamp}, the tensors are those of {version}")
    return version


def derive(header: Header, version: Version | None = None) -> Architecture:
    """The architecture that the shapes describe, as one of `version` if that is given.

    Raises CheckpointError where no sizes can be read at all. Whether every tensor fits the sizes is for the
    comparison with layout.tensors to say.
    """
    version = version or version_of(header)
    look = _Look({name: entry.shape for name, entry in header.tensors.items()})
    heads = header.section("transformer").get("num_attention_heads")
    if not isinstance(heads, int) or heads < 1:
        raise fault(f"{header.path}: the header's config has no transformer.num_attention_heads, which no tensor tells",
                    "take the official file: some repacked files lose their header")  # fmt: skip
    transformer = _transformer(look, heads)
    return Architecture(
        version=version,
        transformer=transformer,
        text=_text(look, header, version, transformer),
        vae=_video_vae(look, version),
        audio_vae=_audio_vae(look),
        vocoder=_vocoder(look, header, version),
    )


class _Look:
    """Reads sizes off shapes; a tensor that is not there answers with the published size."""

    def __init__(self, shapes: Mapping[str, Shape]):
        self.shapes = shapes

    def size(self, name: str, axis: int, published: int) -> int:
        shape = self.shapes.get(name, ())
        return shape[axis] if len(shape) > axis and shape[axis] > 0 else published

    def count(self, prefix: str, published: int) -> int:
        """One more than the highest index behind `prefix`."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        indices = {int(match[1]) for name in self.shapes if (match := pattern.match(name))}
        return max(indices) + 1 if indices else published


def _divided(width: int, heads: int, what: str) -> int:
    if width % heads:
        raise fault(f"{what} is {width} wide, which {heads} heads do not divide")
    return width // heads


def _transformer(look: _Look, heads: int) -> Transformer:
    width = look.size(f"{PREFIX}patchify_proj.weight", 0, 4096)
    audio_width = look.size(f"{PREFIX}audio_patchify_proj.weight", 0, 2048)
    return Transformer(
        blocks=look.count(f"{PREFIX}transformer_blocks.", 48),
        heads=heads,
        head_dim=_divided(width, heads, "patchify_proj"),
        audio_head_dim=_divided(audio_width, heads, "audio_patchify_proj"),
        channels=look.size(f"{PREFIX}patchify_proj.weight", 1, 128),
        audio_channels=look.size(f"{PREFIX}audio_patchify_proj.weight", 1, 128),
    )


def _text(look: _Look, header: Header, version: Version, transformer: Transformer) -> Text:
    section = header.section("transformer")
    heads = int(section.get("connector_num_attention_heads", 30 if version == "2.0" else 32))
    audio_heads = int(section.get("audio_connector_num_attention_heads", heads))
    if version == "2.0":
        hidden = look.size("text_embedding_projection.aggregate_embed.weight", 0, 3840)
        inputs = look.size("text_embedding_projection.aggregate_embed.weight", 1, 49 * hidden)
        widths = hidden, hidden
    else:
        hidden = int(section.get("caption_channels", 3840))
        inputs = look.size("text_embedding_projection.video_aggregate_embed.weight", 1, 49 * hidden)
        widths = transformer.width, transformer.audio_width
    if hidden < 1 or inputs % hidden:
        raise fault(f"the text projection reads {inputs} numbers a token, no multiple of caption_channels {hidden}")
    connectors = [
        Connector(
            heads=count,
            head_dim=_divided(look.size(f"{PREFIX}{name}.learnable_registers", 1, width), count, name),
            layers=look.count(f"{PREFIX}{name}.transformer_1d_blocks.", 2 if version == "2.0" else 8),
        )
        for name, count, width in (
            ("video_embeddings_connector", heads, widths[0]),
            ("audio_embeddings_connector", audio_heads, widths[1]),
        )
    ]
    return Text(hidden, inputs // hidden, connectors[0], connectors[1])


def _video_vae(look: _Look, version: Version) -> VideoVAE:
    new = version == "2.3"
    encoder, encoder_layers = (128, 256, 512, 1024, 1024 if new else 2048), (4, 6, 4 if new else 6, 2, 2)
    decoder: Shape = (1024, 512, 256, 128)
    decoder_layers: Shape = (5, 5, 5, 5)
    if new:
        decoder, decoder_layers = (1024, 512, 512, 256, 128), (2, 2, 4, 6, 4)

    def read(prefix: str, widths: Shape, layers: Shape) -> tuple[Shape, Shape]:
        return (
            tuple(look.size(f"{prefix}.{2 * k}.res_blocks.0.conv1.conv.weight", 0, w) for k, w in enumerate(widths)),
            tuple(look.count(f"{prefix}.{2 * k}.res_blocks.", n) for k, n in enumerate(layers)),
        )

    inner = read("vae.encoder.down_blocks", encoder, encoder_layers)
    outer = read("vae.decoder.up_blocks", decoder, decoder_layers)
    return VideoVAE(look.size("vae.encoder.conv_in.conv.weight", 0, 128), *inner, *outer)


def _audio_vae(look: _Look) -> AudioVAE:
    base = look.size("audio_vae.encoder.conv_in.conv.weight", 0, 128)
    levels = look.count("audio_vae.encoder.down.", 3)
    widths = [
        look.size(f"audio_vae.encoder.down.{level}.block.0.conv1.conv.weight", 0, base * 2**level)
        for level in range(levels)
    ]
    if any(width % base for width in widths):
        raise fault(f"audio_vae: widths {widths} are no multiples of the first one, {base}")
    return AudioVAE(
        base=base,
        multipliers=tuple(width // base for width in widths),
        blocks=look.count("audio_vae.encoder.down.0.block.", 2),
        latent_channels=look.size("audio_vae.encoder.conv_out.conv.weight", 0, 16) // 2,
        channels=look.size("audio_vae.encoder.conv_in.conv.weight", 1, 2),
    )


def _generator(look: _Look, name: str, published: Generator, rates: object, dilations: object) -> Generator:
    kernels = tuple(
        look.size(f"{name}.ups.{stage}.weight", 2, published.kernels[stage % len(published.kernels)])
        for stage in range(look.count(f"{name}.ups.", len(published.kernels)))
    )
    try:
        rates = tuple(int(rate) for rate in rates) if isinstance(rates, list) else published.rates
        dilated = (
            tuple(tuple(int(step) for step in steps) for steps in dilations)
            if isinstance(dilations, list)
            else published.dilations
        )
    except (TypeError, ValueError) as error:
        raise fault(f"the header's config of {name} has unreadable upsample_rates or dilations") from error
    if len(rates) != len(kernels):
        raise fault(f"{name}: the header's upsample_rates {list(rates)} do not belong to {len(kernels)} stages")
    branches = look.count(f"{name}.resblocks.", 3 * len(kernels)) // max(len(kernels), 1)
    if branches != len(dilated):
        raise fault(f"{name}: {branches} residual branches, the header has {len(dilated)} rows of dilations")
    return Generator(
        hidden=look.size(f"{name}.conv_pre.weight", 0, published.hidden),
        rates=rates,
        kernels=kernels,
        block_kernels=tuple(look.size(f"{name}.resblocks.{b}.convs1.0.weight", 2, 3) for b in range(branches)),
        dilations=dilated,
        inputs=look.size(f"{name}.conv_pre.weight", 1, published.inputs),
        channels=look.size(f"{name}.conv_post.weight", 0, published.channels),
    )


MAIN = {
    "2.0": Generator(1024, (6, 5, 2, 2, 2), (16, 15, 8, 4, 4)),
    "2.3": Generator(1536, (5, 2, 2, 2, 2, 2), (11, 4, 4, 4, 4, 4)),
}
BWE = Generator(512, (6, 5, 2, 2, 2), (12, 11, 4, 4, 4))


def _vocoder(look: _Look, header: Header, version: Version) -> Vocoder:
    section = header.section("vocoder")

    def generator(name: str, part: Mapping[str, object], published: Generator) -> Generator:
        return _generator(look, name, published, part.get("upsample_rates"), part.get("resblock_dilation_sizes"))

    if version == "2.0":
        rate = int(section.get("output_sampling_rate", 24000))
        return Vocoder(generator("vocoder", section, MAIN["2.0"]), output_rate=rate)
    inner, bwe = section.get("vocoder") or {}, section.get("bwe") or {}
    return Vocoder(
        generator("vocoder.vocoder", inner, MAIN["2.3"]),
        generator("vocoder.bwe_generator", bwe, BWE),
        n_fft=look.size("vocoder.mel_stft.stft_fn.forward_basis", 2, 512),
        mel_bins=look.size("vocoder.mel_stft.mel_basis", 0, 64),
        hop=int(bwe.get("hop_length", 80)),
        input_rate=int(bwe.get("input_sampling_rate", 16000)),
        output_rate=int(bwe.get("output_sampling_rate", 48000)),
    )


def _short(name: str) -> str:
    return name.removeprefix(PREFIX)
