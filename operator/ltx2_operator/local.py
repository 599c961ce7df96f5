"""The second "cluster": one training on this machine, through the same reconcile and the same rendered Jobs.

What an API server stores is runs/<name>/training.json: the object with its status. Ctrl-C sets spec.suspend, as a
user of a cluster would; the same command later sets it back, and the next attempt resumes. A run on one machine does
not test what only a container has: read-only root, uid, resource limits, the volume's permissions.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ltx2_job import exitcodes
from ltx2_job.estimate import Model
from ltx2_job.exitcodes import Action
from ltx2_job.workspace import write_json
from ltx2_operator import attempts, conditions
from ltx2_operator.classify import classify, last_word
from ltx2_operator.draft import Create, CreateJob, Delete, DryRunJob, Event
from ltx2_operator.form import CannotHonourError
from ltx2_operator.local_state import POLL_SECONDS, STATE_FILE, start_time
from ltx2_operator.observed import DryRun, Observed
from ltx2_operator.processes import check_job
from ltx2_operator.progress import READ_EVERY, PageError, fetch
from ltx2_operator.progress import parse as parse_page
from ltx2_operator.reconcile import reconcile
from ltx2_operator.settings import Settings
from ltx2_operator.standin import LocalJobs

# The exit code of a command whose run has failed for a reason that no process left with.
REASON_CODES: Final = {
    "InvalidConfig": exitcodes.CONFIG, "NameTooLong": exitcodes.CONFIG, "UnsupportedGPU": exitcodes.CONFIG,
    "ConfigMapNotFound": exitcodes.CONFIG,
    "StorageNotShared": exitcodes.CONFIG, "SecretNotFound": exitcodes.AUTH, "DataError": exitcodes.DATA,
    "StorageError": exitcodes.STORAGE, "EphemeralStorageExceeded": exitcodes.STORAGE, "AuthError": exitcodes.AUTH,
    "HostOutOfMemory": exitcodes.HOST_OUT_OF_MEMORY, "GPUOutOfMemory": exitcodes.GPU_OUT_OF_MEMORY,
    "LossNotFinite": exitcodes.LOSS_NOT_FINITE,
    "DeadlineExceeded": exitcodes.STOPPED, "StartDeadlineExceeded": exitcodes.TEMPORARY,
}  # fmt: skip


@dataclass
class Interrupts:
    """How often the user asked to stop: once = pause with a checkpoint, twice = now."""

    count: int = 0

    @contextlib.contextmanager
    def listen(self) -> Iterator["Interrupts"]:
        """Count SIGINT, SIGTERM and SIGHUP instead of dying of them; the main thread only."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        old = {number: signal.signal(number, self._count) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _count(self, number: int, frame: object) -> None:
        self.count += 1


@dataclass
class LocalRun:
    """One training on this machine, until it has ended, is paused, or waits for data.

    obj: the LTX2Training; folder: runs/<name>, where its state is kept; tell: called with each event.
    """

    obj: dict[str, Any]
    folder: Path
    jobs: LocalJobs
    settings: Settings
    interrupts: Interrupts
    tell: Callable[[Event], None]
    model: Model | None = None
    sleep: Callable[[float], None] = time.sleep
    _dry_run: DryRun | None = None
    _page: Mapping[str, Any] | None = None
    _page_at: datetime | None = None
    _killed: frozenset[str] | None = None  # the pods that a second Ctrl-C killed
    _saved: bool = False  # whether they had said before that all was on disk

    @property
    def status(self) -> dict[str, Any]:
        """The object's status."""
        return self.obj.setdefault("status", {})

    def run(self) -> int:
        """Walk until the end; returns the exit code of exitcodes.py.

        Raises JobError where a rendered Job cannot be started on this machine.
        """
        due: float | None = 0.0
        while True:
            self._interrupted()
            if self.jobs.poll() or (due is not None and due <= 0):
                due = self._look()
                code = self._over()
                if code is not None:
                    return code
                continue
            pause = POLL_SECONDS if due is None or self.jobs.processes else min(max(due, 0.0), 0.2)
            before = self.jobs.now()
            self.sleep(pause)
            if due is not None:
                due -= max((self.jobs.now() - before).total_seconds(), 0.0)

    def _look(self) -> float | None:
        outcome = reconcile(self.obj, self._observe(), self.jobs.now(), self.settings)
        if outcome.status != self.obj.get("status"):
            self.obj["status"] = outcome.status
            self.save()
        for action in outcome.actions:
            if isinstance(action, CreateJob):
                self.jobs.create(action.body)
                self.save()
            elif isinstance(action, Create):
                self.jobs.put(action.body)
            elif isinstance(action, DryRunJob):
                self._dry_run = self._tried(action.body)
            elif isinstance(action, Delete):
                (self.jobs.delete_job if action.kind == "Job" else self.jobs.delete_pod)(action.name)
        for event in outcome.events:
            self.tell(event)
        if self.jobs.processes:  # the page is read in a look
            return min(READ_EVERY, READ_EVERY if outcome.requeue_after is None else outcome.requeue_after)
        return outcome.requeue_after

    def _tried(self, body: Mapping[str, Any]) -> DryRun:
        """What an API server would be asked: whether this Job can be had here."""
        generation = int(self.obj["metadata"].get("generation") or 0)
        try:
            check_job(body)
        except CannotHonourError as error:
            return DryRun(generation, False, str(error))
        return DryRun(generation, True)

    def _observe(self) -> Observed:
        killed = [pod for pod in self.jobs.pods if pod["metadata"]["name"] in (self._killed or ())]
        self._saved |= last_word(killed).get("exitCode") == exitcodes.STOPPED
        groups = {
            kind: [body for (one, _), body in self.jobs.objects.items() if one == kind]
            for kind in ("ConfigMap", "PersistentVolumeClaim", "Service")
        }
        return Observed(
            jobs=list(self.jobs.jobs.values()),
            pods=self.jobs.pods,
            configmaps=groups["ConfigMap"],
            claims=groups["PersistentVolumeClaim"],
            services=groups["Service"],
            progress=self._progress(),
            model=self.model,
            volume_seen=True,
            dry_run=self._dry_run,
        )

    def _progress(self) -> Mapping[str, Any] | None:
        """Rank 0's page, read at most every 15 seconds."""
        now = self.jobs.now()
        if not self.jobs.processes:
            self._page = None
        elif self._page_at is None or (now - self._page_at).total_seconds() >= READ_EVERY:
            self._page_at = now
            self._page = None
            with contextlib.suppress(PageError):
                self._page = parse_page(fetch("127.0.0.1", self.settings.metrics_port))
        return self._page

    def _interrupted(self) -> None:
        if self.interrupts.count and not self.obj["spec"].get("suspend"):
            self.edit(suspend=True)
            self.jobs.changed = True
        if self.interrupts.count > 1 and self._killed is None:
            self._killed = frozenset(pod for _, pod in self.jobs.processes)
            self.jobs.kill()

    def edit(self, **spec: Any) -> None:
        """Change the spec as a user of a cluster would."""
        self.obj["spec"] |= spec
        self.obj["metadata"]["generation"] = int(self.obj["metadata"].get("generation") or 0) + 1

    def save(self) -> None:
        """Store the object, and which processes belong to it, for a command that finds them after a crash."""
        processes = [
            {"pid": pid, "start": start_time(pid), "pod": pod, "folder": str(self.jobs.folder(pod))}
            for pid, pod in self.jobs.processes
        ]
        write_json(self.folder / STATE_FILE, {**self.obj, "processes": processes})

    def _over(self) -> int | None:
        """The exit code, once there is nothing more to do here."""
        found = self.status.get("conditions") or []
        if conditions.is_true(found, "Succeeded"):
            return exitcodes.OK
        if self.jobs.processes:
            return None
        last = self.status.get("lastVerdict") or {}
        if conditions.is_true(found, "Failed"):
            reason = conditions.reason_of(found, "Failed")
            code = last.get("exitCode") or exitcodes.SOFTWARE
            return REASON_CODES.get(reason, int(code))
        if conditions.is_true(found, "Suspended"):
            return exitcodes.STOPPED_UNSAVED if self._killed and not self._saved else exitcodes.STOPPED
        accepted = conditions.get_condition(found, "Accepted")
        if accepted is not None and accepted["status"] == conditions.FALSE:
            return REASON_CODES.get(accepted["reason"], exitcodes.CONFIG)
        if last.get("action") == Action.WAIT_FOR_DATA and attempts.ended(self.status):
            return exitcodes.NO_INPUT
        return None


def failure_sentence(status: Mapping[str, Any]) -> str:
    """Why a run stands where it stands, in one line."""
    found = status.get("conditions") or []
    for kind, wanted in (("Failed", conditions.TRUE), ("Accepted", conditions.FALSE)):
        condition = conditions.get_condition(found, kind)
        if condition is not None and condition["status"] == wanted:
            return str(condition["message"])
    return str((status.get("lastVerdict") or {}).get("message", ""))


def secret_source(
    environ: Mapping[str, str], documents: Mapping[str, Mapping[str, str]]
) -> Callable[[str, str, str], str | None]:
    """Where a local run finds Secrets: documents of the same file, then a variable of the pod's name for it."""

    def secret(name: str, key: str, variable: str) -> str | None:
        return documents.get(name, {}).get(key) or environ.get(variable)

    return secret


def run_rendered(
    documents: Sequence[Mapping[str, Any]],
    jobs: LocalJobs,
    interrupts: Interrupts,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Run the Jobs of rendered documents one after the other, each as often as it is written: once.

    Returns the exit code of the first that does not succeed, else 0. Raises JobError where one cannot be started here.
    """
    for body in documents:
        if body.get("kind") != "Job":
            jobs.put(body)
    for body in documents:
        if body.get("kind") != "Job":
            continue
        name = body["metadata"]["name"]
        jobs.create(body)
        verdict = None
        asked = 0
        while verdict is None:
            jobs.poll()
            if interrupts.count > asked:
                asked = interrupts.count
                if asked == 1:
                    jobs.stop(name)
                else:
                    jobs.kill()
            verdict = classify(jobs.jobs.get(name), jobs.pods_of(name), jobs.now())
            sleep(0.0 if verdict else POLL_SECONDS)
        if verdict.action is not Action.SUCCEED:
            return verdict.exit_code or exitcodes.SOFTWARE
    return exitcodes.OK
