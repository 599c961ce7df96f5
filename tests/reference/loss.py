"""The training loss in float64 numpy, sample by sample and token by token."""

import numpy as np


def noised(clean: np.ndarray, noise: np.ndarray, sigma: float, conditioned: np.ndarray) -> np.ndarray:
    """One sample's input [N, C]: (1 - s) x + s e, the clean latent on conditioned tokens [N]."""
    return np.where(conditioned[:, None], clean, (1 - sigma) * clean + sigma * noise)


def one(prediction: np.ndarray, clean: np.ndarray, noise: np.ndarray, conditioned: np.ndarray) -> float:
    """One sample and modality: mean squared velocity error over the tokens that are not conditioned."""
    errors = [((prediction[n] - (noise[n] - clean[n])) ** 2).mean() for n in range(len(clean)) if not conditioned[n]]
    return float(np.mean(errors)) if errors else 0.0


def step(video: list[float], audio: list[float], sounding: list[bool], weight: float) -> tuple[float, float, float]:
    """Of a whole optimizer step: (total, video mean over all samples, audio mean over the sounding ones)."""
    video_part = sum(video) / len(video)
    heard = [value for value, sounds in zip(audio, sounding, strict=True) if sounds]
    audio_part = sum(heard) / len(heard) if heard else 0.0
    return video_part + weight * audio_part, video_part, audio_part
