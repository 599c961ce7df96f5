"""Runs that are killed, or told to stop, in cache, step, save and validation end as the unbroken one: a sample.

`make test-kill` breaks hundreds (tests/kills).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from kills import campaign, witness
from kills.breaking import Record, Whole, broken, unbroken
from kills.moments import ALL, KILL, PHASES, TERM, Case, plan
from kills.trial import MARK, NAME, Place, copied
from ltx2_job.workspace import read_json, write_json

Find = Callable[[int], Whole]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Find:
    """The unbroken run of so many processes."""

    @cache
    def find(processes: int) -> Whole:
        return unbroken(tmp_path_factory.mktemp("kill") / f"unbroken-{processes}", tiny20, processes)

    return find


@pytest.mark.parametrize(
    "case",
    [
        Case("caching", KILL, 1, ALL, "caching", 1),
        Case("saving", KILL, 1, ALL, "saving", 1),
        Case("training", KILL, 2, "0", "training", 1),
        Case("validating", KILL, 1, ALL, "validating", 1),
        Case("stop-caching", TERM, 1, ALL, "caching", 1),
        Case("stop-validating", TERM, 2, ALL, "validating", 1),
    ],
    ids=lambda case: case.name,
)
def test_a_broken_run_ends_as_the_unbroken_one(tmp_path: Path, whole: Find, case: Case) -> None:
    """The record says what was wrong: files, hashes, steps lost, exit codes, processes left over."""
    record = broken(tmp_path / case.name, whole(case.processes), case)
    assert not record.problems
    assert -9 in record.codes if case.signal == KILL else set(record.codes) == {85}


@pytest.mark.slow
def test_the_launcher_answers_for_two_processes(tmp_path: Path, whole: Find) -> None:
    """As a pod runs it. One of two ranks is killed: the other does not hang, and the code is a kill's. Then SIGTERM to
    the launcher: both leave at one step, with its checkpoint.
    """
    place = copied(whole(2).place, tmp_path / "run", with_cache=True)
    write_json(place.files / "config.json", read_json(place.files / "config.json") | {"max_train_steps": 60})

    def kill_one(launcher: subprocess.Popen[str]) -> None:
        ranks = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(ranks[1]), signal.SIGKILL)

    assert launched(place, 1, kill_one) == 137
    assert read_json(place.termination_log)["exitCode"] == 137 and witness.orphans(place) == []
    kept = witness.newest(place)
    assert launched(place, 2, lambda launcher: launcher.send_signal(signal.SIGTERM)) == 85
    word = read_json(place.termination_log)
    assert (word["exitCode"], word["attempt"]) == (85, 2)
    assert kept < word["step"] == word["checkpoint"]["step"] == witness.newest(place) < 60


def launched(place: Place, attempt: int, act: Callable[[subprocess.Popen[str]], None]) -> int:
    """The exit code of a train stage as its pod starts it, after doing something to it at its first steps."""
    words = ["train", "--files", place.files, "--workspace", place.root, "--run", NAME, "--attempt", attempt]
    environ = {**os.environ, MARK: str(place.base), "LTX2JOB_TERMINATION_LOG": str(place.termination_log)}
    command = [sys.executable, "-m", "ltx2_job.cli", *map(str, words)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                act(process)
                break
        process.communicate(timeout=240)
        return process.returncode


def test_the_plan_of_a_campaign() -> None:
    """The phases in even turns, a third with two processes, and the same again from the same seed."""
    cases = plan(KILL, 200, seed=1)
    assert [sum(case.phase == phase for case in cases) for phase in PHASES] == [50] * 4
    assert sum(case.processes == 2 for case in cases) == 67
    assert {case.target for case in cases if case.processes == 2 and case.phase != "caching"} == {ALL, "0", "1"}
    timetable = {phase: [1.0, 2.0] for phase in PHASES}
    moments = [[next(case.moments(timetable)) for case in plan(KILL, 200, seed)] for seed in (1, 1, 2)]
    assert moments[0] == moments[1] != moments[2] and len(set(moments[0])) == 200


def test_a_campaign_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs that are in the log and in order are not done again; one wrong end is an exit code."""
    asked: list[list[str]] = []

    def do(folder: Path, cases: list[Case], kinds: list[str], log: Path) -> None:
        asked.append([case.name for case in cases])

    monkeypatch.setattr(campaign, "_do", do)
    log = tmp_path / "kills.jsonl"
    records = [asdict(Record(f"KILL-00{i}", KILL, 1, ALL, "caching", codes=[-9])) for i in range(2)]
    log.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"case": "KILL-0')
    words = ["--terms", "0", "--no-full", "--log", str(log), "--kills"]
    assert campaign.main([*words, "2"]) == 0 and not asked
    assert "2 of 2 ended as the unbroken run did" in capsys.readouterr().out
    assert campaign.main([*words, "3"]) == 1 and asked == [["KILL-002"]]
    log.write_text(json.dumps(records[0] | {"problems": ["metrics.jsonl differs"]}) + "\n")
    assert campaign.main([*words, "1"]) == 1 and asked[1:] == [["KILL-000"]]
    assert "0 of 1 ended as the unbroken run did; wrong: KILL-000" in capsys.readouterr().out
