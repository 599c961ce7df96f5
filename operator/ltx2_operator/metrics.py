"""What the operator tells Prometheus about itself and about the trainings that exist now."""

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ltx2_operator.conditions import STATES

PREFIX: Final = "ltx2_operator"


class Metrics:
    """Counters and gauges of one operator process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._looks = Counter(
            f"{PREFIX}_reconcile", "Looks at trainings: success, stale, error.", ["result"], registry=self.registry
        )
        self._seconds = Histogram(
            f"{PREFIX}_reconcile_duration_seconds",
            "How long a look takes.",
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
            registry=self.registry,
        )
        self._requests = Counter(
            f"{PREFIX}_api_requests",
            "Requests to the API server; code 0: it could not be reached.",
            ["verb", "code"],
            registry=self.registry,
        )
        self._restarts = Counter(
            f"{PREFIX}_watch_restarts", "Watches that ended and began anew.", ["resource"], registry=self.registry
        )
        self._queue = {
            "add": Counter(f"{PREFIX}_workqueue_adds", "Trainings put into the queue.", registry=self.registry),
            "retry": Counter(f"{PREFIX}_workqueue_retries", "Looks that failed, come again.", registry=self.registry),
        }
        self._leader = Gauge(f"{PREFIX}_leader", "1 where this process works.", registry=self.registry)

    def looked(self, result: str, seconds: float) -> None:
        """A look has ended."""
        self._looks.labels(result).inc()
        self._seconds.observe(seconds)

    def asked(self, verb: str, code: int) -> None:
        """The API server has answered."""
        self._requests.labels(verb, str(code)).inc()

    def restarted(self, resource: str) -> None:
        """A watch begins anew."""
        self._restarts.labels(resource).inc()

    def queued(self, what: str) -> None:
        """The queue was given something: "add" or "retry"."""
        self._queue[what].inc()

    def leads(self, leads: bool) -> None:
        """Whether this process works."""
        self._leader.set(leads)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A number that is read when somebody asks for it."""
        Gauge(f"{PREFIX}_{name}", text, registry=self.registry).set_function(value)

    def trainings(self, trainings: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        """Tell of these objects whenever somebody asks: a series lives exactly as long as its object."""
        self.registry.register(_Trainings(trainings))


class _Trainings(Collector):
    def __init__(self, trainings: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._trainings = trainings

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """What will be collected, without looking."""
        return [
            GaugeMetricFamily(f"{PREFIX}_trainings", "LTX2Trainings by state and stage.", labels=["state", "stage"]),
            GaugeMetricFamily(
                f"{PREFIX}_training_info",
                "One series per LTX2Training that exists.",
                labels=["namespace", "training", "state", "stage", "attempt", "gpu", "reason"],
            ),
        ]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The trainings as they are now."""
        counts, info = self.describe()
        # A state in which there is none is a 0: without it "none failed" looks like "nobody knows".
        by_state = Counts({(state, ""): 0 for state in STATES})
        for obj in self._trainings():
            status, metadata = obj.get("status") or {}, obj["metadata"]
            state, stage = str(status.get("state") or "Pending"), str(status.get("stage") or "")
            by_state[state, stage] += 1
            rest = (str(status.get("attempt") or 0), str(status.get("gpu") or ""), str(status.get("reason") or ""))
            info.add_metric([metadata["namespace"], metadata["name"], state, stage, *rest], 1)
        for labels, count in by_state.items():
            counts.add_metric(labels, count)
        return [counts, info]
