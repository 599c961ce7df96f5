"""A machine without the host memory that a plan needs: refused, with changes that really fit."""

import re
from typing import Any

import pytest

from ltx2_job.config import Resolved, resolve
from ltx2_operator import host, sizing
from ltx2_operator.api import Spec
from ltx2_operator.gpus import find
from ltx2_operator.status import Plan

GIB = 2**30
CLIPS = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}


def given(frames: int, **config: Any) -> tuple[Spec, Resolved]:
    datasets = [{**CLIPS, "resolution": 512, "video": {"num_frames": frames, "min_frames": 1}}]
    return Spec.model_validate({"config": config, "datasets": datasets}), resolve(config, datasets)


def plans(spec: Spec, resolved: Resolved, cls: str) -> list[Plan]:
    stages: tuple[sizing.Stage, ...] = ("cache", "train")
    return [sizing.size(spec, resolved, find(cls), stage=stage) for stage in stages]


def test_enough_memory_says_nothing_up_to_the_last_byte() -> None:
    order = given(49, pretrained_model_name_or_path="models/tiny")
    both = plans(*order, "cpu")
    need = max(plan.memory_bytes for plan in both)
    host.require(*order, both, need)
    with pytest.raises(sizing.NoFit):
        host.require(*order, both, need - 1)


def test_the_largest_need_is_told_and_a_machine_of_that_size() -> None:
    """Mutation caught: telling the cache stage's need, after which training is refused too."""
    order = given(49, pretrained_model_name_or_path="Lightricks/LTX-2")
    both = plans(*order, "cpu")
    need = round(max(plan.memory_bytes for plan in both) / GIB)
    words = rf"train with fp32/resident/keep:48 on cpu needs {need} GiB.*this machine has 16\.0 GiB.*"
    with pytest.raises(sizing.NoFit, match=words + rf"gpu\.class: a40, or a machine with {need} GiB$"):
        host.require(*order, both, 16 * GIB)


def test_a_smaller_memory_plan_is_named_where_it_fits() -> None:
    spec, resolved = given(49, pretrained_model_name_or_path="Lightricks/LTX-2")
    both = plans(spec, resolved, "cpu")
    have = both[1].memory_bytes - GIB
    with pytest.raises(sizing.NoFit) as caught:
        host.require(spec, resolved, both, have)
    found = re.search(r"spec\.memory: (\S+),", str(caught.value))
    assert found is not None
    smaller = spec.model_copy(update={"memory": found[1]})
    assert sizing.size(smaller, resolved, find("cpu")).memory_bytes <= have


def test_no_plan_of_training_is_named_where_the_cache_does_not_fit() -> None:
    """The real text encoder in fp32 needs 50 GiB: no plan of training changes that."""
    order = given(49, pretrained_model_name_or_path="Lightricks/LTX-2")
    with pytest.raises(sizing.NoFit) as caught:
        host.require(*order, plans(*order, "cpu"), 40 * GIB)
    assert "spec.memory" not in str(caught.value)


def test_where_not_even_a_gpu_fits_only_the_machine_is_named() -> None:
    order = given(49)
    with pytest.raises(sizing.NoFit, match=r"what would fit: a machine with \d+ GiB$"):
        host.require(*order, plans(*order, "h200"), 2 * GIB)
