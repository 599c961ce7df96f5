"""Both helms, every set of values, and the module that writes the chart's files."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chart_cases import CASES
from cluster.harness import binaries
from cluster.required import missing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[3, 4], ids=["helm3", "helm4"])
def major(request: pytest.FixtureRequest) -> int:
    """A major version of helm."""
    return int(request.param)


@pytest.fixture(params=list(CASES))
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One set of values."""
    return CASES[request.param]


@pytest.fixture(scope="session")
def promtool() -> Path:
    """promtool of the Prometheus that the tests of the cluster run. Needs Go the first time: two minutes."""
    try:
        return binaries.promtool()
    except binaries.Missing as why:
        missing(why)


@pytest.fixture
def chart_files(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of scripts/ that writes the chart's files."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("chart_files")
