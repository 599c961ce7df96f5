"""What a new leader says once it has looked at everything."""

import logging

from ltx2_operator.runtime.first_pass import FirstPass, in_order
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
    assert caplog.messages == ["has looked at all 2 trainings, in 2.5 s"]


def test_those_that_wait_come_last():
    trainings = Store()
    for name, status in (
        ("a", {"state": "Waiting"}),
        ("b", {"state": "Running"}),
        ("c", {"state": "Waiting"}),
        ("d", {}),
    ):
        metadata = {"namespace": "ml", "name": name, "uid": name, "resourceVersion": "1"}
        trainings.put({"metadata": metadata, "status": status} if status else {"metadata": metadata})
    assert [name for _, name in in_order(trainings)] == ["b", "d", "a", "c"]
