"""Clipping, and what a step reports."""

import pytest
import torch

from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.processes import Processes
from ltx2_job.training.step import Step

CPU = torch.device("cpu")


class Nothing:
    """An optimizer that leaves the gradient as clipping made it."""

    def step(self, number: int, rate: float) -> None: ...
    def moments(self) -> dict[str, torch.Tensor]:
        return {}


def clipped(clip: tuple[str, float]) -> tuple[torch.Tensor, list[float]]:
    adapters = AdapterSet(1, 1.0, {"a": (4,)}, torch.float32, CPU)

    class Exchange(Processes):
        def sum(self, tensor: torch.Tensor) -> None:
            adapters.gradient.copy_(torch.tensor([3.0, -4.0, 0.5, 0.0]))
            adapters.reported[:3] = torch.tensor([1.0, 2.0, 1.0])

    step = Step(None, adapters, Nothing(), Exchange(0, 1, CPU), audio_loss_weight=1.0, clip=clip)  # type: ignore[arg-type]
    return adapters.gradient, step(1, 0.0, [], stop=True).tolist()


NORM = (9 + 16 + 0.25) ** 0.5


def test_by_norm_the_direction_stays() -> None:
    """Reported: video, audio, sounding, told to stop, norm before clipping."""
    gradient, reported = clipped(("norm", 1.0))
    torch.testing.assert_close(gradient, torch.tensor([3.0, -4.0, 0.5, 0.0]) / NORM)
    assert reported == pytest.approx([1.0, 2.0, 1.0, 1.0, NORM])


def test_by_value_each_element_is_clamped() -> None:
    assert clipped(("value", 1.0))[0].tolist() == [1.0, -1.0, 0.5, 0.0]


@pytest.mark.parametrize("clip", [("norm", 0.0), ("value", 0.0), ("norm", 100.0)])
def test_zero_is_off_and_a_norm_within_the_limit_is_left_alone(clip: tuple[str, float]) -> None:
    assert clipped(clip)[0].tolist() == [3.0, -4.0, 0.5, 0.0]
