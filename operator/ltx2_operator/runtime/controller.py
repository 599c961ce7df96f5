"""Looks at trainings: reconcile in the middle, what it needs before it, what it decided after it."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ltx2_operator import attempts
from ltx2_operator.conditions import is_false
from ltx2_operator.draft import Event
from ltx2_operator.metrics import Metrics
from ltx2_operator.observed import DryRun, Observed, Outcome, job_finished
from ltx2_operator.reconcile import reconcile
from ltx2_operator.runtime.client import ApiError
from ltx2_operator.runtime.lease import LeaseLost
from ltx2_operator.runtime.observing import Watcher, is_pending
from ltx2_operator.runtime.pacing import BUSY_AGAIN, OLD_AFTER, Refusals, Waiting
from ltx2_operator.runtime.queue import Key, KeyedQueue
from ltx2_operator.runtime.reflector import Store
from ltx2_operator.runtime.telling import Teller
from ltx2_operator.runtime.writer import NotNow, Stale, Writer
from ltx2_operator.settings import Settings

CLOSED_AGAIN: Final = 10.0  # seconds until a namespace that cannot be read is tried again
REFUSAL_HOLDS: Final = 60.0  # seconds until a refused dry run is asked again: quotas and policies change

log = logging.getLogger(__name__)


class Controller:
    """Takes keys from the queue and looks at their trainings."""

    def __init__(
        self,
        trainings: Store,
        watcher: Watcher,
        writer: Writer,
        teller: Teller,
        queue: KeyedQueue,
        settings: Settings,
        metrics: Metrics,
        requests_per_second: float,
        closed: Callable[[str], bool] = lambda namespace: False,
        roomy: Callable[[], bool] = lambda: True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.looked: Callable[[Key], None] = lambda key: None  # told of each look, when it is over
        self._trainings, self._watcher, self._writer, self._teller = trainings, watcher, writer, teller
        self._queue, self._settings, self._metrics, self._now = queue, settings, metrics, now
        self._roomy = roomy  # whether requests are left for what can wait
        self._closed = closed  # whether a namespace cannot be read: what is known of it is old
        self._uids: dict[Key, str] = {}
        self._dry_runs: dict[str, tuple[DryRun, datetime]] = {}  # by uid
        self._refusals, self._waiting = Refusals(), Waiting(requests_per_second)
        self._lock = threading.Lock()

    def expect(self, waiting: Iterable[Key]) -> None:
        """Before the first look: these trainings have waited for pods for long."""
        self._waiting.expect(waiting)

    def work(self, lost: Callable[[LeaseLost], None]) -> None:
        """Look at one key after another until the queue is closed. `lost` is called when the lease is."""
        while (key := self._queue.get()) is not None:
            try:
                self.handle(key)
            except LeaseLost as error:
                lost(error)
                return
            finally:
                self._queue.done(key)
            self.looked(key)

    def handle(self, key: Key) -> None:
        """One look, whatever comes of it. Raises LeaseLost and nothing else."""
        begun, result = time.monotonic(), "success"
        try:
            again = self.look(key)
            self._queue.succeeded(key)
            if again is not None:
                self._queue.add_after(key, again)
        except Stale as error:
            result = "stale"
            log.debug("%s/%s: %s", *key, error)
            self._queue.add(key)
        except LeaseLost:
            raise
        except ApiError as error:
            result = "error"
            wait = self._queue.failed(key)
            log.warning("%s/%s: %s; again in %.0f s", *key, error, wait)
        except Exception:
            result = "error"
            wait = self._queue.failed(key)
            log.exception("%s/%s: the look failed; again in %.0f s", *key, wait)
        self._metrics.looked(result, time.monotonic() - begun)

    def look(self, key: Key) -> float | None:
        """Look at one training; returns seconds until the next look, None: when something happens.

        Raises Stale, ApiError, LeaseLost.
        """
        obj = self._trainings.one(key)
        self._remember(key, obj)
        if obj is None:
            return None
        if self._closed(key[0]):
            return CLOSED_AGAIN
        if self._watcher.waits(obj) and not self._roomy():
            return BUSY_AGAIN * random.uniform(0.9, 1.1)
        observed = self._watcher.observe(obj, self._dry_run(obj), self._refusals.words(str(obj["metadata"]["uid"])))
        now = self._now()
        outcome = reconcile(obj, observed, now, self._settings)
        # Told before they are stored: whoever goes on after a kill tells a stored end no more, but one that was not
        # stored it finds again, and its sentence is the same Event.
        for event in outcome.events:
            self._teller.tell(obj, event)
        written = self._writer.status(obj, outcome.status)
        # As it was written, not as it is by now: a Job follows from what this look saw, and no later word.
        obj = written or obj
        waits = self._act(obj, outcome)
        again = outcome.requeue_after
        if again == 0 and not written:
            again = 1.0 if waits is None else None  # at once, but for what was refused
        held = self._writer.held_back(str(obj["metadata"]["uid"]))
        pending = self._pending_again(key, outcome.status, observed, now)
        if again and is_false(outcome.status.get("conditions") or [], "Accepted"):
            again = max(again, self._waiting.again(key, OLD_AFTER))  # what it lacks may never come
        return _earliest(again, waits, held, pending)

    def _act(self, obj: Mapping[str, Any], outcome: Outcome) -> float | None:
        """Do what was decided, in order, as far as it can be done; seconds until what could not is tried again."""
        uid = str(obj["metadata"]["uid"])
        for action in outcome.actions:
            try:
                answer = self._writer.act(obj, action)
            except NotNow as why:
                log.info("%s/%s: %s", obj["metadata"]["namespace"], obj["metadata"]["name"], why)
                if why.reason and self._refusals.words(uid) != str(why):
                    self._teller.tell(obj, Event(why.reason, str(why), "Warning"))
                return self._refusals.refused(uid, str(why) if why.reason else "", self._now())
            if answer is not None:
                with self._lock:
                    self._dry_runs[uid] = (answer, self._now())
                return 0.0
        self._refusals.forget(uid)
        return None

    def _pending_again(self, key: Key, status: Mapping[str, Any], observed: Observed, now: datetime) -> float | None:
        """Events about a Job or a pod wake nobody: whoever waits for pods is looked at again."""
        if attempts.terminal(status) or not is_pending(observed.jobs, observed.pods):
            self._waiting.over(key)
            return None
        waiting = (job for job in observed.jobs if not job_finished(job))
        oldest = min(str(job["metadata"].get("creationTimestamp") or "") for job in waiting)
        return self._waiting.again(key, (now - datetime.fromisoformat(oldest)).total_seconds() if oldest else 0.0)

    def _dry_run(self, obj: Mapping[str, Any]) -> DryRun | None:
        with self._lock:
            answer, at = self._dry_runs.get(str(obj["metadata"]["uid"]), (None, None))
        if answer is None or at is None:
            return None
        old = (not answer.ok or answer.warnings) and (self._now() - at).total_seconds() >= REFUSAL_HOLDS
        return None if old or answer.generation != int(obj["metadata"].get("generation") or 0) else answer

    def _remember(self, key: Key, obj: Mapping[str, Any] | None) -> None:
        """Forget what was kept of an object that is gone, or whose namesake has come."""
        uid = None if obj is None else str(obj["metadata"]["uid"])
        with self._lock:
            old = self._uids.pop(key, None)
            if uid is not None:
                self._uids[key] = uid
            if old is not None and old != uid:
                self._dry_runs.pop(old, None)
                self._refusals.forget(old)
                self._writer.forget(old)
        if obj is None:
            self._waiting.over(key)
            self._watcher.forget(key)


def _earliest(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)
