"""The keys that say where files lie, which are kept, and from which one a run goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from cache_bench import Bench
from job.shell.conftest import PLAN, write_files
from key_runs import Trainings
from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError
from ltx2_job.stage import StopFlag, open_stage
from ltx2_job.training.trainer import run_training
from training_runs import CONFIG, DATASET, clip, make_stage


@pytest.mark.witness("output_dir")
@pytest.mark.parametrize(("value", "folder"), [(None, "runs/fox"), ("results/first", "results/first")])
def test_output_dir(tmp_path: Path, tiny20: Path, value: str | None, folder: str) -> None:
    """Everything that a run leaves, by the way of a pod: files on the volume, the stage, the training."""
    config = {**CONFIG, "pretrained_model_name_or_path": str(tiny20), "max_train_steps": 1, "output_dir": value}
    make_stage(tmp_path, tiny20, [clip("a")], name="fox", output_dir=value)  # as the cache stage leaves it
    files = write_files(tmp_path / "files", config, [DATASET], PLAN)
    stage = open_stage("train", files, tmp_path, "fox", 1, StopFlag(), {})
    try:
        run_training(stage)
    finally:
        stage.reporter.close(0, "done")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()}
    written = {path for path in left if path.startswith(("runs/", "results/"))}
    notes = {"runs/fox.json"} if value else set()  # where a run elsewhere is found by its name
    assert {path for path in written if not path.startswith(f"{folder}/")} == notes
    assert {f"{folder}/{name}" for name in ("lora.safetensors", "result.json", "config.json", "metrics.jsonl")} <= left


@pytest.mark.witness("checkpoint_step_interval")
@pytest.mark.parametrize(("interval", "steps"), [(0, [5]), (2, [2, 4, 5]), (3, [3, 5])])
def test_checkpoint_step_interval(trainings: Trainings, interval: int, steps: list[int]) -> None:
    run = trainings(max_train_steps=5, checkpoint_step_interval=interval, learning_rate=0)
    assert run.seen.saved == steps and run.saved == [f"step-000000{step}" for step in steps]


@pytest.mark.witness("checkpoints_total_limit")
@pytest.mark.parametrize(("limit", "steps"), [(0, [1, 2, 3, 4]), (1, [4]), (3, [2, 3, 4])])
def test_checkpoints_total_limit(trainings: Trainings, limit: int, steps: list[int]) -> None:
    """All are written; the newest ones are left."""
    run = trainings(max_train_steps=4, checkpoints_total_limit=limit, learning_rate=0)
    assert run.seen.saved == [1, 2, 3, 4] and run.saved == [f"step-000000{step}" for step in steps]


@pytest.mark.witness("resume_from_checkpoint")
def test_resume_from_checkpoint(trainings: Trainings, tmp_path: Path) -> None:
    """The step that comes next: after the newest of the run, after a named one, after one of another run."""
    trainings(root=tmp_path, name="first", max_train_steps=3)

    def goes_on(name: str, reference: str, last: int = 4) -> list[int]:
        return trainings(root=tmp_path, name=name, max_train_steps=last, resume_from_checkpoint=reference).done

    assert goes_on("first", "latest") == [4]
    assert goes_on("other", "latest", 1) == [1]
    assert goes_on("path", "runs/first/checkpoints/step-0000001") == [2, 3, 4]
    assert goes_on("first", "step-0000002") == [3, 4]
    with pytest.raises(ConfigError, match="'step-9' is no checkpoint"):
        goes_on("first", "step-9")


@pytest.mark.witness("data_backend_config")
def test_data_backend_config(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the workspace, another one, or the list itself: these datasets are cached and no others."""

    def entry(name: str) -> dict[str, Any]:
        return {**bench.dataset, "id": name, "instance_data_dir": f"datasets/{name}", "caption_strategy": "filename"}

    for name in ("one", "two", "three"):
        bench.clip(f"../{name}/a")
    for name in ("one", "two"):
        (bench.workspace.root / f"{name}.json").write_text(json.dumps([entry(name)]))
    for value, name in (("one.json", "one"), ("two.json", "two"), ([entry("three")], "three")):
        bench.resolved = resolve({"data_backend_config": value}, workspace=bench.workspace.root)
        index, _ = bench.run(name)
        assert [sample.id for sample in index.samples] == [f"{name}/a.mp4"]
