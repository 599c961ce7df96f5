"""Headers of the other published files, made from the lists of the two bf16 files and the published description.

Each function returns {name: (dtype, shape)}; the counts that the description gives are checked where they are used.
"""

import math

from reference import official_names

P = "model.diffusion_model."
D, A = 4096, 2048


def bf16(version):
    """The combined file of 2.0 or 2.3."""
    return {name: (dtype, shape) for name, dtype, shape, _, _ in official_names.read(version)}


def layers(tensors, blocks, gates=False, connectors=False):
    """The linear layers of some blocks: 28 a block, 34 with the gates; those of the connectors' blocks as well."""
    found = []
    for name, (_, shape) in tensors.items():
        stem, _, last = name.rpartition(".")
        wide = last == "weight" and len(shape) == 2 and (gates or "to_gate_logits" not in name)
        inside = any(f".transformer_blocks.{block}." in name for block in blocks)
        if wide and (inside or (connectors and ".transformer_1d_blocks." in name)):
            found.append(stem)
    return found


def fp8(tensors, quantised, extras=("weight_scale", "input_scale")):
    """fp8 weights with F32 scalars beside them."""
    made = dict(tensors)
    for layer in quantised:
        made[f"{layer}.weight"] = ("F8_E4M3", tensors[f"{layer}.weight"][1])
        made |= {f"{layer}.{extra}": ("F32", ()) for extra in extras}
    return made


def nvfp4(tensors, quantised):
    """Two numbers a byte, block scales padded to 128 x 4, two F32 scalars."""
    made = dict(tensors)
    for layer in quantised:
        rows, columns = tensors[f"{layer}.weight"][1]
        made[f"{layer}.weight"] = ("U8", (rows, columns // 2))
        padded = (math.ceil(rows / 128) * 128, math.ceil(columns / 16 / 4) * 4)
        made[f"{layer}.weight_scale"] = ("F8_E4M3", padded)
        made |= {f"{layer}.{extra}": ("F32", ()) for extra in ("weight_scale_2", "input_scale")}
    return made


def int8_convrot(tensors, quantised):
    """Rotated int8 with a scale a row and 72 bytes of JSON."""
    made = dict(tensors)
    for layer in quantised:
        shape = tensors[f"{layer}.weight"][1]
        made[f"{layer}.weight"] = ("I8", shape)
        made |= {f"{layer}.weight_scale": ("F32", (shape[0], 1)), f"{layer}.comfy_quant": ("U8", (72,))}
    return made


def cast(tensors):
    """Everything of the transformer in fp8 without a scale, as third parties ship it."""
    return {name: ("F8_E4M3" if name.startswith(P) else dtype, shape) for name, (dtype, shape) in tensors.items()}


def transformer_25():
    """The transformer file of 2.5: as 2.3, without feed-forward biases in the blocks, with key frames."""
    made = {name: value for name, value in bf16("2.3").items() if name.startswith(P)}
    for block in range(48):
        for layer in ("ff.net.0.proj", "ff.net.2"):
            del made[f"{P}transformer_blocks.{block}.{layer}.bias"]
    return made | {f"{P}keyframes_abs_pos_embedding": ("BF16", (1, D))}


def bare_vae():
    """The convolutional video VAE of 2.5: names without `vae.`."""
    return {name[4:]: value for name, value in bf16("2.3").items() if name.startswith("vae.")}


def video_09():
    """The transformer of LTX-Video 0.9 in the names that it shares with LTX-2."""
    made = {f"{P}patchify_proj.weight": ("BF16", (2048, 128)), f"{P}patchify_proj.bias": ("BF16", (2048,))}
    for block in range(28):
        made[f"{P}transformer_blocks.{block}.attn1.to_q.weight"] = ("BF16", (2048, 2048))
    return made


def lora(width, prefix="diffusion_model.", attention="attn1", rank=32):
    """A LoRA of the queries of two blocks."""
    made = {}
    for block in range(2):
        layer = f"{prefix}transformer_blocks.{block}.{attention}.to_q"
        made |= {f"{layer}.lora_A.weight": ("F32", (rank, width)), f"{layer}.lora_B.weight": ("F32", (width, rank))}
    return made


def gemma(prefix, later=False):
    """Some tensors of Gemma."""
    made = {f"{prefix}embed_tokens.weight": ("BF16", (262208, 3840))}
    for layer in range(2):
        made[f"{prefix}layers.{layer}.self_attn.q_proj.weight"] = ("BF16", (4096, 3840))
        if later:
            made[f"{prefix}layers.{layer}.layer_scalar"] = ("BF16", (1,))
    return made
