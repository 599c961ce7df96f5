"""LTX-2's text path behind Gemma in float64 numpy: normalising the layers, projection, connectors.

`weights` maps official tensor names to float64 arrays. Keyword arguments with a default are the mistakes that the
comparison must be able to see: each of them changes the result of a correct model.
"""

import numpy as np

P = "model.diffusion_model."
EPS = 1e-6


def linear(x, weights, name):
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def rms(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)


def range_normalised(states, *, factor=8.0):
    """2.0: every layer of a caption [n, hidden, layers] minus its mean, over its range, times 8."""
    out = np.empty_like(states)
    for layer in range(states.shape[2]):
        x = states[:, :, layer]
        out[:, :, layer] = factor * (x - x.mean()) / (x.max() - x.min())
    return out


def token_normalised(states):
    """2.3: every token of every layer over its own root mean square."""
    return np.moveaxis(rms(np.moveaxis(states, 1, 2)), 2, 1)


def flat(states, *, layer_fastest=True):
    """[n, hidden, layers] -> [n, hidden x layers]."""
    return (states if layer_fastest else np.swapaxes(states, 1, 2)).reshape(len(states), -1)


def projected(states, weights, version, widths, *, factor=8.0, layer_fastest=True, rescaled=True):
    """The caption's tokens (video [n, Dv], audio [n, Da]) from Gemma's states [n, hidden, layers], without padding."""
    if version == "2.0":
        x = flat(range_normalised(states, factor=factor), layer_fastest=layer_fastest)
        both = linear(x, weights, "text_embedding_projection.aggregate_embed")
        return both, both
    x = flat(token_normalised(states), layer_fastest=layer_fastest)
    sides = []
    for name, width in zip(("video", "audio"), widths, strict=True):
        scale = np.sqrt(width / states.shape[1]) if rescaled else 1.0
        sides.append(linear(x * scale, weights, f"text_embedding_projection.{name}_aggregate_embed"))
    return tuple(sides)


def angles(tokens, width, base):
    """Rotary angles [tokens, width / 2]: frequencies over the whole width, positions from -1 to 1 over `base` tokens.

    The published code makes the frequencies in float64 and rounds them and the product to float32.
    """
    frequencies = (10000.0 ** np.linspace(0, 1, width // 2) * np.pi / 2).astype(np.float32)
    positions = np.arange(tokens, dtype=np.float32) / np.float32(base)
    return ((positions * 2 - 1)[:, None] * frequencies[None]).astype(np.float64)


def rotated(x, angle, heads):
    """[n, width]: in each head the first half pairs with the second half."""
    n, width = x.shape
    x, angle = x.reshape(n, heads, 2, -1), angle.reshape(n, heads, -1)
    first, second = x[:, :, 0], x[:, :, 1]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([first * cos - second * sin, second * cos + first * sin], 2).reshape(n, width)


def attention(x, weights, name, heads, angle):
    n, width = x.shape
    q = rms(linear(x, weights, f"{name}.to_q")) * weights[f"{name}.q_norm.weight"]
    k = rms(linear(x, weights, f"{name}.to_k")) * weights[f"{name}.k_norm.weight"]
    v = linear(x, weights, f"{name}.to_v").reshape(n, heads, -1)
    q, k = (rotated(y, angle, heads).reshape(n, heads, -1) for y in (q, k))
    out = np.empty_like(v)
    for head in range(heads):
        scores = q[:, head] @ k[:, head].T / np.sqrt(width // heads)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, head] = scores / scores.sum(-1, keepdims=True) @ v[:, head]
    if f"{name}.to_gate_logits.weight" in weights:
        logits = linear(x, weights, f"{name}.to_gate_logits")
        out *= (2 / (1 + np.exp(-logits)))[:, :, None]
    return linear(out.reshape(n, width), weights, f"{name}.to_out.0")


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def connector(caption, weights, modality, tokens, heads, *, base=4096, registers=True, front=True):
    """One connector: caption tokens [n, width] -> [tokens, width].

    The caption stands at the front; behind it come learnable registers, chosen by absolute position.
    """
    name = f"{P}{modality}_embeddings_connector"
    table = weights[f"{name}.learnable_registers"]
    n = len(caption)
    fill = np.stack([table[i % len(table)] if registers else 0 * table[0] for i in range(tokens)])
    x = np.concatenate([caption, fill[n:]] if front else [fill[: tokens - n], caption])
    angle = angles(tokens, x.shape[1], base)
    layers = 1 + max(int(key.split(".")[4]) for key in weights if key.startswith(f"{name}.transformer_1d_blocks."))
    for layer in range(layers):
        block = f"{name}.transformer_1d_blocks.{layer}"
        x = x + attention(rms(x), weights, f"{block}.attn1", heads, angle)
        x = x + linear(gelu(linear(rms(x), weights, f"{block}.ff.net.0.proj")), weights, f"{block}.ff.net.2")
    return rms(x)
