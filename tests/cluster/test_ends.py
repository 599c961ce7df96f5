"""Every way in which a pod ends, caused for real: what the Job, the pod and the training say of it, and what follows.

All trainings of the table live side by side in one namespace; each test then asks about its own. With
LTX2_VERDICTS_OUT=FILE what was seen is written there, one JSON object a line.
"""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.ends import ENDS, End
from cluster.harness.cluster import Cluster
from cluster.installed import Installed, pod_namespace
from cluster.recording import Recorder
from cluster.volumes import make_volume
from cluster.world import World, training

pytestmark = pytest.mark.cluster

QUICK = {"jobs": {"graceSeconds": 4, "graceMarginSeconds": 4}}  # seconds from SIGTERM on


class Hands:
    """Threads that act while the trainings run; what goes wrong in one is raised where its training is asked about."""

    def __init__(self) -> None:
        self._threads: dict[str, threading.Thread] = {}
        self._wrong: dict[str, BaseException] = {}

    def act(self, world: World, end: End) -> None:
        def run() -> None:
            try:
                assert end.act is not None
                end.act(world, end.name)
            except BaseException as error:
                self._wrong[end.name] = error

        self._threads[end.name] = threading.Thread(target=run, daemon=True)
        self._threads[end.name].start()

    def join(self, name: str) -> None:
        if name in self._threads:
            self._threads[name].join()
        if name in self._wrong:
            raise self._wrong[name]


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
            hands.act(world, end)
    return hands


def row(world: World, end: End) -> dict[str, Any]:
    """What was seen of one cause."""
    recorder, status = world.recorder, world.operator.status(end.name, world.namespace)
    pods = recorder.pod_ends(end.name, end.stage, 1)
    first = recorder.verdict(end.name, 1, end.stage)
    starts = [start["step"] for start in world.starts(end.name, claim=end.claim) if start["node"] == 0]
    plans = [start["memory"] for start in world.starts(end.name, end.stage, end.claim) if start["node"] == 0]
    final = next(
        one for one in status["conditions"] if one["type"] in ("Succeeded", "Failed") and one["status"] == "True"
    )
    return {
        "cause": end.cause,
        "job": recorder.job_end(end.name, end.stage, 1),
        "pods": pods,
        "pod": ", ".join(reason for reason, _ in pods),
        "exitCode": ", ".join(str(code) for _, code in pods if code is not None),
        "verdict": [first.get("action"), first.get("reason")],
        "condition": f"{final['type']}: {final['reason']}",
        "message": first.get("message", ""),
        "events": ", ".join(dict.fromkeys(world.operator.events(end.name, world.namespace))),
        "counted": bool(status.get("failures")),
        "starts": starts,
        "memory": plans,
        "next": f"step {starts[1]}" if len(starts) > 1 else "",
    }  # fmt: skip


def over(world: World, name: str) -> bool:
    """Whether a training has ended for good."""
    found = world.recorder.statuses(name)[-1:]
    return any(
        one["type"] in ("Succeeded", "Failed") and one["status"] == "True"
        for status in found
        for one in status.get("conditions") or []
    )


def write_down(seen: dict[str, Any]) -> None:
    """Add a row to the file that LTX2_VERDICTS_OUT names."""
    if file := os.environ.get("LTX2_VERDICTS_OUT"):
        with Path(file).open("a") as log:
            log.write(json.dumps(seen) + "\n")


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
def test_each_end_has_its_verdict_and_its_next_attempt(world: World, hands: Hands, end: End) -> None:
    hands.join(end.name)
    world.wait(end.name, lambda: over(world, end.name), "the end")
    seen = row(world, end)
    write_down(seen)
    assert end.pod in seen["pods"] if end.pod else not seen["pods"], seen
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
