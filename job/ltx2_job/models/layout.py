"""What an LTX-2 file must contain: the architecture as numbers, and from it every official tensor name with its shape.

The official single-file layout (LTX-2 monorepo, commit 400fd31), generations 2.0 (19B) and 2.3 (22B):

    model.diffusion_model.*                                  transformer
    model.diffusion_model.{video,audio}_embeddings_connector.*   text connectors
    text_embedding_projection.*                              projection of the text encoder's layers
    vae.*   audio_vae.*   vocoder.*                          autoencoders and vocoder

What differs between the generations moves together: 2.3 has gated attention, text cross-attention modulation, a
projection per modality before the connectors, another video decoder and a vocoder with bandwidth extension. Torch-free:
a whole file is checked in milliseconds from its header.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Version = Literal["2.0", "2.3"]
Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

PREFIX: Final = "model.diffusion_model."
REGISTERS: Final = 128  # learnable registers of a connector, hard-wired in the official code
TIMESTEP_FREQUENCIES: Final = 256  # sinusoid features in front of every timestep embedder
ANTIALIAS_TAPS: Final = 12  # length of the vocoder's low-pass filters

# Factors (time, height, width) by which a resampling stage of the video VAE changes the grid.
STRIDES: Final = {"space": (1, 2, 2), "time": (2, 1, 1), "all": (2, 2, 2)}
ENCODER_STAGES: Final = ("space", "time", "all", "all")
# From the latents outwards, as `up_blocks` are numbered: kind, and the factor by which the width shrinks.
DECODER_STAGES: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "2.0": (("all", 2), ("all", 2), ("all", 2)),
    "2.3": (("all", 2), ("all", 1), ("time", 2), ("space", 2)),
}

# 2.0 ships three statistics of the video VAE that no reader uses; the only tensors that may be skipped.
UNUSED: Final = tuple(
    f"vae.per_channel_statistics.{name}" for name in ("channel", "mean-of-stds", "mean-of-stds_over_std-of-means")
)


@dataclass(frozen=True)
class Transformer:
    """Sizes of the two-stream transformer; video width = heads x head_dim, audio width = heads x audio_head_dim."""

    blocks: int
    heads: int
    head_dim: int
    audio_head_dim: int
    channels: int  # video latent channels, in and out
    audio_channels: int  # audio latent channels after packing, in and out

    width = property(lambda self: self.heads * self.head_dim)
    audio_width = property(lambda self: self.heads * self.audio_head_dim)


@dataclass(frozen=True)
class Connector:
    """One text connector: a small transformer over the caption's tokens."""

    heads: int
    head_dim: int
    layers: int

    width = property(lambda self: self.heads * self.head_dim)


@dataclass(frozen=True)
class Text:
    """Text path: `states` (layers + 1) hidden states of `hidden` channels go in, a sequence per modality comes out."""

    hidden: int
    states: int
    video: Connector
    audio: Connector


@dataclass(frozen=True)
class VideoVAE:
    """Widths and numbers of residual blocks: encoder from the pixels inwards, decoder from the latents outwards."""

    latent_channels: int
    encoder_widths: tuple[int, ...]
    encoder_layers: tuple[int, ...]
    decoder_widths: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    patch: int = 4
    colours: int = 3


@dataclass(frozen=True)
class AudioVAE:
    """Sizes of the mel autoencoder: widths are base x multiplier per level."""

    base: int
    multipliers: tuple[int, ...]
    blocks: int
    latent_channels: int
    channels: int = 2
    mel_bins: int = 64


@dataclass(frozen=True)
class Generator:
    """One HiFi-GAN / BigVGAN generator: mel frames in, samples out, `rates` upsampling stages that halve the width."""

    hidden: int
    rates: tuple[int, ...]
    kernels: tuple[int, ...]
    block_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    inputs: int = 128  # stereo x 64 mel bins, hard-wired
    channels: int = 2


@dataclass(frozen=True)
class Vocoder:
    """2.0: one generator; 2.3: a second one (`bwe`) reads the first one's output as mel and adds the upper band."""

    main: Generator
    bwe: Generator | None = None
    n_fft: int = 512
    mel_bins: int = 64
    hop: int = 80
    input_rate: int = 16000
    output_rate: int = 24000


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the names and shapes of a single file."""

    version: Version
    transformer: Transformer
    text: Text
    vae: VideoVAE
    audio_vae: AudioVAE
    vocoder: Vocoder

    @property
    def gated(self) -> bool:
        """2.3: gated attention, text modulation and projections per modality."""
        return self.version == "2.3"


def tensors(arch: Architecture) -> dict[str, Shape]:
    """Every tensor that a file of this architecture must contain: official name -> shape; the unused ones excepted."""
    named = dict(_transformer(arch))
    named.update(_text(arch))
    named.update(_video_vae(arch))
    named.update(_audio_vae(arch.audio_vae))
    named.update(_vocoder(arch))
    return named


def dtype_of(name: str) -> str:
    """The safetensors type of a tensor in an official bf16 file: modulation tables are F32, all else is BF16."""
    return "F32" if "scale_shift_table" in name else "BF16"


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _conv(name: str, outputs: int, inputs: int, *kernel: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (outputs, inputs, *kernel)
    if bias:
        yield f"{name}.bias", (outputs,)


def _feed_forward(name: str, width: int) -> Named:
    yield from _linear(f"{name}.net.0.proj", 4 * width, width)
    yield from _linear(f"{name}.net.2", width, 4 * width)


def _attention(name: str, query: int, context: int, inner: int, heads: int, gated: bool) -> Named:
    """Queries of width `query` attend to `context` in `inner` channels; q and k are RMS-normed over all of them."""
    yield from _linear(f"{name}.to_q", inner, query)
    yield from _linear(f"{name}.to_k", inner, context)
    yield from _linear(f"{name}.to_v", inner, context)
    yield from _linear(f"{name}.to_out.0", query, inner)
    yield f"{name}.q_norm.weight", (inner,)
    yield f"{name}.k_norm.weight", (inner,)
    if gated:
        yield from _linear(f"{name}.to_gate_logits", heads, query)


def _modulation(name: str, width: int, rows: int) -> Named:
    """An adaLN-single: timestep embedder and one linear for `rows` vectors of `width`."""
    yield from _linear(f"{name}.emb.timestep_embedder.linear_1", width, TIMESTEP_FREQUENCIES)
    yield from _linear(f"{name}.emb.timestep_embedder.linear_2", width, width)
    yield from _linear(f"{name}.linear", rows * width, width)


def _transformer(arch: Architecture) -> Named:
    sizes, video, audio = arch.transformer, arch.transformer.width, arch.transformer.audio_width
    rows = 9 if arch.gated else 6
    yield from _linear(f"{PREFIX}patchify_proj", video, sizes.channels)
    yield from _linear(f"{PREFIX}audio_patchify_proj", audio, sizes.audio_channels)
    yield from _linear(f"{PREFIX}proj_out", sizes.channels, video)
    yield from _linear(f"{PREFIX}audio_proj_out", sizes.audio_channels, audio)
    yield f"{PREFIX}scale_shift_table", (2, video)
    yield f"{PREFIX}audio_scale_shift_table", (2, audio)
    yield from _modulation(f"{PREFIX}adaln_single", video, rows)
    yield from _modulation(f"{PREFIX}audio_adaln_single", audio, rows)
    yield from _modulation(f"{PREFIX}av_ca_video_scale_shift_adaln_single", video, 4)
    yield from _modulation(f"{PREFIX}av_ca_audio_scale_shift_adaln_single", audio, 4)
    yield from _modulation(f"{PREFIX}av_ca_a2v_gate_adaln_single", video, 1)
    yield from _modulation(f"{PREFIX}av_ca_v2a_gate_adaln_single", audio, 1)
    if arch.gated:
        yield from _modulation(f"{PREFIX}prompt_adaln_single", video, 2)
        yield from _modulation(f"{PREFIX}audio_prompt_adaln_single", audio, 2)
    else:
        for name, width in (("caption_projection", video), ("audio_caption_projection", audio)):
            yield from _linear(f"{PREFIX}{name}.linear_1", width, arch.text.hidden)
            yield from _linear(f"{PREFIX}{name}.linear_2", width, width)
    for index in range(sizes.blocks):
        yield from _block(f"{PREFIX}transformer_blocks.{index}", sizes.heads, video, audio, rows, arch.gated)


def _block(name: str, heads: int, video: int, audio: int, rows: int, gated: bool) -> Named:
    yield from _attention(f"{name}.attn1", video, video, video, heads, gated)
    yield from _attention(f"{name}.attn2", video, video, video, heads, gated)
    yield from _attention(f"{name}.audio_attn1", audio, audio, audio, heads, gated)
    yield from _attention(f"{name}.audio_attn2", audio, audio, audio, heads, gated)
    yield from _attention(f"{name}.audio_to_video_attn", video, audio, audio, heads, gated)
    yield from _attention(f"{name}.video_to_audio_attn", audio, video, audio, heads, gated)
    yield from _feed_forward(f"{name}.ff", video)
    yield from _feed_forward(f"{name}.audio_ff", audio)
    yield f"{name}.scale_shift_table", (rows, video)
    yield f"{name}.audio_scale_shift_table", (rows, audio)
    if gated:
        yield f"{name}.prompt_scale_shift_table", (2, video)
        yield f"{name}.audio_prompt_scale_shift_table", (2, audio)
    yield f"{name}.scale_shift_table_a2v_ca_video", (5, video)
    yield f"{name}.scale_shift_table_a2v_ca_audio", (5, audio)


def _text(arch: Architecture) -> Named:
    text, inputs = arch.text, arch.text.hidden * arch.text.states
    if arch.gated:
        yield from _linear("text_embedding_projection.video_aggregate_embed", text.video.width, inputs)
        yield from _linear("text_embedding_projection.audio_aggregate_embed", text.audio.width, inputs)
    else:
        yield from _linear("text_embedding_projection.aggregate_embed", text.hidden, inputs, bias=False)
    for modality, connector in (("video", text.video), ("audio", text.audio)):
        name, width = f"{PREFIX}{modality}_embeddings_connector", connector.width
        yield f"{name}.learnable_registers", (REGISTERS, width)
        for index in range(connector.layers):
            block = f"{name}.transformer_1d_blocks.{index}"
            yield from _attention(f"{block}.attn1", width, width, width, connector.heads, arch.gated)
            yield from _feed_forward(f"{block}.ff", width)


def _video_vae(arch: Architecture) -> Named:
    vae, cube = arch.vae, (3, 3, 3)
    patched = vae.colours * vae.patch**2
    yield from _conv("vae.encoder.conv_in.conv", vae.latent_channels, patched, *cube)
    for stage, (width, layers) in enumerate(zip(vae.encoder_widths, vae.encoder_layers, strict=True)):
        yield from _res_blocks(f"vae.encoder.down_blocks.{2 * stage}", width, layers)
        if stage < len(ENCODER_STAGES):
            time, height, breadth = STRIDES[ENCODER_STAGES[stage]]
            outputs = vae.encoder_widths[stage + 1] // (time * height * breadth)
            yield from _conv(f"vae.encoder.down_blocks.{2 * stage + 1}.conv.conv", outputs, width, *cube)
    # One mean per latent channel and one log-variance for all.
    yield from _conv("vae.encoder.conv_out.conv", vae.latent_channels + 1, vae.encoder_widths[-1], *cube)
    stages = DECODER_STAGES[arch.version]
    yield from _conv("vae.decoder.conv_in.conv", vae.decoder_widths[0], vae.latent_channels, *cube)
    for stage, (width, layers) in enumerate(zip(vae.decoder_widths, vae.decoder_layers, strict=True)):
        yield from _res_blocks(f"vae.decoder.up_blocks.{2 * stage}", width, layers)
        if stage < len(stages):
            kind, shrink = stages[stage]
            time, height, breadth = STRIDES[kind]
            outputs = width * time * height * breadth // shrink
            yield from _conv(f"vae.decoder.up_blocks.{2 * stage + 1}.conv.conv", outputs, width, *cube)
    yield from _conv("vae.decoder.conv_out.conv", patched, vae.decoder_widths[-1], *cube)
    yield "vae.per_channel_statistics.mean-of-means", (vae.latent_channels,)
    yield "vae.per_channel_statistics.std-of-means", (vae.latent_channels,)


def _res_blocks(name: str, width: int, layers: int) -> Named:
    for index in range(layers):
        yield from _conv(f"{name}.res_blocks.{index}.conv1.conv", width, width, 3, 3, 3)
        yield from _conv(f"{name}.res_blocks.{index}.conv2.conv", width, width, 3, 3, 3)
    # Activations and norms of the video VAE have no weights.


def _audio_block(name: str, inputs: int, outputs: int) -> Named:
    yield from _conv(f"{name}.conv1.conv", outputs, inputs, 3, 3)
    yield from _conv(f"{name}.conv2.conv", outputs, outputs, 3, 3)
    if inputs != outputs:
        yield from _conv(f"{name}.nin_shortcut.conv", outputs, inputs, 1, 1)


def _audio_vae(vae: AudioVAE) -> Named:
    widths = [vae.base * multiplier for multiplier in vae.multipliers]
    top = len(widths) - 1
    yield from _conv("audio_vae.encoder.conv_in.conv", vae.base, vae.channels, 3, 3)
    before = vae.base
    for level, width in enumerate(widths):
        for index in range(vae.blocks):
            yield from _audio_block(f"audio_vae.encoder.down.{level}.block.{index}", before, width)
            before = width
        if level < top:
            yield from _conv(f"audio_vae.encoder.down.{level}.downsample.conv", width, width, 3, 3)
    yield from _audio_block("audio_vae.encoder.mid.block_1", before, before)
    yield from _audio_block("audio_vae.encoder.mid.block_2", before, before)
    yield from _conv("audio_vae.encoder.conv_out.conv", 2 * vae.latent_channels, before, 3, 3)
    yield from _conv("audio_vae.decoder.conv_in.conv", before, vae.latent_channels, 3, 3)
    yield from _audio_block("audio_vae.decoder.mid.block_1", before, before)
    yield from _audio_block("audio_vae.decoder.mid.block_2", before, before)
    for level in range(top, -1, -1):
        for index in range(vae.blocks + 1):
            yield from _audio_block(f"audio_vae.decoder.up.{level}.block.{index}", before, widths[level])
            before = widths[level]
        if level > 0:
            yield from _conv(f"audio_vae.decoder.up.{level}.upsample.conv.conv", before, before, 3, 3)
    yield from _conv("audio_vae.decoder.conv_out.conv", vae.channels, before, 3, 3)
    # Statistics are kept per (latent channel, latent mel bin): packed tokens.
    yield "audio_vae.per_channel_statistics.mean-of-means", (vae.base,)
    yield "audio_vae.per_channel_statistics.std-of-means", (vae.base,)


def _vocoder(arch: Architecture) -> Named:
    vocoder = arch.vocoder
    if vocoder.bwe is None:
        yield from _generator("vocoder", vocoder.main, antialias=False)
        return
    yield from _generator("vocoder.vocoder", vocoder.main, antialias=True)
    yield from _generator("vocoder.bwe_generator", vocoder.bwe, antialias=True)
    bins = vocoder.n_fft // 2 + 1
    yield "vocoder.mel_stft.mel_basis", (vocoder.mel_bins, bins)
    yield "vocoder.mel_stft.stft_fn.forward_basis", (2 * bins, 1, vocoder.n_fft)
    yield "vocoder.mel_stft.stft_fn.inverse_basis", (2 * bins, 1, vocoder.n_fft)


def _activation(name: str, width: int) -> Named:
    yield f"{name}.act.alpha", (width,)
    yield f"{name}.act.beta", (width,)
    yield f"{name}.upsample.filter", (1, 1, ANTIALIAS_TAPS)
    yield f"{name}.downsample.lowpass.filter", (1, 1, ANTIALIAS_TAPS)


def _generator(name: str, generator: Generator, antialias: bool) -> Named:
    yield from _conv(f"{name}.conv_pre", generator.hidden, generator.inputs, 7)
    width = generator.hidden
    for stage, kernel in enumerate(generator.kernels):
        # Transposed: [in, out, kernel]; the bias has the outputs.
        yield f"{name}.ups.{stage}.weight", (width, width // 2, kernel)
        yield f"{name}.ups.{stage}.bias", (width // 2,)
        width //= 2
        for branch, size in enumerate(generator.block_kernels):
            block = f"{name}.resblocks.{stage * len(generator.block_kernels) + branch}"
            for index in range(len(generator.dilations[branch])):
                yield from _conv(f"{block}.convs1.{index}", width, width, size)
                yield from _conv(f"{block}.convs2.{index}", width, width, size)
                if antialias:
                    yield from _activation(f"{block}.acts1.{index}", width)
                    yield from _activation(f"{block}.acts2.{index}", width)
    if antialias:
        yield from _activation(f"{name}.act_post", width)
    yield from _conv(f"{name}.conv_post", generator.channels, width, 7, bias=not antialias)
