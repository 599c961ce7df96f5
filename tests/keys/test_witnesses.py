"""Every supported key has a test that shows it at work, and the table in docs/configuration.md names it."""

import ast
import importlib.util
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

from ltx2_job.config.reference import reference_markdown, supported_keys

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def keys_page() -> ModuleType:
    """scripts/keys_page.py."""
    spec = importlib.util.spec_from_file_location("keys_page", ROOT / "scripts" / "keys_page.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_every_supported_key_has_a_test_and_every_choice_one(keys_page: ModuleType) -> None:
    shown: dict[str, set[str]] = defaultdict(set)
    for _, key, choices in keys_page.witnesses():
        shown[key].update(choices)
    supported = supported_keys()
    assert len(supported) > 80
    assert set(shown) - set(supported) == set(), "a test names a key that is unknown or not supported"
    assert set(supported) - set(shown) == set(), "keys without a test"
    assert {key: sorted(choices) for key, choices in shown.items()} == {
        key: sorted(choices) for key, choices in supported.items()
    }


def test_the_tests_that_are_named_exist_and_are_run(keys_page: ModuleType) -> None:
    """Catches a marker on a helper, which pytest would never run, and one built at run time, which nobody finds."""
    found = 0
    for test, _, _ in keys_page.witnesses():
        path, name = test.split("::")
        assert name.startswith("test_") and name in {
            node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)
        }
        found += 1
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    assert found == sum(line.strip().startswith("@pytest.mark.witness(") for text in texts for line in text.split("\n"))


def test_the_page_holds_the_table_with_its_tests(keys_page: ModuleType) -> None:
    """`make generate` writes it anew."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page.count(keys_page.BEGIN) == page.count(keys_page.END) == 1
    assert page.partition(keys_page.BEGIN)[2].partition(keys_page.END)[0].strip() == keys_page.reference().strip()


def test_the_table_names_them_in_a_column_of_its_own(keys_page: ModuleType) -> None:
    """And the table that the installed program prints does not: there are no tests beside it."""
    named = {
        line.split(" | ")[0].strip("| `"): line.rstrip(" |").rpartition(" | ")[2]
        for line in keys_page.reference().splitlines()
        if line.startswith("| `")
    }
    assert named["lora_rank"] == "`tests/keys/test_adapter.py::test_lora_rank`"
    assert named["optimizer"] == "`tests/keys/test_optimisation.py::test_optimizer` (`adamw`, `adamw_bf16`)"
    assert "::test_repeats" in named["repeats"] and "::test_frames" in named["video.min_frames"]
    assert "tests/" not in named["ramtorch"] and "tests/" not in named["compress_disk_cache"]
    assert "tests/" not in reference_markdown() and "| test |" not in reference_markdown()
