"""What a run's history must tell, without times and words."""

from collections.abc import Iterable
from typing import Any

Outline = list[tuple[Any, ...]]  # event, attempt, stage, exit code

# The first attempt was killed in training, after a checkpoint, and could say nothing; the second finished.
KILLED_ONCE: Outline = [
    ("CacheStarted", 1, "cache", None),
    ("Ended", 1, "cache", 0),
    ("TrainingStarted", 1, "train", None),
    ("Verdict", 1, "train", 137),
    ("TrainingStarted", 2, "train", None),
    ("Resumed", 2, "train", None),
    ("Ended", 2, "train", 0),
]


def outline(entries: Iterable[dict[str, Any]]) -> Outline:
    """The entries of a history (ltx2_job.history) in short."""
    return [(one["event"], one["attempt"], one["stage"], one.get("exitCode")) for one in entries]
