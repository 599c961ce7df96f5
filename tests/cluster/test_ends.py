"""Every way in which a pod ends, caused for real: what the Job, the pod and the training say of it, and what follows.

All trainings of the table live side by side in one namespace; each test then asks about its own. With
TEST_VERDICTS_OUT=FILE what was seen is written there, one JSON object a line.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.ends import ENDS, End
from cluster.hands import Hands
from cluster.harness.cluster import Cluster
from cluster.installed import Installed, pod_namespace
from cluster.recording import Recorder, write_down
from cluster.sequences import write_sequence
from cluster.volumes import make_volume
from cluster.world import World, training

pytestmark = pytest.mark.cluster

QUICK = {"jobs": {"graceSeconds": 4, "graceMarginSeconds": 4}}  # seconds from SIGTERM on


@pytest.fixture(scope="module")
def world(cluster: Cluster, operator: Installed, stand_in: str, inputs: Path) -> Iterator[World]:
    """The namespace with all trainings of the table in it."""
    with operator.upgraded(QUICK), pod_namespace(cluster.kubectl) as namespace:
        recorder = Recorder(cluster.kubeconfig, namespace)
        with recorder.running():
            volumes = {
                "data": make_volume(cluster, namespace, inputs),
                "small": make_volume(cluster, namespace, inputs, "small", "64Mi", "limited"),
            }
            yield World(cluster, operator, namespace, volumes, recorder, stand_in)


@pytest.fixture(scope="module")
def hands(world: World, request: pytest.FixtureRequest) -> Hands:
    """Every cause that is asked about is under way."""
    hands = Hands()
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    ends = [item.callspec.params["end"] for item in items if "end" in item.callspec.params]
    for end in ends:
        world.behave(end.name, end.does, end.claim)
    made = [training(end.name, world.image, **end.spec) for end in ends]
    for obj in made:
        obj["spec"]["images"].setdefault("cache", world.image)
    world.kubectl("create", "secret", "generic", "hub", "--from-literal=other=x")
    world.kubectl("apply", "-f", "-", manifest=made)
    for end in ends:
        if end.act:
            hands.act(end.name, end.act, world, end.name)
    return hands


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
def test_each_end_has_its_verdict_and_its_next_attempt(world: World, hands: Hands, end: End) -> None:
    hands.join(end.name)
    world.over(end.name)
    seen = world.row(end.name, end.cause, end.stage, end.claim)
    write_down(seen)
    write_sequence(world.recorder, end.name, end.stage, end.cause)
    # The kubelet makes up an end for a container that never was, when its pod is deleted.
    ended = [pod for pod in seen["pods"] if pod[0] != "ContainerStatusUnknown"]
    assert end.pod in ended if end.pod else not ended, seen
    assert end.job in seen["job"], seen
    assert tuple(seen["verdict"]) == end.verdict, seen
    assert seen["condition"] == ": ".join(end.final), seen
    assert seen["counted"] == end.counted, seen
    assert tuple(seen["starts"]) == end.starts, seen
    for found, wanted in zip(seen["memory"], end.memory, strict=bool(end.memory)):
        assert found.endswith(wanted), seen
    assert end.event in seen["events"].split(", "), seen
    said = [text for kind in ("Running", "Failed") for text in world.recorder.reasons(end.name, kind).values()]
    assert end.says in " ".join([seen["message"], *said]), (seen, said)
