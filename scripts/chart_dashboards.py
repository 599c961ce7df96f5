"""The chart's two Grafana dashboards as JSON: one for a training, one for the operator.

Only timeseries, stat and table panels; the data source is a variable, so that the files work in every Grafana.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

WIDTH: Final = 24  # columns of Grafana's grid
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel: its title, queries as (expression, legend), unit and size in the grid."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    description: str = ""
    log: bool = False


RUN: Final = 'namespace="$namespace", training="$training"'
TRAINING: Final = (
    Panel("State", ((f"ltx2_operator_training_info{{{RUN}}}", "{{state}} · {{stage}}"),), "none", "stat", 4, 4,
          "As kubectl get ltx2 shows it."),
    Panel("Progress", ((f"max(ltx2_job_step{{{RUN}}}) / max(ltx2_job_max_steps{{{RUN}}})", "steps"),), "percentunit",
          "stat", 4, 4),
    Panel("Time left", (
        (f"(max(ltx2_job_max_steps{{{RUN}}}) - max(ltx2_job_step{{{RUN}}})) * "
         f"avg(avg_over_time(ltx2_job_seconds_per_step{{{RUN}}}[10m]))", "until the last step"),), "s", "stat", 4, 4),
    Panel("Loss", ((f'ltx2_job_loss{{{RUN}, part="total"}}', "total"),), "none", "stat", 4, 4),
    Panel("Attempt", ((f"ltx2_operator_training_info{{{RUN}}}", "{{attempt}}"),), "none", "stat", 4, 4),
    Panel("Since the last checkpoint", ((f"ltx2_job_checkpoint_age_seconds{{{RUN}}}", "age"),), "s", "stat", 4, 4),
    Panel("Loss", (
        (f"ltx2_job_loss{{{RUN}}}", "{{part}}"), (f"ltx2_job_held_out_loss{{{RUN}}}", "held out, {{part}}")),
        "none", width=12, description="Of the last step, by part; and on the held-out clips."),
    Panel("Steps", ((f"ltx2_job_step{{{RUN}}}", "step, attempt {{attempt}}"),
                    (f"ltx2_job_checkpoint_last_step{{{RUN}}}", "newest checkpoint")), "none", width=12),
    Panel("Learning rate", ((f"ltx2_job_learning_rate{{{RUN}}}", "learning rate"),), "sci"),
    Panel("Gradient norm", ((f"ltx2_job_gradient_norm{{{RUN}}}", "before clipping"),), "none", log=True),
    Panel("Seconds per step", ((f"ltx2_job_seconds_per_step{{{RUN}}}", "step"),
                               (f"ltx2_job_data_wait_seconds{{{RUN}}}", "of it waiting for samples")), "s"),
    Panel("GPU memory", ((f"ltx2_job_gpu_memory_bytes{{{RUN}}}", "{{kind}}"),), "bytes"),
    Panel("Host memory", ((f"ltx2_job_host_memory_bytes{{{RUN}}}", "resident, {{stage}}"),), "bytes"),
    Panel("Writing a checkpoint", ((f"ltx2_job_checkpoint_seconds{{{RUN}}}", "seconds"),), "s"),
    Panel("Cache", (
        (f"sum by (kind, result) (rate(ltx2_job_cache_items_total{{{RUN}}}[5m]))", "{{kind}}, {{result}}"),),
        "ops", width=12, description="Items per second that the cache stage finishes."),
    Panel("Cached so far", ((f"sum by (kind, result) (ltx2_job_cache_items_total{{{RUN}}})", ""),), kind="table",
          width=12),
)  # fmt: skip

OF: Final = 'namespace="$namespace", job="$job"'
OPERATOR: Final = (
    Panel("Working replicas", ((f"sum(ltx2_operator_leader{{{OF}}})", "leaders"),), "none", "stat", 4, 4,
          "Exactly one."),
    Panel("Running", (('sum(ltx2_operator_trainings{state="Running"}) or vector(0)', "trainings"),), "none", "stat",
          4, 4),
    Panel("Waiting", (('sum(ltx2_operator_trainings{state="Waiting"}) or vector(0)', "trainings"),), "none", "stat",
          4, 4),
    Panel("Failed", (('sum(ltx2_operator_trainings{state="Failed"}) or vector(0)', "trainings"),), "none", "stat",
          4, 4),
    Panel("Queue", ((f"max(ltx2_operator_workqueue_depth{{{OF}}})", "waiting"),), "none", "stat", 4, 4),
    Panel("Oldest watch", ((f"max(ltx2_operator_watch_age_seconds{{{OF}}})", "silent for"),), "s", "stat", 4, 4),
    Panel("Trainings", (("sum by (state, stage) (ltx2_operator_trainings)", "{{state}} {{stage}}"),), "none",
          width=12),
    Panel("Each training", (("ltx2_operator_training_info", ""),), kind="table", width=12),
    Panel("Looks", ((f"sum by (result) (rate(ltx2_operator_reconcile_total{{{OF}}}[5m]))", "{{result}}"),), "ops"),
    Panel("How long a look takes", tuple(
        (f"histogram_quantile({q}, sum by (le) (rate(ltx2_operator_reconcile_duration_seconds_bucket{{{OF}}}[5m])))",
         f"p{q * 100:.0f}") for q in (0.5, 0.99)), "s"),
    Panel("Queue", ((f"sum(ltx2_operator_workqueue_depth{{{OF}}})", "depth"),
                    (f"sum(rate(ltx2_operator_workqueue_adds_total{{{OF}}}[5m]))", "adds/s"),
                    (f"sum(rate(ltx2_operator_workqueue_retries_total{{{OF}}}[5m]))", "retries/s")), "short"),
    Panel("Requests to the API server", (
        (f"sum by (verb, code) (rate(ltx2_operator_api_requests_total{{{OF}}}[5m]))", "{{verb}} {{code}}"),), "reqps"),
    Panel("Watches that began anew", (
        (f"sum by (resource) (rate(ltx2_operator_watch_restarts_total{{{OF}}}[15m]))", "{{resource}}"),), "ops"),
    Panel("Memory", ((f"process_resident_memory_bytes{{{OF}}}", "{{pod}}"),), "bytes"),
)  # fmt: skip


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "type": "query", "datasource": DATASOURCE, "query": {"query": query, "refId": name},
        "refresh": 2, "sort": 1, "includeAll": False, "multi": False,
    }  # fmt: skip


DATASOURCE_VARIABLE: Final = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "data source"}
VARIABLES: Final = {
    "training": [
        _variable("namespace", "label_values(ltx2_operator_training_info, namespace)"),
        _variable("training", 'label_values(ltx2_operator_training_info{namespace="$namespace"}, training)'),
    ],
    "operator": [
        _variable("namespace", "label_values(ltx2_operator_leader, namespace)"),
        _variable("job", 'label_values(ltx2_operator_leader{namespace="$namespace"}, job)'),
    ],
}
TITLES: Final = {"training": "LTX-2 training", "operator": "LTX-2 operator"}
PANELS: Final = {"training": TRAINING, "operator": OPERATOR}


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard ("training" or "operator") as Grafana's JSON."""
    panels, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(PANELS[name], start=1):
        if x + panel.width > WIDTH:
            x, y, row = 0, y + row, 0
        panels.append(_panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
        x, row = x + panel.width, max(row, panel.height)
    return {
        "uid": f"ltx2-{name}",
        "title": TITLES[name],
        "tags": ["ltx2"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [DATASOURCE_VARIABLE, *VARIABLES[name]]},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    table = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend,
            **({"instant": True, "format": "table"} if table else {}),
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]  # fmt: skip
    custom = {"custom": {"scaleDistribution": {"type": "log", "log": 10}}} if panel.log else {}
    made: dict[str, Any] = {
        "id": number, "type": panel.kind, "title": panel.title, "datasource": DATASOURCE, "gridPos": place,
        "targets": targets, "fieldConfig": {"defaults": {"unit": panel.unit, **custom}, "overrides": []},
    }  # fmt: skip
    if panel.description:
        made["description"] = panel.description
    if panel.kind == "stat":
        named = "training_info" in panel.queries[0][0]  # its labels say it, its value is always 1
        made["options"] = {
            "reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "none",
            "textMode": "name" if named else "value",
        }  # fmt: skip
    if table:
        hidden = {"Time": True, "__name__": True, "instance": True, "job": True, "endpoint": True, "service": True,
                  "container": True, "pod": True, "prometheus": True}  # fmt: skip
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return made


def render(name: str) -> str:
    """The file of one dashboard."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"
