"""Which samples a step takes."""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2_job.data.index import Index, Sample
from ltx2_job.data.plan import Planner, StepPlan, plan, steps_per_epoch, total_steps
from ltx2_job.errors import DataError, NoInputError


@dataclass(frozen=True)
class Config:
    train_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    seed: int = 42
    max_train_steps: int = 0
    num_train_epochs: int = 0


def sample(name: str, **changes: Any) -> Sample:
    base = Sample(
        id=f"clips/{name}", dataset="clips", path=name, width=64, height=32, frames=9, fps=25.0, audio_latents=9,
        sounding=True, video_key=f"v{name}", audio_key=f"a{name}", text_keys=("t0", "t1", "t2"), repeats=0,
        probability=1.0, held_out=False,
    )  # fmt: skip
    return replace(base, **changes)


MIXED = [sample(f"a{i}", sounding=i != 2) for i in range(5)] + [sample(f"b{i}", width=32, height=64) for i in range(3)]


def taken(step: StepPlan) -> list[tuple[str, int, int]]:
    """(sample, caption, position) of a step in the order of positions."""
    picks = [pick for rank in step.ranks for micro in rank for pick in micro.picks]
    return [(pick.sample.id, pick.caption, pick.position) for pick in sorted(picks, key=lambda pick: pick.position)]


def test_ranks_batch_and_accumulation_divide_the_same_samples() -> None:
    ways = [(1, 4, 1), (4, 1, 1), (1, 1, 4), (2, 2, 1), (2, 1, 2), (1, 2, 2)]
    for step in range(9):
        plans = [plan(MIXED, Config(batch, accumulation), step, world) for world, batch, accumulation in ways]
        assert len({tuple(taken(each)) for each in plans}) == 1
        assert len({(each.samples, each.sounding, each.epoch, each.bucket) for each in plans}) == 1
        for each, (world, batch, accumulation) in zip(plans, ways, strict=True):
            assert len(each.ranks) == world
            assert all(len(rank) == accumulation for rank in each.ranks)
            assert all(len(micro.picks) == batch for rank in each.ranks for micro in rank)


def test_every_step_has_one_shape_and_an_epoch_has_every_sample() -> None:
    config = Config(train_batch_size=2)
    planner = Planner(MIXED, config, 1)
    assert planner.steps_per_epoch == 3 + 2
    for epoch in range(4):
        steps = [planner.step(epoch * 5 + i) for i in range(5)]
        assert {step.epoch for step in steps} == {epoch}
        assert all({p.sample.bucket for p in m.picks} == {s.bucket} for s in steps for r in s.ranks for m in r)
        uses = Counter(name for step in steps for name, _, _ in taken(step))
        assert set(uses) == {each.id for each in MIXED}
        assert sorted(uses.values()) == [1] * 6 + [2] * 2  # one of each bucket fills its last step


def test_rates_do_not_share_a_step() -> None:
    samples = [sample("a"), sample("b", fps=24.0)]
    steps = [plan(samples, Config(train_batch_size=2), step, 1) for step in range(2)]
    assert sorted(step.ranks[0][0].fps for step in steps) == [24.0, 25.0]


def test_resuming_needs_the_step_alone_and_the_order_of_the_index_means_nothing() -> None:
    planner = Planner(MIXED, Config(2), 1)
    course = [planner.step(step) for step in range(20)]
    assert plan(list(reversed(MIXED)), Config(2), 17, 1) == course[17]
    assert planner.step(3) == course[3]  # going back is as good


def test_the_seed_changes_the_order_and_epochs_differ() -> None:
    def order(seed: int, epoch: int) -> list[str]:
        return [taken(plan(MIXED, Config(seed=seed), epoch * 8 + i, 1))[0][0] for i in range(8)]

    assert order(1, 0) != order(2, 0) and order(1, 0) != order(1, 1)
    assert sorted(order(1, 0)) == sorted(order(1, 1)) == sorted(each.id for each in MIXED)


def test_repeats_are_passes_and_one() -> None:
    samples = [sample("a", repeats=2), sample("b", dataset="other", id="other/b")]
    assert steps_per_epoch(samples, Config(), 1) == 4
    uses = Counter(taken(plan(samples, Config(), step, 1))[0][0] for step in range(4))
    assert uses == {"clips/a": 3, "other/b": 1}


def test_probability_weighs_datasets() -> None:
    samples = [sample(f"a{i}") for i in range(10)]
    samples += [sample(f"b{i}", dataset="rare", id=f"rare/{i}", probability=0.3) for i in range(10)]
    planner = Planner(samples, Config(), 1)
    assert planner.steps_per_epoch == 13
    epochs = [[taken(planner.step(13 * epoch + i))[0][0] for i in range(13)] for epoch in range(10)]
    for epoch in epochs:
        assert sum(name.startswith("rare/") for name in epoch) == 3
        assert {name for name in epoch if name.startswith("clips/")} == {f"clips/a{i}" for i in range(10)}
    rare = Counter(name for epoch in epochs for name in epoch if name.startswith("rare/"))
    assert set(rare.values()) == {3}  # 30 uses of 10 samples: no sample is preferred


def test_a_dataset_of_probability_zero_is_off() -> None:
    samples = [sample("a"), sample("b", probability=0.0)]
    assert {taken(plan(samples, Config(), step, 1))[0][0] for step in range(5)} == {"clips/a"}


def test_held_out_samples_are_never_planned() -> None:
    samples = [sample("a"), sample("b", held_out=True)]
    assert {taken(plan(samples, Config(), step, 1))[0][0] for step in range(20)} == {"clips/a"}
    with pytest.raises(DataError, match="no sample to train on"):
        plan(samples[1:], Config(), 0, 1)


def test_a_bucket_smaller_than_a_step_wraps_around() -> None:
    step = plan([sample("a"), sample("b")], Config(5), 0, 1)
    assert sorted(Counter(name for name, _, _ in taken(step)).values()) == [2, 3]
    assert step.samples == 5


def test_the_counts_are_those_of_the_whole_step() -> None:
    samples = [sample(f"a{i}", sounding=i < 3) for i in range(8)]
    step = plan(samples, Config(train_batch_size=2, gradient_accumulation_steps=2), 0, 2)
    assert (step.samples, step.sounding) == (8, 3)


def test_captions_are_drawn_uniformly_and_per_use() -> None:
    planner = Planner(MIXED, Config(4), 1)
    drawn = Counter(caption for step in range(300) for _, caption, _ in taken(planner.step(step)))
    assert set(drawn) == {0, 1, 2}
    assert all(abs(count - 400) < 80 for count in drawn.values())
    pick = planner.step(0).ranks[0][0].picks[0]
    assert pick.text_key == f"t{pick.caption}"


def test_length_of_the_training() -> None:
    assert total_steps(Config(max_train_steps=7), MIXED) == 7
    assert total_steps(Config(num_train_epochs=3), MIXED) == 24
    assert total_steps(Config(num_train_epochs=3), MIXED, world=2) == 3 * (3 + 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6), st.integers(0, 2))
def test_positions_are_a_bijection(batch: int, world: int, accumulation: int, step: int, repeats: int) -> None:
    samples = [replace(each, repeats=repeats) for each in MIXED]
    got = plan(samples, Config(batch, accumulation), step, world)
    assert [position for _, _, position in taken(got)] == list(range(batch * world * accumulation))
    assert got.step == step


def test_uses_tell_what_is_asked_for_and_what_steps_make_of_it() -> None:
    rows = Planner(MIXED, Config(4), 1).uses()
    assert [(bucket[:2], wanted, filled) for bucket, _, wanted, filled in rows] == [((32, 64), 3, 4), ((64, 32), 5, 8)]


def test_shuffling_is_no_short_cycle() -> None:
    names = [taken(plan(MIXED, Config(), step, 1))[0][0] for step in range(80)]
    epochs = [tuple(names[i : i + 8]) for i in range(0, 80, 8)]
    assert len(set(epochs)) == 10
    assert sum(before[-1] == after[0] for before, after in pairwise(epochs)) < 8


def test_an_index_survives_the_disk_and_a_move(tmp_path: Path) -> None:
    home = tmp_path / "one"
    index = Index(tuple(MIXED), {"empty": {"text": "", "key": "e"}}, str(home / "cache"), (str(home / "elsewhere"),))
    index.save(home / "runs" / "fox" / "index.json")
    assert Index.load(home / "runs" / "fox" / "index.json") == index
    home.rename(tmp_path / "two")
    moved = Index.load(tmp_path / "two" / "runs" / "fox" / "index.json")
    assert moved.cache_root == str(tmp_path / "two" / "cache") and moved.samples == index.samples
    assert moved.store().also == (tmp_path / "two" / "elsewhere",)
    assert {("text", "e"), ("video", "va0"), ("audio", "aa0"), ("text", "t2")} <= moved.keys()


def test_an_index_that_is_not_there_or_not_ours(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="has not finished"):
        Index.load(tmp_path / "index.json")
    (tmp_path / "index.json").write_text('{"version": 99}')
    with pytest.raises(DataError, match="version 99, not 1"):
        Index.load(tmp_path / "index.json")
