"""The operator's own port: pages, and who can reach them."""

import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from ltx2_operator.runtime.serving import serve


@pytest.fixture
def place():
    registry, wrong = CollectorRegistry(), []
    Counter("looks", "x", registry=registry).inc(3)
    server = serve(0, registry, list, lambda: wrong)
    yield server, wrong
    server.shutdown()
    server.server_close()


def get(server, path, host="127.0.0.1"):
    try:
        with urllib.request.urlopen(f"http://{host}:{server.server_port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_numbers_and_probes(place):
    server, wrong = place
    assert "looks_total 3.0" in get(server, "/metrics?x=1")[1]
    assert get(server, "/readyz") == get(server, "/healthz") == (200, "ok\n")
    wrong += ["pods: no list yet", "nodes: no list yet"]
    assert get(server, "/readyz") == (503, "pods: no list yet\nnodes: no list yet\n")
    assert get(server, "/healthz")[0] == 200
    assert get(server, "/secrets")[0] == 404


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_probes_come_over_ipv6_too(place):
    """On a cluster with IPv6 alone, the kubelet has no other way."""
    server, _ = place
    assert get(server, "/healthz", "[::1]") == get(server, "/healthz") == (200, "ok\n")


def test_without_ipv6_it_listens_on_ipv4(monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    server = serve(0, CollectorRegistry(), list, list)
    try:
        assert server.socket.family == socket.AF_INET
        assert get(server, "/healthz")[0] == 200
    finally:
        server.shutdown()
        server.server_close()


def test_the_name_of_the_host_is_not_looked_up(monkeypatch):
    """Which can hang for seconds where no DNS answers."""

    def hang(*_):
        raise AssertionError("looked up")

    for name in ("getfqdn", "gethostbyaddr", "gethostbyname"):
        monkeypatch.setattr(socket, name, hang)
    server = serve(0, CollectorRegistry(), list, list)
    server.shutdown()
    server.server_close()
