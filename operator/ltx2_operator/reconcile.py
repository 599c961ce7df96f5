"""One look at one LTX2Training: (object, what exists, now, settings) -> (status, actions, events, next look).

Pure: no clock, no network, no memory between looks. A look may be repeated, may see stale children, and its status
write or its actions may get lost; none of that makes two live attempts, because

- an attempt's number is stored in the status before its Job may be created (a look creates only what it *finds*
stored);
- no Job is created while a pod or an unfinished Job of this training lives, whatever its uid;
- an attempt's end is stored before anything of it is deleted;
- what has ended for good stays ended until spec.retries rises.

The order of a look: ended for good? accepted? how did the newest attempt end? then open, create, watch or pause.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ltx2_job.errors import ConfigError
from ltx2_operator import attempts, conditions, config_source
from ltx2_operator.accept import Rejected
from ltx2_operator.acceptance import NODES_AGAIN, accepted, reject, tell_drift, unreadable
from ltx2_operator.api import LAST_ATTEMPTS, parse
from ltx2_operator.attempts import CACHE
from ltx2_operator.between import between
from ltx2_operator.classify import is_alive, is_stuck
from ltx2_operator.conditions import moment
from ltx2_operator.draft import Delete, DeleteTraining, Draft
from ltx2_operator.judging import judge
from ltx2_operator.observed import Observed, Outcome, attempt_of, job_finished, own_children, stage_of
from ltx2_operator.settings import Settings
from ltx2_operator.status import Status
from ltx2_operator.watching import watch


def reconcile(obj: Mapping[str, Any], observed: Observed, now: datetime, settings: Settings) -> Outcome:
    """Look once at one training.

    obj: the LTX2Training as a dict, status included. Raises nothing for what a user may have written: that is a
    condition.
    """
    if obj["metadata"].get("deletionTimestamp"):
        return Outcome(dict(obj.get("status") or {}))
    try:
        training = parse(obj)
    except ConfigError:
        return unreadable(obj, observed, now)
    pasted, problem = obj, None
    from_files = training.spec.config_from is not None
    if from_files:
        pasted, problem = _pasted(obj, observed)
        training = parse(pasted)
    draft = Draft.begin(pasted, training, now)
    if problem is not None and not draft.status["attempt"]:
        reject(draft, problem)
    else:
        if pasted is not obj:
            tell_drift(draft, obj, observed)
        _look(draft, observed, settings)
    if from_files and draft.false("Accepted"):
        draft.again_in(NODES_AGAIN)  # the files may be mended, which changes nothing of this object
    return _finish(draft, observed)


def _pasted(obj: Mapping[str, Any], observed: Observed) -> tuple[Mapping[str, Any], Rejected | None]:
    """The object with the files of spec.configFrom in it, or as it is and why they cannot be had."""
    try:
        pasted = config_source.inlined(obj, observed.configmaps)
        parse(pasted)
        return pasted, None
    except ConfigError as error:
        reason = "ConfigMapNotFound" if isinstance(error, config_source.NotThere) else "InvalidConfig"
        return obj, Rejected(reason, str(error))


def _look(draft: Draft, observed: Observed, settings: Settings) -> None:
    _sweep(draft, observed)
    if attempts.terminal(draft.status) and not attempts.reopen(draft):
        _time_to_live(draft)
        return
    if not accepted(draft, observed, settings):
        return
    _adopt(draft, observed)
    if attempts.ended(draft.status):
        between(draft, observed)
        return
    judge(draft, observed)
    if attempts.ended(draft.status):
        draft.again_at_once()  # with the end stored, so that people and the next look see it
    else:
        watch(draft, observed, settings)


def _time_to_live(draft: Draft) -> None:
    """After the end: delete the object when its time has passed."""
    lifetime, end = draft.training.spec.ttl_seconds_after_finished, draft.status.get("completionTime")
    if lifetime is None or end is None:
        return
    left = (moment(end) + timedelta(seconds=lifetime) - draft.now).total_seconds()
    if left <= 0:
        draft.actions.append(DeleteTraining())
    else:
        draft.again_in(left)


def _sweep(draft: Draft, observed: Observed) -> None:
    """Delete what the *stored* status says is over: unfinished Jobs of ended attempts, looks, Jobs too old to be
    listed, lost pods.
    """
    stored = draft.obj.get("status") or {}
    newest, terminal = int(stored.get("attempt") or 0), attempts.terminal(stored)
    over = terminal or attempts.ended(stored)
    stage = str(stored.get("stage") or CACHE).lower()
    for job in own_children(draft, observed.jobs):
        number, finished = attempt_of(job), job_finished(job)
        stale = number < newest or (number == newest and (over or stage_of(job) != stage))
        look = stage_of(job) == "look" and not terminal  # the next one has the same name
        if (stale and (look or not finished)) or (finished and number <= newest - LAST_ATTEMPTS):
            draft.actions.append(Delete("Job", job["metadata"]["name"], job["metadata"].get("uid")))
    for pod in own_children(draft, observed.pods):
        current = attempt_of(pod) == newest and not over
        if is_alive(pod) and is_stuck(pod, draft.now) and (not current or draft.training.spec.suspend):
            draft.actions.append(Delete("Pod", pod["metadata"]["name"], pod["metadata"].get("uid"), force=True))


def _adopt(draft: Draft, observed: Observed) -> None:
    """A Job newer than the status knows means that a status was lost (restored from a backup): go on from its
    number.
    """
    for job in own_children(draft, observed.jobs):
        if attempt_of(job) > draft.status["attempt"]:
            draft.status["attempt"] = attempt_of(job)
            draft.status["stage"] = stage_of(job).capitalize() or CACHE


def _finish(draft: Draft, observed: Observed) -> Outcome:
    """Derived words, and the status in the shape and limits of its definition."""
    status = draft.status
    status["observedGeneration"] = draft.generation
    over = attempts.ended(status) and status["attempt"] > 0
    status["state"] = conditions.state_word(status["conditions"], over)
    deciding = {"Succeeded": "Succeeded", "Failed": "Failed", "Rejected": "Accepted", "Queued": "Admitted"}
    kind = deciding.get(status["state"], "Suspended" if status["state"].startswith("Suspend") else "Running")
    status["reason"] = conditions.reason_of(status["conditions"], kind)
    status.setdefault("stage", CACHE)
    status["gpu"] = conditions.gpu_text(status.get("plan"), draft.training.spec.gpu.dump())
    if status["state"] not in ("Running", "Succeeded"):
        status.pop("eta", None)
        status.pop("etaTime", None)
    clean = Status.model_validate(status).dump()
    return Outcome(clean, draft.actions, draft.events, draft.requeue)
