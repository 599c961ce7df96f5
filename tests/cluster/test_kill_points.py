"""What a run comes through: its operator killed at any request, the API server and etcd killed at any moment."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .harness.simulated import Simulated
from .kill_points import Campaign, Told, creations, differences, points, rows

pytestmark = pytest.mark.cluster

EVERY = 18  # of the points, on every day


@pytest.fixture(scope="module")
def campaign(simulated_nodes: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """Runs with an operator each."""
    made = Campaign(simulated_nodes, tmp_path_factory.mktemp("campaign"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def reference(campaign: Campaign) -> Told:
    """The run that nobody disturbs."""
    found = campaign.reference()
    assert found.jobs == ["cache-1", "look-1", "train-1", "train-2"]
    assert (found.status["state"], found.status["failures"], found.status["attempt"]) == ("Succeeded", 1, 2)
    assert [one["action"] for one in found.status["attempts"]] == ["Retry", "Succeed"]
    return found


@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.full)])
def test_an_operator_killed_before_or_after_a_request_leaves_the_same_run(
    simulated_nodes: Simulated, campaign: Campaign, reference: Told, every: int
) -> None:
    chosen = points(reference)[::every]
    assert len(points(reference)) > 60
    found = list(rows(campaign, reference, chosen))
    broken = [row for row in found if row["differences"]]
    assert broken == []
    reached = [row for row in found if row["killed"]]
    assert len(reached) >= 0.8 * len(found)  # which reads come again depends on what a watch brings first
    made = creations(simulated_nodes.audit_log)
    assert set(made.values()) == {len(reference.jobs)}


def _in_cache(status: dict[str, Any]) -> bool:
    return (status.get("state"), status.get("stage")) == ("Running", "Cache")


def _in_train(status: dict[str, Any]) -> bool:
    return (status.get("state"), status.get("stage")) == ("Running", "Train")


def _between(status: dict[str, Any]) -> bool:
    return (status.get("attempt"), "nextAttemptTime" in status) == (1, True)


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        pytest.param(moment, 60, id=f"{name}-60", marks=pytest.mark.full)
        for name, moment in (("cache", _in_cache), ("train", _in_train), ("between", _between))
    ],
)
def test_a_run_comes_through_without_api_server_and_etcd(
    simulated_nodes: Simulated,
    campaign: Campaign,
    reference: Told,
    moment: Callable[[dict[str, Any]], bool],
    seconds: float,
) -> None:
    """The operator cannot renew its lease, ends, and is started again and again meanwhile."""
    gone: list[dict[str, Any]] = []

    def meanwhile(status: dict[str, Any]) -> None:
        if not gone and moment(status):
            gone.append(status)
            with simulated_nodes.without_server():
                time.sleep(seconds)

    told = campaign.run(f"away-{moment.__name__.strip('_').replace('_', '-')}-{seconds}", meanwhile=meanwhile,
                        look="1s", cache="4s", train="4s")  # fmt: skip
    assert gone
    assert differences(told, reference) == []
