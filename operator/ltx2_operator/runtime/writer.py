"""Writes what reconcile decided: the status first, then children, each write only while the lease is held.

Nothing here decides; it refuses where the world has moved on since the look, and the next look decides anew.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from ltx2_operator.classify import is_alive
from ltx2_operator.draft import AnyAction, Create, CreateJob, Delete, DeleteTraining, DryRunJob
from ltx2_operator.fields import API_VERSION, KIND
from ltx2_operator.observed import DryRun, job_finished
from ltx2_operator.pods import ATTEMPT_LABEL, TRAINING_LABEL
from ltx2_operator.runtime.bucket import TokenBucket
from ltx2_operator.runtime.client import APPLY, Api, ApiError, Conflict, NotFound
from ltx2_operator.runtime.kinds import BY_KIND, CLAIMS, JOBS, PODS, TRAININGS
from ltx2_operator.runtime.lease import Lease
from ltx2_operator.runtime.queue import Key
from ltx2_operator.runtime.reflector import Store
from ltx2_operator.runtime.splitting import OPERATOR, PROGRESS, PROGRESS_EVERY, deciding, flipped, passing

Body = Mapping[str, Any]
QUOTA: Final = "exceeded quota"
NEW_KIND: Final = "cannot find RESTMapping"  # the server's admission learns of a new definition within seconds
LASTING: Final = ("ConfigMap", "Service")  # nobody asks whether they are there before they are made
HELD_AGAIN: Final = 10.0  # seconds until numbers are tried again that came too often for all runs together
REFUSED: Final = (400, 403, 422)  # an answer about the object; anything else is trouble with the server
# Words of a 403 that says nothing about the object: a right that the operator lacks, or a namespace that goes.
_ELSEWHERE: Final = re.compile(
    r'is forbidden: User "[^"]*" cannot create resource'
    r"|unable to create new content in namespace \S+ because it is being terminated"
)

log = logging.getLogger(__name__)


class Stale(Exception):
    """The training was changed since it was read: look again."""


class NotNow(Exception):
    """A child cannot be made yet; the message says why. The look after the next change, or some seconds, tries again.

    reason: of the event that tells people; empty for what passes by itself.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message)


class Writer:
    """The one that writes."""

    def __init__(
        self,
        api: Api,
        lease: Lease,
        trainings: Store,
        jobs: Store,
        clock: Callable[[], float] = time.monotonic,
        numbers: TokenBucket | None = None,
    ) -> None:
        """trainings, jobs: the stores, which learn at once what the server answered. numbers: how often progress alone
        may be written, over all runs, so that what decides never waits behind it.
        """
        self._api, self._lease, self._trainings, self._jobs, self._clock = api, lease, trainings, jobs, clock
        self._numbers = numbers or TokenBucket(25, 50)
        self._progress_at: dict[str, float] = {}  # uid -> when its numbers were written
        self._held: dict[str, float] = {}  # uid -> when its numbers may be written that were held back
        self._made: dict[str, set[tuple[str, str]]] = {}  # uid -> children that exist while its Job cannot be made

    def status(self, obj: Body, status: Mapping[str, Any]) -> dict[str, Any] | None:
        """Store a status as far as it differs from the object's; the object as it was written, None: nothing was.

        Raises Stale (the object was changed or is gone), ApiError, LeaseLost.
        """
        old, uid = obj.get("status") or {}, str(obj["metadata"]["uid"])
        decides = deciding(status) != deciding(old)
        written: dict[str, Any] | None = None
        # Numbers first: an end that is stored is looked at no more, and the last numbers would be lost with a kill.
        if passing(status) == passing(old):
            self._held.pop(uid, None)
        elif decides or flipped(old, status) or self._due(uid):
            obj = written = self._apply(obj, passing(status), PROGRESS)
            self._progress_at[uid] = self._clock()
            self._held.pop(uid, None)
        if decides:
            written = self._apply(obj, deciding(status), OPERATOR)
        return written

    def held_back(self, uid: str) -> float | None:
        """Seconds until numbers that were not written may be; None: there are none."""
        until = self._held.get(uid)
        return None if until is None else max(1.0, until - self._clock())

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._progress_at.pop(uid, None)
        self._held.pop(uid, None)
        self._made.pop(uid, None)

    def _due(self, uid: str) -> bool:
        """Whether numbers alone may be written now: not too often for one run, nor for all of them together."""
        now = self._clock()
        due = self._progress_at.get(uid, float("-inf")) + PROGRESS_EVERY
        if now >= due and self._numbers.spare():
            return True
        self._held[uid] = max(due, now + HELD_AGAIN)
        return False

    def act(self, obj: Body, action: AnyAction) -> DryRun | None:
        """Do one thing; a dry run has an answer. Raises NotNow, Stale, ApiError, LeaseLost."""
        self._lease.require()
        if isinstance(action, CreateJob):
            self._create_job(obj, action)
            self._made.pop(str(obj["metadata"]["uid"]), None)
        elif isinstance(action, Create):
            self._create_once(obj, action.body)
        elif isinstance(action, DryRunJob):
            return self._dry_run(obj, action.body)
        elif isinstance(action, Delete):
            self._delete(obj, action)
        elif isinstance(action, DeleteTraining):
            self._remove(TRAININGS.path(*_key(obj)), obj["metadata"]["uid"])
        return None

    def fresh(self, key: Key) -> dict[str, Any] | None:
        """Read a training from the server, into the store; None if it is gone."""
        known = self._trainings.one(key)
        try:
            found = self._api.get(TRAININGS.path(*key))
        except NotFound:
            if known is not None:
                self._trainings.remove(known)
            return None
        found = TRAININGS.kept(found)
        if known is not None and known["metadata"]["uid"] != found["metadata"]["uid"]:
            self._trainings.remove(known)
        self._trainings.put(found)
        return found

    # ------------------------------------------------------------------------------------------------------- status

    def _apply(self, obj: Body, part: dict[str, Any], manager: str) -> dict[str, Any]:
        """Write one manager's part over this very version of the object; returns the version that it is now.

        Numbers need that fence too: those of a leader that stood still would else be shown as a later attempt's.
        """
        self._lease.require()
        namespace, name = _key(obj)
        version = obj["metadata"]["resourceVersion"]
        metadata = {"name": name, "namespace": namespace, "resourceVersion": version}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": part}
        query = {"fieldManager": manager, "force": "true"}
        path = TRAININGS.path(namespace, name, "status")
        try:
            answer = self._api.request("PATCH", path, query, body, content=APPLY).body
        except (Conflict, NotFound) as error:
            self.fresh((namespace, name))
            raise Stale(str(error)) from None
        now = TRAININGS.kept(answer)
        self._trainings.put(now)
        return now

    # ----------------------------------------------------------------------------------------------------- children

    def _create_job(self, obj: Body, action: CreateJob) -> None:
        """An attempt's Job, if the server itself knows of nothing alive and of no newer word about the run."""
        namespace, name = _key(obj)
        now = self.fresh((namespace, name))
        if now is None or _said(now) != _said(obj):
            raise Stale("the training was changed since it was read")
        selector = {"labelSelector": f"{TRAINING_LABEL}={action.training}"}
        pods = [pod for pod in self._list(PODS.path(namespace), selector) if is_alive(pod)]
        wanted = action.body["metadata"]["name"]
        jobs = [
            job
            for job in self._list(JOBS.path(namespace), selector)
            if not job_finished(job) and job["metadata"]["name"] != wanted
        ]
        if pods or jobs:
            raise NotNow(f"{(pods + jobs)[0]['metadata']['name']} is still there")
        self._create(action.body)

    def _create_once(self, obj: Body, body: Body) -> None:
        """A child; one that does not go by itself is not made again with each try of a Job that is refused."""
        uid, child = str(obj["metadata"]["uid"]), (str(body["kind"]), str(body["metadata"]["name"]))
        if child in self._made.get(uid, ()):
            return
        self._create(body)
        if body["kind"] in LASTING:
            self._made.setdefault(uid, set()).add(child)

    def _list(self, path: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        return list(self._api.get(path, query).get("items") or [])

    def _create(self, body: Body) -> None:
        kind, metadata = BY_KIND[body["kind"]], body["metadata"]
        path = kind.path(metadata["namespace"])
        self._lease.require()  # what was read before it may have taken longer than the lease holds
        try:
            answer = self._api.request("POST", path, {"fieldManager": OPERATOR}, dict(body))
        except Conflict as error:
            if error.reason != "AlreadyExists":
                raise
            self._same(body, self._api.get(kind.path(metadata["namespace"], metadata["name"])))
            return
        except ApiError as error:
            if error.code not in REFUSED:
                raise
            raise NotNow(f"{body['kind']} {metadata['name']} was refused: {error}", "FailedCreate") from None
        for warning in answer.warnings:
            log.warning("%s/%s: %s", metadata["namespace"], metadata["name"], warning)
        if kind is JOBS:
            self._jobs.put(JOBS.kept(answer.body))

    def _same(self, wanted: Body, found: Body) -> None:
        """409 is no success of itself: a namesake may be on its way out, or be somebody else's. Raises NotNow."""
        name = f"{wanted['kind']} {wanted['metadata']['name']}"
        if found["metadata"].get("deletionTimestamp"):
            raise NotNow(f"{name} is being deleted")
        if wanted["kind"] == CLAIMS.kind:
            return  # claims outlive the object they were made for
        if _owner(found) != _owner(wanted) or _attempt(found) != _attempt(wanted):
            owner = f"belongs to {_owner_name(found)}" if _owner_name(found) else "is not of this training"
            raise NotNow(f"{name} exists and {owner}; delete or rename it", "NameTaken")

    def _dry_run(self, obj: Body, body: Body) -> DryRun:
        generation = int(obj["metadata"].get("generation") or 0)
        path = JOBS.path(body["metadata"]["namespace"])
        try:
            answer = self._api.request("POST", path, {"fieldManager": OPERATOR, "dryRun": "All"}, dict(body))
        except Conflict:
            return DryRun(generation, True)  # it exists: it was taken
        except ApiError as error:
            if error.code not in REFUSED or _ELSEWHERE.search(str(error)):
                raise
            if NEW_KIND in str(error):
                raise NotNow(f"{TRAININGS.kind} has only just been defined: {error}") from error
            # A full quota says nothing against the template: the run waits for it when its Job is made.
            return DryRun(generation, QUOTA in str(error), str(error))
        return DryRun(generation, True, warnings=answer.warnings)

    def _delete(self, obj: Body, action: Delete) -> None:
        namespace, _ = key = _key(obj)
        uid = action.uid
        if uid is None and action.kind == JOBS.kind:
            known = [job for job in self._jobs.of(key) if job["metadata"]["name"] == action.name]
            if not known:
                return
            uid = known[0]["metadata"]["uid"]
        self._remove(BY_KIND[action.kind].path(namespace, action.name), uid, grace=0 if action.force else None)

    def _remove(self, path: str, uid: str | None, grace: int | None = None) -> None:
        """Delete what has this uid; gone already, or replaced by a namesake, is success."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        self._lease.require()
        try:
            self._api.request("DELETE", path, body=options)
        except (NotFound, Conflict) as error:
            log.info("%s: %s", path, error)


def _key(obj: Body) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _said(obj: Body) -> tuple[Any, ...]:
    """What a Job follows from: it may be made only while this holds on the server."""
    status, metadata = obj.get("status") or {}, obj["metadata"]
    words = (status.get("attempt"), status.get("stage"), status.get("lastVerdict"))
    return metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp"), *words


def _owner(body: Body) -> str:
    return next((str(one["uid"]) for one in body["metadata"].get("ownerReferences") or [] if one.get("controller")), "")


def _owner_name(body: Body) -> str:
    references = body["metadata"].get("ownerReferences") or []
    return next((f"{one['kind']} {one['name']}" for one in references if one.get("controller")), "")


def _attempt(body: Body) -> str:
    return str((body["metadata"].get("labels") or {}).get(ATTEMPT_LABEL, ""))
