"""What a stage is made from, and whether a run folder may be used again."""

import json
import os
import signal
import subprocess
import sys

import pytest

from job.shell.conftest import CONFIG, DATASETS, PLAN, write_files
from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError, Stopped, Superseded
from ltx2_job.fence import Owner
from ltx2_job.reporter import LiveReporter, Reporter
from ltx2_job.stage import Stage, StagePlan, StopFlag, ensure_same_run, open_stage, read_files
from ltx2_job.workspace import RunFolder, Workspace


def open_here(files, workspace, environ=None, attempt=1, name="train") -> Stage:
    return open_stage(name, files, workspace, "fox", attempt, StopFlag(), environ or {})


def test_a_stage_holds_what_the_files_say(files, tmp_path):
    """Catches swapped fields of the plan, a rank that is not read, a digest of something else."""
    environ = {"LTX2JOB_UID": "uid-1", "LTX2JOB_POD_UID": "pod-1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    stage = open_here(files, tmp_path, environ, attempt=3)
    stage.reporter.close(0, "done")
    assert stage.plan == StagePlan("cpu", "cpu", 1, 1, "fp32/resident/keep:48", "device")
    assert [StagePlan.read({**PLAN, "cpuMilli": milli}).cores for milli in (6500, 500)] == [6, 1]
    assert (stage.name, stage.run_name, stage.attempt, stage.uid, stage.rank, stage.world) == (
        "train",
        "fox",
        3,
        "uid-1",
        0,
        2,
    )
    assert stage.config.max_train_steps == 20 and stage.datasets[0].id == "clips"
    assert stage.digest == resolve(CONFIG, DATASETS).digest
    owner = Owner.read(stage.run.attempt)
    assert (owner.uid, owner.attempt, owner.pod_uid) == ("uid-1", 3, "pod-1")


def test_what_was_used_lies_in_the_run_folder(files, tmp_path):
    """Catches copies of the raw input: the resolved configuration is what was really used."""
    stage = open_here(files, tmp_path)
    stage.reporter.close(0, "done")
    dump = resolve(CONFIG, DATASETS).dump()
    assert json.loads(stage.run.config.read_text()) == dump["config"]
    assert json.loads(stage.run.datasets.read_text()) == dump["datasets"]
    assert json.loads(stage.run.plan.read_text()) == PLAN


def test_a_run_elsewhere_is_found_by_its_name(tmp_path):
    """Catches a run whose output_dir lies elsewhere and that no command finds: ls, gc, --run."""
    for output_dir, name in (("output/fox", "fox"), (None, "hen")):
        config = CONFIG | ({"output_dir": output_dir} if output_dir else {})
        files = write_files(tmp_path / "files", config)
        stage = open_stage("train", files, tmp_path, name, 1, StopFlag(), {})
        stage.reporter.close(0, "done")
    runs = {name: run.root for name, run in Workspace(tmp_path).runs().items()}
    assert runs == {"fox": tmp_path / "output/fox", "hen": tmp_path / "runs/hen"}


def test_a_name_stands_for_the_folder_it_was_used_for_last(tmp_path):
    """Catches `--run fox` that opens the folder of an earlier command."""
    place, used = Workspace(tmp_path), []
    for output_dir in (None, "output/one", "output/two", "output/one", None):
        run = place.run("fox", output_dir)
        run.root.mkdir(parents=True, exist_ok=True)
        place.note_run("fox", run)
        used.append(run)
        assert place.runs() == {"fox": run}
        assert place.every_run() == sorted(set(used), key=lambda each: each.root)


def test_only_rank_0_writes(files, tmp_path):
    """Catches eight ranks that claim the run from each other, append to one log and fight for one port."""
    stage = open_here(files, tmp_path, {"RANK": "1", "WORLD_SIZE": "2", "LTX2JOB_PORT": "1"})
    assert type(stage.reporter) is Reporter and not stage.run.root.exists()
    stage.fence.check()
    first = open_here(files, tmp_path)
    first.reporter.close(0, "done")
    assert type(first.reporter) is LiveReporter


def test_what_a_killed_process_left_half_written_is_swept(files, tmp_path):
    """Catches temporary files that gather with every kill, and a sweep that takes more than them."""
    run = RunFolder(tmp_path / "runs" / "fox")
    left = [run.root / ".report.json.a1.tmp", run.attempts / ".1.json.b2.tmp"]
    left.append(run.validation / ".step-0000002.tmp" / "a.mp4")
    kept = [run.attempts / "1.json", run.validation / "step-0000001" / "a.mp4", run.root / ".mine"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    open_here(files, tmp_path, {"RANK": "1", "WORLD_SIZE": "2"})
    assert all(path.exists() for path in left)  # only the owner of the run may know that nobody is writing them
    open_here(files, tmp_path).reporter.close(0, "done")
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
    assert not (run.validation / ".step-0000002.tmp").exists()


def test_output_dir_replaces_the_run_folder(tmp_path):
    """Decision 3: catches a second folder beside the one the guide's user named."""
    files = write_files(tmp_path / "files", {**CONFIG, "output_dir": "output/examples/fox"})
    stage = open_here(files, tmp_path)
    stage.reporter.close(0, "done")
    assert stage.run.root == tmp_path / "output" / "examples" / "fox"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["fox.json"], "a note of where it lies, no more"


def test_a_later_attempt_shuts_out_an_earlier_one(files, tmp_path):
    """Catches a stage that reads the run folder before it owns it."""
    open_here(files, tmp_path, attempt=2).reporter.close(0, "done")
    with pytest.raises(Superseded):
        open_here(files, tmp_path, attempt=1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"device": "tpu"}, "plan.device"),
        ({"nodes": 0}, "plan.nodes"),
        ({"processes": "2"}, "plan.processes"),
        ({"nodes": True}, "plan.nodes"),
        ({"memory": None}, "plan.memory"),
        ({"cacheMemory": "disk"}, "plan.cacheMemory"),
    ],
)
def test_a_wrong_plan_is_named(change, field):
    """Catches a KeyError for the user, and a plan that is half believed."""
    with pytest.raises(ConfigError) as caught:
        StagePlan.read({**PLAN, **change})
    assert [problem.field for problem in caught.value.problems] == [field]
    assert str(next(iter(change.values()))) in str(caught.value)


def test_missing_or_torn_files_are_named(files, tmp_path):
    """Catches a traceback where the ConfigMap is not mounted."""
    (files / "datasets.json").write_text("[{")
    with pytest.raises(ConfigError, match=r"datasets\.json.*not JSON"):
        open_here(files, tmp_path)
    (files / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json.*missing"):
        open_here(files, tmp_path)


# --- the same name again --------------------------------------------------------------------------


def trained(tmp_path, **changes) -> RunFolder:
    """A run folder that another command has made and trained in."""
    run = RunFolder(tmp_path / "runs" / "fox")
    ensure_same_run(run, resolve({**CONFIG, **changes}, DATASETS).dump(), "latest")
    folder = run.checkpoints / "step-0000010"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return run


def test_the_same_configuration_goes_on(tmp_path):
    """Catches a comparison of texts: 1e-4 and 0.0001, aliases and defaults are the same configuration."""
    run = trained(tmp_path)
    ensure_same_run(run, resolve({**CONFIG, "learning_rate": "0.0001", "lora_rank": 32}, DATASETS).dump(), "latest")


def test_another_configuration_is_refused_and_shown(tmp_path):
    """Catches mixing two trainings in one folder, and an error that does not say where they differ."""
    run = trained(tmp_path)
    other = [{**DATASETS[0], "repeats": 3}, {**DATASETS[0], "id": "more"}]
    with pytest.raises(ConfigError) as caught:
        ensure_same_run(run, resolve({**CONFIG, "learning_rate": 2e-4}, other).dump(), "latest")
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["config.learning_rate", "datasets[clips].repeats", "datasets[more]"]
    assert (
        "0.0002" in str(caught.value)
        and "0.0001" in str(caught.value)
        and "resume_from_checkpoint" in str(caught.value)
    )
    assert json.loads(run.config.read_text())["learning_rate"] == 1e-4


def test_naming_a_checkpoint_allows_another_configuration(tmp_path):
    """Decision 21. Catches a refusal that leaves no way on; the copies then say what is used from here on."""
    run = trained(tmp_path)
    ensure_same_run(run, resolve({**CONFIG, "learning_rate": 2e-4}, DATASETS).dump(), "step-0000010")
    assert json.loads(run.config.read_text())["learning_rate"] == 2e-4


@pytest.mark.parametrize("key", ["resume_from_checkpoint", "output_dir"])
def test_how_to_start_is_no_part_of_what_is_trained(tmp_path, key):
    """Catches `latest` after a named checkpoint being refused."""
    run = trained(tmp_path, **{key: "step-0000010"})
    ensure_same_run(run, resolve(CONFIG, DATASETS).dump(), "latest")


def test_a_folder_without_training_in_it_protects_nothing(tmp_path):
    """A first attempt failed at its data; the user repairs the configuration. Catches a folder locked by a failure."""
    run = RunFolder(tmp_path / "runs" / "fox")
    ensure_same_run(run, resolve(CONFIG, DATASETS).dump(), "latest")
    half = run.checkpoints / ".writing-step-0000010-1f"  # killed right before the first checkpoint got its name
    half.mkdir(parents=True)
    (half / "manifest.json").write_text("{}")
    ensure_same_run(run, resolve({**CONFIG, "lora_rank": 8}, DATASETS).dump(), "latest")
    assert json.loads(run.config.read_text())["lora_rank"] == 8


def test_a_default_that_came_with_a_newer_version_is_no_difference(tmp_path):
    """The run was made before the key existed. Catches comparing the raw files."""
    run = trained(tmp_path)
    old = json.loads(run.config.read_text())
    del old["lora_dropout"]
    run.config.write_text(json.dumps(old))
    ensure_same_run(run, resolve(CONFIG, DATASETS).dump(), "latest")


# --- stopping -------------------------------------------------------------------------------------


def test_the_flag_is_raised_once_and_tells_everybody():
    """Catches a callback for each signal, and a listener that comes late and never hears."""
    flag, heard = StopFlag(), []
    flag.check()
    flag.on_request(lambda: heard.append("early"))
    flag.request()
    flag.request()
    flag.on_request(lambda: heard.append("late"))
    assert flag.requested and heard == ["early", "late"]
    with pytest.raises(Stopped) as caught:
        flag.check()
    assert caught.value.exit_code == 85


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_raise_the_flag_and_nothing_else(number):
    """Catches KeyboardInterrupt in the middle of an optimizer step, and a process that dies of SIGTERM."""
    program = (
        "import os, signal, sys; from ltx2_job.stage import StopFlag; flag = StopFlag(); flag.install();"
        f"os.kill(os.getpid(), {int(number)}); os.kill(os.getpid(), {int(number)}); sys.exit(40 + flag.requested)"
    )
    assert subprocess.run([sys.executable, "-c", program], env=os.environ).returncode == 41


# --- what was corrected, and what is not there yet -------------------------------------------------------------------


def test_what_was_corrected_before_the_files_were_written_is_in_the_log(tmp_path):
    """The files are resolved: resolving them again finds nothing. Catches a correction that only the operator saw."""
    config = {**CONFIG, "validation_num_video_frames": 49}
    plan = {**PLAN, "corrections": ["validation_num_video_frames 50 → 49"]}
    files = write_files(tmp_path / "files", config, plan=plan)
    stage = open_here(files, tmp_path)
    stage.reporter.close(0, "done")
    assert stage.reporter.progress.warnings == ["validation_num_video_frames 50 → 49"]
    assert "WARNING validation_num_video_frames 50 → 49" in stage.run.log.read_text()


def test_corrections_of_files_written_by_hand_are_in_the_log_too(tmp_path):
    files = write_files(tmp_path / "files", {**CONFIG, "validation_num_video_frames": 50})
    stage = open_here(files, tmp_path)
    stage.reporter.close(0, "done")
    assert "WARNING validation_num_video_frames 50 → 49 (8k+1)" in stage.run.log.read_text()


def test_corrections_that_are_no_texts_are_refused(tmp_path):
    files = write_files(tmp_path / "files", plan={**PLAN, "corrections": "frames"})
    with pytest.raises(ConfigError, match=r"plan\.corrections: is 'frames', not a list of texts"):
        read_files(files, tmp_path)


def test_a_key_whose_feature_comes_later_ends_the_stage(tmp_path):
    """Nobody else may have looked: files can be written by hand. Catches training on without the feature."""
    files = write_files(tmp_path / "files", {**CONFIG, "vae_enable_tiling": True})
    with pytest.raises(ConfigError, match="vae_enable_tiling: not supported yet"):
        read_files(files, tmp_path)
