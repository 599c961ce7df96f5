"""Every schedule against its closed formula, and what must hold whatever its shape."""

import numpy as np
import pytest

from ltx2_job.errors import ConfigError
from ltx2_job.training.schedules import SHAPES, Schedule
from reference import schedules as reference


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("total", "warmup", "cycles"), [(40, 0, 1), (97, 10, 3), (5, 5, 1)])
def test_every_schedule_follows_its_closed_formula(name: str, total: int, warmup: int, cycles: int) -> None:
    """Catches: progress counted from step 0 and not from the end of the warm-up, half a wave for one."""
    made = Schedule(name, 1e-3, total, warmup, end=4e-7, power=0.8, cycles=cycles)
    expected = reference.rates(name, 1e-3, total, warmup, 4e-7, 0.8, cycles)
    np.testing.assert_allclose([made.rate(step) for step in range(total)], expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "constant"])
def test_warm_up_rises_from_zero_to_the_peak(name: str) -> None:
    made = Schedule(name, 2e-4, 100, 10)
    assert made.rate(0) == 0.0
    assert made.rate(5) == pytest.approx(1e-4)
    assert made.rate(10) == pytest.approx(2e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_a_rate_of_zero_stays_zero(name: str) -> None:
    """Catches: polynomial rising from 0 to lr_end."""
    made = Schedule(name, 0.0, 10, end=4e-7)
    assert {made.rate(step) for step in range(12)} == {0.0}


def test_restarts_jump_back_to_the_peak_and_end_low() -> None:
    """Catches: the last step seen as the first of one more cycle."""
    made = Schedule("cosine_with_restarts", 1.0, 100, cycles=4)
    assert [made.rate(step) for step in (0, 25, 50, 75)] == pytest.approx([1.0] * 4)
    assert made.rate(100) == pytest.approx(0.0)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"lr_scheduler.*'step'.*cosine"):
        Schedule("step", 1e-4, 10)
