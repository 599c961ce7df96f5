"""Two small models with random weights, built from configs, and a batch where every term of the forward matters."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import velocities
from ltx2_job.models.transformer import LTX2Transformer, Stream

GRID, FPS, AUDIO, TEXT = (3, 2, 3), 25.0, 7, 5

_SMALL = {
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "audio_num_attention_heads": 4,
    "audio_attention_head_dim": 8,
    "cross_attention_dim": 64,
    "audio_cross_attention_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "audio_in_channels": 12,
    "audio_out_channels": 12,
    "caption_channels": 48,
    "norm_eps": 1e-6,
    "rope_type": "split",
}
_LATER = {
    "gated_attn": True,
    "cross_attn_mod": True,
    "audio_gated_attn": True,
    "audio_cross_attn_mod": True,
    "perturbed_attn": True,
    "use_prompt_embeddings": False,
}
CONFIGS = {"2.0": _SMALL, "2.3": {**_SMALL, **_LATER}}


@dataclass
class Case:
    """A model and its batch of two: unequal noise levels, clean first frame in the second sample, first one silent."""

    version: str
    config: dict
    model: LTX2Transformer
    video: Stream
    audio: Stream
    a2v_scale: torch.Tensor

    def run(self, model=None, **options):
        """Our velocity of both modalities."""
        model = model or self.model
        tables = model.tables(GRID, FPS, AUDIO)
        with torch.no_grad():
            return model.velocity(self.video, self.audio, tables, **{"a2v_scale": self.a2v_scale, **options})

    def expected(self, **options):
        """The reference's velocity of both modalities, float64 arrays [B, N, C]."""
        return velocities.expected(
            self.model, self.config, self.video, self.audio, self.a2v_scale, GRID, FPS, **options
        )


def error(ours, expected):
    """Largest difference over the largest expected value, of both modalities: the worse one."""
    return max(
        float(np.abs(our.double().numpy() - np.asarray(want)).max() / np.abs(want).max())
        for our, want in zip(ours, expected, strict=True)
    )


def build(version: str, **changes) -> Case:
    """The case of a version, always the same numbers; `changes` of its config that leave the weights' shapes alone."""
    random = torch.Generator().manual_seed(7)

    def draw(*shape, std=1.0):
        return torch.randn(shape, generator=random) * std

    config = CONFIGS[version] | changes
    model = LTX2Transformer(**config).eval()
    for name, value in model.named_parameters():
        centre = 1.0 if ".norm_" in name else 0.0
        value.data = centre + draw(*value.shape, std=0.15 if value.ndim == 2 and "table" not in name else 0.3)
    tokens = GRID[0] * GRID[1] * GRID[2]
    clean = torch.zeros(2, tokens, dtype=torch.bool)
    clean[1, : GRID[1] * GRID[2]] = True
    widths = (48, 48) if version == "2.0" else (64, 32)
    video = Stream(draw(2, tokens, 16), torch.tensor([0.83, 0.31]), clean, draw(2, TEXT, widths[0]))
    audio = Stream(draw(2, AUDIO, 12), torch.tensor([0.27, 0.94]), None, draw(2, TEXT, widths[1]))
    return Case(version, config, model, video, audio, torch.tensor([0.0, 1.0]))


@pytest.fixture(params=sorted(CONFIGS), scope="session")
def case(request):
    """One case per model version. Tests must not change it: take `build` for that."""
    return build(request.param)
