"""What a real Prometheus sees of real trainings: every panel of the dashboards, and alerts that fire.

Its targets come from the monitors that the chart has installed, its rules from the installed PrometheusRule with their
times shortened. The jobs are stand-ins: what they serve is the shipped job's page.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.harness.binaries import Missing
from cluster.harness.cluster import Cluster
from cluster.harness.prometheus import Prometheus, define_monitors
from cluster.installed import DEPLOYMENT, NAMESPACE, Installed, pod_namespace
from cluster.recording import Recorder
from cluster.required import missing
from cluster.volumes import make_volume
from cluster.world import CONFIG, World, training

pytestmark = [pytest.mark.cluster, pytest.mark.full]

VALUES = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "interval": "1s"},
        "podMonitor": {"enabled": True, "interval": "1s"},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
    "resyncSeconds": 10,  # a watch begins anew: its panel has something to show
    "jobs": {"graceSeconds": 4, "graceMarginSeconds": 4},
}
# What a rule looks back and waits, on a clock that is quick: 15 minutes without a step become 20 seconds.
QUICKER = {"15m": "20s", "1m": "2s", "5m": "2s"}
LONG = {**CONFIG, "max_train_steps": 5000, "checkpoint_step_interval": 10}
CACHE = [["encode", 3], ["until", "seen"]]  # Prometheus takes up new targets every 5 seconds at most
WORK = {"cache": CACHE, "train-1": [["learn", 4000, 10]]}
# By namespace (0 and 1) and name: namesakes in two namespaces, and neighbours in one.
TRAININGS: dict[tuple[int, str], dict[str, Any]] = {
    (0, "fox"): WORK,
    (1, "fox"): WORK,
    (0, "stuck"): {"cache": CACHE, "train-1": [["learn", 12, 10], ["wait", 600]]},
    (1, "unsaved"): {"cache": CACHE, "train-1": [["learn", 4000, 0]]},
    (1, "nan"): {"cache": CACHE, "train-1": [["learn", 12, 10], ["exit", 81]]},
}


@dataclass
class Watched:
    """The trainings under way, and the Prometheus that watches them."""

    cluster: Cluster
    operator: Installed
    worlds: list[World]
    prometheus: Prometheus
    begun: float
    boards: dict[str, dict[str, Any]]

    def yields(self, expression: str, **variables: str) -> list[dict[str, str]]:
        """What a query of a panel shows of the time since the beginning, its variables filled in."""
        return self.prometheus.series(filled(expression, variables), self.begun, time.time())

    def wait(self, holds: Any, what: str) -> None:
        """Ask until it holds; the story is the alerts' and the targets' state."""
        self.operator.wait_for(holds, what, self._story, 180)

    def _story(self) -> str:
        targets = self.prometheus.ask("targets", state="active")["activeTargets"]
        brief = [(one["labels"], one["health"], one["lastError"]) for one in targets]
        return json.dumps([brief, self.prometheus.ask("alerts")["alerts"]], indent=1)


def filled(expression: str, variables: dict[str, str]) -> str:
    """A query with its variables in it; one that is left over is a mistake of the dashboard."""
    for name, value in variables.items():
        expression = re.sub(rf"\$\{{?{name}\b\}}?", value, expression)
    assert "$" not in expression, expression
    return expression


def quicker(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules with every time of QUICKER replaced, as text: nothing else of them changes."""
    text = json.dumps(rules)
    return dict(json.loads(re.sub(rf"\b({'|'.join(QUICKER)})\b", lambda found: QUICKER[found[1]], text)))


@pytest.fixture(scope="module")
def watched(
    cluster: Cluster, operator: Installed, stand_in: str, inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """All trainings run, in two namespaces."""
    try:
        define_monitors(cluster.kubectl)
    except Missing as why:
        missing(why)
    with (
        operator.upgraded(VALUES),
        pod_namespace(cluster.kubectl) as one,
        pod_namespace(cluster.kubectl) as other,
        Recorder(cluster.kubeconfig, one).running() as left,
        Recorder(cluster.kubeconfig, other).running() as right,
    ):
        worlds = [
            World(cluster, operator, name, {"data": make_volume(cluster, name, inputs)}, recorder, stand_in)
            for name, recorder in ((one, left), (other, right))
        ]
        monitors = [
            monitor
            for kind in ("servicemonitor", "podmonitor")
            for monitor in cluster.kubectl.get(kind, "-n", NAMESPACE)["items"]
        ]
        (rule,) = cluster.kubectl.get("prometheusrule", "-n", NAMESPACE)["items"]
        maps = cluster.kubectl.get("configmap", "-n", NAMESPACE, "-l", "grafana_dashboard=1")["items"]
        boards = {name: json.loads(text) for one in maps for name, text in one["data"].items()}
        begun = time.time()
        try:
            prometheus = Prometheus(cluster, tmp_path_factory.mktemp("prometheus"), monitors, quicker(rule["spec"]))
        except Missing as why:
            missing(why)
        try:
            for (where, name), does in TRAININGS.items():
                worlds[where].behave(name, does)
                worlds[where].kubectl("create", "-f", "-", manifest=training(name, stand_in, config=LONG))
            made = Watched(cluster, operator, worlds, prometheus, begun, boards)
            caches = "count_over_time(ltx2_job_cache_items_total[5m]) > 2"  # a rate needs two
            made.wait(lambda: len(made.yields(caches)) == len(TRAININGS), "the cache stages of all")
            for world in worlds:
                (world.volume.folder / "seen").touch()
            yield made
        finally:
            prometheus.end()


def test_every_panel_of_a_training_shows_that_one_alone(watched: Watched) -> None:
    """Both namesakes fill every panel; a name that exists in the other namespace only fills none."""
    (board,) = (board for name, board in watched.boards.items() if name == "ltx2-training.json")
    for world in watched.worlds:
        for panel in board["panels"]:
            for target in panel["targets"]:
                mine = {"namespace": world.namespace, "training": "fox"}
                what = f"{panel['title']}: {target['expr']}"
                watched.wait(lambda expr=target["expr"], mine=mine: watched.yields(expr, **mine), what)
                for labels in watched.yields(target["expr"], **mine):
                    assert labels.items() >= {key: mine[key] for key in mine if key in labels}.items(), (what, labels)
                absent = "unsaved" if world is watched.worlds[0] else "stuck"
                assert watched.yields(target["expr"], namespace=world.namespace, training=absent) == [], what


def test_every_panel_of_the_operator_shows_it(watched: Watched) -> None:
    (board,) = (board for name, board in watched.boards.items() if name == "ltx2-operator.json")
    for panel in board["panels"]:
        for target in panel["targets"]:
            what = f"{panel['title']}: {target['expr']}"
            mine = {"namespace": NAMESPACE, "job": DEPLOYMENT}
            watched.wait(lambda expr=target["expr"], mine=mine: watched.yields(expr, **mine), what)
            assert watched.yields(target["expr"], namespace="elsewhere", job=DEPLOYMENT) == [], what


def test_the_variables_offer_what_there_is(watched: Watched) -> None:
    """The choices of each variable, by the query that Grafana would send."""
    one, other = (world.namespace for world in watched.worlds)
    offered = {
        ("ltx2-training.json", "namespace"): {one, other},
        ("ltx2-training.json", "training"): {"fox", "stuck"},
        ("ltx2-operator.json", "namespace"): {NAMESPACE},
        ("ltx2-operator.json", "job"): {DEPLOYMENT},
    }
    for file, board in watched.boards.items():
        for variable in board["templating"]["list"][1:]:
            assert variable["datasource"]["uid"] == "${datasource}"
            where = one if file == "ltx2-training.json" else NAMESPACE
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert asked is not None, variable
            match = filled(asked[1], {"namespace": where})
            found = watched.prometheus.ask(f"label/{asked[2]}/values", **{"match[]": match})
            assert set(found) >= offered[file, variable["name"]], variable
            if variable["name"] == "training":
                assert set(found) == offered[file, "training"], "those of the other namespace"


@pytest.mark.parametrize(
    ("alert", "where", "name"),
    [("LTX2TrainingStalled", 0, "stuck"), ("LTX2CheckpointOld", 1, "unsaved"), ("LTX2LossNotFinite", 1, "nan")],
)
def test_an_alert_fires_for_that_training_alone(watched: Watched, alert: str, where: int, name: str) -> None:
    watched.wait(lambda: watched.prometheus.firing().get(alert), alert)
    fired = watched.prometheus.firing()[alert]
    found = {(one["labels"]["namespace"], one["labels"]["training"]) for one in fired}
    assert found == {(watched.worlds[where].namespace, name)}
    for one in fired:
        assert f"{watched.worlds[where].namespace}/{name}" in one["annotations"]["summary"]
        assert not [text for text in one["annotations"].values() if "error" in text or "<no value>" in text]


def test_without_a_leader_an_alert_fires(watched: Watched) -> None:
    """The last test here: it takes the operator away, and gives it back."""
    assert "LTX2OperatorNoLeader" not in watched.prometheus.firing()
    scale = ("scale", "deployment", DEPLOYMENT, "-n", NAMESPACE)
    watched.cluster.kubectl(*scale, "--replicas=0")
    try:
        watched.wait(lambda: "LTX2OperatorNoLeader" in watched.prometheus.firing(), "no leader")
    finally:
        watched.cluster.kubectl(*scale, "--replicas=1")
    watched.operator.ready()
    watched.wait(lambda: "LTX2OperatorNoLeader" not in watched.prometheus.firing(), "a leader again")
