"""What nodes and users do to trainings, done for real: what is said of it, what counts, and where the run goes on.

All trainings of the table live side by side in one namespace; each test then asks about its own. With
TEST_VERDICTS_OUT=FILE what was seen is written there, one JSON object a line.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.hands import Hands
from cluster.harness.cluster import Cluster
from cluster.installed import ACCOUNT, Installed, pod_namespace, requests_of
from cluster.interruptions import HOST, INTERRUPTIONS, LIVELY, Interruption, manifest
from cluster.queue_stand_in import suspending
from cluster.recording import Recorder, sampled, write_down
from cluster.sequences import write_sequence
from cluster.volumes import make_volume
from cluster.world import STEPS, World

pytestmark = pytest.mark.cluster

# Seconds from SIGTERM on; away from the node that is lost. The lease is the chart's: a shorter one is lost, and with it
# the operator's memory of pods that are gone, as soon as the machine is busy for three seconds.
QUICK = {"jobs": {"graceSeconds": 4, "graceMarginSeconds": 4}, "nodeSelector": {HOST: LIVELY}}


@pytest.fixture(scope="module")
def world(cluster: Cluster, operator: Installed, stand_in: str, inputs: Path) -> Iterator[World]:
    """The namespace with all trainings of the table in it."""
    with (
        operator.upgraded(QUICK),
        pod_namespace(cluster.kubectl) as namespace,
        suspending(cluster.kubectl, namespace),
        Recorder(cluster.kubeconfig, namespace).running() as recorder,
    ):
        volumes = {"data": make_volume(cluster, namespace, inputs)}
        yield World(cluster, operator, namespace, volumes, recorder, stand_in)


@pytest.fixture(scope="module")
def hands(world: World, request: pytest.FixtureRequest) -> Hands:
    """Every interruption that is asked about is under way."""
    hands = Hands()
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    asked = {one.name: one for item in items if (one := item.callspec.params.get("interruption"))}

    def interrupt(one: Interruption) -> None:
        for name in one.after:
            if name in asked:
                hands.settled(name)
        with hands.room:
            world.manifests[one.name] = manifest(world, one)
            world.behave(one.name, one.does)
            world.make(one.name)
            one.act(world, one.name)
            world.over(one.name)

    for one in asked.values():
        hands.act(one.name, interrupt, one)
    return hands


@pytest.mark.parametrize("interruption", [sampled(one) for one in INTERRUPTIONS])
def test_an_interrupted_training_goes_on_where_it_was(world: World, hands: Hands, interruption: Interruption) -> None:
    one, name = interruption, interruption.name
    hands.join(name)
    seen = world.row(name, one.cause, one.stage, one.claim)
    write_down(seen)
    write_sequence(world.recorder, name, one.stage, one.cause)
    status = world.status(name)
    assert tuple(seen["verdict"]) == one.verdict, seen
    assert one.pod is None or one.pod in [tuple(pod) for pod in seen["pods"]], seen
    assert one.job in seen["job"], seen
    assert tuple(seen["starts"]) == one.starts, seen
    assert seen["condition"] == ": ".join(one.final), seen
    assert status["attempt"] == one.attempts, status
    assert int(status.get("failures") or 0) == one.counted, status
    assert set(one.events) <= set(seen["events"].split(", ")), seen
    assert world.recorder.most_alive(name) == 1
    again = {key: jobs for key, jobs in world.recorder.attempts(name).items() if len(jobs) > 1 and key[1] != "look"}
    assert not again, f"one Job for each attempt: {again}"
    numbers = world.volumes[one.claim].folder / "runs" / name / "metrics.jsonl"
    assert [json.loads(line)["step"] for line in numbers.read_text().splitlines()] == list(range(1, STEPS + 1))


def test_the_operator_makes_and_deletes_jobs_and_never_writes_into_them(world: World, hands: Hands) -> None:
    for one in INTERRUPTIONS:
        hands.join(one.name)
    asked = requests_of(ACCOUNT, world.cluster.audit_log)
    about = [
        each for each in asked if each["what"].startswith("batch/jobs") and each["where"].startswith(world.namespace)
    ]
    assert {each["verb"] for each in about} <= {"create", "delete", "get", "list", "watch"}, about
    assert [each["where"] for each in about if each["verb"] == "create"].count(f"{world.namespace}/queued-train-1") == 1
