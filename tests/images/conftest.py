"""The images, built once for all tests here from the shipped Dockerfile."""

from collections.abc import Callable

import pytest

from cluster.harness.binaries import Missing
from cluster.harness.build_images import build
from cluster.required import missing


def _built(target: str) -> str:
    try:
        return build(target)
    except Missing as why:
        missing(why)


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
