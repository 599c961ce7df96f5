"""Seconds of an optimizer step: the largest of arithmetic, the copy of streamed weights, and kernel launches."""

from ltx2_job.estimate.constants import figure
from ltx2_job.estimate.models import Model
from ltx2_job.estimate.plans import PASSES, QUANTISED, Form, streamed_bytes
from ltx2_job.estimate.shapes import Shape


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


def step_parts(
    model: Model,
    batch: Shape,
    *,
    keep: int,
    tflops: float,
    form: Form = "bf16",
    resident: int | None = None,
    link_gbps: float = 0.0,
    fp8_units: bool = False,
) -> dict[str, float]:
    """Seconds that one pass over a batch needs of each thing that may bound it; the longest is the step's.

    tflops: dense bf16 by the data sheet. link_gbps: host to device, needed for streamed plans only. fp8_units: the
    device multiplies fp8 as such; without, fp8 weights are turned into bf16 before use.
    """
    recomputed = (model.blocks - min(keep, model.blocks)) / model.blocks
    passes = 1 + figure("time", "backward_factor") + recomputed
    rate = tflops * 1e12 * figure("time", "matmul_fraction")
    if form == "fp8" and fp8_units:
        rate *= figure("time", "fp8_speedup")
    launches = model.blocks * (2 + recomputed) * figure("time", "eager_seconds_per_block_pass")
    if form in QUANTISED:
        launches *= figure("time", "quantised_launches")
    parts = {"arithmetic": forward_flop(model, batch) * passes / rate, "kernel launches": launches}
    moved = PASSES * streamed_bytes(model, form, resident)
    return {**parts, "copy of streamed weights": moved / (link_gbps * 1e9)} if moved else parts
