"""Watches as the client reads them, of answers without a server."""

import json
from typing import Any

import pytest
from kubernetes.client import Configuration

from ltx2_operator.runtime.bucket import TokenBucket
from ltx2_operator.runtime.client import Api, ApiError, Gone


class Response:
    """As much of an answer as is read."""

    def __init__(self, status, *chunks, broken=None):
        self.status, self.chunks, self.broken, self.closed = status, list(chunks), broken, False

    @property
    def data(self):
        return b"".join(self.chunks)

    def read1(self, most):
        if not self.chunks and self.broken:
            raise self.broken
        return self.chunks.pop(0) if self.chunks else b""

    def release_conn(self):
        self.closed = True

    close = release_conn


def watched(response, monkeypatch):
    api = Api(Configuration(), TokenBucket(1, 1), timeout=5, connections=1)
    monkeypatch.setattr(api, "_send", lambda *_: response)
    return api.watch("/api/v1/pods", {}, 10, dict[str, Any])


def test_a_watch_that_is_refused_is_refused_before_its_first_event(monkeypatch):
    """A reflector takes one that is open for a sign of life."""
    refusal = Response(410, json.dumps({"reason": "Expired", "message": "too old"}).encode())
    with pytest.raises(Gone, match="too old"):
        watched(refusal, monkeypatch)
    assert refusal.closed


def test_events_are_read_line_by_line_and_a_line_that_was_cut_off_is_none(monkeypatch):
    lines = [json.dumps({"type": "ADDED", "object": {"n": number}}).encode() + b"\n" for number in range(3)]
    text = b"".join(lines)
    response = Response(200, text[:10], text[10:-5], broken=OSError("reset"))
    found = watched(response, monkeypatch)
    assert [next(found), next(found)] == [("ADDED", {"n": 0}), ("ADDED", {"n": 1})]
    with pytest.raises(ApiError, match="reset"):
        next(found)
    assert response.closed
