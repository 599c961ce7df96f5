"""Fixtures of the data tests."""

from collections.abc import Iterator

import pytest

from ltx2_job.data.decoder import Decoder


@pytest.fixture(scope="session")
def decoder() -> Iterator[Decoder]:
    """One media worker for all tests."""
    with Decoder(patience=60) as shared:
        yield shared
