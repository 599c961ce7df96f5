"""Every alert fires when it should and not otherwise: alerts.yaml, tried by promtool on the rules that helm renders."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from clients import rendered

CASES = Path(__file__).with_name("alerts.yaml")


def rules(major: int = 4) -> dict[str, Any]:
    """The groups of the chart's PrometheusRule with its defaults."""
    objects = rendered(major, {"metrics": {"prometheusRule": {"enabled": True}}})
    (rule,) = (obj for obj in objects if obj["kind"] == "PrometheusRule")
    return dict(rule["spec"])


def tried(promtool: Path, folder: Path, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """promtool on the cases beside these rules."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    (folder / CASES.name).write_text(CASES.read_text())
    command = [str(promtool), "test", "rules", CASES.name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_each_alert_fires_and_is_silent_as_written(promtool: Path, tmp_path: Path, major: int) -> None:
    done = tried(promtool, tmp_path, rules(major))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    """Told by the tests' names; each asks for the alert that it names, and no other."""
    verdicts: dict[str, set[str]] = {}
    for test in yaml.safe_load(CASES.read_text())["tests"]:
        alert, verdict = test["name"].split()[:2]
        fires = any(ask["exp_samples"] for ask in test["promql_expr_test"])
        assert fires == (verdict == "fires"), test["name"]
        for ask in test["promql_expr_test"]:
            assert re.findall(r'ALERTS\{alertname="(\w+)"', ask["expr"]) == [alert], test["name"]
        verdicts.setdefault(alert, set()).add("fires" if fires else "silent")
    alerts = [alert["alert"] for group in rules()["groups"] for alert in group["rules"]]
    assert verdicts == {alert: {"fires", "silent"} for alert in alerts}


def test_alerts_that_look_at_other_series_fail_their_cases(promtool: Path, tmp_path: Path) -> None:
    """The cases notice what they are there for: every alert's series renamed."""
    spec = rules()
    for rule in (rule for group in spec["groups"] for rule in group["rules"]):
        rule["expr"] = re.sub(r"\b(ltx2_\w+|DCGM_\w+|kubelet_\w+)", r"\1_renamed", rule["expr"])
    done = tried(promtool, tmp_path, spec)
    assert done.returncode != 0
    failed = set(re.findall(r'alertname=\\?"(\w+)', done.stdout + done.stderr))
    assert failed == {rule["alert"] for group in spec["groups"] for rule in group["rules"]}
