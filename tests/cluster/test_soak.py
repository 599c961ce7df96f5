"""What `make soak` is made of, without a cluster: its runs, its table, and how it finds files that should not be."""

import re
from pathlib import Path

import pytest
from kubernetes.utils import parse_quantity

from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError
from ltx2_operator.api import parse

from .soak import remains
from .soak.campaign import summary
from .soak.faults import FAULTS
from .soak.runs import MISTAKES, SOUND, VARIANTS, plan


def test_fifty_runs_have_every_kind_and_every_mistake() -> None:
    runs = plan(50, 1)
    assert {run.name.rpartition("-")[0] for run in runs} == set(SOUND) | set(MISTAKES)
    assert len({run.name for run in runs}) == 50
    assert sum(run.reason != "Completed" for run in runs) == 10
    assert [run.name for run in plan(50, 1)] == [run.name for run in runs] != [run.name for run in plan(50, 2)]
    assert {run.variant for run in runs} == set(VARIANTS)


@pytest.mark.parametrize("run", plan(50, 1), ids=lambda run: run.name)
def test_a_manifest_has_no_mistake_but_its_own(run) -> None:
    obj = run.manifest("image")
    assert re.fullmatch(r"[a-z0-9-]{1,40}", obj["metadata"]["name"])
    spec = parse(obj).spec
    (container,) = obj["spec"]["podTemplate"]["spec"]["containers"]
    asked, most = (parse_quantity(container["resources"][key]["memory"]) for key in ("requests", "limits"))
    assert asked <= most
    assert spec.retries == 50
    if run.name.startswith("steps-"):
        with pytest.raises(ConfigError, match=r"max_train_steps"):
            resolve(spec.config, spec.datasets)
    else:
        assert resolve(spec.config, spec.datasets).training.max_train_steps > 0


def test_a_file_that_no_undisturbed_run_leaves_is_found(tmp_path: Path) -> None:
    for name in (
        "reference/runs/plain/lora.safetensors", "reference/runs/plain/checkpoints/step-0000040/state.json",
        "reference/cache/text/k/a.safetensors",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    for name in (
        "volume/runs/fox-1/lora.safetensors", "volume/runs/fox-1/.lora.safetensors.x.tmp",
        "volume/runs/fox-1/checkpoints/step-0006040/state.json",
        "volume/runs/fox-1/checkpoints/.writing-step-1/state.json",
        "volume/runs/fox-1/attempts/3.json", "volume/cache/text/k/a.safetensors", "volume/cache/text/k/.b.tmp",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = remains.files(tmp_path / "volume", tmp_path / "reference", {"fox-1": "plain"})
    assert found == [
        "cache/text/k/.b.tmp", "runs/fox-1/.lora.safetensors.x.tmp",
        "runs/fox-1/checkpoints/.writing-step-1/state.json",
    ]  # fmt: skip


def test_the_table_counts_what_was_done_and_what_came_too_late() -> None:
    fault = FAULTS[0].name
    records = [
        {"fault": fault, "missed": ""}, {"fault": fault, "missed": "gone"}, {"operator": {}},
        {"run": "a", "ended": "Succeeded: Completed", "attempts": 3, "counted": 1, "seconds": 50, "problems": []},
        {"run": "b", "ended": "", "attempts": 1, "counted": None, "seconds": 9, "problems": ["x|y"]},
    ]  # fmt: skip
    told = summary(records)
    assert f"| {fault} | 1 | 1 |" in told and "| a | Succeeded: Completed | 3 | 1 | 50 |  |" in told
    assert "x\\|y" in told and told.endswith("1 of 2 ended as they must.")
