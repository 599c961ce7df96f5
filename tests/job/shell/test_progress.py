"""The progress page and the last word: their keys, their size, and what hostile text does to them."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx2_job.progress import LIMIT, Progress, clean, encode, write_last_word
from ltx2_job.workspace import RunFolder


def page(**fields) -> dict:
    """A progress page with these fields, as a reader of the wire gets it."""
    return json.loads(encode(Progress("fox", "uid-1", 2, "train", **fields).page()))


def test_the_page_has_the_contracts_keys():
    """The operator reads exactly these. Catches a renamed or missing one."""
    got = page(step=1250, max_steps=2000, loss=0.5, checkpoint={"step": 1000, "path": "a", "time": "b"})
    assert set(got) == {
        "version", "run", "uid", "attempt", "stage", "state", "step", "maxSteps", "loss", "heldOutLoss",
        "secondsPerStep", "etaSeconds", "checkpoint", "items", "warnings", "time",
    }  # fmt: skip
    assert (got["version"], got["run"], got["uid"], got["attempt"], got["stage"]) == (1, "fox", "uid-1", 2, "train")
    assert got["items"] == {"done": 0, "total": 0, "skipped": 0} and got["checkpoint"]["step"] == 1000
    assert got["time"].endswith("Z")


def test_remaining_time_follows_the_pace():
    """Catches seconds and steps mixed up, and one slow step that doubles the estimate."""
    progress = Progress("fox", "", 1, "train", step=500, max_steps=2000)
    assert progress.eta_seconds is None
    for _ in range(50):
        progress.saw_step(2.0)
    assert progress.eta_seconds == pytest.approx(3000)
    progress.saw_step(12.0)
    assert progress.eta_seconds == pytest.approx(1500 * 2.5)


def test_a_loss_that_is_no_number_is_null():
    """JSON has no NaN: a page with one could not be read by the operator at all."""
    raw = encode(Progress("fox", "", 1, "train", loss=math.nan, held_out_loss=-math.inf).page())
    assert b"NaN" not in raw and json.loads(raw)["loss"] is None and json.loads(raw)["heldOutLoss"] is None


HOSTILE = (
    st.text(max_size=6000) | st.just("\udcff\ud800" * 3000) | st.just("\x00\n\u202e" * 2000) | st.just("😀" * 4000)
)


@given(
    HOSTILE,
    st.lists(HOSTILE, max_size=20),
    HOSTILE,
    st.dictionaries(HOSTILE, HOSTILE | st.floats() | st.integers(), max_size=30),
)
def test_whatever_flows_in_the_last_word_fits_and_keeps_its_numbers(name, warnings, message, result):
    """Catches a limit counted in characters, surrogates of undecodable names, a result that crowds out the code."""
    progress = Progress(
        name, name, 1, "train", step=7, warnings=warnings, checkpoint={"step": 5, "path": name, "time": ""}
    )
    progress.result.update(result)
    raw = encode(progress.last_word(80, message))
    got = json.loads(raw)
    assert len(raw) <= LIMIT
    assert (got["exitCode"], got["reason"], got["step"], got["checkpoint"]["step"]) == (80, "GPUOutOfMemory", 7, 5)
    assert all(character.isprintable() for character in got["message"] + got["run"])


def test_a_long_message_keeps_its_beginning():
    """Catches cutting the front, where the field's name stands."""
    got = json.loads(encode(Progress("fox", "", 1, "train").last_word(78, "learning_rate: is " + "9" * 9000)))
    assert got["message"].startswith("learning_rate: is 999") and 1000 < len(got["message"]) <= 1600
    assert got["message"].endswith("…")


def test_only_the_newest_warnings_are_kept():
    """Catches keeping the oldest."""
    got = page(warnings=[f"warning {number}" for number in range(20)])
    assert got["warnings"] == [f"warning {number}" for number in range(15, 20)]


def test_clean_makes_one_printable_line():
    """Catches a line feed that would forge a second log line, and bytes no encoder takes."""
    assert clean("a\n b\tc\x1b[31m\udcff", 40) == "a b c?[31m?"
    assert clean("x" * 50, 10) == "x" * 9 + "…"


def test_the_last_word_goes_to_both_places(tmp_path):
    """Catches replacing the termination log by a rename: it is a mounted file, a rename over it fails."""
    log, run = tmp_path / "termination-log", RunFolder(tmp_path / "runs" / "fox")
    log.write_text("older and longer " * 500)
    inode = log.stat().st_ino
    write_last_word(Progress("fox", "", 3, "train").last_word(0, "done"), log, run, 3)
    assert log.stat().st_ino == inode
    assert json.loads(log.read_text()) == json.loads((run.attempts / "3.json").read_text())
    assert json.loads(log.read_text())["exitCode"] == 0
