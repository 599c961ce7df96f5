"""What can be decided when some of the listed namespaces may not be read. No server."""

from dataclasses import dataclass

import pytest

from ltx2_operator.runtime.scope import Scope


@dataclass
class Copy:
    what: str
    namespace: str | None
    synced: bool = True
    refused: bool = False
    trouble: str = ""
    age: float = 1.0


def refused(what, namespace, **more):
    return Copy(what, namespace, refused=True, trouble=f"may not list {what} in {namespace}", **more)


@pytest.fixture
def nodes():
    return Copy("nodes", None)


def test_a_namespace_that_may_not_be_read_stops_only_itself(nodes):
    scope = Scope([nodes, Copy("jobs", "art"), refused("jobs", "ml", synced=False, age=5000), Copy("pods", "ml")])
    assert scope.complete()
    assert (scope.unready(), scope.unwell(600)) == ([], [])
    assert [scope.closed(namespace) for namespace in ("art", "ml", "other")] == [False, True, False]
    assert scope.oldest() == 5000, "the metric still tells of it"


def test_where_no_namespace_may_be_read_nothing_is_decided(nodes):
    scope = Scope([nodes, refused("jobs", "art", synced=False), refused("jobs", "ml", synced=False)])
    assert not scope.complete()
    assert scope.unready() == ["may not list jobs in art", "may not list jobs in ml"]


def test_a_right_that_was_taken_away_closes_a_namespace_that_was_seen():
    scope = Scope([Copy("jobs", "art"), refused("jobs", "ml")])
    assert scope.closed("ml") and scope.complete()


def test_a_namespace_that_is_not_listed_yet_is_waited_for_and_not_decided_about():
    scope = Scope([Copy("jobs", "art"), Copy("jobs", "ml", synced=False)])
    assert not scope.complete() and scope.unready() == ["jobs: not listed yet"]
    assert scope.closed("ml") and not scope.closed("art")


def test_silence_that_is_no_refusal_is_unwell():
    scope = Scope([Copy("jobs", "art", age=700), Copy("jobs", "ml")])
    assert scope.unwell(600) == ["jobs: nothing heard for 700 s"]


def test_the_whole_cluster_is_one_view():
    scope = Scope([refused("jobs", None, synced=False)])
    assert not scope.complete() and scope.unready() and not scope.closed("ml")
