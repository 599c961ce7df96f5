"""The images, built once for all tests here from the shipped Dockerfile."""

import os
from collections.abc import Callable

import pytest

from cluster.harness.binaries import Missing
from cluster.harness.build_images import build


def _built(target: str) -> str:
    try:
        return build(target)
    except Missing as why:
        if os.environ.get("TEST_REQUIRE_CLUSTER"):
            pytest.fail(f"TEST_REQUIRE_CLUSTER is set and images cannot be built: {why}")
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def operator_image() -> str:
    """Name of the operator's image."""
    return _built("operator")


@pytest.fixture(scope="session")
def cpu_image() -> str:
    """Name of the image of jobs without a GPU."""
    return _built("job-cpu")


@pytest.fixture(scope="session", params=["operator", "job-cpu"])
def image(request: pytest.FixtureRequest) -> str:
    """Each image that is built here, in turn."""
    fixture: Callable[[str], str] = request.getfixturevalue
    return fixture({"operator": "operator_image", "job-cpu": "cpu_image"}[request.param])
