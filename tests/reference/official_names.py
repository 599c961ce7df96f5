"""The tensors of the published LTX-2 files, generated from the published description alone, row by row.

Nothing here is shared with the reader. Each row is (official pattern, shape, diffusers pattern); `{a,b}` stands for a
and b, `{0..3}` for 0 to 3, both in step on the two sides. Run as a script to rewrite
tests/data/official_names_*.txt.gz:

    python tests/reference/official_names.py
"""

import gzip
import itertools
import re
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"
VERSIONS = ("2.0", "2.3")
P = "model.diffusion_model."
D, A = 4096, 2048


def both(pattern, shape, other=None):
    """A weight and its bias: the bias has the weight's first dimension."""
    other = pattern if other is None else other
    return [(f"{pattern}.weight", shape, f"{other}.weight"), (f"{pattern}.bias", shape[:1], f"{other}.bias")]


def transformer(new):
    k = 9 if new else 6
    rows = []
    for name, other, shape in (
        ("patchify_proj", "proj_in", (D, 128)),
        ("audio_patchify_proj", "audio_proj_in", (A, 128)),
        ("proj_out", "proj_out", (128, D)),
        ("audio_proj_out", "audio_proj_out", (128, A)),
    ):
        rows += both(P + name, shape, other)
    rows += [(P + "scale_shift_table", (2, D), "scale_shift_table")]
    rows += [(P + "audio_scale_shift_table", (2, A), "audio_scale_shift_table")]
    modulations = [
        ("adaln_single", "time_embed", D, k),
        ("audio_adaln_single", "audio_time_embed", A, k),
        ("av_ca_video_scale_shift_adaln_single", "av_cross_attn_video_scale_shift", D, 4),
        ("av_ca_audio_scale_shift_adaln_single", "av_cross_attn_audio_scale_shift", A, 4),
        ("av_ca_a2v_gate_adaln_single", "av_cross_attn_video_a2v_gate", D, 1),
        ("av_ca_v2a_gate_adaln_single", "av_cross_attn_audio_v2a_gate", A, 1),
    ]
    if new:
        modulations += [
            ("prompt_adaln_single", "prompt_adaln", D, 2),
            ("audio_prompt_adaln_single", "audio_prompt_adaln", A, 2),
        ]
    else:
        for name, width in (("caption_projection", D), ("audio_caption_projection", A)):
            rows += both(f"{P}{name}.linear_1", (width, 3840), f"{name}.linear_1")
            rows += both(f"{P}{name}.linear_2", (width, width), f"{name}.linear_2")
    for name, other, width, count in modulations:
        embedder = ".emb.timestep_embedder.linear_"
        rows += both(f"{P}{name}{embedder}1", (width, 256), f"{other}{embedder}1")
        rows += both(f"{P}{name}{embedder}2", (width, width), f"{other}{embedder}2")
        rows += both(f"{P}{name}.linear", (count * width, width), f"{other}.linear")
    block = "transformer_blocks.{0..47}."
    attentions = {  # name: shapes of to_q, to_k and to_v, to_out.0; width of the norms; columns of the gate
        "attn1": ((D, D), (D, D), (D, D), D, D),
        "attn2": ((D, D), (D, D), (D, D), D, D),
        "audio_attn1": ((A, A), (A, A), (A, A), A, A),
        "audio_attn2": ((A, A), (A, A), (A, A), A, A),
        "audio_to_video_attn": ((A, D), (A, A), (D, A), A, D),
        "video_to_audio_attn": ((A, A), (A, D), (A, A), A, A),
    }
    for name, (query, context, out, norm, gate) in attentions.items():
        for leaf, shape in (("to_q", query), ("to_k", context), ("to_v", context), ("to_out.0", out)):
            rows += both(f"{P}{block}{name}.{leaf}", shape, f"{block}{name}.{leaf}")
        rows += [(f"{P}{block}{name}.q_norm.weight", (norm,), f"{block}{name}.norm_q.weight")]
        rows += [(f"{P}{block}{name}.k_norm.weight", (norm,), f"{block}{name}.norm_k.weight")]
        if new:
            rows += both(f"{P}{block}{name}.to_gate_logits", (32, gate), f"{block}{name}.to_gate_logits")
    for name, width in (("ff", D), ("audio_ff", A)):
        rows += both(f"{P}{block}{name}.net.0.proj", (4 * width, width), f"{block}{name}.net.0.proj")
        rows += both(f"{P}{block}{name}.net.2", (width, 4 * width), f"{block}{name}.net.2")
    tables = [("scale_shift_table", (k, D)), ("audio_scale_shift_table", (k, A))]
    if new:
        tables += [("prompt_scale_shift_table", (2, D)), ("audio_prompt_scale_shift_table", (2, A))]
    rows += [(P + block + name, shape, block + name) for name, shape in tables]
    rows += [(f"{P}{block}scale_shift_table_a2v_ca_video", (5, D), f"{block}video_a2v_cross_attn_scale_shift_table")]
    rows += [(f"{P}{block}scale_shift_table_a2v_ca_audio", (5, A), f"{block}audio_a2v_cross_attn_scale_shift_table")]
    return rows


def connectors(new):
    rows = []
    if new:
        for name, width in (("video", D), ("audio", A)):
            rows += both(f"text_embedding_projection.{name}_aggregate_embed", (width, 188160), f"{name}_text_proj_in")
    else:
        rows += [("text_embedding_projection.aggregate_embed.weight", (3840, 188160), "text_proj_in.weight")]
    for name, width in (("video", D if new else 3840), ("audio", A if new else 3840)):
        here, there = f"{P}{name}_embeddings_connector.", f"{name}_connector."
        rows += [(here + "learnable_registers", (128, width), there + "learnable_registers")]
        count = "{0..7}" if new else "{0..1}"
        here, there = f"{here}transformer_1d_blocks.{count}.", f"{there}transformer_blocks.{count}."
        for leaf in ("to_q", "to_k", "to_v", "to_out.0"):
            rows += both(f"{here}attn1.{leaf}", (width, width), f"{there}attn1.{leaf}")
        rows += [(f"{here}attn1.{x}_norm.weight", (width,), f"{there}attn1.norm_{x}.weight") for x in "qk"]
        if new:
            rows += both(f"{here}attn1.to_gate_logits", (32, width), f"{there}attn1.to_gate_logits")
        rows += both(f"{here}ff.net.0.proj", (4 * width, width), f"{there}ff.net.0.proj")
        rows += both(f"{here}ff.net.2", (width, 4 * width), f"{there}ff.net.2")
    return rows


def video_vae(new):
    cube = (3, 3, 3)
    rows = both("vae.encoder.conv_in.conv", (128, 48, *cube), "encoder.conv_in.conv")
    rows += both("vae.encoder.conv_out.conv", (129, 1024 if new else 2048, *cube), "encoder.conv_out.conv")
    rows += both("vae.decoder.conv_in.conv", (1024, 128, *cube), "decoder.conv_in.conv")
    rows += both("vae.decoder.conv_out.conv", (48, 128, *cube), "decoder.conv_out.conv")
    counts, widths = (
        ((4, 6, 4, 2, 2), (128, 256, 512, 1024, 1024)) if new else ((4, 6, 6, 2, 2), (128, 256, 512, 1024, 2048))
    )
    for k, (count, c) in enumerate(zip(counts, widths, strict=True)):
        there = "encoder.mid_block" if k == 4 else f"encoder.down_blocks.{k}"
        j = f"{{0..{count - 1}}}"
        for conv in ("conv1", "conv2"):
            rows += both(f"vae.encoder.down_blocks.{2 * k}.res_blocks.{j}.{conv}.conv", (c, c, *cube),
                         f"{there}.resnets.{j}.{conv}.conv")  # fmt: skip
    downs = [(64, 128), (256, 256), (128, 512), (128 if new else 256, 1024)]
    for k, shape in enumerate(downs):
        rows += both(f"vae.encoder.down_blocks.{2 * k + 1}.conv.conv", (*shape, *cube),
                     f"encoder.down_blocks.{k}.downsamplers.0.conv.conv")  # fmt: skip
    counts, widths = ((2, 2, 4, 6, 4), (1024, 512, 512, 256, 128)) if new else ((5, 5, 5, 5), (1024, 512, 256, 128))
    for k, (count, c) in enumerate(zip(counts, widths, strict=True)):
        there = "decoder.mid_block" if k == 0 else f"decoder.up_blocks.{k - 1}"
        j = f"{{0..{count - 1}}}"
        for conv in ("conv1", "conv2"):
            rows += both(f"vae.decoder.up_blocks.{2 * k}.res_blocks.{j}.{conv}.conv", (c, c, *cube),
                         f"{there}.resnets.{j}.{conv}.conv")  # fmt: skip
    ups = [(4096, 1024), (4096, 512), (512, 512), (512, 256)] if new else [(4096, 1024), (2048, 512), (1024, 256)]
    for k, shape in enumerate(ups):
        rows += both(f"vae.decoder.up_blocks.{2 * k + 1}.conv.conv", (*shape, *cube),
                     f"decoder.up_blocks.{k}.upsamplers.0.conv.conv")  # fmt: skip
    rows += statistics("vae.")
    if not new:
        unused = "vae.per_channel_statistics.{channel,mean-of-stds,mean-of-stds_over_std-of-means}"
        rows += [(unused, (128,), "")]
    return rows


def statistics(prefix):
    return [
        (f"{prefix}per_channel_statistics.mean-of-means", (128,), "latents_mean"),
        (f"{prefix}per_channel_statistics.std-of-means", (128,), "latents_std"),
    ]


def audio_vae():
    rows = []

    def conv(name, *shape):
        rows.extend(both(f"audio_vae.{name}", shape, name))

    conv("encoder.conv_in.conv", 128, 2, 3, 3)
    conv("encoder.conv_out.conv", 16, 512, 3, 3)
    conv("decoder.conv_in.conv", 512, 8, 3, 3)
    conv("decoder.conv_out.conv", 2, 128, 3, 3)
    for half in ("encoder", "decoder"):
        for block, which in itertools.product((1, 2), (1, 2)):
            conv(f"{half}.mid.block_{block}.conv{which}.conv", 512, 512, 3, 3)
    for level, (before, width) in enumerate(((128, 128), (128, 256), (256, 512))):
        for j in (0, 1):
            conv(f"encoder.down.{level}.block.{j}.conv1.conv", width, before if j == 0 else width, 3, 3)
            conv(f"encoder.down.{level}.block.{j}.conv2.conv", width, width, 3, 3)
        if level:
            conv(f"encoder.down.{level}.block.0.nin_shortcut.conv", width, before, 1, 1)
        if level < 2:
            conv(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    for level, (before, width) in ((2, (512, 512)), (1, (512, 256)), (0, (256, 128))):
        for j in (0, 1, 2):
            conv(f"decoder.up.{level}.block.{j}.conv1.conv", width, before if j == 0 else width, 3, 3)
            conv(f"decoder.up.{level}.block.{j}.conv2.conv", width, width, 3, 3)
        if level < 2:
            conv(f"decoder.up.{level}.block.0.nin_shortcut.conv", width, before, 1, 1)
        if level:
            conv(f"decoder.up.{level}.upsample.conv.conv", width, width, 3, 3)
    return rows + statistics("audio_vae.")


def generator(here, there, width, kernels, new):
    rows = both(f"{here}conv_pre", (width, 128, 7), f"{there}conv_in")
    for u, kernel in enumerate(kernels):
        name, other = f"{here}ups.{u}", f"{there}upsamplers.{u}"
        rows += [(f"{name}.weight", (width, width // 2, kernel), f"{other}.weight")]
        rows += [(f"{name}.bias", (width // 2,), f"{other}.bias")]
        width //= 2
        for r, size in enumerate((3, 7, 11)):
            name, other = f"{here}resblocks.{3 * u + r}.", f"{there}resnets.{3 * u + r}."
            for convs in ("convs1", "convs2"):
                rows += both(f"{name}{convs}.{{0..2}}", (width, width, size), f"{other}{convs}.{{0..2}}")
            if new:
                for acts in ("acts1", "acts2"):
                    rows += activation(f"{name}{acts}.{{0..2}}.", f"{other}{acts}.{{0..2}}.", width)
    if new:
        rows += activation(f"{here}act_post.", f"{there}act_out.", width)
        return [*rows, (f"{here}conv_post.weight", (2, width, 7), f"{there}conv_out.weight")]
    return rows + both(f"{here}conv_post", (2, width, 7), f"{there}conv_out")


def activation(here, there, width):
    return [
        (f"{here}act.{{alpha,beta}}", (width,), f"{there}act.{{alpha,beta}}"),
        (f"{here}upsample.filter", (1, 1, 12), f"{there}upsample.filter"),
        (f"{here}downsample.lowpass.filter", (1, 1, 12), f"{there}downsample.filter"),
    ]


def vocoder(new):
    if not new:
        return generator("vocoder.", "", 1024, (16, 15, 8, 4, 4), False)
    rows = generator("vocoder.vocoder.", "vocoder.", 1536, (11, 4, 4, 4, 4, 4), True)
    rows += generator("vocoder.bwe_generator.", "bwe_generator.", 512, (12, 11, 4, 4, 4), True)
    rows += [("vocoder.mel_stft.mel_basis", (64, 257), "mel_stft.mel_basis")]
    bases = "mel_stft.stft_fn.{forward,inverse}_basis"
    return [*rows, (f"vocoder.{bases}", (514, 1, 512), bases)]


def expand(pattern):
    """Every name that a pattern stands for."""
    pieces = re.split(r"\{([^}]*)\}", pattern)
    choices = []
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            choices.append([piece])
        elif ".." in piece:
            first, last = piece.split("..")
            choices.append([str(n) for n in range(int(first), int(last) + 1)])
        else:
            choices.append(piece.split(","))
    return ["".join(parts) for parts in itertools.product(*choices)]


def tensors(version):
    """(official name, dtype, shape, part, diffusers name) of every tensor, sorted; the last two are "-" if unused."""
    new = version == "2.3"
    parts = {
        "transformer": transformer(new),
        "connectors": connectors(new),
        "vae": video_vae(new),
        "audio_vae": audio_vae(),
        "vocoder": vocoder(new),
    }
    listed = []
    for part, rows in parts.items():
        for pattern, shape, other in rows:
            names = expand(pattern)
            others = expand(other) if other else ["-"] * len(names)
            for name, target in zip(names, others, strict=True):
                dtype = "F32" if "scale_shift_table" in name else "BF16"
                listed.append((name, dtype, tuple(shape), part if other else "-", target))
    return sorted(listed)


def text(version):
    """The checked-in form: one line per tensor."""
    lines = []
    for name, dtype, shape, part, other in tensors(version):
        lines.append(" ".join([name, dtype, ",".join(map(str, shape)), part, other]))
    return "\n".join(lines) + "\n"


def path(version):
    return DATA / f"official_names_{version}.txt.gz"


def read(version):
    """The checked-in list in the form of `tensors`."""
    listed = []
    for line in gzip.decompress(path(version).read_bytes()).decode().splitlines():
        name, dtype, shape, part, other = line.split(" ")
        listed.append((name, dtype, tuple(int(n) for n in shape.split(",")), part, other))
    return listed


if __name__ == "__main__":
    for version in VERSIONS:
        path(version).write_bytes(gzip.compress(text(version).encode(), mtime=0))
