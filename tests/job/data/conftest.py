"""Fixtures of the data tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clips import demo_clips
from ltx2_job.data.decoder import Decoder


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """bigbuckbunny, bikes and carphone with captions; shared and read-only."""
    return demo_clips()


@pytest.fixture(scope="session")
def decoder() -> Iterator[Decoder]:
    """One media worker for all tests."""
    with Decoder(patience=60) as shared:
        yield shared
