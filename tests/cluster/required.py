"""What to do where this machine lacks what a test here needs."""

import os
from typing import NoReturn

import pytest

from cluster.harness.binaries import Missing


def missing(why: Missing | str) -> NoReturn:
    """Skip what needs a cluster; where one must be had (TEST_REQUIRE_CLUSTER=1, as in CI) that is a failure."""
    if os.environ.get("TEST_REQUIRE_CLUSTER"):
        pytest.fail(f"TEST_REQUIRE_CLUSTER is set and this cannot be had: {why}")
    pytest.skip(str(why))
