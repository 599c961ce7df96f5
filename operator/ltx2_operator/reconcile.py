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

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from ltx2_job.errors import ConfigError
from ltx2_job.exitcodes import Action
from ltx2_operator import attempts, children, conditions, sizing
from ltx2_operator.accept import Rejected, accept, plan_stage, plan_words, resolve_spec
from ltx2_operator.api import parse
from ltx2_operator.attempts import CACHE, Create, CreateJob, Delete, DeleteTraining, Draft, Event
from ltx2_operator.classify import Verdict, classify, is_alive, is_stuck, job_condition
from ltx2_operator.conditions import FALSE, TRUE, UNKNOWN, moment, stamp
from ltx2_operator.observed import (
    Observed,
    Outcome,
    attempt_of,
    current,
    end_of,
    job_finished,
    own_children,
    stage_and_attempt,
    stage_of,
)
from ltx2_operator.progress import PageError, absorb
from ltx2_operator.progress import parse as parse_page
from ltx2_operator.settings import Settings
from ltx2_operator.status import LAST_ATTEMPTS, Plan, Status
from ltx2_operator.waiting import why_waiting

NODES_AGAIN: Final = 60.0  # seconds until nodes are looked at again for an object that no GPU class fits
PODS_AGAIN: Final = 30.0  # seconds until the pods of an older attempt are looked at again, beside their own events


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
        return _unreadable(obj, observed, now)
    draft = Draft.begin(obj, training, now)
    _look(draft, observed, settings)
    return _finish(draft, observed)


def _look(draft: Draft, observed: Observed, settings: Settings) -> None:
    _sweep(draft, observed)
    if attempts.terminal(draft.status) and not attempts.reopen(draft):
        _time_to_live(draft)
        return
    if not _accepted(draft, observed):
        return
    _adopt(draft, observed)
    if attempts.ended(draft.status):
        _between(draft, observed)
        return
    _judge(draft, observed)
    if attempts.ended(draft.status):
        draft.again_at_once()  # with the end stored, so that people and the next look see it
    else:
        _advance(draft, observed, settings)


# ------------------------------------------------------------------------------------------------------ acceptance, end


def _unreadable(obj: Mapping[str, Any], observed: Observed, now: datetime) -> Outcome:
    """An object that even its own model refuses (a client without validation wrote it): rejected, nothing else
    touched.
    """
    try:
        accept(obj, observed.nodes, observed.claims, observed.secrets)
        raise AssertionError("parse refused what accept takes")
    except Rejected as error:
        status = dict(obj.get("status") or {})
        generation = int(obj["metadata"].get("generation") or 0)
        found = status.get("conditions") or []
        known = conditions.get_condition(found, "Accepted")
        status["conditions"] = conditions.set_condition(
            found, "Accepted", FALSE, error.reason, str(error), now, generation
        )
        status.update(observedGeneration=generation, reason=error.reason)
        status["state"] = conditions.state_word(status["conditions"], ended=True)
        told = known is not None and known.get("message") == str(error)[:1024]
        status = Status.model_validate(status).dump()
        return Outcome(status, events=[] if told else [Event("Rejected", str(error)[:1024], "Warning")])


def _accepted(draft: Draft, observed: Observed) -> bool:
    """Whether the object may run. Decided for each generation until the first attempt exists, then kept."""
    status = draft.status
    if status["attempt"] > 0 and status.get("plan"):
        return draft.true("Accepted")
    seen = status.get("observedGeneration") == draft.generation
    if seen and draft.true("Accepted") and status.get("plan"):
        return True
    try:
        found = accept(draft.obj, observed.nodes, observed.claims, observed.secrets, observed.model)
    except Rejected as error:
        known = conditions.get_condition(status["conditions"], "Accepted")
        if known is None or known.get("message") != str(error)[:1024]:
            draft.event("Rejected", str(error), warning=True)
        draft.condition("Accepted", FALSE, error.reason, str(error))
        for key in ("plan", "cachePlan", "configHash"):
            status.pop(key, None)
        if error.reason in ("UnsupportedGPU", "SecretNotFound", "StorageNotShared"):
            draft.again_in(NODES_AGAIN)
        return False
    status["plan"], status["cachePlan"] = found.plan.dump(), found.cache_plan.dump()
    status["configHash"], status["warnings"] = found.resolved.digest, list(found.warnings)
    draft.condition("Accepted", TRUE, "Valid", plan_words(found.plan))
    corrected = f"; corrected: {'; '.join(found.warnings)}" if found.warnings else ""
    draft.event("Accepted", plan_words(found.plan) + corrected)
    return True


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
    """Delete what the *stored* status says is over: unfinished Jobs of ended attempts, Jobs too old to be listed,
    lost pods.
    """
    stored = draft.obj.get("status") or {}
    newest, over = int(stored.get("attempt") or 0), attempts.ended(stored) or attempts.terminal(stored)
    stage = str(stored.get("stage") or CACHE).lower()
    for job in own_children(draft, observed.jobs):
        number, finished = attempt_of(job), job_finished(job)
        stale = number < newest or (number == newest and (over or stage_of(job) != stage))
        if (stale and not finished) or (finished and number <= newest - LAST_ATTEMPTS):
            draft.actions.append(Delete("Job", job["metadata"]["name"]))
    for pod in own_children(draft, observed.pods):
        current = attempt_of(pod) == newest and not over
        if is_alive(pod) and is_stuck(pod, draft.now) and (not current or draft.training.spec.suspend):
            draft.actions.append(Delete("Pod", pod["metadata"]["name"], pod["metadata"].get("uid"), force=True))


# -------------------------------------------------------------------------------------------------- how an attempt
# ended


def _adopt(draft: Draft, observed: Observed) -> None:
    """A Job newer than the status knows means that a status was lost (restored from a backup): go on from its
    number.
    """
    for job in own_children(draft, observed.jobs):
        if attempt_of(job) > draft.status["attempt"]:
            draft.status["attempt"] = attempt_of(job)
            draft.status["stage"] = "Train" if stage_of(job) == "train" else CACHE


def _judge(draft: Draft, observed: Observed) -> None:
    """Close the newest attempt if its Job or pods say that it has ended."""
    job, own = current(draft, observed)
    if job is None and not own and not draft.status.get("job"):
        return  # not created yet
    if job is not None:
        draft.status["job"] = job["metadata"]["name"]
    verdict = classify(job, own, draft.now)
    if verdict is None:
        return
    with contextlib.suppress(PageError):
        absorb(draft, parse_page(verdict.report))
    if job is None:
        # Where the view was only stale, this ends the Job that still runs, so that it cannot live beside the next one.
        draft.actions.append(Delete("Job", children.job_name(draft.training.metadata.name, *stage_and_attempt(draft))))
    if verdict.action is Action.LOWER_MEMORY_PLAN:
        _lower(draft, observed, verdict, end_of(job))
    else:
        attempts.close(draft, verdict, end_of(job))


def _lower(draft: Draft, observed: Observed, verdict: Verdict, end: datetime | None) -> None:
    """The GPU's memory was exhausted: the next smaller plan, or the end if there is none."""
    stage = str(draft.status["stage"])
    key = "cachePlan" if stage == CACHE else "plan"
    old = Plan.model_validate(draft.status[key])
    attempts.close(draft, verdict, end)
    try:
        resolved = resolve_spec(draft.training)
        rung = draft.status["rung"][stage.lower()]
        new = plan_stage(draft.training, resolved, old.stage, rung, observed.nodes, old.gpu_class, observed.model)
    except (sizing.NoFit, ConfigError) as error:
        draft.status["rung"][stage.lower()] -= 1
        attempts.fail(draft, "GPUOutOfMemory", f"{verdict.message}; no smaller memory plan is left: {error}")
        return
    draft.status[key] = new.dump()
    before, after = (old.memory, new.memory) if stage != CACHE else (old.cache_memory, new.cache_memory)
    step = (draft.status.get("checkpoint") or {}).get("step") or 0
    text = f"{before} → {after}, continues from step {step}" if stage != CACHE else f"cache: {before} → {after}"
    draft.condition("Running", FALSE, "MemoryPlanLowered", text)
    draft.event("GPUOutOfMemory", text, warning=True)


# ------------------------------------------------------------------------------------------------ between two attempts


def _between(draft: Draft, observed: Observed) -> None:
    """No attempt is open: pause, wait, or name the next one."""
    busy = [pod for pod in observed.pods if is_alive(pod)]
    unfinished = [job for job in observed.jobs if not job_finished(job)]
    if draft.training.spec.suspend:
        _paused(draft, bool(busy or own_children(draft, unfinished)))
        return
    if busy or unfinished:
        names = ", ".join(sorted(one["metadata"]["name"] for one in [*busy, *unfinished])[:3])
        draft.condition("Running", FALSE, "Restarting", f"waits until {names} is gone")
        draft.again_in(PODS_AGAIN)
        return
    due = draft.status.get("nextAttemptTime")
    if due is not None and draft.now < moment(due) and draft.reason("Suspended") != "SuspendedByUser":
        draft.again_in((moment(due) - draft.now).total_seconds())
        return
    attempts.open_next(draft)


def _paused(draft: Draft, busy: bool) -> None:
    """The user asked for a pause: it holds when no process is left."""
    if busy:
        draft.condition("Suspended", FALSE, "Suspending", "waits until the pods have written a checkpoint and are gone")
        draft.again_in(PODS_AGAIN)
        return
    draft.condition("Admitted", FALSE, "Suspended", "spec.suspend is true")
    draft.condition("Suspended", TRUE, "SuspendedByUser", "no pod is left; set spec.suspend to false to go on")
    draft.status.pop("pendingSince", None)


# ------------------------------------------------------------------------------------------------------- an open
# attempt


def _advance(draft: Draft, observed: Observed, settings: Settings) -> None:
    """An attempt is open: create its Job, or watch it."""
    job, own = current(draft, observed)
    if job is None:
        _create(draft, observed, settings)
        return
    if draft.training.spec.suspend:
        draft.actions.append(Delete("Job", job["metadata"]["name"]))
        _paused(draft, True)
        return
    if draft.reason("Suspended") == "Suspending":  # taken back before anything was deleted
        draft.condition("Suspended", FALSE, "NotSuspended", "")
    if job["spec"].get("suspend"):
        attempts.stop_clock(draft)
        draft.status.pop("pendingSince", None)
        preempted = job_condition(job, "Suspended") is not None and int(draft.status["execution"]) > 0
        draft.condition("Admitted", FALSE, "Preempted" if preempted else "WaitingForQuota", "the queue holds this run")
        draft.condition("Running", FALSE, "WaitingForPods", "the queue holds this run")
        return
    queued = draft.training.spec.queue_name is not None
    draft.condition("Admitted", TRUE, "QuotaReserved" if queued else "NotQueued", "")
    needed = int(job["spec"].get("parallelism") or 1)
    if sum((pod.get("status") or {}).get("phase") == "Running" for pod in own) >= needed:
        _running(draft, observed)
    else:
        _pending(draft, job, own, observed)


def _create(draft: Draft, observed: Observed, settings: Settings) -> None:
    """Create what the attempt needs, its Job last; only what a look finds stored, and only when nothing else lives."""
    busy = [one for one in [*observed.pods] if is_alive(one)] + [one for one in observed.jobs if not job_finished(one)]
    if draft.training.spec.suspend:
        _paused(draft, bool(own_children(draft, busy)))
        return
    if draft.true("Suspended"):
        draft.condition("Suspended", FALSE, "Resumed", "")
    if busy:
        draft.condition("Running", FALSE, "Restarting", f"waits until {busy[0]['metadata']['name']} is gone")
        draft.again_in(PODS_AGAIN)
        return
    stored = draft.obj.get("status") or {}
    if (stored.get("attempt"), stored.get("stage")) != (
        draft.status["attempt"],
        draft.status["stage"],
    ) or attempts.ended(stored):
        draft.again_at_once()
        return
    stage, attempt = stage_and_attempt(draft)
    plan = Plan.model_validate(draft.status["cachePlan" if stage == "cache" else "plan"])
    try:
        resolved = resolve_spec(draft.training)
        made = [children.configmap(draft.obj, resolved, plan), children.claim(draft.obj, plan)]
        if plan.nodes > 1:
            made.append(children.service(draft.obj))
        job = children.job(draft.obj, plan, stage, attempt, settings, digest=resolved.digest)
    except ConfigError as error:
        attempts.fail(draft, "InvalidConfig", str(error))
        return
    if resolved.digest != draft.status.get("configHash"):
        changed = "changed after the first attempt; make a new LTX2Training (resumeFrom continues a run)"
        attempts.fail(draft, "InvalidConfig", f"spec.config, spec.datasets: {changed}")
        return
    known = {
        (one.get("kind") or kind, one["metadata"]["name"])
        for kind, group in (
            ("ConfigMap", observed.configmaps), ("PersistentVolumeClaim", observed.claims),
            ("Service", observed.services)
        )
        for one in group
    }  # fmt: skip
    draft.actions += [Create(body) for body in made if body and (body["kind"], body["metadata"]["name"]) not in known]
    draft.actions.append(CreateJob(job, draft.training.metadata.name))
    if draft.status.get("pendingSince") is None:
        draft.event("CacheStarted" if stage == "cache" else "TrainingStarted", f"attempt {attempt}")
    draft.status.setdefault("pendingSince", stamp(draft.now))
    draft.condition("Running", FALSE, "Starting", f"attempt {attempt}: the Job is being created")
    if stage == "cache":
        draft.condition("Cached", FALSE, "CacheRunning", f"attempt {attempt}")
    draft.again_in(PODS_AGAIN)
    _start_deadline(draft)


def _running(draft: Draft, observed: Observed) -> None:
    """All pods run: clocks, progress, the deadline."""
    status, caching = draft.status, draft.status["stage"] == CACHE
    if status.get("runningSince") is None:
        status["runningSince"] = stamp(draft.now)
        status["execution"] += 1
    status.pop("pendingSince", None)
    draft.condition("Running", TRUE, "Caching" if caching else "Training", f"attempt {status['attempt']}")
    if caching:
        draft.condition("Cached", FALSE, "CacheRunning", f"attempt {status['attempt']}")
    limit = draft.training.spec.active_deadline_seconds
    if limit is not None:
        left = limit - attempts.running_seconds(draft)
        if left <= 0:
            attempts.fail(draft, "DeadlineExceeded", f"ran for {limit} s, spec.activeDeadlineSeconds")
            draft.again_at_once()
            return
        draft.again_in(left)
    absorb(draft, observed.progress)


def _pending(draft: Draft, job: Mapping[str, Any], own: Sequence[Mapping[str, Any]], observed: Observed) -> None:
    """The Job waits for its pods: say why, and not for ever."""
    attempts.stop_clock(draft)
    reason, message = why_waiting(job, own, observed.events, observed.nodes, draft.status.get("plan"))
    draft.condition("Running", FALSE, reason, message)
    draft.condition("Progressing", UNKNOWN, "Pending", "")
    draft.status.setdefault("pendingSince", stamp(draft.now))
    _start_deadline(draft)


def _start_deadline(draft: Draft) -> None:
    limit = draft.training.spec.start_deadline_seconds
    left = limit - (draft.now - moment(draft.status["pendingSince"])).total_seconds()
    if left > 0:
        draft.again_in(left)
        return
    why = conditions.get_condition(draft.status["conditions"], "Running") or {}
    draft.actions = [action for action in draft.actions if not isinstance(action, Create)]
    attempts.fail(draft, "StartDeadlineExceeded", f"no pod started within {limit} s: {why.get('message', '')}")
    draft.again_at_once()


# ---------------------------------------------------------------------------------------------------------------
# helpers


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
