"""How the newest attempt ended, from its Job and its pods."""

import contextlib
from datetime import datetime

from ltx2_job.errors import ConfigError
from ltx2_job.exitcodes import Action
from ltx2_operator import accept, attempts, children, sizing
from ltx2_operator.attempts import CACHE
from ltx2_operator.classify import Verdict, classify
from ltx2_operator.conditions import FALSE
from ltx2_operator.draft import Delete, Draft
from ltx2_operator.observed import Observed, current, end_of, stage_and_attempt
from ltx2_operator.progress import PageError, absorb
from ltx2_operator.progress import parse as parse_page
from ltx2_operator.status import Plan


def judge(draft: Draft, observed: Observed) -> None:
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
