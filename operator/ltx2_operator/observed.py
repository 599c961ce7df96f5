"""What one look sees and decides, and how it finds its own among the children."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ltx2_job.estimate import Model
from ltx2_operator.attempts import CACHE
from ltx2_operator.classify import job_condition
from ltx2_operator.conditions import moment
from ltx2_operator.draft import AnyAction, Draft, Event
from ltx2_operator.pods import ATTEMPT_LABEL, STAGE_LABEL, UID_LABEL


@dataclass(frozen=True)
class DryRun:
    """What the API server says of a Job that it was shown (DryRunJob).

    generation: of the training when it was asked; an answer to another generation counts for nothing. ok: it would be
    made. message: why not. warnings: what the server adds for people, such as a violation of the namespace's Pod
    Security standard, which refuses no Job but all of its pods.
    """

    generation: int
    ok: bool
    message: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """What exists, as dicts: Jobs and pods that carry the training's name label (whatever their owner), and what they
    need.

    nodes: None where the operator may not read nodes. secrets: names of Secrets, None where it may not read them.
    events: core/v1 Events about the Jobs (why no pod came). progress: rank 0's page, already checked by progress.parse.
    page_awaited: nobody has tried to read it yet.
    workloads: Kueue's Workloads of the Jobs, where they may be read: why a queue holds a run. model: sizes of the
    checkpoint where its file can be read (a run on one machine), None elsewhere. dry_run: the newest answer to a
    DryRunJob, None if there was none yet. volume_seen: whoever runs this has looked at the volume itself (a run on one
    machine), so that no pod has to. refused: what the API server said against the child that was to be made last.
    """

    jobs: Sequence[Mapping[str, Any]] = ()
    pods: Sequence[Mapping[str, Any]] = ()
    configmaps: Sequence[Mapping[str, Any]] = ()
    claims: Sequence[Mapping[str, Any]] = ()
    services: Sequence[Mapping[str, Any]] = ()
    nodes: Sequence[Mapping[str, Any]] | None = None
    secrets: frozenset[str] | None = None
    events: Sequence[Mapping[str, Any]] = ()
    progress: Mapping[str, Any] | None = None
    page_awaited: bool = False
    workloads: Sequence[Mapping[str, Any]] = ()
    model: Model | None = None
    dry_run: DryRun | None = None
    volume_seen: bool = False
    refused: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a look decided. Write the status first, then act, then publish the events.

    requeue_after: seconds until the next look even if nothing happens; 0 = at once; None = only when something happens.
    """

    status: dict[str, Any]
    actions: list[AnyAction] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    requeue_after: float | None = None


def own_children(draft: Draft, group: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Children of this very object: a namesake that was deleted has another uid."""
    uid = draft.training.metadata.uid
    return [one for one in group if (one["metadata"].get("labels") or {}).get(UID_LABEL) == uid]


def current(draft: Draft, observed: Observed) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]]]:
    """The Job and the pods of the newest attempt's stage."""
    stage, attempt = stage_and_attempt(draft)
    mine = [
        [one for one in own_children(draft, group) if attempt_of(one) == attempt and stage_of(one) == stage]
        for group in (observed.jobs, observed.pods)
    ]
    return (mine[0][0] if mine[0] else None), mine[1]


def stage_and_attempt(draft: Draft) -> tuple[Any, int]:
    """The newest attempt, as Jobs are named: ("cache" or "train", number)."""
    return str(draft.status.get("stage") or CACHE).lower(), int(draft.status["attempt"])


def attempt_of(child: Mapping[str, Any]) -> int:
    """The number in a child's label, 0 without one."""
    text = (child["metadata"].get("labels") or {}).get(ATTEMPT_LABEL, "0")
    return int(text) if str(text).isdigit() else 0


def stage_of(child: Mapping[str, Any]) -> str:
    """The stage in a child's label, empty without one."""
    return str((child["metadata"].get("labels") or {}).get(STAGE_LABEL, ""))


def job_finished(job: Mapping[str, Any]) -> bool:
    """Whether the Job controller has concluded."""
    return job_condition(job, "Failed") is not None or job_condition(job, "Complete") is not None


def end_of(job: Mapping[str, Any] | None) -> datetime | None:
    """When the Job controller concluded, None if it has not."""
    if job is None:
        return None
    end = job_condition(job, "Failed") or job_condition(job, "Complete") or {}
    text = end.get("lastTransitionTime")
    return moment(text) if text else None
