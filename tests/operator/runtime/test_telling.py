"""Events: named by what they say, so that the same again is counted."""

from datetime import UTC, datetime

from ltx2_operator.draft import Event
from ltx2_operator.runtime.telling import event_body, event_name

OBJ = {"metadata": {"name": "fox", "namespace": "ml", "uid": "u1"}}
NOW = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)


def test_the_same_sentence_has_the_same_name_and_any_other_another():
    said = Event("AttemptFailed", "attempt 1: left with 70", "Warning")
    others = [
        event_name({"metadata": {**OBJ["metadata"], "uid": "u2"}}, said),
        event_name(OBJ, Event(said.reason, said.message, "Normal")),
        event_name(OBJ, Event("Other", said.message, "Warning")),
        event_name(OBJ, Event(said.reason, "attempt 2: left with 70", "Warning")),
    ]
    name = event_name(OBJ, said)
    assert name == event_name(dict(OBJ), Event(said.reason, said.message, "Warning"))
    assert len({name, *others}) == 5
    assert name.startswith("fox.")


def test_a_long_note_is_cut_to_what_the_server_takes():
    body = event_body(OBJ, Event("Accepted", "é" * 2000), "me", NOW)
    assert 1000 < len(body["note"].encode()) <= 1024
    assert body["note"].endswith("…")
    assert body["eventTime"] == "2026-11-22T10:00:00.123456Z"
    assert body["regarding"]["uid"] == "u1"
