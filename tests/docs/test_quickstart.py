"""docs/quickstart.md: its table is what the program predicts now."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from docpages import ROOT

PAGE = ROOT / "docs" / "quickstart.md"


@pytest.fixture(scope="module")
def generate():  # type: ignore[no-untyped-def]
    """scripts/generate.py as a module."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("generate", ROOT / "scripts" / "generate.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def test_the_table_of_cards_is_what_is_predicted_now(generate) -> None:  # type: ignore[no-untyped-def]
    """`make generate` writes it; a changed constant or card changes the page."""
    assert generate.filled(PAGE.read_text(), "cards", generate.cards_table()) == PAGE.read_text()
    table = generate.cards_table()
    assert table.count("\n| `") >= 10 and "`rtx-4090` (24 GiB)" in table.partition("**Not yet**")[2]
