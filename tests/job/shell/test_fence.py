"""One run folder, one owner."""

import json

import pytest

from ltx2_job.errors import StorageError, Superseded
from ltx2_job.fence import Fence, Owner
from ltx2_job.workspace import RunFolder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "fox")


def test_the_file_says_who_owns_the_run(run):
    """The operator and people read it: catches renamed keys."""
    Fence.claim(run, Owner("uid-1", 3, "pod-1", "2026-01-01T00:00:00+00:00"))
    assert json.loads(run.attempt.read_text()) == {
        "uid": "uid-1",
        "attempt": 3,
        "podUid": "pod-1",
        "startTime": "2026-01-01T00:00:00+00:00",
    }


@pytest.mark.parametrize(
    "successor",
    [
        Owner("uid-1", 2, "pod-2", "2026-01-01T00:01:00+00:00"),  # the next attempt
        Owner("uid-1", 1, "pod-2", "2026-01-01T00:01:00+00:00"),  # the same attempt, started again by a queue
        Owner("uid-2", 1, "pod-2", "2026-01-01T00:01:00+00:00"),  # the training was deleted and made again
        Owner("uid-1", 1, "pod-1", "2026-01-01T00:01:00+00:00"),  # the same pod, its container restarted
        Owner("uid-1", 2, "pod-2", "2025-12-31T23:59:00+00:00"),  # on a node whose clock is late
    ],
)
def test_a_later_start_takes_the_run_and_the_earlier_one_notices(run, successor):
    """Catches comparing numbers alone, trusting clocks, and a check that only looks at the start."""
    fence = Fence.claim(run, Owner("uid-1", 1, "pod-1", "2026-01-01T00:00:00+00:00"))
    fence.check()
    later = Fence.claim(run, successor)
    with pytest.raises(Superseded) as caught:
        fence.check()
    assert caught.value.exit_code == 87 and f"attempt {successor.attempt}" in str(caught.value)
    later.check()


def test_a_pod_that_was_slow_to_start_does_not_take_the_run_back(run):
    """Attempt 1's image pull ends after attempt 2 has begun. Catches 'whoever writes last'."""
    later = Fence.claim(run, Owner.now("uid-1", 2, "pod-2"))
    with pytest.raises(Superseded):
        Fence.claim(run, Owner.now("uid-1", 1, "pod-1"))
    later.check()


def test_two_starts_outside_kubernetes_differ(run):
    """Catches an empty pod uid that makes two local processes one owner."""
    first = Fence.claim(run, Owner.now("", 1))
    Fence.claim(run, Owner.now("", 1))
    with pytest.raises(Superseded):
        first.check()


def test_a_deleted_folder_or_a_foreign_file_is_a_storage_error(run):
    """Catches a training that goes on writing into a folder its user has deleted, and a traceback for a torn file."""
    fence = Fence.claim(run, Owner.now("uid-1", 1))
    run.attempt.write_text("{}")
    with pytest.raises(StorageError, match="not an attempt's fence"):
        fence.check()
    run.attempt.unlink()
    with pytest.raises(StorageError, match="deleted"):
        fence.check()


def test_ranks_above_0_guard_nothing(run):
    """They have no path: catches a check that fails without one."""
    Fence().check()
