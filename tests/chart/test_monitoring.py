"""Monitors, alerts, dashboards and network policies: there when asked for, and about series that really exist."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import trainings
from chart_cases import FULL, NAMESPACES
from clients import CHART, rendered, run_helm
from ltx2_job.metrics import Metrics as JobMetrics
from ltx2_operator import pods
from ltx2_operator.metrics import Metrics as OperatorMetrics
from ltx2_operator.template import template

Object = dict[str, Any]
# Grafana's names of units: plain, with suffixes, share, seconds, bytes, per second, requests per second, scientific.
UNITS = {"none", "short", "percentunit", "s", "bytes", "ops", "reqps", "sci"}
MONITORING = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [obj for obj in objects if obj["kind"] == kind]


def one(objects: list[Object], kind: str) -> Object:
    (found,) = of_kind(objects, kind)
    return found


def with_values(**metrics: Any) -> list[Object]:
    return rendered(4, {"metrics": {name: {"enabled": True, **more} for name, more in metrics.items()}})


def series() -> set[str]:
    """Every series name that our processes offer (the gauges that the operator's process adds are named here)."""
    operator = OperatorMetrics()
    operator.trainings(list)
    for name in ("workqueue_depth", "watch_age_seconds"):
        operator.watch(name, "", lambda: 0.0)
    found = set()
    for registry in (JobMetrics("fox", "train").registry, operator.registry):
        for family in registry.collect():
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            found |= {family.name + suffix for suffix in suffixes}
    return found


def expressions() -> dict[str, list[str]]:
    """The queries of every alert and every panel."""
    rule = one(rendered(4, FULL), "PrometheusRule")
    found = {alert["alert"]: [alert["expr"]] for group in rule["spec"]["groups"] for alert in group["rules"]}
    for name in ("training", "operator"):
        for panel in dashboard(name)["panels"]:
            found[f"{name}: {panel['title']} ({panel['id']})"] = [target["expr"] for target in panel["targets"]]
    return found


def dashboard(name: str) -> dict[str, Any]:
    return dict(json.loads((CHART / "dashboards" / f"{name}.json").read_text()))


# ------------------------------------------------------------------------------------------------------------ monitors


def test_nothing_of_prometheus_operator_is_made_by_default(major: int) -> None:
    """Its kinds are unknown to most clusters: one of them would make the install fail."""
    assert not MONITORING & {obj["kind"] for obj in rendered(major)}
    assert not [o for o in rendered(major) if "dashboard" in o["metadata"]["name"] or o["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [("serviceMonitor", "ServiceMonitor"), ("podMonitor", "PodMonitor"), ("prometheusRule", "PrometheusRule")],
)
def test_each_is_made_alone_with_the_labels_that_prometheus_selects(value: str, kind: str) -> None:
    objects = with_values(**{value: {"additionalLabels": {"release": "prom"}}})
    assert MONITORING & {obj["kind"] for obj in objects} == {kind}
    assert one(objects, kind)["metadata"]["labels"]["release"] == "prom"


def test_the_service_monitor_finds_the_service_and_its_port(major: int) -> None:
    objects = rendered(major, FULL)
    service, monitor = one(objects, "Service"), one(objects, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["honorLabels"] is True, "else a training's namespace is lost to the operator's"


def test_the_pod_monitor_finds_the_pods_of_jobs() -> None:
    """Held to what pods.py really writes: labels, the port's name, the label of an attempt."""
    spec = one(with_values(podMonitor={}), "PodMonitor")["spec"]
    assert spec["namespaceSelector"] == {"any": True}
    labels = pods.labels(trainings.context())
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    pod = template(trainings.context())
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    sources = {source for rule in endpoint["relabelings"] for source in rule["sourceLabels"]}
    assert "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", pods.ATTEMPT_LABEL) in sources


def test_the_pod_monitor_looks_where_the_operator_looks() -> None:
    objects = rendered(4, {**NAMESPACES, "metrics": {"podMonitor": {"enabled": True}}})
    assert one(objects, "PodMonitor")["spec"]["namespaceSelector"] == {"matchNames": ["art", "ml"]}


# ------------------------------------------------------------------------------------------------------------ queries


def test_queries_name_series_that_exist() -> None:
    """Mutation caught: a renamed metric, whose alert would never fire and whose panel would stay empty."""
    known = series()
    for place, queries in expressions().items():
        for query in queries:
            named = set(re.findall(r"\bltx2_(?:job|operator)_\w+", query))
            assert named <= known, (place, named - known)
            assert named or "process_" in query or "DCGM" in query, place


def test_every_series_of_a_job_is_on_a_dashboard() -> None:
    shown = " ".join(query for queries in expressions().values() for query in queries)
    assert not {name for name in series() if not re.search(rf"\b{name}\b", shown)} - {
        # a histogram is shown by its buckets; the rest has a better form (age) or belongs to the process
        "ltx2_job_checkpoint_timestamp_seconds", "ltx2_operator_reconcile_duration_seconds_sum",
        "ltx2_operator_reconcile_duration_seconds_count", *(name for name in series() if name.startswith("process_")),
    }  # fmt: skip


def test_promtool_accepts_the_alerts(tmp_path: Path, promtool: Path, major: int) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(one(rendered(major, FULL), "PrometheusRule")["spec"]))
    done = subprocess.run([str(promtool), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "10 rules found" in done.stdout, done.stdout + done.stderr


def test_promtool_accepts_the_panels(tmp_path: Path, promtool: Path) -> None:
    rules = [
        {"record": f"panel:{index}", "expr": query}
        for index, query in enumerate(q for queries in expressions().values() for q in queries)
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([str(promtool), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_say_what_to_do(major: int) -> None:
    rule = one(rendered(major, FULL), "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    for alert in alerts:
        assert alert["labels"]["severity"] in ("info", "warning", "critical")
        assert alert["labels"]["team"] == "art"
        assert alert["annotations"]["runbook_url"] == f"https://example.org/runbooks/{alert['alert']}"
        assert len(alert["annotations"]["summary"]) > 20 and len(alert["annotations"]["description"]) > 20
        assert "{{" not in alert["expr"]


def test_thresholds_reach_the_alerts() -> None:
    def texts(**values: int) -> str:
        return json.dumps(one(with_values(prometheusRule=values), "PrometheusRule")["spec"])

    for name, value in {"stalledMinutes": 77, "checkpointIntervals": 78, "attemptsPerHour": 79, "cacheHours": 81,
                        "claimPercent": 82, "queueDepth": 83}.items():  # fmt: skip
        assert str(value) not in texts() and str(value) in texts(**{name: value}), name


# ---------------------------------------------------------------------------------------------------------- dashboards


@pytest.mark.parametrize("name", ["training", "operator"])
def test_a_dashboard_is_well_formed(name: str) -> None:
    board = dashboard(name)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) >= 10
    assert {panel["type"] for panel in board["panels"]} == {"timeseries", "stat", "table"}
    assert "__inputs" not in board and board["uid"] == f"ltx2-{name}"
    variables = {variable["name"] for variable in board["templating"]["list"]}
    for variable in board["templating"]["list"]:
        assert variable["type"] == "datasource" or variable["datasource"]["uid"] == "${datasource}"
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(board["panels"])))
    assert used <= variables, used - variables
    for panel in board["panels"]:
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters))


@pytest.mark.parametrize("name", ["training", "operator"])
def test_a_panel_says_what_it_shows_and_in_which_unit(name: str) -> None:
    """Mutation caught: bytes shown as 3.4 G of nothing, a title that is there twice, a panel whom nobody explains."""
    panels = dashboard(name)["panels"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        queries, unit = (
            " ".join(target["expr"] for target in panel["targets"]),
            panel["fieldConfig"]["defaults"]["unit"],
        )
        assert unit in UNITS, panel["title"]
        assert ("_bytes" in queries) == (unit == "bytes"), panel["title"]
        assert ("_seconds" in queries and "60 /" not in queries) == (unit == "s"), panel["title"]
        assert len(panel["description"]) > 10, panel["title"]


def selectors(query: str) -> dict[str, str]:
    """Each series of a query with the matchers behind it."""
    return dict(re.findall(r"\b((?:ltx2|process)_\w+)(?:\{([^}]*)\})?", query))


def test_a_panel_of_a_training_looks_at_that_one_only() -> None:
    """Mutation caught: one selector of a query without the namespace: a namesake elsewhere would be mixed in."""
    for panel in dashboard("training")["panels"]:
        for target in panel["targets"]:
            for series, matchers in selectors(target["expr"]).items():
                assert 'namespace="$namespace", training="$training"' in matchers, (panel["title"], series)


def test_a_panel_of_the_operator_looks_at_that_one_only() -> None:
    for panel in dashboard("operator")["panels"]:
        for target in panel["targets"]:
            found = selectors(target["expr"])
            if "ltx2_operator_training_info" in found:  # its namespace is the training's
                assert found.pop("ltx2_operator_training_info") == 'job="$job"' and "and on (pod)" in target["expr"]
            for series, matchers in found.items():
                assert 'namespace="$namespace", job="$job"' in matchers, (panel["title"], series)


def test_nothing_is_made_up_where_there_is_no_series() -> None:
    for place, queries in expressions().items():
        assert not any("vector(" in query for query in queries), place


@pytest.mark.parametrize("name", ["training", "operator"])
def test_panels_do_not_overlap(name: str) -> None:
    cells = set()
    for panel in dashboard(name)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not own & cells, panel["title"]
        cells |= own


def test_dashboards_arrive_byte_equal_under_the_sidecars_label(major: int) -> None:
    """Mutation caught: legends in braces that the template language would swallow."""
    found = [o for o in rendered(major, FULL) if "-dashboard-" in o["metadata"]["name"]]
    assert len(found) == 2
    for obj in found:
        assert obj["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert obj["metadata"]["annotations"] == {"grafana_folder": "Training"}
        ((file, text),) = obj["data"].items()
        assert json.loads(text) == dashboard(file.removeprefix("ltx2-").removesuffix(".json"))


# ------------------------------------------------------------------------------------------------------------- network


def matches(peer: Object, labels: dict[str, str], namespace: dict[str, str]) -> bool:
    """Whether a peer of a policy admits a pod with these labels, in a namespace with those (match labels only)."""
    chosen = peer.get("podSelector", {}).get("matchLabels", {})
    where = peer.get("namespaceSelector", {}).get("matchLabels", {})
    return chosen.items() <= labels.items() and where.items() <= namespace.items()


def test_the_operator_reaches_what_it_needs(major: int) -> None:
    objects = rendered(major, FULL)
    policy = next(o for o in of_kind(objects, "NetworkPolicy") if o["metadata"]["name"] == "trainer")
    pod = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod.items()
    api, dns, jobs = policy["spec"]["egress"]
    assert api["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}] and {p["port"] for p in api["ports"]} == {443, 6443}
    assert {p["port"] for p in dns["ports"]} == {53}
    assert jobs["ports"] == [{"port": 9999}], "jobs.metricsPort"
    (peer,) = jobs["to"]
    assert matches(peer, pods.labels(trainings.context()), {"kubernetes.io/metadata.name": "art"})


def test_jobs_admit_the_operator_and_each_other(major: int) -> None:
    objects = rendered(major, FULL)
    policies = [o for o in of_kind(objects, "NetworkPolicy") if o["metadata"]["name"] == "trainer-jobs"]
    assert {o["metadata"]["namespace"] for o in policies} == {"art", "ml"}
    operator = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    job = pods.labels(trainings.context())
    spec = policies[0]["spec"]
    assert spec["podSelector"]["matchLabels"].items() <= job.items()
    metrics, peers = spec["ingress"]
    assert metrics["ports"] == [{"port": "metrics"}]
    assert matches(metrics["from"][0], operator, {"kubernetes.io/metadata.name": "ltx2-system"})
    assert not matches(metrics["from"][0], operator, {"kubernetes.io/metadata.name": "elsewhere"})
    assert "ports" not in peers and matches(peers["from"][0], job, {}) and "namespaceSelector" not in peers["from"][0]
    assert spec["egress"] == [{}]


def test_policies_for_jobs_need_a_namespace(major: int) -> None:
    values = {"networkPolicy": {"enabled": True, "jobs": {"enabled": True}}}
    done = run_helm(major, "template", "ltx2", str(CHART), values=values, check=False)
    assert done.returncode != 0 and "networkPolicy.jobs.namespaces" in done.stderr
    alone = {"networkPolicy": {"jobs": {"enabled": True, "namespaces": ["ml"]}}}
    done = run_helm(major, "template", "ltx2", str(CHART), values=alone, check=False)
    assert done.returncode != 0 and "needs networkPolicy.enabled: true" in done.stderr
    watched = rendered(major, {**values, "watchNamespaces": ["art"]})
    assert {o["metadata"]["namespace"] for o in of_kind(watched, "NetworkPolicy")} == {"ltx2-system", "art"}


# --------------------------------------------------------------------------------------------------------- `helm test`


def test_the_test_pod_is_no_operator(major: int) -> None:
    """Mutation caught: a test pod that the Service or the budget counts among the operators."""
    objects = rendered(major)
    pod, service = one(objects, "Pod"), one(objects, "Service")
    assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    assert container["args"][-1] == "http://ltx2-ltx2-operator.ltx2-system.svc:8080/readyz"
    assert container["image"] == one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    compile(container["args"][0], "the test", "exec")
