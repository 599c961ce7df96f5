"""The chart's two Grafana dashboards as JSON: one for a training, one for the operator.

Only timeseries, stat and table panels; the data source is a variable, so that the files work in every Grafana.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

WIDTH: Final = 24  # columns of Grafana's grid
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel: its title, queries as (expression, legend), unit and size in the grid."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    description: str = ""
    log: bool = False


RUN: Final = 'namespace="$namespace", training="$training"'
TRAINING: Final = (
    Panel("State", ((f"ltx2_operator_training_info{{{RUN}}}", "{{state}} {{stage}}"),), "none", "stat", 4, 4,
          "State and stage, as `kubectl get ltx2` shows them."),
    Panel("Progress", ((f"max(ltx2_job_step{{{RUN}}}) / max(ltx2_job_max_steps{{{RUN}}})", "steps"),), "percentunit",
          "stat", 4, 4, "Steps done, of those that the training takes."),
    Panel("Time left", (
        (f"(max(ltx2_job_max_steps{{{RUN}}}) - max(ltx2_job_step{{{RUN}}})) * "
         f"avg(avg_over_time(ltx2_job_seconds_per_step{{{RUN}}}[10m]))", "until the last step"),), "s", "stat", 4, 4,
          "Until the last step, at the pace of the last ten minutes."),
    Panel("Loss now", ((f'ltx2_job_loss{{{RUN}, part="total"}}', "total"),), "none", "stat", 4, 4,
          "Training loss of the last step."),
    Panel("Attempt", ((f"ltx2_operator_training_info{{{RUN}}}", "{{attempt}}"),), "none", "stat", 4, 4,
          "Number of the attempt that runs, or that ran last."),
    Panel("Since the last checkpoint", ((f"ltx2_job_checkpoint_age_seconds{{{RUN}}}", "age"),), "s", "stat", 4, 4,
          "What a kill would cost now; empty before the first checkpoint of an attempt."),
    Panel("Loss", (
        (f"ltx2_job_loss{{{RUN}}}", "{{part}}"), (f"ltx2_job_held_out_loss{{{RUN}}}", "held out, {{part}}")),
        "none", width=12, description="Of each step, by part (total, video, audio); and the same on the held-out "
        "clips: where that one rises, the LoRA begins to repeat its clips."),
    Panel("Steps and checkpoints", (
        (f"ltx2_job_step{{{RUN}}}", "step, attempt {{attempt}}"),
        (f"ltx2_job_checkpoint_last_step{{{RUN}}}", "newest checkpoint, attempt {{attempt}}")), "none", width=12,
          description="Steps done, and the step that another attempt would go on from."),
    Panel("Throughput", ((f"60 / ltx2_job_seconds_per_step{{{RUN}}}", "steps per minute"),), "none",
          description="Optimizer steps per minute."),
    Panel("Seconds per step", ((f"ltx2_job_seconds_per_step{{{RUN}}}", "step"),
                               (f"ltx2_job_data_wait_seconds{{{RUN}}}", "of it waiting for samples")), "s",
          description="How long a step takes, and how much of it the GPU waits for the volume."),
    Panel("Attempts", (
        (f"max by (attempt, state) (ltx2_operator_training_info{{{RUN}}})", "{{attempt}} {{state}}"),), "none",
          description="Which attempt was in which state when: many short ones are the sign of a fault."),
    Panel("Learning rate", ((f"ltx2_job_learning_rate{{{RUN}}}", "learning rate"),), "sci",
          description="Of the last step, by the schedule."),
    Panel("Gradient norm", ((f"ltx2_job_gradient_norm{{{RUN}}}", "before clipping"),), "none", log=True,
          description="Of the LoRA's weights, before clipping, on a logarithmic axis."),
    Panel("GPU memory", ((f"ltx2_job_gpu_memory_bytes{{{RUN}}}", "{{kind}}"),), "bytes",
          description="What torch holds of the first GPU: allocated, reserved, peak. Empty without a GPU."),
    Panel("Host memory", ((f"ltx2_job_host_memory_bytes{{{RUN}}}", "resident, {{stage}}"),), "bytes",
          description="Resident memory of the first process, in the cache stage too."),
    Panel("Writing a checkpoint", ((f"ltx2_job_checkpoint_seconds{{{RUN}}}", "seconds"),), "s",
          description="How long the newest checkpoint took: the volume's speed."),
    Panel("Cache", (
        (f"sum by (kind, result) (rate(ltx2_job_cache_items_total{{{RUN}}}[5m]))", "{{kind}}, {{result}}"),),
        "ops", description="Items per second that the cache stage finishes: encoded, reused or skipped."),
    Panel("Cached so far", (
        (f"sum by (kind, result) (ltx2_job_cache_items_total{{{RUN}}})", "{{kind}}, {{result}}"),), "none", width=24,
          kind="table", description="Items that the cache stage which runs now has finished."),
)  # fmt: skip

OF: Final = 'namespace="$namespace", job="$job"'
OPERATOR: Final = (
    Panel("Working replicas", ((f"sum(ltx2_operator_leader{{{OF}}})", "leaders"),), "none", "stat", 4, 4,
          "Exactly one."),
    *(Panel(state, ((f'sum(ltx2_operator_trainings{{{OF}, state="{state}"}})', "trainings"),), "none", "stat", 4, 4,
            text) for state, text in (
        ("Running", "Trainings whose pods run."),
        ("Waiting", "Trainings that wait for data or for room on a node."),
        ("Failed", "Trainings that have ended and wait for a person."))),
    Panel("Queue now", ((f"max(ltx2_operator_workqueue_depth{{{OF}}})", "waiting"),), "none", "stat", 4, 4,
          "Trainings that wait for a look."),
    Panel("Oldest watch", ((f"max(ltx2_operator_watch_age_seconds{{{OF}}})", "silent for"),), "s", "stat", 4, 4,
          "Since the watch that was silent longest was last heard; above `staleSeconds` the process is unwell."),
    Panel("Trainings", ((f"sum by (state, stage) (ltx2_operator_trainings{{{OF}}}) > 0", "{{state}} {{stage}}"),),
          "none", width=12, description="How many there are in each state and stage."),
    Panel("Each training", (
        (f'ltx2_operator_training_info{{job="$job"}} and on (pod) ltx2_operator_leader{{{OF}}}', ""),), "none",
          kind="table", width=12, description="One row for each that exists now."),
    Panel("Looks", ((f"sum by (result) (rate(ltx2_operator_reconcile_total{{{OF}}}[5m]))", "{{result}}"),), "ops",
          description="Looks at trainings per second, by how they ended: success, stale (somebody else wrote "
          "first), error."),
    Panel("How long a look takes", tuple(
        (f"histogram_quantile({q}, sum by (le) (rate(ltx2_operator_reconcile_duration_seconds_bucket{{{OF}}}[5m])))",
         f"p{q * 100:.0f}") for q in (0.5, 0.99)), "s",
          description="The middle one and the slowest of a hundred."),
    Panel("Queue", ((f"sum(ltx2_operator_workqueue_depth{{{OF}}})", "depth"),
                    (f"sum(rate(ltx2_operator_workqueue_adds_total{{{OF}}}[5m]))", "adds/s"),
                    (f"sum(rate(ltx2_operator_workqueue_retries_total{{{OF}}}[5m]))", "retries/s")), "short",
          description="How many wait, how many come, how many come again after an error."),
    Panel("Requests to the API server", (
        (f"sum by (verb, code) (rate(ltx2_operator_api_requests_total{{{OF}}}[5m]))", "{{verb}} {{code}}"),), "reqps",
          description="By verb and answer. 403 is a right that is missing, 409 a write that came too late, 0 no "
          "answer."),
    Panel("Watches that began anew", (
        (f"sum by (resource) (rate(ltx2_operator_watch_restarts_total{{{OF}}}[15m]))", "{{resource}}"),), "ops",
          description="One in `resyncSeconds` for each kind is usual."),
    Panel("Memory", ((f"process_resident_memory_bytes{{{OF}}}", "{{pod}}"),), "bytes",
          description="Resident memory of each replica; it grows with the number of trainings, pods and nodes."),
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
    # The labels of these say it, their value is always 1; of a range the older ones would be shown beside the newest.
    named = panel.kind == "stat" and "training_info" in panel.queries[0][0]
    targets = [
        {
            "refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend,
            **({"instant": True, "format": "table"} if table else {"instant": True} if named else {}),
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]  # fmt: skip
    custom = {"custom": {"scaleDistribution": {"type": "log", "log": 10}}} if panel.log else {}
    made: dict[str, Any] = {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.description,
        "datasource": DATASOURCE, "gridPos": place,
        "targets": targets, "fieldConfig": {"defaults": {"unit": panel.unit, **custom}, "overrides": []},
    }  # fmt: skip
    if panel.kind == "stat":
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


def page_table(name: str) -> str:
    """The panels of one dashboard as a Markdown table, in the order in which they stand."""
    rows = ["| panel | what it shows | series |", "|---|---|---|"]
    for panel in PANELS[name]:
        queries = " ".join(query for query, _ in panel.queries)
        series = dict.fromkeys(re.findall(r"\b(?:ltx2|process)_\w+", queries))
        rows.append(f"| {panel.title} | {panel.description} | {', '.join(f'`{one}`' for one in series)} |")
    return "\n".join(rows)
