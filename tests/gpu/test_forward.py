"""The tiny models' forward on the GPU, loaded as the train stage loads them, against the float64 reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import velocities
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.transformer import LTX2Transformer, Stream

GRID, FPS, AUDIO, TEXT = (3, 2, 3), 25.0, 9, 16
TOLERANCE = {
    # Phases of the timestep's sinusoid up to 1,000 rounded by 6e-5, as on the CPU; sums in another order add 1e-6.
    "fp32": 5e-5,
    # Each stored activation is rounded by at most 2^-9 = 0.2 %; some thirty independent roundings follow each other in
    # two blocks and the head: 0.2 % x sqrt(30) = 1.1 %, doubled. (A CPU's bf16 has 0.75 %.)
    "bf16": 2e-2,
}


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def case(request: pytest.FixtureRequest, gpu: torch.device) -> dict[str, Any]:
    """A version's opened file, a batch of two with unequal levels, a clean first frame and a silent sample."""
    base = Checkpoint.open(request.getfixturevalue("tiny20" if request.param == "2.0" else "tiny23"))
    random = torch.Generator().manual_seed(11)

    def draw(*shape: int) -> torch.Tensor:
        # Exact in bf16, so that both forms are asked the same question.
        return torch.randn(shape, generator=random).to(torch.bfloat16).float()

    clean = torch.zeros(2, 18, dtype=torch.bool)
    clean[1, : GRID[1] * GRID[2]] = True
    widths = (64, 64) if request.param == "2.0" else (64, 32)
    return {
        "base": base,
        "video": Stream(draw(2, 18, 128), torch.tensor([0.83, 0.31]), clean, draw(2, TEXT, widths[0])),
        "audio": Stream(draw(2, AUDIO, 128), torch.tensor([0.27, 0.94]), None, draw(2, TEXT, widths[1])),
        "heard": torch.tensor([0.0, 1.0]),
    }


def _ours(case: dict[str, Any], model: LTX2Transformer, device: torch.device) -> list[np.ndarray]:
    video, audio = (
        replace(
            stream,
            latent=stream.latent.to(device),
            sigma=stream.sigma.to(device),
            clean=None if stream.clean is None else stream.clean.to(device),
            text=stream.text.to(device),
        )
        for stream in (case["video"], case["audio"])
    )
    with torch.no_grad():
        found = model.velocity(video, audio, model.tables(GRID, FPS, AUDIO), a2v_scale=case["heard"].to(device))
    return [part.double().cpu().numpy() for part in found]


def _expected(case: dict[str, Any], model: LTX2Transformer) -> list[np.ndarray]:
    return velocities.expected(model, model.config, case["video"], case["audio"], case["heard"], GRID, FPS)


def _error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Largest difference over the largest value, of both modalities the worse one."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("form", ["fp32", "bf16"])
def test_the_forward_is_the_official_function(case: dict[str, Any], gpu: torch.device, form: str) -> None:
    model = case["base"].transformer(MemoryPlan.parse(f"{form}/resident/keep:48"), gpu)
    assert {value.device.type for value in model.parameters()} == {gpu.type}
    found = _ours(case, model, gpu)
    wanted = _expected(case, model)
    error = _error(found, wanted)
    print(f"{case['base'].version} {form}: error {error:.2e} of the largest velocity")
    assert error < TOLERANCE[form]


def test_the_tolerance_of_bf16_still_catches_mistakes(case: dict[str, Any], gpu: torch.device) -> None:
    """Sound that reaches a silent sample's video, and a first frame that is not treated as clean, are larger errors."""
    model = case["base"].transformer(MemoryPlan.parse("bf16/resident/keep:48"), gpu)
    wanted = _expected(case, model)
    mistakes = {
        "a silent sample heard": {**case, "heard": torch.tensor([1.0, 1.0])},
        "a noisy first frame": {**case, "video": replace(case["video"], clean=None)},
    }
    errors = {name: _error(_ours(changed, model, gpu), wanted) for name, changed in mistakes.items()}
    print(f"{case['base'].version} bf16: {errors}")
    assert min(errors.values()) > 2 * TOLERANCE["bf16"]
