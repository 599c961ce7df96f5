"""The end of a process: looks that are under way keep the lease, and nobody else gets it before they have ended."""

from kubernetes.client import Configuration

from ltx2_operator.pods import TRAINING_LABEL
from ltx2_operator.runtime import process
from ltx2_operator.runtime.process import STOP_SECONDS, Process, wind_down
from ltx2_operator.settings import Installation


class Time:
    def __init__(self):
        self.now = 0.0


class Worker:
    """A thread whose look ends at a time."""

    def __init__(self, time, until):
        self.time, self.until = time, until

    def is_alive(self):
        return self.time.now < self.until

    def join(self, timeout):
        self.time.now = min(self.time.now + timeout, max(self.time.now, self.until))


def wound_down(*ends, every=2.0):
    """(whether all have ended, when the lease was renewed, when it was over) for looks that end at these times."""
    time, renewed = Time(), []
    workers = [Worker(time, end) for end in ends]
    ended = wind_down(workers, lambda: renewed.append(time.now), every, clock=lambda: time.now)
    return ended, renewed, time.now


def test_the_lease_is_renewed_while_looks_end():
    """It holds for ten seconds: a look that takes longer would else have its next write end the process with code 1."""
    assert wound_down(15.0, 7.0, 0.0) == (True, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0], 15.0)
    assert wound_down(9.0, every=5.0) == (True, [0.0, 5.0], 9.0)


def test_without_a_look_under_way_it_is_over_at_once():
    assert wound_down() == wound_down(0.0) == (True, [], 0.0)


def test_a_look_that_hangs_is_waited_for_only_so_long_and_is_told(caplog):
    ended, renewed, over = wound_down(1.0, 1e9)
    assert (ended, over) == (False, STOP_SECONDS)
    assert renewed[-1] < STOP_SECONDS
    assert "not ended within 20 s: 1 looks" in caplog.text


class Served:
    def shutdown(self):
        pass


def test_the_lease_is_given_back_only_where_nobody_can_write_any_more(monkeypatch):
    """Catches: a successor that begins beside a look which hangs in a request."""
    monkeypatch.setattr(process, "serve", lambda *_: Served())
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)
    monkeypatch.setattr(process.gc, "set_threshold", lambda *_: None)
    given_back = []
    for ended in (True, False):
        found = Process(Configuration(), "ops", Installation())
        found.reflectors = []
        found.stop.set()
        monkeypatch.setattr(process, "wind_down", lambda workers, renew, every, ended=ended: ended)
        monkeypatch.setattr(found.lease, "release", lambda ended=ended: given_back.append(ended))
        assert found.run() == 0
    assert given_back == [True]


def test_who_does_not_lead_queues_nothing_and_a_new_leader_looks_at_those_that_wait_last(monkeypatch, caplog):
    """Catches: the lists that fill the caches queue every training in their order, before anybody leads."""
    caplog.set_level("INFO")
    found = Process(Configuration(), "ops", Installation())
    monkeypatch.setattr(found.pages, "start", lambda: None)
    monkeypatch.setattr(found.controller, "work", lambda lost: None)

    def put(store, kind, name, version, **content):
        metadata = {"namespace": "ml", "name": name, "resourceVersion": version, "generation": 1}
        metadata["labels"] = {TRAINING_LABEL: name}
        store.put({"kind": kind, "metadata": metadata, "spec": {}, **content})

    waits = {"state": "Waiting", "observedGeneration": 1}
    for name, status in (("a", waits), ("b", waits), ("c", {"state": "Running"}), ("d", {})):
        put(found.trainings, "LTX2Training", name, "1", status=status)
        put(found._watcher.jobs, "Job", name, "1")
    assert found.queue.depth == 0
    found._begin()
    assert [found.queue.get(0) for _ in range(3)] == [("ml", "c"), ("ml", "d"), ("ml", "a")]
    assert found.queue.depth == 0, "the next one that waits comes a moment later"
    assert "2 trainings wait for pods; they are looked at within 1 s" in caplog.text
    put(found._watcher.pods, "Pod", "b", "2")
    assert found.queue.get(0) == ("ml", "b"), "unless something happens to it"
