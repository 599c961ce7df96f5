"""Every way in which a pod ends, caused for real: what the Job, the pod and the training say of it, and what follows.

All trainings of the table live side by side in one namespace; each test then asks about its own. With
TEST_VERDICTS_OUT=FILE what was seen is written there, one JSON object a line.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.ends import ENDS, End
from cluster.hands import Hands
from cluster.harness.cluster import Cluster
from cluster.installed import Installed, pod_namespace
from cluster.recording import Recorder, sampled, write_down
from cluster.sequences import write_sequence
from cluster.volumes import Volume, make_volume
from cluster.waits import WAITS, scarcity
from cluster.world import World, training

pytestmark = pytest.mark.cluster

QUICK = {"jobs": {"graceSeconds": 4, "graceMarginSeconds": 4}}  # seconds from SIGTERM on


ROWS = (*ENDS, *WAITS)


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
            world = World(cluster, operator, namespace, volumes, recorder, stand_in)
            with scarcity(world):
                yield world


@pytest.fixture(scope="module")
def hands(world: World, request: pytest.FixtureRequest) -> Hands:
    """Every cause that is asked about is under way."""
    hands = Hands()
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    ends = [item.callspec.params["end"] for item in items if "end" in item.callspec.params]
    for end in ends:
        if end.claim in world.volumes:
            world.behave(end.name, end.does, end.claim)
        made = training(end.name, world.image, **end.spec)
        images = {"cache": world.image, "train": world.image} | made["spec"]["images"]
        world.manifests[end.name] = {**made, "spec": {**made["spec"], "images": images}}

    def cause(end: End) -> None:
        with hands.room:
            world.make(end.name)
            if end.act:
                end.act(world, end.name)
            world.over(end.name)

    for end in ends:
        hands.act(end.name, cause, end)
    return hands


@pytest.mark.parametrize("end", [sampled(end) for end in ROWS])
def test_each_end_has_its_verdict_and_its_next_attempt(world: World, hands: Hands, end: End) -> None:
    hands.join(end.name)
    world.wait(end.name, lambda: not world.recorder.alive(end.name), "its pods' end")
    seen = world.row(end.name, end.cause, end.stage, end.claim)
    texts = [seen["message"], *world.recorder.messages(end.name, "Accepted", "Running", "Failed")]
    seen["said"] = next((text for text in texts if end.says in text), "")
    write_down(seen)
    write_sequence(world.recorder, end.name, end.stage, end.cause)
    # The kubelet makes up an end for a container that never was, when its pod is deleted.
    ended = [pod for pod in seen["pods"] if pod[0] != "ContainerStatusUnknown"]
    assert end.pod in ended if end.pod else not ended, seen
    assert end.job in seen["job"], seen
    assert tuple(seen["verdict"]) == end.verdict, seen
    assert seen["condition"] == ": ".join(end.final), seen
    assert seen["counted"] == end.counted, seen
    assert end.starts in (None, tuple(seen["starts"])), seen
    assert end.event in seen["events"].split(", "), seen
    assert seen["said"], (seen, texts)
    if end.memory:
        assert_lowered(world, end, seen["memory"])


def assert_lowered(world: World, end: End, started_with: list[str]) -> None:
    """Each attempt was given the next smaller plan, by its own ConfigMap; the status has the last one and says why."""
    key, stored = ("cacheMemory", "cachePlan") if end.stage == "cache" else ("memory", "plan")
    given: dict[int, str] = {}
    for pod in world.recorder.of("Pod", end.name, stage=end.stage):
        source = next(one["configMap"] for one in pod["spec"]["volumes"] if one["name"] == "config")
        files = world.cluster.kubectl.get("configmap", source["name"], "-n", world.namespace)["data"]
        given[int(pod["metadata"]["labels"]["ltx2.dev/attempt"])] = json.loads(files["plan.json"])[key]
    for found in (started_with, [given[number] for number in sorted(given)]):
        assert [name.split("/")[-1] for name in found] == list(end.memory), (started_with, given)
    status = world.status(end.name)
    assert status[stored][key].endswith(end.memory[-1]), status
    lowered = world.recorder.reasons(end.name, "Running").get("MemoryPlanLowered", "")
    assert " → " in lowered, world.recorder.reasons(end.name, "Running")


@pytest.mark.full
def test_a_job_that_a_quota_forbids_is_waited_for(
    cluster: Cluster, operator: Installed, stand_in: str, restricted: str, volume: Volume
) -> None:
    """In a namespace of its own: such a quota holds up everything."""
    name = "quota-job"
    with Recorder(cluster.kubeconfig, restricted).running() as recorder:
        world = World(cluster, operator, restricted, {"data": volume}, recorder, stand_in)
        world.kubectl("create", "quota", "few", "--hard=count/jobs.batch=0")
        world.kubectl("wait", "resourcequota/few", "--for=jsonpath={.status.hard}", "--timeout=60s")
        world.kubectl("create", "-f", "-", manifest=training(name, stand_in))

        def told() -> str:
            return next((text for text in recorder.messages(name, "Running") if "exceeded quota" in text), "")

        world.wait(name, told, "the quota's words")
        assert f"Job {name}-look-1 was refused: " in told() and "have it raised: it follows by itself" in told()
        assert not recorder.of("Job", name)
        world.kubectl("delete", "resourcequota", "few")
        world.over(name)
        seen = {**world.row(name, "a ResourceQuota forbids the Job", "look"), "said": told()}
        write_down(seen)
        assert seen["condition"] == "Succeeded: Completed" and tuple(seen["starts"]) == (0,), seen
        assert "FailedCreate" in seen["events"].split(", "), seen
