"""Memory and time model: model shape + batch shape + memory plan -> named terms in bytes, and seconds of a step.

Torch-free, so that the operator can plan a pod without importing it. Every figure that is not arithmetic stands in
estimate_constants.json with its source: counted, measured, fitted to a measurement, assumed, or predicted. D and A are
the widths of the video and the audio half, L the blocks, n the blocks not recomputed, N tokens times batch.

    weights        P x bytes of the form (bf16 2, fp32 4). Quantised or streamed: r resident blocks of W bytes each
                   (int8, fp8: a byte a weight and a scale a row; int4: half and a scale a group), the rest in bf16
    slots          streamed only: 2 x W, the block that is computed and the one that is fetched
    dequantised    quantised only: the largest layer in bf16 while it is used, 4 D x D x 2
    lora           R x 4, R = L x rank x (20 D + 28 A): q, k, v, out of six attentions, rank x (in + out) each
    gradients      R x 4, one flat buffer;  optimizer  R x 8, both Adam moments (adamw_bf16: 2 and 4)
    activations    n x (video N x D + audio N x A + text N x (D + A)) x fitted bytes, what autograd keeps of a block
    block inputs   (L - n) x (N x D + N x A) x 2 (fp32: 4), what recomputation starts from
    workspace      one block's activations, as in recomputing it, and (video N x D + audio N x A) x fitted bytes of
                   gradients beside them
    rope           fp32 cosine and sine over half the width: 4 bytes x (D + 2 A) x N video, 4 x 2 A x N audio
    text, latents  the batch itself
    context        CUDA context and libraries (0 on a CPU)
    allocator      what torch reserves above what is in use: a constant and a share of all but the weights (0 on a CPU)

The sum of the terms is what nvidia-smi shows, and what a plan compares with the card. The figures of a training step
are calibrated on this trainer's own measurements; "calibration" in estimate_constants.json names the rows, and those
that were left out to check. docs/performance.md says the same for users, term by term.
"""

from ltx2_job.estimate.constants import constants
from ltx2_job.estimate.host import GIB, Host, download_bytes, host, media_terms, round_up, volume_terms, with_spare
from ltx2_job.estimate.memory import (
    OPTIMIZER_BYTES,
    Terms,
    allocated,
    cache_passes,
    cache_terms,
    later_cache_terms,
    training_terms,
    validation_terms,
)
from ltx2_job.estimate.models import Model, known_model, read_model
from ltx2_job.estimate.plans import (
    BUILT_FORMS,
    FORM_BYTES,
    FORMS,
    Form,
    PlanName,
    block_bytes,
    streamed_bytes,
    weight_terms,
)
from ltx2_job.estimate.shapes import Shape, audio_latents, latent_area, shape
from ltx2_job.estimate.speed import forward_flop, step_parts

__all__ = [
    "BUILT_FORMS",
    "FORMS",
    "FORM_BYTES",
    "GIB",
    "OPTIMIZER_BYTES",
    "Form",
    "Host",
    "Model",
    "PlanName",
    "Shape",
    "Terms",
    "allocated",
    "audio_latents",
    "block_bytes",
    "cache_passes",
    "cache_terms",
    "constants",
    "download_bytes",
    "forward_flop",
    "host",
    "known_model",
    "latent_area",
    "later_cache_terms",
    "media_terms",
    "read_model",
    "round_up",
    "shape",
    "step_parts",
    "streamed_bytes",
    "training_terms",
    "validation_terms",
    "volume_terms",
    "weight_terms",
    "with_spare",
]  # fmt: skip
