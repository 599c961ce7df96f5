"""docs/monitoring.md has every alert of the chart; its tables of panels are written by `make generate`."""

from __future__ import annotations

import json
import re

import pytest

from clients import CHART, rendered
from docpages import ROOT

PAGE = (ROOT / "docs" / "monitoring.md").read_text()


def test_its_alerts_are_those_of_the_chart_with_their_defaults() -> None:
    (rule,) = (
        o for o in rendered(4, {"metrics": {"prometheusRule": {"enabled": True}}}) if o["kind"] == "PrometheusRule"
    )
    alerts = [alert["alert"] for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert re.findall(r"^\| `(LTX2\w+)` \|", PAGE, re.M) == alerts
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema["properties"]["metrics"]["properties"]["prometheusRule"]["properties"]
    told = dict(re.findall(r"`(\w+)` \((\d+)\)", PAGE))
    assert told and set(told) == {name for name, value in known.items() if value.get("type") == "integer"}
    values = (CHART / "values.yaml").read_text()
    assert all(f"{name}: {number}\n" in values for name, number in told.items())


@pytest.mark.parametrize("name", ["training", "operator"])
def test_its_panels_are_those_of_the_dashboard(name: str) -> None:
    """In their order, with what the dashboard says of each."""
    table = PAGE.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0]
    rows = [line.strip("|").split(" | ")[:2] for line in table.splitlines()[3:]]
    panels = json.loads((CHART / "dashboards" / f"{name}.json").read_text())["panels"]
    assert [[cell.strip() for cell in row] for row in rows] == [[p["title"], p["description"]] for p in panels]
