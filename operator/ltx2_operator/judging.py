"""How the newest attempt ended, from its Job and its pods."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from ltx2_job.errors import ConfigError
from ltx2_job.exitcodes import Action
from ltx2_operator import accept, attempts, children, gpus, sizing
from ltx2_operator.attempts import CACHE, LOOK
from ltx2_operator.classify import Verdict, classify
from ltx2_operator.clocks import start_missed
from ltx2_operator.conditions import FALSE
from ltx2_operator.draft import Delete, Draft
from ltx2_operator.observed import Observed, current, end_of, stage_and_attempt
from ltx2_operator.progress import PageError, absorb
from ltx2_operator.progress import parse as parse_page
from ltx2_operator.status import AVOIDED_NODES, Plan

CRASHES: Final = 2  # of this run on one node, among the last attempts, before it is avoided


def judge(draft: Draft, observed: Observed) -> None:
    """Close the newest attempt if its Job or pods say that it has ended."""
    job, own = current(draft, observed)
    if job is None and not own and not draft.status.get("job"):
        return  # not created yet
    if job is not None:
        draft.status["job"], draft.status["jobUid"] = job["metadata"]["name"], job["metadata"].get("uid")
    verdict = classify(job, own, draft.now)
    if verdict is None:
        return
    if start_missed(draft, own):
        attempts.admit(draft)
    with contextlib.suppress(PageError):
        absorb(draft, parse_page(verdict.report))
    if job is None:
        # Where the view was only stale, this ends the Job that still runs, so that it cannot live beside the next one.
        name = children.job_name(draft.training.metadata.name, *stage_and_attempt(draft))
        draft.actions.append(Delete("Job", name, draft.status.get("jobUid")))
    if verdict.action is Action.LOWER_MEMORY_PLAN and draft.status.get("stage") == LOOK:
        verdict = replace(verdict, action=Action.RETRY)  # a look has no GPU: such a code is no word of ours
    if verdict.action is Action.LOWER_MEMORY_PLAN:
        _lower(draft, observed, verdict, end_of(job))
    else:
        attempts.close(draft, verdict, end_of(job))
        _avoid(draft, verdict.nodes, observed.nodes)


def _lower(draft: Draft, observed: Observed, verdict: Verdict, end: datetime | None) -> None:
    """The GPU's memory was exhausted: the next smaller plan, or the end if there is none."""
    stage = str(draft.status["stage"])
    key = "cachePlan" if stage == CACHE else "plan"
    old = Plan.model_validate(draft.status[key])
    attempts.close(draft, verdict, end)
    try:
        resolved = accept.resolve_spec(draft.training)
        rung = draft.status["rung"][stage.lower()]
        new = accept.plan_stage(
            draft.training,
            resolved,
            "cache" if stage == CACHE else "train",
            rung,
            observed.nodes,
            old.gpu_class,
            observed.model,
        )
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


def _avoid(draft: Draft, crashed: Sequence[str], nodes: Sequence[Mapping[str, Any]] | None) -> None:
    """Stay away from a node on which this run has crashed twice, unless it is known to be the only one there is."""
    status = draft.status
    ends = [name for entry in status.get("attempts") or [] for name in entry.get("nodes") or []]
    avoided: list[str] = status.get("avoidNodes") or []
    for name in crashed:
        if name in avoided or ends.count(name) < CRASHES:
            continue
        if nodes is not None and not _others(status, nodes, {*avoided, name}):
            continue
        avoided = [*avoided, name][-AVOIDED_NODES:]
        status["avoidNodes"] = avoided
        text = f"{name}: {ends.count(name)} attempts of this run crashed there; its next pods stay away from it"
        draft.event("NodeAvoided", text, warning=True)


def _others(status: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], without: set[str]) -> bool:
    """Whether another node can take the stage at hand."""
    plan = Plan.model_validate(status["cachePlan" if status.get("stage") == CACHE else "plan"])
    cls = gpus.BY_NAME.get(plan.gpu_class)
    left = [node for node in nodes if node["metadata"].get("name") not in without]
    fit = left if plan.resource_name is None or cls is None else [node for node in left if cls.on(node) > 0]
    return len(fit) >= plan.nodes
