"""The runs of a workspace as a listing shows them, from what lies in their folders alone. Torch-free."""

from collections.abc import Mapping
from typing import Any, Final

from ltx2_job import history, saved
from ltx2_job.exitcodes import Action, lookup
from ltx2_job.workspace import RunFolder, read_page

SUCCEEDED: Final = "Succeeded"
UNFINISHED: Final = "Unfinished"  # it runs, or whatever ended it could not be told
# The state of a run whose newest stage ended by an exit code of this class.
_STATES: Final = {
    Action.FAIL: "Failed",
    Action.RETRY: "Failed",
    Action.LOWER_MEMORY_PLAN: "Failed",
    Action.RETRY_UNCOUNTED: "Stopped",
    Action.WAIT_FOR_DATA: "Waiting",
}


def facts(run: RunFolder) -> dict[str, Any]:
    """What a run's folder tells of it, as JSON; None for what nothing there says.

    state: Succeeded, Failed, Stopped, Waiting or Unfinished. step, maxSteps: optimizer steps. loss, heldOutLoss: the
    newest, or those at the end. begun: time of the first thing told.
    """
    result, entries = read_page(run.result), history.told(run)
    pages = [page for page in history.words(run) if page.get("stage") == "train"]  # others count clips
    page = max(pages, key=lambda each: str(each.get("time") or ""), default={})
    held = result.get("heldOutLoss")
    return {
        "state": _state(result, entries),
        "step": result.get("steps") or page.get("step") or newest_step(run) or None,
        "maxSteps": result.get("steps") or read_page(run.config).get("max_train_steps") or page.get("maxSteps") or None,
        "loss": result.get("finalLoss", page.get("loss")),
        "heldOutLoss": held.get("end") if isinstance(held, Mapping) else page.get("heldOutLoss"),
        "begun": entries[0].get("time") if entries else None,
    }


def newest_step(run: RunFolder) -> int:
    """The step of the newest complete checkpoint, 0 without one."""
    return max(map(saved.step_of, saved.with_manifest(run.checkpoints)), default=0)


def _state(result: Mapping[str, Any], entries: list[history.Entry]) -> str | None:
    if result:
        return SUCCEEDED
    code = entries[-1].get("exitCode") if entries else None
    if not isinstance(code, int):
        return UNFINISHED if entries else None
    return _STATES.get(lookup(code).action, UNFINISHED)
