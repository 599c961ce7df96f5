"""Runs killed (SIGKILL) in cache, step, save and validation end with the same bits as the unbroken one."""

from pathlib import Path

import pytest

from kills import Whole, broken, chosen, unbroken


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Whole:
    """The unbroken run."""
    return unbroken(tmp_path_factory.mktemp("kill") / "unbroken", tiny20)


def test_a_run_killed_in_every_phase_ends_the_same(tmp_path: Path, whole: Whole) -> None:
    """Four kills, one per phase, in one run whose cache is empty at first."""
    ended, hits = broken(tmp_path / "run", whole, chosen(4, seed=1), with_cache=False)
    assert ended == whole.hashes and hits >= 3


def test_a_training_killed_at_random_moments_ends_the_same(tmp_path: Path, whole: Whole) -> None:
    """Four more kills, in step, save and validation."""
    moments = [kill for kill in chosen(8, seed=2) if kill.phase != "caching"][:4]
    ended, hits = broken(tmp_path / "run", whole, moments, with_cache=True)
    assert ended == whole.hashes and hits >= 3
