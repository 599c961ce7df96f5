"""The strategic merge alone; tests/cluster compares it with an API server's, patch by patch."""

import copy
from typing import Any

import pytest

from ltx2_job.errors import ConfigError
from ltx2_operator import strategic, template
from pod_patches import MALFORMED, PATCHES
from trainings import context

BASE = template.template(context())


def merged(patch: dict[str, Any]) -> dict[str, Any]:
    return strategic.merge(BASE, patch, "spec.podTemplate")


@pytest.mark.parametrize("name", PATCHES)
def test_neither_template_nor_patch_is_changed(name: str) -> None:
    base, patch = copy.deepcopy(BASE), copy.deepcopy(PATCHES[name])
    found = merged(PATCHES[name])
    assert (base, patch) == (BASE, PATCHES[name])
    found["spec"].clear()
    assert BASE["spec"]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_patch_is_named(name: str) -> None:
    patch, field = MALFORMED[name]
    with pytest.raises(ConfigError) as refused:
        merged(patch)
    (problem,) = refused.value.problems
    assert problem.field == field and problem.remedy


@pytest.mark.parametrize("directive", ["$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers", "$what"])
def test_a_directive_of_clients_is_refused_by_name(directive: str) -> None:
    with pytest.raises(ConfigError, match=rf"spec\.podTemplate\.spec\.\{directive}: is not supported"):
        merged({"spec": {directive: []}})


def test_lists_with_a_key_are_merged_and_others_replaced() -> None:
    found = merged(
        {
            "spec": {
                "tolerations": [{"key": "a"}],
                "containers": [{"name": "job", "env": [{"name": "OMP_NUM_THREADS", "value": "9"}]}],
            }
        }
    )
    assert found["spec"]["tolerations"] == [{"key": "a"}]
    before, after = ({one["name"]: one for one in pod["spec"]["containers"][0]["env"]} for pod in (BASE, found))
    assert after == {**before, "OMP_NUM_THREADS": {"name": "OMP_NUM_THREADS", "value": "9"}}
