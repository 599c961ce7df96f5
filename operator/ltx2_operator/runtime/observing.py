"""Gathers what a look at one training needs: from the caches, and where those hold nothing, by asking.

Asked on demand, and only for a run that has no running pod: the claim and the Secrets that its spec names, the events
about its Job and pods, and what Kueue says while it holds the Job; the ConfigMaps of spec.configFrom, which are also
asked for, rarely, while it runs. A watch of all events or Secrets of a cluster would cost more than all else together.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ltx2_operator import attempts, config_source
from ltx2_operator.classify import is_alive
from ltx2_operator.observed import DryRun, Observed, attempt_of, job_finished
from ltx2_operator.pods import UID_LABEL
from ltx2_operator.runtime.client import METADATA_ONLY, Api, NotFound
from ltx2_operator.runtime.configmaps import ConfigMaps
from ltx2_operator.runtime.departed import INDEX_LABEL, Departed
from ltx2_operator.runtime.kinds import CLAIMS, CORE_EVENTS, SECRETS, WORKLOADS
from ltx2_operator.runtime.pages import Pages
from ltx2_operator.runtime.queue import Key
from ltx2_operator.runtime.reflector import Store

Body = Mapping[str, Any]
WAITING: Final = ("Waiting", "Queued")  # states of trainings whose pods are not to be had
EVENTS_MOST: Final = 50  # of one object; the server counts repetitions


@dataclass(frozen=True)
class Watcher:
    """Where a look finds things. nodes: None where the operator may not read them."""

    api: Api
    jobs: Store
    pods: Store
    departed: Departed
    nodes: Store | None
    pages: Pages
    secret_reader: bool
    configmaps: ConfigMaps

    def observe(self, obj: Body, dry_run: DryRun | None, refused: str = "") -> Observed:
        """Everything about one training; what it was told by the server itself is passed on. Raises ApiError."""
        key: Key = obj["metadata"]["namespace"], obj["metadata"]["name"]
        jobs, pods = self.jobs.of(key), self.pods.of(key)
        over = attempts.terminal(obj.get("status") or {}) and not any(map(is_alive, pods))
        page = self.pages.want(key, None if over else _rank0(obj, pods))
        if over:
            self.configmaps.forget(key)
        running = any(_phase(pod) == "Running" and _is_of(pod, obj) for pod in pods)
        quiet = over or running
        return Observed(
            jobs=jobs,
            pods=[*pods, *self.departed.of(_job_uids(obj, jobs), pods)],
            configmaps=[] if over else self._configmaps(key, obj, running),
            claims=[] if quiet else self._claims(obj),
            nodes=None if self.nodes is None else self.nodes.all(),
            secrets=None if quiet or not self.secret_reader else self._secrets(obj),
            events=[] if quiet else self._events(key[0], jobs, pods),
            progress=page,
            page_awaited=self.pages.awaited(key),
            workloads=[] if quiet else self._workloads(key[0], jobs),
            dry_run=dry_run,
            refused=refused,
        )

    def waits(self, obj: Body) -> bool:
        """Whether it waits for pods as before: a look at it asks, and decides nothing."""
        key: Key = obj["metadata"]["namespace"], obj["metadata"]["name"]
        return waits_as_before(obj, self.jobs.of(key), self.pods.of(key))

    def forget(self, key: Key) -> None:
        """The training is gone."""
        self.pages.want(key, None)
        self.configmaps.forget(key)

    def _configmaps(self, key: Key, obj: Body, running: bool) -> list[dict[str, Any]]:
        """Those that spec.configFrom needs, as far as they exist; of a running one too, to tell that they changed."""
        names = config_source.wanted_configmaps(obj)
        if not running:
            return self.configmaps.now(key, names)
        return self.configmaps.lately(key, names, own=str(_mapping(obj.get("status")).get("configMap") or ""))

    def _claims(self, obj: Body) -> list[dict[str, Any]]:
        """The claim that the spec names, or that would be made."""
        storage = _mapping(_mapping(obj.get("spec")).get("storage"))
        name = str(storage.get("claimName") or f"{obj['metadata']['name']}-data")
        try:
            return [self.api.get(CLAIMS.path(obj["metadata"]["namespace"], name))]
        except NotFound:
            return []

    def _secrets(self, obj: Body) -> frozenset[str]:
        """Which of the Secrets that the spec names exist. Their contents are not asked for."""
        found = set()
        for name in sorted(secret_names(obj)):
            try:
                self.api.get(SECRETS.path(obj["metadata"]["namespace"], name), accept=METADATA_ONLY)
                found.add(name)
            except NotFound:
                continue
        return frozenset(found)

    def _events(self, namespace: str, jobs: Sequence[Body], pods: Sequence[Body]) -> list[dict[str, Any]]:
        """Events about Jobs and pods that wait, oldest first."""
        waiting = [job for job in jobs if not job_finished(job)]
        found: list[dict[str, Any]] = []
        for body in [*waiting, *(pod for pod in pods if waiting and _phase(pod) == "Pending")]:
            query = {"fieldSelector": f"involvedObject.uid={body['metadata']['uid']}", "limit": EVENTS_MOST}
            found += self.api.get(CORE_EVENTS.path(namespace), query).get("items") or []
        return sorted(found, key=_when)

    def _workloads(self, namespace: str, jobs: Sequence[Body]) -> list[dict[str, Any]]:
        """What Kueue says of the Jobs that it holds; nothing where there is no Kueue."""
        found: list[dict[str, Any]] = []
        for job in jobs:
            if job_finished(job) or not job["spec"].get("suspend"):
                continue
            query = {"labelSelector": f"kueue.x-k8s.io/job-uid={job['metadata']['uid']}"}
            for kind in WORKLOADS:
                with contextlib.suppress(NotFound):
                    found += self.api.get(kind.path(namespace), query).get("items") or []
                    break
        return found


def secret_names(obj: Body) -> set[str]:
    """Names under spec.secrets, as far as they can be read as such."""
    references = _mapping(_mapping(obj.get("spec")).get("secrets"))
    names = {one if key == "objectStore" else _mapping(one).get("name") for key, one in references.items()}
    return {name for name in names if isinstance(name, str) and name}


def is_pending(jobs: Sequence[Body], pods: Sequence[Body]) -> bool:
    """Whether a Job waits for a queue or for pods: what it waits for tells nobody, so it is looked at again."""
    waiting = [job for job in jobs if not job_finished(job)]
    return bool(waiting) and not any(_phase(pod) == "Running" for pod in pods)


def waits_as_before(obj: Body, jobs: Sequence[Body], pods: Sequence[Body]) -> bool:
    """Whether a training waits for pods as it did at its last look: only what it waits for may have changed."""
    status = _mapping(obj.get("status"))
    known = status.get("observedGeneration") == obj["metadata"].get("generation")
    return known and status.get("state") in WAITING and is_pending(jobs, pods)


def _job_uids(obj: Body, jobs: Sequence[Body]) -> set[str]:
    """The Jobs that exist, and the one of the attempt that has not ended, which somebody may have deleted."""
    return {
        str(uid)
        for uid in (_mapping(obj.get("status")).get("jobUid"), *(job["metadata"]["uid"] for job in jobs))
        if uid
    }


def _rank0(obj: Body, pods: Sequence[Body]) -> str | None:
    """The address of the newest attempt's rank 0, once it runs."""
    for pod in sorted((pod for pod in pods if _is_of(pod, obj)), key=attempt_of, reverse=True):
        index = (pod["metadata"].get("labels") or {}).get(INDEX_LABEL, "0")
        address = (pod.get("status") or {}).get("podIP")
        if index == "0" and address and _phase(pod) == "Running":
            return str(address)
    return None


def _is_of(pod: Body, obj: Body) -> bool:
    """Whether it is this very object's pod, not that of a namesake before it."""
    return bool((pod["metadata"].get("labels") or {}).get(UID_LABEL) == obj["metadata"]["uid"])


def _phase(pod: Body) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def _when(event: Body) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next((time for time in times if time), event["metadata"].get("creationTimestamp") or ""))


def _mapping(value: Any) -> Mapping[str, Any]:
    """Some clients write anything; what is wrong with it is said by reconcile."""
    return value if isinstance(value, Mapping) else {}
