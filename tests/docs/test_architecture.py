"""docs/architecture.md: the rooms that it names are there, and none is missing."""

from __future__ import annotations

import re

from docpages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = PAGE.partition("## Rooms")[2].partition("\n## ")[0]
HOUSES = (ROOT / "operator" / "ltx2_operator", ROOT / "job" / "ltx2_job")


def named(text: str) -> set[str]:
    """What stands in backticks as a module or a folder: `pods.py`, `cli/`, `training/step.py`."""
    return set(re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", text))


def test_what_it_names_is_there() -> None:
    paths = named(PAGE) - {"operator/", "job/"}
    assert len(paths) > 30
    assert sorted(path for path in paths if not any((house / path).exists() for house in HOUSES)) == []


def test_every_room_of_the_job_and_the_operator_is_named() -> None:
    rooms = {f"{path.parent.name}/" for house in HOUSES for path in house.glob("*/__init__.py")}
    assert rooms - named(ROOMS) == set()


def test_every_package_of_the_contracts_is_a_room_of_the_picture() -> None:
    """The arrows that `make lint` holds are between things that the page explains."""
    contracts = set(re.findall(r'"ltx2_job\.(\w+)"', (ROOT / "pyproject.toml").read_text()))
    known = {path.removesuffix(".py").rstrip("/") for path in named(PAGE)}
    assert contracts - known == set()
