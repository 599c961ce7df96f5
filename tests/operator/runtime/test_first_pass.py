"""What a new leader says once it has looked at everything."""

import logging

from ltx2_operator.pods import TRAINING_LABEL
from ltx2_operator.runtime.first_pass import FirstPass, divide
from ltx2_operator.runtime.observing import waits_as_before
from ltx2_operator.runtime.reflector import Store


def test_it_is_said_once_when_the_last_one_was_looked_at(caplog):
    caplog.set_level(logging.INFO)
    moment = [5.0]
    known = FirstPass([("ml", "fox"), ("ml", "owl")], clock=lambda: moment[0])
    moment[0] = 7.5
    for name in ("fox", "fox", "new"):
        known.looked(("ml", name))
    assert caplog.messages == []
    known.looked(("ml", "owl"))
    known.looked(("ml", "owl"))
    assert caplog.messages == ["has looked at all 2 trainings that may have news, in 2.5 s"]


def of(name):
    return {TRAINING_LABEL: name.partition("-")[0]}


def put(store, kind, name, status, **metadata):
    metadata = {"namespace": "ml", "name": name, "uid": name, "resourceVersion": "1", "labels": of(name), **metadata}
    store.put({"kind": kind, "metadata": metadata, "status": status, "spec": {}})


def test_those_that_wait_for_pods_as_before_can_wait_for_their_look():
    """All else may be news: another spec, a pod that runs, a Job that has ended or is gone, a state that says no."""
    trainings, jobs, pods = Store(), Store(), Store()
    for name, state, generation in (
        ("waits", "Waiting", 2),
        ("queued", "Queued", 2),
        ("edited", "Waiting", 3),
        ("runs", "Waiting", 2),
        ("over", "Waiting", 2),
        ("gone", "Waiting", 2),
        ("lost", "Running", 2),
    ):
        put(trainings, "LTX2Training", name, {"state": state, "observedGeneration": 2}, generation=generation)
        ended = [{"type": "Failed", "status": "True"}] if name == "over" else []
        if name != "gone":
            put(jobs, "Job", f"{name}-train", {"conditions": ended})
            put(pods, "Pod", f"{name}-train-0", {"phase": "Running" if name == "runs" else "Pending"})
    put(trainings, "LTX2Training", "new", {}, generation=1)

    def waits(obj):
        key = "ml", obj["metadata"]["name"]
        return waits_as_before(obj, jobs.of(key), pods.of(key))

    now, later = divide(trainings, waits)
    assert [name for _, name in later] == ["waits", "queued"]
    assert [name for _, name in now] == ["edited", "runs", "over", "gone", "lost", "new"]
