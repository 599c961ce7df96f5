"""Guidance of one modality: how the predictions of several passes become one.

All on the predicted clean latents x0, as the official sampler: x is the prediction with the prompt, and
    x + (cfg - 1)(x - x_negative) + stg (x - x_skipped) + (modality - 1)(x - x_isolated),
then scaled by r std(x) / std(of that) + 1 - r, which takes back the contrast that guidance adds.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """The scales of one modality. The defaults are those of a single pass: nothing is guided.

    cfg: away from the negative prompt; 1 is off, and less counts as 1.
    stg: away from the prediction whose self-attention was skipped in one block; 0 is off.
    modality: away from the prediction that does not see the other modality; 1 is off, and less counts as 1.
    rescale: r in [0, 1]; 0 is off.
    """

    cfg: float = 1.0
    stg: float = 0.0
    modality: float = 1.0
    rescale: float = 0.0


def guide(
    guidance: Guidance,
    x: Tensor,
    negative: Tensor | None = None,
    skipped: Tensor | None = None,
    isolated: Tensor | None = None,
) -> Tensor:
    """The guided x0, of the predictions x0 [B, N, C]; a pass that was not made (None) adds nothing."""
    guided = x
    if negative is not None:
        guided = guided + (max(guidance.cfg, 1.0) - 1) * (x - negative)
    if skipped is not None:
        guided = guided + guidance.stg * (x - skipped)
    if isolated is not None:
        guided = guided + (max(guidance.modality, 1.0) - 1) * (x - isolated)
    if guidance.rescale and guided is not x:
        contrast = x.std(dim=(1, 2), keepdim=True) / guided.std(dim=(1, 2), keepdim=True)
        guided = guided * (guidance.rescale * contrast + 1 - guidance.rescale)
    return guided
