"""One operator process: watches at once, works while it holds the lease, ends when it has lost it."""

import gc
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from kubernetes.client import Configuration

from ltx2_operator import __version__
from ltx2_operator.metrics import Metrics
from ltx2_operator.runtime.bucket import TokenBucket
from ltx2_operator.runtime.client import Api, own_name
from ltx2_operator.runtime.configmaps import ConfigMaps
from ltx2_operator.runtime.controller import Controller
from ltx2_operator.runtime.departed import Departed
from ltx2_operator.runtime.first_pass import FirstPass, divide
from ltx2_operator.runtime.kinds import JOBS, NODES, PODS, TRAININGS, Kind
from ltx2_operator.runtime.lease import Lease, LeaseLost
from ltx2_operator.runtime.observing import Watcher
from ltx2_operator.runtime.pacing import apart
from ltx2_operator.runtime.pages import Pages
from ltx2_operator.runtime.queue import Key, KeyedQueue
from ltx2_operator.runtime.reflector import Reflector, Store
from ltx2_operator.runtime.scope import Scope
from ltx2_operator.runtime.serving import serve
from ltx2_operator.runtime.telling import Teller
from ltx2_operator.runtime.writer import Writer
from ltx2_operator.settings import Installation

STOP_SECONDS: Final = 20.0  # for looks that are under way when the process is told to end
LEASE_LOST_CODE: Final = 1
# Objects that were made since the last search for cycles among them, before the next one: the copies of thousands of
# trainings are no garbage, and to go through them after every 700 objects takes a fifth of the time to read them.
COLLECT_AFTER: Final = (200_000, 50, 100)

log = logging.getLogger(__name__)


class Process:
    """All parts of one operator, put together."""

    def __init__(self, configuration: Configuration, namespace: str, installation: Installation) -> None:
        self.installation, self.metrics, self.leads = installation, Metrics(), False
        limits, spaces = installation.api, installation.watch_namespaces or (None,)
        self.identity = f"{os.environ.get('POD_NAME') or own_name()}_{uuid.uuid4().hex[:8]}"
        requests = TokenBucket(limits.requests_per_second, limits.burst)
        api = Api(
            configuration,
            requests,
            timeout=limits.timeout_seconds,
            agent=f"ltx2-operator/{__version__} ({self.identity})",
            connections=installation.workers + 4 * len(spaces) + 4,
            counted=self.metrics.asked,
        )
        self.queue = KeyedQueue(counted=self.metrics.queued)
        departed = Departed()
        self.trainings, jobs, pods = Store(self._news), Store(self._news), Store(self._news, departed.note)
        nodes = Store() if installation.node_reader else None
        kinds: list[tuple[Kind, Store]] = [(TRAININGS, self.trainings), (JOBS, jobs), (PODS, pods)]
        watched = [(kind, store, space) for kind, store in kinds for space in spaces]
        if nodes is not None:
            watched.append((NODES, nodes, None))
        self.reflectors = [
            Reflector(api, kind, store, space, installation.resync_seconds, self.metrics.restarted, filled=self._see)
            for kind, store, space in watched
        ]
        self.scope = Scope(self.reflectors)
        own = os.environ.get("POD_NAMESPACE") or namespace
        self.lease = Lease(api, own, self.identity, installation.leader_election)
        self.pages = Pages(installation.jobs.metrics_port, self.queue.add)
        self._watcher = Watcher(
            api, jobs, pods, departed, nodes, self.pages, installation.secret_reader, ConfigMaps(api)
        )
        numbers = TokenBucket(limits.requests_per_second / 2, max(1, limits.burst // 2), beside=requests)
        writer = Writer(api, self.lease, self.trainings, jobs, numbers=numbers)
        teller = Teller(api, self.lease, self.identity)
        self.controller = Controller(
            self.trainings, self._watcher, writer, teller, self.queue, installation.jobs, self.metrics,
            limits.requests_per_second, self.scope.closed, requests.roomy,
        )  # fmt: skip
        self.stop, self._filled = threading.Event(), threading.Event()
        self._measure()

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; returns the exit code. Raises OSError: the port is taken."""
        gc.set_threshold(*COLLECT_AFTER)
        server = serve(self.installation.port, self.metrics.registry, self.unwell, self.scope.unready)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        log.info("ltx2-operator %s as %s", __version__, self.identity)
        for reflector in self.reflectors:
            reflector.start()
        workers: list[threading.Thread] = []
        while not self.stop.is_set():
            if not self.leads and self._elected():
                workers = self._begin()
            elif self.leads:
                self._renew()
            self._filled.wait(self.installation.leader_election.retry_seconds)
            self._filled.clear()
        log.info("told to stop")
        self.queue.close()
        self.pages.stop()
        ended = wind_down(workers, self._renew, self.installation.leader_election.retry_seconds)
        if self.installation.leader_election.enabled and ended:
            self.lease.release()
        server.shutdown()
        return 0

    def unwell(self) -> list[str]:
        """What cannot mend itself: a copy that has heard nothing for too long."""
        return self.scope.unwell(self.installation.stale_seconds)

    def _news(self, key: Key) -> None:
        """Something of a training has changed. Whoever does not lead yet will look at everything then."""
        if self.leads:
            self.queue.add(key)

    def _end(self) -> None:
        self.stop.set()
        self._filled.set()

    def _see(self) -> None:
        """A cache was filled: if it was the last one, this process need not wait to stand for election."""
        if not self.leads and self.scope.complete():
            self._filled.set()

    def _elected(self) -> bool:
        """Whether this process works from now on; first come full copies."""
        if not self.scope.complete():
            return False
        if not self.installation.leader_election.enabled:
            self.lease.own()
            return True
        self._renew()
        return self.lease.held

    def _renew(self) -> None:
        if self.installation.leader_election.enabled:
            try:
                self.lease.step()
            except LeaseLost as error:
                self._lost(error)

    def _begin(self) -> list[threading.Thread]:
        self.leads = True
        self.metrics.leads(True)
        log.info("leads, with %d workers", self.installation.workers)
        self.pages.start()
        now, later = divide(self.trainings, self._watcher.waits)
        self.controller.looked = FirstPass(now).looked
        for key in now:
            self.queue.add(key)
        self.controller.expect(later)
        pause = apart(self.installation.api.requests_per_second)
        for place, key in enumerate(later):
            self.queue.add_after(key, place * pause)
        if later:
            log.info("%d trainings wait for pods; they are looked at within %.0f s", len(later), len(later) * pause)
        workers = [
            threading.Thread(target=self.controller.work, args=(self._lost,), name=f"worker {number}", daemon=True)
            for number in range(self.installation.workers)
        ]
        for worker in workers:
            worker.start()
        return workers

    def _lost(self, error: LeaseLost) -> None:
        """Another replica may work already: end now, with whatever is under way."""
        log.error("%s; the process ends", error)
        logging.shutdown()
        os._exit(LEASE_LOST_CODE)

    def _measure(self) -> None:
        gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("workqueue_depth", "Trainings that wait for a worker.", lambda: self.queue.depth),
            ("watch_age_seconds", "Since the watch that was silent longest was last heard.", self.scope.oldest),
        )
        for name, text, value in gauges:
            self.metrics.watch(name, text, value)
        # Only the one that works tells of trainings: a sum over replicas counts each once.
        self.metrics.trainings(lambda: self.trainings.all() if self.leads else [])


def wind_down(
    workers: Sequence[threading.Thread],
    renew: Callable[[], None],
    every: float,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Let looks that are under way end; says whether all have, so that the lease may be given to another replica.

    renew: called every `every` seconds meanwhile, since what a look still writes needs the lease.
    """
    until = clock() + STOP_SECONDS
    while alive := [worker for worker in workers if worker.is_alive()]:
        left = until - clock()
        if left <= 0:
            log.warning("not ended within %.0f s: %d looks; the lease runs out by itself", STOP_SECONDS, len(alive))
            return False
        renew()
        alive[0].join(min(every, left))
    return True
