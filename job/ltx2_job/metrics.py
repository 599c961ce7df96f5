"""The numbers of a stage for Prometheus, and the small server that rank 0 offers them on.

`/metrics` is the Prometheus text format, `/progress` the JSON page that the operator reads. Both hold numbers and names
of this run only; nothing can be changed through them.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ltx2_job.listener import EVERYWHERE, LOOPBACK, Listener

STEP_VALUES: Final = {
    "learning_rate": ("learning_rate", "learning rate of the last step"),
    "grad_norm": ("gradient_norm", "norm of the LoRA gradient before clipping"),
    "seconds_per_step": ("seconds_per_step", "duration of the last optimizer step"),
    "data_wait_seconds": ("data_wait_seconds", "part of the last step spent waiting for samples"),
}
LOSS_PARTS: Final = {"loss": "total", "loss_video": "video", "loss_audio": "audio"}


class Metrics:
    """The gauges of one stage of one training, in a registry of their own.

    A series appears with its first value: a gauge that stands at 0 because nothing was measured yet would raise alerts.
    """

    def __init__(self, training: str, stage: str):
        self.registry = CollectorRegistry()
        self._labels = (training, stage)
        self._checkpoint_time: float | None = None
        self._step = self._gauge("step", "optimizer steps done")
        self._max_steps = self._gauge("max_steps", "optimizer steps this training takes")
        self._loss = self._gauge("loss", "training loss of the last step, by part", "part")
        self._held_out = self._gauge("held_out_loss", "loss on the held-out clips, by part", "part")
        self._values = {key: self._gauge(name, text) for key, (name, text) in STEP_VALUES.items()}
        self._gpu = self._gauge("gpu_memory_bytes", "memory of this process' GPU, by kind", "kind")
        self._host = self._gauge("host_memory_bytes", "resident memory of this process")
        self._checkpoint_age = self._gauge("checkpoint_age_seconds", "seconds since the newest checkpoint was complete")
        self._checkpoint_step = self._gauge("checkpoint_last_step", "step of the newest complete checkpoint; 0: none")
        self._checkpoint_at = self._gauge("checkpoint_timestamp_seconds", "Unix time of the newest complete checkpoint")
        self._checkpoint_seconds = self._gauge("checkpoint_seconds", "how long writing the newest checkpoint took")
        self._interval = self._gauge("checkpoint_interval_steps", "steps between checkpoints, as configured")
        self._items = Counter(
            "ltx2_job_cache_items",
            "items that the cache stage has finished, by kind and result",
            ["training", "stage", "kind", "result"],
            registry=self.registry,
        )

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"ltx2_job_{name}", text, ["training", "stage", *labels], registry=self.registry)

    def step(self, step: int, max_steps: int, values: Mapping[str, float]) -> None:
        """Take over a step's numbers; keys as in Reporter.step, those without a series of their own are left out."""
        self._step.labels(*self._labels).set(step)
        self._max_steps.labels(*self._labels).set(max_steps)
        for key, part in LOSS_PARTS.items():
            if key in values:
                self._loss.labels(*self._labels, part).set(values[key])
        for key, gauge in self._values.items():
            if key in values:
                gauge.labels(*self._labels).set(values[key])

    def held_out(self, loss: float, parts: Mapping[str, float]) -> None:
        """The held-out loss and its parts (video, audio)."""
        for part, value in {"total": loss, **parts}.items():
            self._held_out.labels(*self._labels, part.removeprefix("loss_")).set(value)

    def resumed(self, step: int, every: int) -> None:
        """Training goes on from the checkpoint of `step` (0: none); another is due every `every` steps (0: none is)."""
        self._checkpoint_step.labels(*self._labels).set(step)
        if every:
            self._interval.labels(*self._labels).set(every)

    def checkpoint(self, step: int, seconds: float) -> None:
        """A checkpoint of `step` is complete now; writing it took `seconds`."""
        self._checkpoint_time = time.time()
        self._checkpoint_step.labels(*self._labels).set(step)
        self._checkpoint_at.labels(*self._labels).set(self._checkpoint_time)
        self._checkpoint_seconds.labels(*self._labels).set(seconds)

    def item(self, kind: str, result: str, count: int = 1) -> None:
        """`count` more items of a kind (video, audio, text) are encoded, reused or skipped."""
        self._items.labels(*self._labels, kind, result).inc(count)

    def render(self) -> bytes:
        """The text of /metrics; memory and ages are taken at this moment."""
        self._host.labels(*self._labels).set(host_memory())
        for kind, size in gpu_memory().items():
            self._gpu.labels(*self._labels, kind).set(size)
        if self._checkpoint_time is not None:
            self._checkpoint_age.labels(*self._labels).set(max(0.0, time.time() - self._checkpoint_time))
        return generate_latest(self.registry)


def host_memory() -> int:
    """Resident bytes of this process; where /proc is missing, the peak that the system remembers."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def gpu_memory() -> dict[str, int]:
    """Bytes that torch holds on the current GPU: allocated, reserved, peak. Empty without torch or a GPU in use."""
    torch = sys.modules.get("torch")  # never imported from here: the server starts before torch does
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_available() or not cuda.is_initialized():
        return {}
    return {
        "allocated": cuda.memory_allocated(),
        "reserved": cuda.memory_reserved(),
        "peak": cuda.max_memory_allocated(),
    }


def peak_memory() -> tuple[str, int]:
    """What people watch: the GPU's peak where there is one in use, else the resident memory of this process (bytes)."""
    peak = gpu_memory().get("peak")
    return ("GPU", peak) if peak is not None else ("RAM", host_memory())


class Server:
    """Serves /metrics and /progress from threads of their own until close()."""

    def __init__(self, port: int, metrics: Callable[[], bytes], progress: Callable[[], bytes]):
        """Listen on `port` (0: any free one); raises OSError if it cannot be had.

        In a pod on every interface, as the operator and Prometheus come from outside; elsewhere on the loopback only.
        """
        pages = {"/metrics": (CONTENT_TYPE_LATEST, metrics), "/progress": ("application/json", progress)}

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # a client that sends nothing must not hold a thread for ever

            def do_GET(self) -> None:
                kind, render = pages.get(self.path.partition("?")[0], (None, None))
                if kind is None or render is None:
                    self.send_error(404)
                    return
                body = render()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """A line per scrape is noise in a training's log."""

        in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        self._server = Listener(EVERYWHERE if in_pod else LOOPBACK, port, Handler)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
