"""What Prometheus is told, by the names that dashboards and alerts use."""

from prometheus_client import generate_latest

from ltx2_operator.metrics import Metrics


def told(metrics):
    return generate_latest(metrics.registry).decode()


def test_counters_by_their_labels():
    metrics = Metrics()
    metrics.looked("success", 0.01)
    metrics.looked("error", 3)
    for code in (200, 200, 403):
        metrics.asked("GET", code)
    metrics.restarted("pods")
    metrics.queued("add")
    metrics.queued("retry")
    metrics.leads(True)
    lines = told(metrics).splitlines()
    for line in (
        'ltx2_operator_reconcile_total{result="error"} 1.0',
        'ltx2_operator_reconcile_duration_seconds_bucket{le="0.5"} 1.0',
        "ltx2_operator_reconcile_duration_seconds_count 2.0",
        'ltx2_operator_api_requests_total{code="200",verb="GET"} 2.0',
        'ltx2_operator_watch_restarts_total{resource="pods"} 1.0',
        "ltx2_operator_workqueue_adds_total 1.0",
        "ltx2_operator_workqueue_retries_total 1.0",
        "ltx2_operator_leader 1.0",
    ):
        assert line in lines


def test_a_series_lives_as_long_as_its_object():
    objects = [
        {"metadata": {"namespace": "ml", "name": name}, "status": {"state": "Running", "stage": "Train", "attempt": 2}}
        for name in ("fox", "bear")
    ]
    metrics = Metrics()
    metrics.trainings(lambda: objects)
    assert 'ltx2_operator_trainings{stage="Train",state="Running"} 2.0' in told(metrics)
    assert 'training="fox"' in told(metrics)
    objects.pop(0)
    assert 'ltx2_operator_trainings{stage="Train",state="Running"} 1.0' in told(metrics)
    assert 'training="fox"' not in told(metrics)
    assert 'ltx2_operator_trainings{stage="",state="Failed"} 0.0' in told(metrics), "none, and not unknown"
    objects.clear()
    assert "ltx2_operator_training_info{" not in told(metrics)
