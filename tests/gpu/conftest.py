"""Tests on a GPU. Without one they are skipped, and say so."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here that asks for the GPU carries the marker of those that need one."""
    for item in items:
        if HERE in item.path.parents and "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def gpu():
    """The GPU, as torch names it. Skips where there is none."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA or ROCm GPU on this machine")
    # Reference figures are in full precision; TF32 has ten bits.
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda", torch.cuda.current_device())
