"""`ltx2-job generate`: one clip from a prompt, with the model alone or with a LoRA beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ltx2_job.errors import UsageError
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.validation.lora import apply_lora
from ltx2_job.validation.sampler import Prompt, Request, sample
from ltx2_job.validation.t2v import decode, write_clip

SKIPPED_BLOCK: Final = {"2.0": 29, "2.3": 28}  # the official block of spatio-temporal guidance, by generation


def generate(
    checkpoint: Checkpoint,
    request: Request,
    texts: tuple[str, str],
    lora: Mapping[str, Tensor] | None,
    device: torch.device,
    output: Path,
) -> Path:
    """Write the clip of `texts` (prompt, negative prompt) to `output`, an .mp4, and return that path.

    lora: official key -> tensor (export.load_lora), or None. The parts are loaded one after another: text encoder,
    transformer, decoders; bf16 on a GPU, fp32 on a CPU.

    Raises ConfigError for a LoRA that does not fit the model, UsageError if `request` skips a block that it does not
    have.
    """
    gpu = device.type == "cuda"
    encoder = checkpoint.text_encoder(device, torch.bfloat16 if gpu else torch.float32)
    # The store keeps captions in bf16: a clip made here is the clip that validation makes.
    prompt, negative = (Prompt(video.bfloat16(), audio.bfloat16()) for video, audio in encoder.encode(texts))
    encoder.close()
    del encoder
    _release(device)
    model = checkpoint.transformer(MemoryPlan("bf16" if gpu else "fp32"), device)
    blocks = len(model.transformer_blocks)
    if request.skipped_block is not None and not 0 <= request.skipped_block < blocks:
        raise UsageError(f"--stg-block {request.skipped_block}: this model has blocks 0 to {blocks - 1}")
    if lora is not None:
        apply_lora(model, lora)
    latents = sample(model, request, prompt, negative)
    del model
    _release(device)
    return write_clip(output, request, decode(checkpoint, [latents], device, sounding=True)[0])


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
