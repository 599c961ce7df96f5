"""Fixtures of the caching tests."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache_bench import Bench, SharedWorkers


@pytest.fixture(scope="session")
def workers() -> Iterator[SharedWorkers]:
    """Two media workers for all tests."""
    # The stage collects garbage after each model; what the libraries' imports made need not be searched each time.
    gc.freeze()
    shared = SharedWorkers(2)
    yield shared
    shared.finish()
    gc.unfreeze()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: SharedWorkers) -> Bench:
    """An empty workspace with a stand-in model."""
    return Bench(tmp_path, monkeypatch, workers)
