"""conditions: closed vocabulary, transition times, the derived word, ready strings."""

from datetime import UTC, datetime, timedelta

import pytest

from ltx2_operator import conditions
from ltx2_operator.conditions import duration_text, get_condition, gpu_text, moment, set_condition, stamp, state_word

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=3)


def test_transition_time_moves_only_when_status_flips():
    one = set_condition([], "Running", "False", "Starting", "a", NOW, 1)
    two = set_condition(one, "Running", "False", "WaitingForPods", "b", LATER, 2)
    assert two[0] == {
        "type": "Running", "status": "False", "reason": "WaitingForPods", "message": "b",
        "observedGeneration": 2, "lastTransitionTime": stamp(NOW),
    }  # fmt: skip
    three = set_condition(two, "Running", "True", "Training", "", LATER, 2)
    assert three[0]["lastTransitionTime"] == stamp(LATER)


def test_the_input_is_left_alone_and_order_is_fixed():
    start = set_condition([], "Failed", "False", "InProgress", "", NOW, 1)
    kept = [dict(entry) for entry in start]
    both = set_condition(start, "Accepted", "True", "Valid", "", NOW, 1)
    assert start == kept
    assert [entry["type"] for entry in both] == ["Accepted", "Failed"]


def test_a_foreign_condition_survives():
    foreign = {"type": "Example", "status": "True", "reason": "X", "message": "", "lastTransitionTime": stamp(NOW)}
    assert foreign in set_condition([foreign], "Accepted", "True", "Valid", "", NOW, 1)


@pytest.mark.parametrize(
    ("kind", "status", "reason", "word"),
    [("Done", "True", "Valid", "Done"), ("Accepted", "True", "Fine", "Fine"), ("Accepted", "yes", "Valid", "yes")],
)
def test_the_vocabulary_is_closed(kind, status, reason, word):
    with pytest.raises(ValueError, match=word):
        set_condition([], kind, status, reason, "", NOW, 1)


def test_every_verdict_of_the_exit_code_table_is_a_reason_of_running_and_terminal_ones_of_failed():
    from ltx2_job.exitcodes import TABLE, Action

    assert {row.reason for row in TABLE.values()} <= conditions.REASONS["Running"]
    assert {row.reason for row in TABLE.values() if row.action is Action.FAIL} <= conditions.REASONS["Failed"]


def built(*entries):
    found = []
    for kind, status, reason in entries:
        found = set_condition(found, kind, status, reason, "", NOW, 1)
    return found


@pytest.mark.parametrize(
    ("entries", "ended", "word"),
    [
        ([], False, "Pending"),
        ([("Accepted", "False", "InvalidConfig")], False, "Rejected"),
        ([("Accepted", "True", "Valid"), ("Running", "False", "Starting")], False, "Starting"),
        ([("Running", "False", "WaitingForPods")], False, "Waiting"),
        ([("Running", "False", "ImagePull")], False, "Waiting"),
        ([("Running", "True", "Training")], False, "Running"),
        ([("Running", "False", "AppError")], True, "Restarting"),
        ([("Running", "False", "WaitingForData")], True, "Waiting"),
        ([("Admitted", "False", "WaitingForQuota"), ("Running", "False", "WaitingForPods")], False, "Queued"),
        ([("Suspended", "False", "Suspending"), ("Running", "True", "Training")], False, "Suspending"),
        ([("Suspended", "True", "SuspendedByUser")], True, "Suspended"),
        ([("Failed", "True", "DataError"), ("Suspended", "True", "SuspendedByUser")], True, "Failed"),
        ([("Succeeded", "True", "Completed")], True, "Succeeded"),
    ],
)
def test_the_word_follows_from_the_conditions(entries, ended, word):
    assert state_word(built(*entries), ended) == word


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (7800, "2h10m"),
        (86400, "1d"),
        (273600, "3d4h"),
    ],
)
def test_durations_read_like_kubectls_ages(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("plan", "spec", "text"),
    [
        ({"gpuClass": "h100-80g", "gpuCount": 1}, {}, "1x h100-80g"),
        (None, {"class": "auto", "count": 2}, "2x auto"),
        (None, {}, "1x auto"),
        ({"gpuClass": "cpu", "gpuCount": 0, "processes": 1}, {"count": 1}, "cpu"),
        ({"gpuClass": "mi300x", "gpuCount": 4, "nodes": 2}, {}, "2x4x mi300x"),
    ],
)
def test_the_gpu_column(plan, spec, text):
    assert gpu_text(plan, spec) == text


def test_times_go_round_and_are_utc():
    assert moment(stamp(NOW)) == NOW
    assert moment("2026-11-22T11:00:00+01:00") == NOW
    assert moment("2026-11-22T10:00:00") == NOW
    assert stamp(moment("2026-11-22T11:00:00+01:00")) == "2026-11-22T10:00:00Z"
    with pytest.raises(ValueError):
        moment("soon")
    assert get_condition([], "Running") is None
