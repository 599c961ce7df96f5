"""The float64 reference's answer to a batch of streams, for the tests of the forward on CPU and GPU."""

from typing import Any

import numpy as np
import torch

from ltx2_job.models.transformer import LTX2Transformer, Stream
from reference import transformer as reference


def expected(
    model: LTX2Transformer,
    config: Any,
    video: Stream,
    audio: Stream,
    a2v_scale: torch.Tensor,
    grid: tuple[int, int, int],
    fps: float,
    **options: Any,
) -> list[np.ndarray]:
    """The reference's velocity of both modalities with the model's weights: float64 arrays [B, N, C]."""
    weights = {name: value.double().cpu().numpy() for name, value in model.state_dict().items()}
    samples = []
    for index in range(video.latent.shape[0]):
        sides = [
            reference.Side(
                stream.latent[index].double().numpy(),
                float(stream.sigma[index]),
                np.zeros(stream.latent.shape[1], bool) if stream.clean is None else stream.clean[index].numpy(),
                stream.text[index].double().numpy(),
            )
            for stream in (video, audio)
        ]
        scale = {"a2v_scale": float(a2v_scale[index]), **options}
        samples.append(reference.velocity(weights, config, *sides, grid, fps, **scale))
    return [np.stack(parts) for parts in zip(*samples, strict=True)]
