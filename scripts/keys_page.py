"""The table of keys in docs/configuration.md, with the tests that show each supported key at work."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ltx2_job.config.reference import reference_markdown

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- reference:begin -->", "<!-- reference:end -->"
MARKER = "witness"  # @pytest.mark.witness("key", "choice", …) on a test that shows the key (with these choices) at work

Witness = tuple[str, str, tuple[str, ...]]
"""(test as pytest names it, key, choices)."""


def witnesses() -> list[Witness]:
    """Every marker in tests/, in the order of files and lines; the tests are read, not imported."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        if f"mark.{MARKER}(" in text:
            name = path.relative_to(ROOT).as_posix()
            functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
            found += [
                (f"{name}::{function.name}", key, tuple(choices))
                for function in sorted(functions, key=lambda node: node.lineno)
                for key, *choices in _marks(function)
            ]
    return found


def _marks(function: ast.FunctionDef) -> Iterator[list[str]]:
    for call in function.decorator_list:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == MARKER:
            yield [ast.literal_eval(argument) for argument in call.args]


def cells() -> dict[str, list[str]]:
    """Key -> its tests as the table shows them, each with the choices that it shows."""
    shown = defaultdict(list)
    for test, key, choices in witnesses():
        named = ", ".join(f"`{choice}`" for choice in choices)
        shown[key].append(f"`{test}`" + (f" ({named})" if named else ""))
    return dict(shown)


def reference() -> str:
    """What stands between the marks of docs/configuration.md."""
    return reference_markdown(cells())


def write() -> None:
    """Write the table into the page; one that is up to date stays byte-equal."""
    page = ROOT / "docs" / "configuration.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{reference().strip()}\n{END}{after}")
