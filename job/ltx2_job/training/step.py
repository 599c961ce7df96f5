"""One optimizer step, as one object: eager now, and nothing in it that a captured graph could not hold."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.draw import Draw
from ltx2_job.training.objective import Batch, losses
from ltx2_job.training.optimizers import Optimizer
from ltx2_job.training.processes import Processes


class Step:
    """Zero the flat gradient, forward and backward of every micro-batch, exchange, clip, update.

    clip: ("norm", limit) scales the whole gradient to at most `limit`; ("value", limit) clamps each element; a limit of
    0 changes nothing. audio_loss_weight: factor of the audio loss beside the video loss.
    """

    def __init__(
        self,
        model: LTX2Transformer,
        adapters: AdapterSet,
        optimizer: Optimizer,
        processes: Processes,
        *,
        audio_loss_weight: float,
        clip: tuple[str, float],
    ):
        self._model, self._adapters, self._optimizer, self._processes = model, adapters, optimizer, processes
        self._audio_loss_weight = audio_loss_weight
        self._clip_method, self._clip_limit = clip

    def __call__(self, number: int, rate: float, work: Iterable[tuple[Batch, Draw]], stop: bool = False) -> Tensor:
        """Do optimizer step `number` (1 for the first) at learning rate `rate` on this process's micro-batches.

        Returns, on the device and to be read later, [video loss, audio loss, 1 if any sample of the step sounds or 0,
        processes that were told to stop, gradient norm before clipping], the same on every process; no value is read on
        the host here.
        """
        self._adapters.exchange.zero_()
        for batch, draw in work:
            part = losses(self._model, batch, draw, self._audio_loss_weight)
            part.total.backward()
            self._adapters.reported[0] += part.video
            self._adapters.reported[1] += part.audio
            self._adapters.reported[2] += batch.audio_share.sum()
        self._adapters.reported[3].fill_(float(stop))
        # One exchange a step: the gradients, and the reported scalars in the tail of the same buffer.
        self._processes.sum(self._adapters.exchange)
        self._adapters.reported[4] = self._clip()
        self._optimizer.step(number, rate)
        return self._adapters.reported.clone()

    def _clip(self) -> Tensor:
        gradient = self._adapters.gradient
        norm = torch.linalg.vector_norm(gradient)
        if self._clip_limit > 0 and self._clip_method == "value":
            gradient.clamp_(-self._clip_limit, self._clip_limit)
        elif self._clip_limit > 0:
            # The 1e-6 is torch's own, against a division by zero; a norm within the limit is left alone.
            gradient.mul_((self._clip_limit / (norm + 1e-6)).clamp_max(1.0))
        return norm
