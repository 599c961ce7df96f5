"""Fixtures of the end-to-end tests."""

from pathlib import Path

import pytest

from clips import demo_clips


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Folder of the three real clips and their captions. Shared and read-only."""
    return demo_clips()
