"""docs/operator.md: the metrics and the rights that it names are those of the program and the chart."""

from __future__ import annotations

import re

from clients import rendered
from docpages import ROOT
from ltx2_operator.metrics import PREFIX, Metrics

PAGE = ROOT / "docs" / "operator.md"
PROCESS = ROOT / "operator" / "ltx2_operator" / "runtime" / "process.py"


def section(title: str) -> str:
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_its_metrics_are_those_that_are_served() -> None:
    """Those of Metrics, and the numbers that the process hangs into it."""
    metrics = Metrics()
    metrics.trainings(list)
    families = [one for one in metrics.registry.collect() if one.name.startswith(PREFIX)]
    served = {one.name + ("_total" if one.type == "counter" else "") for one in families}
    hung_in = re.findall(r'\("(\w+)", "[^"]+", (?:lambda|self)', PROCESS.read_text())
    assert len(hung_in) == 2
    named = set(re.findall(rf"`({PREFIX}_\w+)", section("Metrics")))
    assert named == served | {f"{PREFIX}_{name}" for name in hung_in}


def test_every_kind_that_the_chart_grants_is_in_its_table_of_rights() -> None:
    table = section("What it may do, and what for").lower()
    rules = [
        rule
        for body in rendered(4)
        if body["kind"] in ("Role", "ClusterRole") and not body["metadata"]["name"].endswith(("-viewer", "-editor"))
        for rule in body["rules"]
    ]
    granted = {name.partition("/")[0] for rule in rules for name in rule["resources"]}
    words = {"ltx2trainings": "ltx2training", "persistentvolumeclaims": "claims"}
    assert len(granted) > 8
    assert [name for name in granted if words.get(name, name) not in table] == []
