"""Plans that are not built yet: what pins them, which is preferred, and that none of them is ever chosen for a run."""

from typing import Any

import pytest

from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError
from ltx2_operator import gpus, prospects, sizing
from ltx2_operator.api import Spec
from ltx2_operator.demands import Case
from ltx2_operator.gpus import find

CLIPS = {
    "id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos",
    "resolution": 480, "video": {"num_frames": 17, "min_frames": 1},
}  # fmt: skip


def case(cls: str = "rtx-4090", spec: dict[str, Any] | None = None, **config: Any) -> Case:
    """A training at the guide's base shape on a class."""
    typed = Spec.model_validate({"config": config, "datasets": [CLIPS], **(spec or {})})
    return Case.of(typed, resolve({"train_batch_size": 2, **config}, [CLIPS]), find(cls))


@pytest.mark.parametrize(
    ("config", "form", "resident"),
    [
        ({}, None, None),
        ({"base_model_precision": "int8-quanto"}, "int8", None),
        ({"base_model_precision": "int8-torchao"}, "int8", None),
        ({"base_model_precision": "fp8-torchao"}, "fp8", None),
        ({"base_model_precision": "int8dq-int4-torchao"}, "int4", None),
        ({"base_model_precision": "nf4-bnb"}, "int4", None),
        ({"base_model_precision": "int6-sdnq"}, "int8", None),
        ({"base_model_precision": "uint16-sdnq"}, "bf16", None),
        ({"model_flavour": "dev-fp8"}, "fp8", None),
        ({"ramtorch": True}, None, (0,)),
        ({"ramtorch": True, "ramtorch_transformer_percent": 75}, None, (12,)),
        ({"musubi_blocks_to_swap": 30}, None, (18,)),
        ({"enable_group_offload": True}, None, (0,)),
        ({"ramtorch": True, "base_model_precision": "int8-torchao"}, "int8", (0,)),
    ],
)
def test_each_flag_of_the_guide_pins_its_part_of_the_plan(config: dict[str, Any], form: Any, resident: Any) -> None:
    """Mutation caught: a flag that pins nothing, so that the rows of estimate would be those of another run."""
    pinned = prospects.pins(case(**config))
    assert (pinned.form, pinned.resident, pinned.keep) == (form, resident, None)
    assert pinned.built == (form in (None, "bf16") and resident is None)
    for plan in prospects.candidates(case(**config)):
        assert form is None or plan.form == form
        assert resident is None or (plan.resident,) == resident


@pytest.mark.parametrize(("value", "keep"), [(True, 0), (False, 48), (None, None)])
def test_checkpointing_pins_the_blocks_kept(value: bool | None, keep: int | None) -> None:
    config = {} if value is None else {"gradient_checkpointing": value}
    assert prospects.pins(case(**config)).keep == keep
    kept = {plan.keep for plan in prospects.candidates(case(**config))}
    assert kept == ({0, 24, 48} if keep is None else {keep})


def test_a_plan_in_the_manifest_pins_all_of_it() -> None:
    named = case(spec={"memory": "int4/streamed:7/keep:3"})
    assert [str(plan) for plan in prospects.candidates(named)] == ["int4/streamed:7/keep:3"]
    assert not prospects.pins(named).built


def test_the_less_precise_and_the_streamed_come_later() -> None:
    with_units, without = ([str(plan) for plan in prospects.candidates(case(cls))] for cls in ("rtx-4090", "rtx-3090"))
    assert with_units[:2] == ["fp8/resident/keep:48", "fp8/resident/keep:24"]
    assert without[:2] == ["int8/resident/keep:48", "int8/resident/keep:24"]
    for names in (with_units, without):
        assert names.index(names[0].replace("resident/keep:48", "streamed:24/keep:48")) == 3
        assert names[9:] == [name.replace(names[0].split("/")[0], "int4") for name in names[:9]]
    offloaded = [str(plan) for plan in prospects.candidates(case("rtx-3090", ramtorch=True))]
    assert offloaded[0] == "bf16/streamed:0/keep:48", "the form is not changed where streaming alone will do"


def test_best_is_the_first_that_fits_and_smallest_needs_least() -> None:
    asked = case("rtx-3090")
    best = prospects.best(asked)
    assert best is not None and asked.fits(best[1])
    names = prospects.candidates(asked)
    before = names[: names.index(best[0])]
    assert before and not any(asked.fits(sizing.demands.train_terms(asked, plan)) for plan in before)
    least = prospects.smallest(asked)
    assert least is not None and str(least[0]) == "int4/streamed:0/keep:0"


def test_fp32_has_no_such_plans() -> None:
    assert prospects.candidates(case("cpu")) == prospects.candidates(case(mixed_precision="no")) == []
    assert prospects.best(case("cpu")) is None is prospects.smallest(case("cpu"))


@pytest.mark.parametrize("cls", [entry.name for entry in gpus.TRAINING])
def test_what_is_chosen_for_a_run_is_built_on_every_class(cls: str) -> None:
    asked = case(cls)
    try:
        plan = sizing.size(asked.spec, asked.resolved, asked.cls)
    except sizing.NoFit as error:
        assert "needs" in str(error) and "what would fit" in str(error)
    else:
        assert plan.memory.startswith("bf16/resident/keep:")
    later = sizing.predict(asked.spec, asked.resolved, asked.cls)
    assert later is not None, "even 16 GB are predicted to be enough"
    pinned = asked.spec.model_copy(update={"memory": later.memory})
    with pytest.raises(ConfigError, match="is not supported yet"):
        sizing.size(pinned, asked.resolved, asked.cls)


def test_streamed_weights_are_counted_into_host_memory_of_each_process() -> None:
    plans = []
    for blocks in (47, 10):
        asked = case(spec={"gpu": {"class": "rtx-4090", "count": 2}}, musubi_blocks_to_swap=blocks)
        plan = sizing.predict(asked.spec, asked.resolved, asked.cls, asked.model)
        assert plan is not None and plan.memory.split("/")[1] == f"streamed:{48 - blocks}"
        plans.append(plan)
    more, fewer = plans
    block = 386e6 * (2 if more.memory.startswith("bf16") else 1)
    less = 386e6 * (2 if fewer.memory.startswith("bf16") else 1)
    assert more.memory_bytes - fewer.memory_bytes == pytest.approx(2 * (47 * block - 10 * less), rel=0.05)
