"""A real allocation failure in the middle of a training: the next attempt takes the smaller plan and goes on.

The failure is the allocator's own: budget.c refuses torch a block, in one process of two, once a checkpoint is there.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import budgets
from ltx2_job import history
from ltx2_job.workspace import Workspace

LTX2 = str(Path(sys.executable).parent / "ltx2")
CACHE = 300_000  # less than the text encoder needs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, for the library that refuses memory"),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, real_clips, tiny20):
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "clips").mkdir()
    for suffix in (".mp4", ".txt"):
        shutil.copy(real_clips / f"bigbuckbunny{suffix}", folder / "clips")
    shutil.copytree(tiny20.parent, folder / "models")
    return folder


@pytest.fixture(scope="module")
def undisturbed(workspace):
    """The LoRA of the training that nobody disturbs."""
    run(workspace, "whole")
    return lora(workspace, "whole")


def budget(folder, rank, most, after):
    return budgets.build(folder / f"budget-{rank}.so", rank, most, after, folder / "peak")


def run(workspace, name, library=None, expect=0, **spec):
    """`ltx2 run` of two processes on this machine; returns what it printed."""
    config = {
        "model_family": "ltxvideo2", "model_type": "lora", "seed": 42, "resolution": 256, "train_batch_size": 4,
        "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors", "max_train_steps": 6, "lora_rank": 4,
        "checkpoint_step_interval": 2, "validation_disable": True,
    }  # fmt: skip
    clips = {
        "id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips",
        "caption_strategy": "textfile", "video": {"num_frames": 17, "min_frames": 17},
    }  # fmt: skip
    spec = {"gpu": {"class": "cpu", "count": 2}, "config": config, "datasets": [clips]} | spec
    body = {"apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": name}, "spec": spec}
    (workspace / f"{name}.yaml").write_text(yaml.safe_dump(body))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LTX2")}
    environment |= {"OMP_NUM_THREADS": "1"} | ({"LD_PRELOAD": str(library)} if library else {})
    done = subprocess.run(
        [LTX2, "run", f"{name}.yaml"], cwd=workspace, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=600,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout
    return done.stdout


def lora(workspace, name):
    return hashlib.sha256((workspace / "runs" / name / "lora.safetensors").read_bytes()).hexdigest()


def words(workspace, name):
    folder = workspace / "runs" / name / "attempts"
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(1, 1 + len(list(folder.iterdir())))]


def story(workspace, name):
    """A run's history: event, memory plan or action or step, exit code."""
    told = history.read(Workspace(workspace).run(name))
    said = [(one.get("memory") or "").rpartition("/")[2] or one.get("action") for one in told]
    steps = [one.get("step") if one["event"] == "Resumed" else None for one in told]
    return [
        (one["event"], what or step, one.get("exitCode")) for one, what, step in zip(told, said, steps, strict=True)
    ]


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.full)])
def test_training_goes_on_with_the_smaller_plan_at_the_checkpoint(rank, workspace, undisturbed):
    # Catches: an end that is taken for a host's out of memory or a lost peer, a plan that stays, a start from nothing.
    name = f"rank-{rank}"
    said = run(
        workspace, name, budget(workspace, rank, budgets.BETWEEN, workspace / f"runs/{name}/checkpoints/step-0000002")
    )
    first, second, last = words(workspace, name)
    assert [word["exitCode"] for word in (first, second, last)] == [80, 80, 0]
    for word, plan in ((first, "keep:48"), (second, "keep:24")):  # two blocks: 24 keeps as many as 48
        assert word["reason"] == "GPUOutOfMemory" and word["step"] == 2
        assert f"under memory plan fp32/resident/{plan}" in word["message"] and "tried to allocate" in word["message"]
    assert "GPUOutOfMemory: fp32/resident/keep:48 → fp32/resident/keep:24, continues from step 2" in said
    assert "GPUOutOfMemory: fp32/resident/keep:24 → fp32/resident/keep:0, continues from step 2" in said
    assert said.count("resuming from step 2") == 2 and "Traceback" not in said
    assert json.loads((workspace / f"runs/{name}/plan.json").read_text())["memory"] == "fp32/resident/keep:0"
    assert lora(workspace, name) == undisturbed
    assert story(workspace, name) == [
        ("CacheStarted", None, None),
        ("Ended", None, 0),
        *(("TrainingStarted", "keep:48", None), ("Ended", None, 80), ("Verdict", "LowerMemoryPlan", 80)),
        *(("TrainingStarted", "keep:24", None), ("Resumed", 2, None), ("Ended", None, 80)),
        ("Verdict", "LowerMemoryPlan", 80),
        *(("TrainingStarted", "keep:0", None), ("Resumed", 2, None), ("Ended", None, 0)),
    ]


def test_where_no_smaller_plan_is_left_it_ends_and_says_what_to_change(workspace):
    library = budget(workspace, 0, budgets.BETWEEN, workspace / "runs/pinned/checkpoints/step-0000002")
    said = run(workspace, "pinned", library, expect=80, memory="fp32/resident/keep:48")
    assert len(words(workspace, "pinned")) == 1
    assert "no smaller memory plan is left" in said and "smaller resolution" in said and "Traceback" not in said


def test_the_cache_stage_has_no_smaller_plan_on_the_cpu(workspace):
    """There the encoders lie in the host's memory: its end is the host's, with what to change."""
    fresh = workspace / "fresh"
    shutil.copytree(workspace / "clips", fresh / "clips")
    shutil.copytree(workspace / "models", fresh / "models")
    said = run(fresh, "fox", budget(workspace, 0, CACHE, fresh / "cache/audio"), expect=79)  # the text encoder is next
    (word,) = words(fresh, "fox")
    assert (word["exitCode"], word["reason"], word["stage"]) == (79, "HostOutOfMemory", "cache")
    assert "tried to allocate" in word["message"] and "Traceback" not in said
