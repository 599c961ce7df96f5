"""What each verb of `ltx2-job` does: the joints between the rooms.

Each function takes the parsed arguments of its verb.
"""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ltx2_job.endings import ending

if TYPE_CHECKING:
    from ltx2_job.stage import Stage


def cache_stage(stage: "Stage") -> None:
    """The cache stage: fill the store and write the run's index."""
    from ltx2_job.caching.stage import run_cache

    run_cache(stage)


def train_stage(stage: "Stage") -> None:
    """The train stage: the one loop, with validation handed to it as a callable."""
    from ltx2_job.training.trainer import run_training
    from ltx2_job.validation.t2v import validator_of_stage

    run_training(stage, validator_of_stage(stage))


STAGES: Final[dict[str, "Callable[[Stage], None]"]] = {"cache": cache_stage, "train": train_stage}


def end(error: BaseException, workspace: Path | None) -> int:
    """Print how a tool ended (with the traceback only for a defect of ours) and return its exit code."""
    how = ending(error, workspace)
    if how.defect:
        traceback.print_exception(error)
    print(f"ltx2-job: {how.message}", file=sys.stderr)
    return how.code
