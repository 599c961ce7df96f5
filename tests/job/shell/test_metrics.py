"""The metrics page, read by Prometheus' own parser, and the server."""

import math
import socket
import struct
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ltx2_job.metrics import Metrics, Server


def series(metrics: Metrics) -> dict[tuple, float]:
    """(name, its labels beside training and stage) -> value; those two must be right everywhere."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("training"), labels.pop("stage")) == ("fox", "train")
            found[sample.name, *sorted(labels.values())] = sample.value
    return found


def test_every_number_has_its_series():
    """Catches a renamed series (alerts and dashboards name them), a value under the wrong name, a missing label."""
    metrics = Metrics("fox", "train")
    values = {
        "loss": 0.75, "loss_video": 0.5, "loss_audio": 0.25, "learning_rate": 1e-4, "grad_norm": 2.0,
        "seconds_per_step": 1.5, "data_wait_seconds": 0.125,
    }  # fmt: skip
    metrics.step(812, 2000, values)
    metrics.held_out(0.9, {"video": 0.6, "audio": 0.3})
    metrics.checkpoint(800, 3.5)
    metrics.item("video", "encoded")
    metrics.item("video", "encoded")
    metrics.item("text", "reused")
    found = series(metrics)
    expected = {
        ("ltx2_job_step",): 812, ("ltx2_job_max_steps",): 2000,
        ("ltx2_job_loss", "total"): 0.75, ("ltx2_job_loss", "video"): 0.5, ("ltx2_job_loss", "audio"): 0.25,
        ("ltx2_job_held_out_loss", "total"): 0.9, ("ltx2_job_held_out_loss", "video"): 0.6,
        ("ltx2_job_held_out_loss", "audio"): 0.3,
        ("ltx2_job_learning_rate",): 1e-4, ("ltx2_job_gradient_norm",): 2.0, ("ltx2_job_seconds_per_step",): 1.5,
        ("ltx2_job_data_wait_seconds",): 0.125,
        ("ltx2_job_checkpoint_last_step",): 800, ("ltx2_job_checkpoint_seconds",): 3.5,
        ("ltx2_job_cache_items_total", "encoded", "video"): 2, ("ltx2_job_cache_items_total", "reused", "text"): 1,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["ltx2_job_host_memory_bytes",] > 1e6
    assert found["ltx2_job_checkpoint_timestamp_seconds",] > 1.7e9


def test_what_was_not_measured_has_no_series():
    """A checkpoint age of 0 would hide that there is none yet; a loss of 0 would look like a trained model."""
    names = {key[0] for key in series(Metrics("fox", "train"))}
    assert names == {"ltx2_job_host_memory_bytes"}


def test_what_would_be_lost_is_known_before_the_first_checkpoint():
    """Catches an alert that never fires for a run whose volume takes no checkpoint from the beginning."""
    metrics = Metrics("fox", "train")
    metrics.resumed(0, 200)
    found = series(metrics)
    assert found["ltx2_job_checkpoint_last_step",] == 0 and found["ltx2_job_checkpoint_interval_steps",] == 200
    metrics.resumed(600, 200)
    assert series(metrics)["ltx2_job_checkpoint_last_step",] == 600
    metrics.checkpoint(800, 1.0)
    assert series(metrics)["ltx2_job_checkpoint_last_step",] == 800


def test_without_checkpoints_on_the_way_there_is_no_interval():
    """Catches an interval of 0, which every step is beyond."""
    metrics = Metrics("fox", "train")
    metrics.resumed(0, 0)
    assert ("ltx2_job_checkpoint_interval_steps",) not in series(metrics)


def test_the_checkpoints_age_is_taken_when_asked(monkeypatch):
    """Catches an age that stands still between two checkpoints."""
    now = [1000.0]
    monkeypatch.setattr("ltx2_job.metrics.time.time", lambda: now[0])
    metrics = Metrics("fox", "train")
    metrics.checkpoint(100, 1.0)
    now[0] = 1090.0
    assert series(metrics)["ltx2_job_checkpoint_age_seconds",] == 90


def test_a_loss_that_is_no_number_is_shown_as_such():
    """Catches a number in its place: a curve that goes on as if nothing had happened."""
    metrics = Metrics("fox", "train")
    metrics.step(1, 2, {"loss": math.nan})
    assert math.isnan(series(metrics)["ltx2_job_loss", "total"])


def test_two_stages_in_one_process_do_not_meet():
    """Catches the process-wide registry: the second Metrics would be a duplicate."""
    first, second = Metrics("fox", "train"), Metrics("fox", "train")
    first.step(5, 10, {})
    assert ("ltx2_job_step",) not in series(second)


@pytest.fixture
def server():
    server = Server(0, lambda: b"numbers", lambda: b"{}")
    yield server
    server.close()


def get(server: Server, path: str) -> tuple[int, str, bytes]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read()


def test_the_two_pages(server):
    """Catches swapped pages and a content type that Prometheus refuses."""
    status, kind, body = get(server, "/metrics")
    assert (status, body) == (200, b"numbers") and kind.startswith("text/plain; version=")
    assert get(server, "/progress?x=1") == (200, "application/json", b"{}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server, "/etc/passwd")
    assert caught.value.code == 404


def test_a_client_that_says_nothing_does_not_block_the_others(server):
    """Catches a server with one thread: a half-open connection would blind the operator."""
    with socket.create_connection(("127.0.0.1", server.port)):
        assert get(server, "/progress")[0] == 200


def test_a_client_that_leaves_early_is_no_news(capfd):
    """Catches a traceback in the training's log for every scrape that timed out."""
    served = threading.Event()

    def page() -> bytes:
        served.set()
        return b"x" * (1 << 24)

    others = set(threading.enumerate())  # servers of earlier tests may hold open connections
    server = Server(0, page, page)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave with a reset
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert served.wait(5)
    for thread in set(threading.enumerate()) - others:
        if "process_request_thread" in thread.name:
            thread.join(5)
    server.close()
    assert capfd.readouterr().err == ""


def test_outside_a_pod_only_this_machine_can_ask(monkeypatch, server):
    """Catches a laptop that shows its training to the whole network; in a pod the operator comes from outside."""
    assert server._server.server_address[0] == "127.0.0.1"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    pod = Server(0, lambda: b"", lambda: b"")
    try:
        assert pod._server.server_address[0] in ("0.0.0.0", "::")
        assert get(pod, "/metrics")[0] == 200
    finally:
        pod.close()


def test_close_frees_the_port_and_the_thread(server):
    """Catches a listener that keeps the port until the process ends."""
    again = Server(0, lambda: b"", lambda: b"")
    threads = threading.active_count()
    again.close()
    assert threading.active_count() == threads - 1
    Server(again.port, lambda: b"", lambda: b"").close()
