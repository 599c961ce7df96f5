"""One tiny model for all tests of training; every test loads its own copy of the transformer (milliseconds)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.transformer import LTX2Transformer


@pytest.fixture
def transformer(tiny20: Path) -> Callable[[], LTX2Transformer]:
    """Loads the tiny transformer, fp32 on the CPU."""
    base = Checkpoint.open(tiny20)
    return lambda: base.transformer(MemoryPlan.parse("fp32/resident/keep:48"), "cpu")
