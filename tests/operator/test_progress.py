"""The progress page: read with limits, checked, and never more than progress."""

import contextlib
import copy
import http.server
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2_operator.api import parse as parse_training
from ltx2_operator.conditions import stamp
from ltx2_operator.draft import Draft
from ltx2_operator.progress import PAGE_LIMIT, PageError, _Timed, absorb, fetch, parse
from simulated_cluster import UID, training

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PAGE = {
    "version": 1, "run": "fox", "uid": UID, "attempt": 1, "stage": "train", "state": "training", "step": 1250,
    "maxSteps": 2000, "loss": 0.25,
    "heldOutLoss": 0.3, "secondsPerStep": 0.5, "etaSeconds": 375.5,
    "checkpoint": {"step": 1000, "path": "p", "time": "2026-11-22T09:59:00Z"},
    "items": {"done": 3, "total": 40, "skipped": 0}, "warnings": ["a"], "time": "2026-11-22T10:00:00Z",
}  # fmt: skip


@contextlib.contextmanager
def server(answer):
    """A server on loopback whose GET is `answer(handler)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *args):
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield listener.server_address[1]
    finally:
        listener.shutdown()
        listener.server_close()


def send(handler, body, status=200):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_a_page_is_fetched_from_its_path():
    seen = []

    def answer(handler):
        seen.append(handler.path)
        send(handler, json.dumps(PAGE).encode())

    with server(answer) as port:
        assert parse(fetch("127.0.0.1", port))["step"] == 1250
    assert seen == ["/progress"]


def test_a_long_page_a_wrong_status_and_a_closed_port_are_named():
    with (
        server(lambda handler: send(handler, b"x" * (PAGE_LIMIT + 1))) as port,
        pytest.raises(PageError, match="longer than 4096"),
    ):
        fetch("127.0.0.1", port)
    with server(lambda handler: send(handler, b"x" * PAGE_LIMIT)) as port:
        assert len(fetch("127.0.0.1", port)) == PAGE_LIMIT
    with server(lambda handler: send(handler, b"", 503)) as port, pytest.raises(PageError, match="answered 503"):
        fetch("127.0.0.1", port)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(PageError, match=r"127.0.0.1:\d+/progress"):
            fetch("127.0.0.1", free.getsockname()[1])


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP", b""])
def test_a_page_that_drips_is_given_up(head):
    # Catches: a time-out per read instead of one for the whole exchange, in the header as in the body. Without one the
    # page would come in the end.
    def drip(handler):
        handler.wfile.write(head)
        rest = b"HTTP/1.0 200 OK\r\n\r\n".removeprefix(head) if head in (b"HTTP", b"") else b"x" * 30
        for byte in rest:
            waiting.wait(0.05)
            handler.wfile.write(bytes([byte]))
        handler.wfile.write(b"" if b"\r\n\r\n" in head else b"\r\n\r\n")

    waiting = threading.Event()
    with server(drip) as port, pytest.raises(PageError, match=r"longer than 0\.2 s"):
        fetch("127.0.0.1", port, timeout=0.2)


def test_the_time_for_a_page_only_shrinks():
    # Catches: a byte just before the end that begins the time-out anew.
    one, other = socket.socketpair()
    with other, _Timed(fileno=one.detach()) as timed:
        timed.settimeout(60)
        timed.end = time.monotonic() + 5
        other.send(b"x")
        assert timed.recv_into(bytearray(1)) == 1
        assert timed.gettimeout() <= 5
        timed.end = time.monotonic()
        other.send(b"x")
        with pytest.raises(TimeoutError):
            timed.recv_into(bytearray(1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": -1}, "step"), ({"step": "5"}, "step"), ({"step": 2**31}, "step"), ({"step": True}, "step"),
        ({"uid": None}, "uid"),
        ({"attempt": 1.5}, "attempt"), ({"loss": "low"}, "loss"), ({"stage": "x" * 17}, "stage"),
        ({"checkpoint": {"path": "p"}}, "checkpoint.step"),
        ({"items": []}, "items"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(change, words):
    with pytest.raises(PageError, match=words):
        parse(PAGE | change)


@pytest.mark.parametrize("page", [b"", b"[]", b"null", b"{", b"\xff", "[" * 3000, b"1e999", b'{"a": 1}'])
def test_what_is_no_page_is_refused(page):
    with pytest.raises(PageError):
        parse(page)


def test_numbers_that_are_not_finite_are_left_out():
    assert parse(json.dumps(PAGE | {"loss": float("nan"), "etaSeconds": float("inf")}))["loss"] is None
    assert parse(PAGE | {"etaSeconds": float("inf")})["etaSeconds"] is None


def draft(status=None):
    obj = training()
    obj["status"] = {"attempt": 1, "stage": "Train", **(status or {})}
    return Draft.begin(obj, parse_training(obj), NOW)


@given(
    st.dictionaries(
        st.sampled_from([*PAGE, "state", "reason", "failures", "conditions", "attempt", "plan", "result"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.floats(),
            st.text(max_size=40),
            st.booleans(),
            st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
        ),
    )
)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_no_page_sets_more_than_progress(change):
    try:
        page = parse(PAGE | change)
    except PageError:
        return
    one = draft()
    before = dict(one.status)
    absorb(one, page)
    allowed = {"progress", "progressText", "eta", "etaTime", "checkpoint", "conditions", "warnings"}
    assert {key for key in one.status if one.status[key] != before.get(key)} <= allowed
    changed = [
        new["type"] for new, old in zip(one.status["conditions"], before["conditions"], strict=True) if new != old
    ]
    assert changed in ([], ["Progressing"])
    assert one.actions == []


@pytest.mark.parametrize("state", ["training", "validating"])
def test_an_unchanged_page_changes_nothing_however_often_it_is_read(state):
    # Catches: heartbeats (a predicted end that moves along with the clock, a time of a page that says the same).
    one = draft()
    page = parse(PAGE | {"state": state, "warnings": ["12 of 40 clips skipped"]})
    absorb(one, page)
    assert one.status["warnings"] == ["12 of 40 clips skipped"]
    stored = copy.deepcopy(one.status)
    one.now = NOW + timedelta(seconds=600)
    absorb(one, page)
    assert one.status == stored


def test_a_validation_is_no_stall_and_the_step_after_it_has_its_time_anew():
    one = draft()
    absorb(one, parse(PAGE))
    for seconds, state, reason in (
        (100, "validating", "Stepping"), (3000, "validating", "Stepping"), (3010, "training", "Stepping"),
        (3800, "training", "Stepping"), (4000, "training", "Stalled"), (4100, "training", "Stalled"),
    ):  # fmt: skip
        one.now = NOW + timedelta(seconds=seconds)
        absorb(one, parse(PAGE | {"state": state}))
        assert one.reason("Progressing") == reason, seconds


def test_warnings_of_a_page_are_told_once_and_bounded():
    one = draft({"warnings": ["61 → 57"]})
    for first in range(0, 90, 3):
        absorb(one, parse(PAGE | {"warnings": [f"clip {number}" for number in range(first, first + 5)]}))
    assert one.status["warnings"][:3] == ["61 → 57", "clip 0", "clip 1"]
    assert len(one.status["warnings"]) == len(set(one.status["warnings"])) == 50


def test_a_page_of_another_object_or_attempt_is_ignored():
    for change in ({"uid": "x"}, {"attempt": 2}):
        one = draft()
        absorb(one, parse(PAGE | change))
        assert "progress" not in one.status


def test_the_numbers_and_words_of_a_page():
    one = draft()
    absorb(one, parse(PAGE))
    assert one.status["progress"] == {
        "step": 1250, "maxSteps": 2000, "loss": 0.25, "heldOutLoss": 0.3, "secondsPerStep": 0.5, "etaSeconds": 375,
        "time": stamp(NOW),
    }  # fmt: skip
    assert (one.status["progressText"], one.status["eta"]) == ("1250/2000", "6m")
    assert one.status["checkpoint"] == {"step": 1000, "path": "p", "time": "2026-11-22T09:59:00Z"}
    cached = draft()
    absorb(cached, parse(PAGE | {"stage": "cache", "state": "caching"}))
    assert (cached.status["progressText"], cached.status["progress"].get("step")) == ("3/40", None)


def test_a_checkpoint_never_goes_back():
    one = draft({"checkpoint": {"step": 1500, "path": "q"}})
    absorb(one, parse(PAGE))
    assert one.status["checkpoint"]["step"] == 1500


def test_a_run_is_stalled_after_fifteen_minutes_or_ten_steps_without_one():
    page = parse(PAGE)
    first = draft()
    absorb(first, page)
    for seconds, per_step, reason in (
        (899, 0.5, "Stepping"),
        (901, 0.5, "Stalled"),
        (901, 200.0, "Stepping"),
        (2001, 200.0, "Stalled"),
    ):
        one = draft({key: first.status[key] for key in ("progress", "progressText", "conditions")})
        one.now = NOW + timedelta(seconds=seconds)
        absorb(one, page | {"secondsPerStep": per_step})
        assert one.reason("Progressing") == reason, (seconds, per_step)
    saving = draft({key: first.status[key] for key in ("progress", "progressText", "conditions")})
    saving.now = NOW + timedelta(hours=1)
    absorb(saving, page | {"state": "validating"})
    assert saving.reason("Progressing") == "Stepping"


def test_a_page_that_cannot_be_read_is_unknown_only_after_a_while():
    first = draft()
    absorb(first, parse(PAGE))
    for seconds, reason in ((119, "Stepping"), (121, "Unknown")):
        one = draft({key: first.status[key] for key in ("progress", "progressText", "conditions")})
        one.now = NOW + timedelta(seconds=seconds)
        absorb(one, None)
        assert one.reason("Progressing") == reason
