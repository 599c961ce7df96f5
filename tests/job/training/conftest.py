"""One tiny model for all tests of training; every test loads its own copy of the transformer (milliseconds)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.tiny import write_tiny
from ltx2_job.models.transformer import LTX2Transformer


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The combined file of a tiny 2.0 model."""
    return write_tiny(tmp_path_factory.mktemp("models"))


@pytest.fixture
def transformer(model_file: Path) -> Callable[[], LTX2Transformer]:
    """Loads the tiny transformer, fp32 on the CPU."""
    base = Checkpoint.open(model_file)
    return lambda: base.transformer(MemoryPlan.parse("fp32/resident/keep:48"), "cpu")
