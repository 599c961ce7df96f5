"""The table of figures that are not arithmetic: estimate_constants.json, each with its source."""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def constants() -> dict[str, Any]:
    """The table of figures and their sources."""
    loaded: dict[str, Any] = json.loads(files("ltx2_job").joinpath("estimate_constants.json").read_bytes())
    return loaded


def figure(group: str, name: str) -> float:
    """One figure of the table."""
    return float(constants()[group][name]["value"])
