"""One test per supported key of the configuration, each marked with the key's name: two values, two results.

The bench of the caching tests serves the keys of datasets: real clips, real decoders, a stand-in for the model.
"""

from pathlib import Path

import pytest

from job.caching.conftest import bench, workers
from key_runs import Trainings

__all__ = ["bench", "trainings", "workers"]


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Trainings:
    """Trainings of the tiny model of 2.0."""
    return Trainings(tiny20, lambda: tmp_path_factory.mktemp("training"))
