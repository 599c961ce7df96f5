"""docs/troubleshooting.md has every state, condition, reason and event of the operator, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from docpages import ROOT
from ltx2_job.exitcodes import Action, lookup
from ltx2_operator import conditions

PAGE = ROOT / "docs" / "troubleshooting.md"
ENDS = "How an attempt ends"
# What the table of ends says of a verdict. Those without an exit code of their own: classify.py's tests hold them.
THEN = {
    Action.SUCCEED: "Succeeded",
    Action.FAIL: "fails",
    Action.RETRY: "again, counted",
    Action.RETRY_UNCOUNTED: "not counted",
    Action.WAIT_FOR_DATA: "waits",
    Action.IGNORE: "nothing is decided",
}


def rows(section: str) -> dict[str, list[str]]:
    """Name -> the other cells, for the first table of a section; a first cell may hold several names."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            for name in re.findall(r"`(\w+)`", cells[0]):
                assert name not in found, f"{section}: {name} has two rows"
                found[name] = cells[1:]
    return found


@pytest.mark.parametrize("kind", conditions.TYPES)
def test_every_reason_of_a_condition_has_a_row(kind: str) -> None:
    own = set(rows(kind))
    shared = set(rows(ENDS)) if kind in ("Running", "Failed") else set()
    assert own | shared == conditions.REASONS[kind]


def test_the_table_of_ends_says_what_the_exit_codes_lead_to() -> None:
    ends = rows(ENDS)
    for row in map(lookup, range(256)):
        if row.action in THEN:
            assert THEN[row.action] in ends[row.reason][1], f"{row.code}: {row.reason}: {ends[row.reason][1]}"


def test_every_state_has_a_row() -> None:
    """Every word that one condition alone can lead to; each is decided by a single one."""
    words = {
        conditions.state_word([{"type": kind, "status": status, "reason": reason}], ended)
        for kind in conditions.TYPES
        for reason in conditions.REASONS[kind]
        for status in (conditions.TRUE, conditions.FALSE)
        for ended in (True, False)
    }
    assert words == set(conditions.STATES)
    assert set(rows("The word under STATE")) == words


def test_every_event_has_a_row() -> None:
    """Reasons in the calls that tell people something, and of what cannot be done now."""
    told: set[str] = set()
    for path in (ROOT / "operator" / "ltx2_operator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and _called(node) in ("event", "Event"):
                told |= {text for text in _texts(node.args[0]) if text[0].isupper()}
            if isinstance(node, ast.Call) and len(node.args) == 2 and _called(node) == "NotNow":
                told |= set(_texts(node.args[1]))
    assert len(told) > 10
    assert set(rows("Events")) == told


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _texts(node: ast.AST) -> Iterator[str]:
    return (one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str))
