"""Create what an attempt needs, its Job last; pods that do not come are not waited for for ever."""

from collections.abc import Mapping
from typing import Any

from ltx2_job.errors import ConfigError
from ltx2_operator import accept, attempts, children, conditions
from ltx2_operator.acceptance import asked
from ltx2_operator.between import PODS_AGAIN, paused
from ltx2_operator.classify import is_alive
from ltx2_operator.clocks import start_queue
from ltx2_operator.conditions import FALSE, UNKNOWN, moment, stamp
from ltx2_operator.draft import Create, CreateJob, Draft
from ltx2_operator.observed import Observed, job_finished, own_children, stage_and_attempt
from ltx2_operator.settings import Settings
from ltx2_operator.sizing import look_plan
from ltx2_operator.status import Plan
from ltx2_operator.waiting import with_remedy


def create(draft: Draft, observed: Observed, settings: Settings) -> None:
    """Create what the attempt needs, its Job last; only what a look finds stored, and only when nothing else lives."""
    busy = [one for one in [*observed.pods] if is_alive(one)] + [one for one in observed.jobs if not job_finished(one)]
    if draft.training.spec.suspend:
        paused(draft, bool(own_children(draft, busy)))
        return
    if draft.true("Suspended"):
        draft.condition("Suspended", FALSE, "Resumed", "")
        draft.condition("Admitted", UNKNOWN, "Pending", "")
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
    plan = plan_of(draft.status, stage)
    try:
        resolved = accept.resolve_spec(draft.training)
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
    if not _taken(draft, job, observed):
        return
    known = {
        (one.get("kind") or kind, one["metadata"]["name"])
        for kind, group in (
            ("ConfigMap", observed.configmaps), ("PersistentVolumeClaim", observed.claims),
            ("Service", observed.services)
        )
        for one in group
    }  # fmt: skip
    draft.status["configMap"] = children.config_map_name(draft.training.metadata.name, resolved.digest, plan)
    draft.actions += [Create(body) for body in made if body and (body["kind"], body["metadata"]["name"]) not in known]
    draft.actions.append(CreateJob(job, draft.training.metadata.name))
    if draft.status.get("pendingSince") is None and stage != "look":
        draft.event("CacheStarted" if stage == "cache" else "TrainingStarted", f"attempt {attempt}")
    draft.status.setdefault("pendingSince", stamp(draft.now))
    start_queue(draft)
    if observed.refused:  # tried again by whoever was refused
        draft.condition("Running", FALSE, "WaitingForPods", with_remedy(observed.refused))
    else:
        draft.condition("Running", FALSE, "Starting", f"attempt {attempt}: the Job is being created")
        draft.again_in(PODS_AGAIN)
    if stage == "cache":
        draft.condition("Cached", FALSE, "CacheRunning", f"attempt {attempt}")
    start_deadline(draft)


def _taken(draft: Draft, job: Mapping[str, Any], observed: Observed) -> bool:
    """Whether the API server takes a Job of this spec.podTemplate, where that may have changed since it was asked."""
    known = conditions.get_condition(draft.status["conditions"], "Accepted") or {}
    if draft.training.spec.pod_template is None or known.get("observedGeneration") == draft.generation:
        return True
    try:
        warnings = asked(draft, job, observed)
    except accept.Rejected as error:
        attempts.fail(draft, error.reason, str(error))
        draft.again_at_once()
        return False
    if warnings is None:
        return False
    draft.condition("Accepted", known["status"], known["reason"], known["message"])  # of this generation
    return True


def plan_of(status: Mapping[str, Any], stage: str) -> Plan:
    """The plan of a stage, from the stored ones."""
    plan = Plan.model_validate(status["plan" if stage == "train" else "cachePlan"])
    return look_plan(plan) if stage == "look" else plan


def start_deadline(draft: Draft) -> None:
    """Fail a run whose pods have not come within spec.startDeadlineSeconds; a queue's time does not count."""
    limit = draft.training.spec.start_deadline_seconds
    left = limit - (draft.now - moment(draft.status["pendingSince"])).total_seconds()
    if left > 0:
        draft.again_in(left)
        return
    why = conditions.get_condition(draft.status["conditions"], "Running") or {}
    draft.actions = [action for action in draft.actions if not isinstance(action, Create)]
    attempts.fail(draft, "StartDeadlineExceeded", f"no pod started within {limit} s: {why.get('message', '')}")
    draft.again_at_once()
