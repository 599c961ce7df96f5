"""What happened to a run, on its volume: in order, each thing once, whatever is killed in between."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from job.shell.conftest import PLAN, write_files
from job.shell.test_cli import killed, stage
from job.shell.test_stage import open_here
from ltx2_job import exitcodes, history, runs
from ltx2_job.errors import ConfigError
from ltx2_job.fence import Fence, Owner
from ltx2_job.transfer import RemoteError, Talk
from ltx2_job.workspace import RunFolder, Workspace
from ltx2_operator.processes import _expand
from peers import Peer

KILLED = {
    "attempt": 1, "stage": "Train", "action": "Retry", "reason": "Killed", "exitCode": 137, "nodes": ["n1"],
    "message": "exit code 137, killed (SIGKILL)", "time": "2026-11-22T10:00:00Z",
}  # fmt: skip
PAUSED = {
    "attempt": 2, "stage": "Cache", "action": "Suspend", "reason": "SuspendedByUser", "nodes": [], "message": "paused",
    "time": "2026-11-22T11:00:00Z",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "fox")
    folder.root.mkdir(parents=True)
    return folder


def events(run: RunFolder) -> list[tuple[str, int, str]]:
    return [(one["event"], one["attempt"], one["stage"]) for one in history.read(run)]


def event(name: str, attempt: int = 1, **more) -> history.Entry:
    return history.entry(name, "uid-1", attempt, "train", **more)


# ------------------------------------------------------------------------------------------------------------ the file


def test_entries_stand_in_their_order_and_once(run):
    """Catches: the verdict of a pod that starts again written twice, an order by time or attempt."""
    later, earlier = event("Resumed", 2, step=4), event("Resumed", 1, step=8)
    history.append(run, [later])
    history.append(run, [earlier, later, dict(earlier)])
    assert [one["step"] for one in history.read(run)] == [4, 8]
    history.append(run, [history.verdict(KILLED, "uid-1")])
    history.append(run, [history.verdict(KILLED | {"message": "exit code 137, ki…"}, "uid-1")])
    history.append(run, [history.verdict(KILLED | {"time": "2026-11-22T10:00:01Z"}, "uid-1")])
    assert events(run) == [("Resumed", 2, "train"), ("Resumed", 1, "train"), *[("Verdict", 1, "train")] * 2]


def test_half_a_line_stays_alone(run):
    """A killed writer's. Catches: the next entry glued to it and lost with it."""
    history.append(run, [event("Resumed", step=1)])
    with run.history.open("ab") as file:
        file.write('{"event": "Ended", "message": "bytes of a → cut'.encode()[:-5])
    assert events(run) == [("Resumed", 1, "train")]
    history.append(run, [event("Resumed", step=2)])
    assert [one["step"] for one in history.read(run)] == [1, 2]
    assert len(run.history.read_bytes().splitlines()) == 3


WRITER = """
import sys
from pathlib import Path
from ltx2_job import history
from ltx2_job.workspace import RunFolder
print("begun", flush=True)
for step in range(int(sys.argv[2]), 10**6):
    history.append(RunFolder(Path(sys.argv[1])), [history.entry("Resumed", "u", 1, "train", step=step)])
"""


def test_what_was_appended_before_a_kill_is_whole(run):
    """Catches: an entry that appears before the one in front of it, a file that a kill makes unreadable."""
    reached = 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(run.root), str(reached + 1)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None and writer.stdout.readline() == "begun\n"
        while len(history.read(run)) <= reached:
            assert writer.poll() is None
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        steps = [one["step"] for one in history.read(run)]
        assert steps == list(range(1, len(steps) + 1)) and len(steps) > reached
        reached = len(steps)


def test_a_volume_that_takes_no_more_is_named(run):
    run.history.mkdir()
    with pytest.raises(OSError) as caught:
        history.append(run, [event("Resumed", step=1)])
    assert caught.value.filename == str(run.history)


# ------------------------------------------------------------------------------------------- what the operator hands on


@pytest.mark.parametrize("message", ["costs $(LTX2JOB_UID) and $$5", "π ≠ 3, \"quoted\", 'too', back\\slash"])
def test_verdicts_come_through_a_variable_as_they_were(message):
    """Kubernetes expands $(NAME) in values. Catches: a message that changes on its way, or breaks the JSON."""
    value = history.handed_on([KILLED | {"message": message}, PAUSED])
    assert _expand(value, {"LTX2JOB_UID": '"uid'}) == value
    first, second = history.handed(value, "uid-1")
    assert first == {
        "time": "2026-11-22T10:00:00Z", "event": "Verdict", "uid": "uid-1", "attempt": 1, "stage": "train",
        "action": "Retry", "reason": "Killed", "exitCode": 137, "nodes": ["n1"], "message": message,
    }  # fmt: skip
    assert (second["attempt"], second["stage"], second["action"]) == (2, "cache", "Suspend")
    assert "exitCode" not in second and "nodes" not in second


def test_ten_long_verdicts_fit_into_a_job():
    value = history.handed_on([KILLED | {"message": "x" * 4096}] * 10)
    assert len(value) < 8192 and all(len(one["message"]) == 400 for one in history.handed(value, ""))


@pytest.mark.parametrize("value", ["", "[", "{}", "3", '[3, "x", null]'])
def test_what_is_no_verdict_ends_no_training(value):
    """An older operator hands nothing on; a newer one may have other ways."""
    assert history.handed(value, "uid-1") == []


def test_a_stage_writes_the_verdicts_before_its_own_line(files, tmp_path):
    """Catches: verdicts after the begin that they led to, a second start that repeats them, a rank that writes too."""
    first = open_here(files, tmp_path, {"LTX2JOB_UID": "uid-1"}, name="cache")
    first.reporter.close(0, "done")
    given = {"LTX2JOB_UID": "uid-1", "LTX2JOB_VERDICTS": history.handed_on([KILLED])}
    for _ in range(2):
        open_here(files, tmp_path, given, attempt=2).reporter.close(0, "done")
    open_here(files, tmp_path, given | {"RANK": "1", "WORLD_SIZE": "2"}, attempt=9)
    told = events(first.run)
    assert told[:3] == [("CacheStarted", 1, "cache"), ("Verdict", 1, "train"), ("TrainingStarted", 2, "train")]
    assert {name for name, _, _ in told[3:]} <= {"TrainingStarted"}  # a second later it is another start


def test_a_begin_says_on_what_and_under_which_plan(tmp_path):
    plan = {**PLAN, "gpuClass": "h100-80g", "nodes": 2, "processes": 8, "memory": "bf16/resident/keep:24"}
    files = write_files(tmp_path / "files", plan=plan)
    for name in ("cache", "train"):
        stage = open_here(files, tmp_path, {"WORLD_SIZE": "16"}, name=name)
        stage.reporter.close(0, "done")
    cache, train = history.read(stage.run)
    assert (cache["gpuClass"], cache["nodes"], cache["processes"], cache["cacheMemory"]) == ("h100-80g", 1, 1, "device")
    assert (train["nodes"], train["processes"], train["memory"]) == (2, 8, "bf16/resident/keep:24")


def test_a_run_that_goes_on_says_from_where(files, tmp_path):
    """Catches: a line for a start at step 0, and one by an attempt that has lost the folder."""
    stage = open_here(files, tmp_path)
    stage.reporter.resumed(0, (), 2)
    stage.reporter.resumed(4, (), 2)
    assert [one.get("step") for one in history.read(stage.run)] == [None, 4]
    Fence.claim(stage.run, Owner.now("", 2, "another"))
    with pytest.raises(Exception, match="owns this run now"):
        stage.reporter.resumed(6, (), 2)
    assert len(history.read(stage.run)) == 2
    stage.reporter.close(87, "superseded")


def test_another_runs_folder_gets_no_begin(files, tmp_path):
    """Catches: the begin of a stage that was refused before it touched anything."""
    stage = open_here(files, tmp_path)
    stage.reporter.close(0, "done")
    (stage.run.checkpoints / "step-0000010").mkdir(parents=True)
    (stage.run.checkpoints / "step-0000010" / "manifest.json").write_text("{}")
    other = write_files(tmp_path / "other", {**json.loads((files / "config.json").read_text()), "lora_rank": 8})
    with pytest.raises(ConfigError):
        open_here(other, tmp_path, attempt=2)
    assert [one["attempt"] for one in history.read(stage.run)] == [1]


# -------------------------------------------------------------------------------------------------------- how it ended


def test_the_launcher_writes_the_end_once(tmp_path, files):
    """Worker and launcher both know of it. Catches: two ends of one attempt, none, one that lacks its reason."""
    code, word = stage(tmp_path, files, LTX2JOB_UID="uid-1")
    begun, end = history.read(RunFolder(tmp_path / "runs/fox"))
    assert begun["event"] == "TrainingStarted" and begun["uid"] == end["uid"] == "uid-1"
    assert (end["event"], end["exitCode"], end["reason"]) == ("Ended", code, "WaitingForData")
    assert end["message"] == word["message"] and "step" not in end


@pytest.mark.parametrize(("code", "step"), [(exitcodes.HOST_OUT_OF_MEMORY, 500), (137, 12)])
def test_the_launcher_tells_the_end_of_a_killed_worker(tmp_path, files, monkeypatch, run, code, step):
    Fence.claim(run, Owner.now("uid-1", 1, "pod-1"))
    run.attempts.mkdir()
    (run.attempts / "1.json").write_text(json.dumps({"stage": "train", "step": step}))
    killed(monkeypatch, code)
    stage(tmp_path, files, LTX2JOB_UID="uid-1", LTX2JOB_POD_UID="pod-1")
    (end,) = history.read(run)
    assert (end["exitCode"], end["reason"], end["step"]) == (code, exitcodes.lookup(code).reason, step)


def test_the_launcher_writes_nothing_into_another_owners_folder(tmp_path, files, monkeypatch, run):
    Fence.claim(run, Owner.now("uid-1", 2, "pod-2"))
    killed(monkeypatch, 137)
    stage(tmp_path, files, LTX2JOB_UID="uid-1", LTX2JOB_POD_UID="pod-1")
    assert not run.history.exists()


# ------------------------------------------------------------------------------------------------------- looking at it


def test_attempts_from_before_there_was_a_history_are_told_by_their_last_words(run):
    """Catches: a run of an older version that tells nothing, a word told beside the lines of its own attempt."""
    run.attempts.mkdir()
    for attempt, uid, code in ((10, "uid-1", 0), (2, "uid-1", 70), (9, "uid-1", None)):
        page = {"uid": uid, "attempt": attempt, "stage": "train", "time": "t", "message": "m", "reason": "r"}
        page |= {} if code is None else {"exitCode": code}
        (run.attempts / f"{attempt}.json").write_text(json.dumps(page))
    (run.attempts / "notes.json").write_text("{}")
    assert [(one["event"], one["attempt"], one["exitCode"]) for one in history.told(run)] == [
        ("Ended", 2, 70), ("Ended", 10, 0),
    ]  # fmt: skip
    history.append(run, [event("TrainingStarted", 10)])
    assert [(one["event"], one["attempt"]) for one in history.told(run)] == [("Ended", 2), ("TrainingStarted", 10)]


def test_verdicts_that_no_job_wrote_down_stand_behind_their_attempt(run):
    """Those of the object, where it is left. Catches: one that is told twice, or at the end of another attempt."""
    first = [event("TrainingStarted", 1), history.verdict(KILLED, "uid-1")]
    entries = [*first, event("TrainingStarted", 2), event("TrainingStarted", 3)]
    found = history.with_verdicts(entries, [KILLED, PAUSED | {"attempt": 2}, PAUSED | {"attempt": 3}], "uid-1")
    assert [(one["event"][:1], one["attempt"]) for one in found] == [
        ("T", 1), ("V", 1), ("T", 2), ("V", 2), ("T", 3), ("V", 3),
    ]  # fmt: skip
    assert [one["event"] for one in history.with_verdicts(entries, [KILLED], "another")][-1] == "Verdict"


@pytest.mark.parametrize(
    ("last", "state"),
    [
        (None, None),
        (event("TrainingStarted"), "Unfinished"),
        (history.ended("u", 1, "cache", 0, "done"), "Unfinished"),
        (history.ended("u", 1, "train", 85, "stopped", 4), "Stopped"),
        (history.ended("u", 1, "train", 78, "wrong"), "Failed"),
        (history.ended("u", 1, "train", 70, "a defect"), "Failed"),
        (history.ended("u", 1, "train", 66, "no clips"), "Waiting"),
    ],
)
def test_the_state_of_a_run_follows_from_its_folder(run, last, state):
    if last:
        history.append(run, [last])
    assert runs.facts(run)["state"] == state
    run.result.write_text(json.dumps({"steps": 6, "finalLoss": 0.5, "heldOutLoss": {"start": 2.0, "end": 1.0}}))
    found = runs.facts(run)
    assert found["state"] == "Succeeded"
    assert (found["step"], found["maxSteps"], found["loss"], found["heldOutLoss"]) == (6, 6, 0.5, 1.0)


def test_the_numbers_of_a_run_without_a_result_are_its_newest_words(run):
    """Catches: the numbers of the attempt with the highest number where an older object counted further, and the
    clips of a cache stage taken for steps.
    """
    run.attempts.mkdir()
    run.config.write_text(json.dumps({"max_train_steps": 40}))
    words = ((7, "2026-11-22", "train", 30), (1, "2026-11-23", "train", 12), (2, "2026-11-24", "cache", 9))
    for number, day, name, step in words:
        page = {"time": f"{day}T10:00:00Z", "stage": name, "step": step, "maxSteps": 0, "loss": step / 100}
        (run.attempts / f"{number}.json").write_text(json.dumps(page))
    found = runs.facts(run)
    assert (found["step"], found["maxSteps"], found["loss"], found["heldOutLoss"]) == (12, 40, 0.12, None)
    (run.attempts / "1.json").unlink()
    (run.attempts / "7.json").unlink()
    (run.checkpoints / "step-0000020").mkdir(parents=True)
    assert runs.facts(run)["step"] is None
    (run.checkpoints / "step-0000020" / "manifest.json").write_text("{}")
    assert runs.facts(run)["step"] == 20


def test_the_runs_of_a_volume_are_one_page(tmp_path, run):
    """As a pod says it to `ltx2 ls --claim`. Catches: a history that is sent for every run, a run that is not found."""
    elsewhere = RunFolder(tmp_path / "output" / "hen")
    for name, folder in (("fox", run), ("hen", elsewhere)):
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.config.write_text("{}")
        history.append(folder, [event("TrainingStarted")])
        Workspace(tmp_path).note_run(name, folder)

    def asked(*flags: str):
        peer = Peer("runs", "--workspace", str(tmp_path), *flags)
        page = Talk(peer).hear("runs")[1]
        assert peer.end() == 0
        return page

    assert asked() == {name: runs.facts(folder) for name, folder in (("fox", run), ("hen", elsewhere))}
    assert asked("--run", "hen") == {"hen": runs.facts(elsewhere) | {"history": history.told(elsewhere)}}
    peer = Peer("runs", "--workspace", str(tmp_path), "--run", "cow")
    with pytest.raises(RemoteError, match="--run cow: neither"):
        Talk(peer).hear("runs")
    assert peer.end() == exitcodes.NO_INPUT
