"""What is told of a run afterwards: a real `ltx2 run` whose first attempt is killed before it can say a word."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ltx2_job import history
from ltx2_job.workspace import Workspace, read_page
from stories import KILLED_ONCE, outline

LTX2 = str(Path(sys.executable).parent / "ltx2")
STEPS, EVERY = 160, 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes of a run in /proc"),
]


@pytest.fixture
def workspace(tmp_path, real_clips, tiny20):
    (tmp_path / "clips").mkdir()
    for suffix in (".mp4", ".txt"):
        shutil.copy(real_clips / f"bigbuckbunny{suffix}", tmp_path / "clips")
    shutil.copytree(tiny20.parent, tmp_path / "models")
    config = {
        "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors", "resolution": 64, "lora_rank": 4,
        "max_train_steps": STEPS, "checkpoint_step_interval": EVERY, "validation_disable": True,
    }  # fmt: skip
    clips = {"id": "clips", "instance_data_dir": "clips", "video": {"num_frames": 17, "min_frames": 17}}
    spec = {"gpu": {"class": "cpu"}, "config": config, "datasets": [clips]}
    body = {"apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": "fox"}, "spec": spec}
    (tmp_path / "fox.yaml").write_text(yaml.safe_dump(body))
    return tmp_path


def typed(workspace, *words):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LTX2")}
    environment |= {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([LTX2, *words], cwd=workspace, env=environment, text=True, **pipes)


def kill_without_a_word(run, command):
    """The launcher of the train stage and its worker, once a checkpoint is there."""
    while not list(run.checkpoints.glob("step-*/manifest.json")):
        assert command.poll() is None, command.communicate()
        time.sleep(0.005)
    (process,) = read_page(run.root / "training.json")["processes"]
    launcher = process["pid"]
    os.kill(launcher, signal.SIGSTOP)  # so that it does not tell how its worker ended
    for worker in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    os.kill(launcher, signal.SIGKILL)


def test_a_run_whose_first_attempt_was_killed_is_told_from_beginning_to_end(workspace):
    run = Workspace(workspace).run("fox")
    command = typed(workspace, "run", "fox.yaml")
    kill_without_a_word(run, command)
    said = command.communicate(timeout=300)[0]
    assert command.returncode == 0, said
    told = history.read(run)
    assert outline(told) == KILLED_ONCE
    assert (told[3]["action"], told[3]["reason"]) == ("Retry", "Killed")
    assert 0 < told[5]["step"] < STEPS and told[5]["step"] % EVERY == 0
    assert told[6]["step"] == STEPS and [one["time"] for one in told] == sorted(one["time"] for one in told)
    (run.root / "training.json").unlink()  # what is known of it beside its folder
    listing = typed(workspace, "ls", "fox").communicate()[0].splitlines()
    assert listing[1].split()[:3] == ["fox", "Succeeded", f"{STEPS}/{STEPS}"]
    assert [line.split(maxsplit=3)[3] for line in listing[4:]] == [
        "CacheStarted: cpu, VAE and text encoder on the device",
        "Completed: done (exit code 0)",
        "TrainingStarted: cpu, fp32/resident/keep:48",
        "operator: Retry, Killed: exit code 137, killed (SIGKILL)",
        "TrainingStarted: cpu, fp32/resident/keep:48",
        f"Resumed: goes on from step {told[5]['step']}",
        f"Completed at step {STEPS}: done (exit code 0)",
    ]
