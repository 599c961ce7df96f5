"""The lease, two candidates before one server, on clocks of their own."""

import copy
from datetime import UTC, datetime

import pytest

from ltx2_operator.runtime.client import Answer, ApiError, Conflict, NotFound
from ltx2_operator.runtime.lease import Lease, LeaseLost
from ltx2_operator.settings import LeaderElection

SETTINGS = LeaderElection(lease_seconds=15, renew_seconds=10, retry_seconds=2)


class Server:
    """Keeps one Lease as an API server does: a write with an old resourceVersion is refused."""

    def __init__(self):
        self.lease, self.version, self.down = None, 0, False

    def request(self, method, path, query=None, body=None, **_):
        if self.down:
            raise ApiError(0, "Unreachable", "down")
        if method == "GET":
            if self.lease is None:
                raise NotFound(404, "NotFound", "no lease")
            return Answer(copy.deepcopy(self.lease))
        known = None if self.lease is None else self.lease["metadata"].get("resourceVersion")
        if (method == "POST") != (self.lease is None) or known != body["metadata"].get("resourceVersion"):
            raise Conflict(409, "Conflict", "changed")
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return Answer(copy.deepcopy(self.lease))


class Place:
    """A server and two candidates, whose clocks go alike unless a test stops one."""

    def __init__(self):
        self.server, self.time = Server(), 0.0
        self.one, self.other = (self.candidate(name) for name in ("one", "other"))

    def candidate(self, name):
        def now():
            return datetime.fromtimestamp(self.time, UTC)

        return Lease(self.server, "ops", name, SETTINGS, clock=lambda: self.time, now=now)


@pytest.fixture
def place():
    return Place()


def test_the_first_takes_it_and_keeps_it_by_renewing(place):
    for _ in range(20):
        place.one.step()
        place.other.step()
        assert (place.one.held, place.other.held) == (True, False)
        place.time += 2
    assert place.server.lease["spec"]["holderIdentity"] == "one"
    assert place.server.lease["spec"]["leaseTransitions"] == 0


def test_the_other_takes_over_after_the_whole_length_and_no_sooner(place):
    place.one.step()
    place.other.step()
    place.time = 14.9
    place.other.step()
    assert not place.other.held
    place.time = 15.0
    place.other.step()
    assert place.other.held
    assert place.server.lease["spec"]["leaseTransitions"] == 1


def test_a_length_is_measured_from_when_it_was_seen_not_by_the_holders_clock(place):
    place.one.step()
    place.server.lease["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"  # a clock that is years late
    place.other.step()
    assert not place.other.held


def test_a_holder_that_stood_still_does_not_write_and_ends(place):
    place.one.step()
    place.time = 9.9
    place.one.require()
    place.time = 10.0
    with pytest.raises(LeaseLost):
        place.one.require()
    before = place.server.version
    with pytest.raises(LeaseLost):
        place.one.step()
    assert place.server.version == before


def test_nobody_holds_it_while_the_old_holder_may_still_write(place):
    """The old holder stops writing before the new one can begin."""
    place.one.step()
    place.other.step()
    while not place.other.held:
        place.time += 0.5
        place.other.step()
        assert not (place.one.held and place.other.held)
    assert not place.one.held


def test_a_server_that_is_away_for_a_moment_costs_nothing(place):
    place.one.step()
    place.server.down = True
    place.time = 8.0
    place.one.step()
    place.server.down = False
    place.time = 9.0
    place.one.step()
    place.time = 18.0
    assert place.one.held


def test_a_server_that_stays_away_ends_the_holder(place):
    place.one.step()
    place.server.down = True
    place.time = 10.5
    with pytest.raises(LeaseLost):
        place.one.step()


def test_whoever_sees_another_holder_has_lost_it(place):
    place.one.step()
    place.server.lease["spec"]["holderIdentity"] = "third"
    with pytest.raises(LeaseLost, match="third"):
        place.one.step()
    assert not place.one.held


class Lost:
    """A server whose answers to writes are lost on the way, before or after it has done them."""

    def __init__(self, server, done):
        self.server, self.done = server, done

    def request(self, method, path, query=None, body=None, **more):
        if method == "GET" or self.done:
            answer = self.server.request(method, path, query, body, **more)
        if method != "GET":
            raise Conflict(409, "Conflict", "the lease has been modified")
        return answer


def test_a_renewal_whose_answer_was_lost_is_no_loss(place, caplog):
    """A proxy that sends a PUT twice: the second conflicts with the first. Catches: "taken by" its own name."""
    place.one.step()
    place.one._api = Lost(place.server, done=True)
    place.time = 2.0
    place.one.step()
    assert place.one.held and "modified" in caplog.text
    place.one._api, place.time = place.server, 4.0
    place.one.step()
    place.time = 13.9
    assert place.one.held
    assert place.server.lease["spec"]["leaseTransitions"] == 0


def test_a_conflict_because_another_has_it_ends_the_holder_at_the_next_reading(place):
    place.one.step()
    place.one._api = Lost(place.server, done=False)
    place.time = 2.0
    place.one.step()
    place.server.lease["spec"]["holderIdentity"] = "third"
    place.one._api, place.time = place.server, 4.0
    with pytest.raises(LeaseLost, match="taken by third"):
        place.one.step()
    assert not place.one.held


def test_conflicts_without_end_end_the_holder_when_it_was_not_renewed_in_time(place):
    place.one.step()
    place.one._api = Lost(place.server, done=False)
    for place.time in (2.0, 4.0, 6.0, 8.0):
        place.one.step()
    place.time = 10.0
    with pytest.raises(LeaseLost, match="not renewed in time"):
        place.one.step()


def test_a_candidate_that_another_was_faster_than_says_so_to_nobody(place, caplog):
    place.other._api = Lost(place.server, done=False)
    place.other.step()  # to make it
    place.one.step()
    place.time = 1.0
    place.other.step()  # it sees another's
    place.time = 20.0
    place.other.step()  # to take it
    assert not place.other.held
    assert [record.levelname for record in caplog.records if record.levelno > 10] == []


def test_of_two_that_take_it_at_once_one_gets_it(place):
    place.one.step()
    place.other.step()
    place.time = 20.0
    read = place.server.lease
    place.other.step()
    assert place.other.held
    third = place.candidate("third")
    third._read = lambda: copy.deepcopy(read)  # it read before the other wrote
    third._seen = ("one", read["spec"]["renewTime"], 0.0)
    third.step()
    assert not third.held
    assert place.server.lease["spec"]["holderIdentity"] == "other"


def test_released_it_is_free_at_once(place):
    place.one.step()
    place.other.step()
    place.one.release()
    assert not place.one.held
    place.time += 1
    place.other.step()
    assert place.other.held


def test_without_election_it_is_always_held(place):
    place.one.own()
    place.time = 1e9
    place.one.require()
