"""What a stage's reports become: lines, logs, numbers, pages and the last word."""

import contextlib
import io
import json
import logging
import re
import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ltx2_job.console import PlainConsole, RichConsole, describe, duration, open_console
from ltx2_job.errors import Superseded
from ltx2_job.fence import Fence, Owner
from ltx2_job.progress import Progress
from ltx2_job.reporter import LiveReporter
from ltx2_job.workspace import RunFolder


class Setup:
    """A live reporter over a run folder, a clock that is set by hand, and what its console printed."""

    def __init__(self, folder, stage="train", port=None):
        self.run = RunFolder(folder / "runs" / "fox")
        self.fence = Fence.claim(self.run, Owner.now("uid-1", 2, "pod-1"))
        self.now, self.screen, self.log = [100.0], io.StringIO(), folder / "termination-log"
        self.reporter = LiveReporter(
            self.run,
            self.fence,
            Progress("fox", "uid-1", 2, stage),
            PlainConsole(self.screen, lambda: self.now[0]),
            port=port,
            termination_log=self.log,
            clock=lambda: self.now[0],
        )

    def lines(self):
        return self.screen.getvalue().splitlines()

    def numbers(self):
        return [json.loads(line) for line in self.run.metrics.read_text().splitlines()]


@pytest.fixture
def setup(tmp_path):
    made = Setup(tmp_path)
    yield made
    made.reporter.close(0, "done")


def test_a_plain_line_every_ten_seconds_and_at_the_end(setup):
    """Catches a line per step (a pod's log of 2000 lines) and a last step that is never shown."""
    for step in range(1, 8):
        setup.now[0] += 4.0
        setup.reporter.step(step, 7, {"loss": 1.0 / step, "seconds_per_step": 4.0})
    shown = [line.split("  ")[0] for line in setup.lines()]
    assert shown == ["step 1/7", "step 4/7", "step 7/7"]
    assert setup.lines()[0].startswith("step 1/7  loss 1.0000  4.00 s/step  24s left  RAM ")


def test_events_are_never_dropped(setup, tmp_path):
    """Catches an event that only goes to the log, or is held back like steps are."""
    path = tmp_path / "runs" / "fox" / "checkpoints" / "step-0000500"
    setup.reporter.checkpoint(500, path, 1.25)
    setup.reporter.validation(500, [tmp_path / "a.mp4", tmp_path / "b.mp4"])
    setup.reporter.held_out(500, 0.5, {"loss_video": 0.3})
    setup.reporter.warn("a clip is short")
    setup.reporter.warn("a clip is short")
    assert setup.lines() == [
        f"step 500: checkpoint {path} (1.2 s)",
        f"step 500: validation {tmp_path / 'a.mp4'}",
        f"step 500: validation {tmp_path / 'b.mp4'}",
        "step 500: held-out loss 0.5000",
        "warning: a clip is short",
    ]
    log = setup.run.log.read_text()
    assert log.count("a clip is short") == 1 and "WARNING a clip is short" in log and "INFO step 500: checkpoint" in log


def test_metrics_jsonl_has_a_line_for_every_step(setup):
    """The loss curve is made from it. Catches rounded losses, NaN in JSON, a missing held-out loss."""
    setup.reporter.step(1, 9, {"loss": 0.123456789, "loss_video": float("nan"), "learning_rate": 1e-4})
    setup.reporter.held_out(1, 0.75, {"video": 0.5, "audio": 0.25})
    first, second = setup.numbers()
    assert (first["step"], first["loss"], first["loss_video"], first["learning_rate"]) == (1, 0.12345679, None, 1e-4)
    assert (second["step"], second["held_out_loss"], second["held_out_video"], second["held_out_audio"]) == (
        1,
        0.75,
        0.5,
        0.25,
    )
    assert first["time"] > 1.7e9


def test_a_resumed_run_forgets_the_steps_it_repeats(setup):
    """Killed at step 5, resumed from 3: catches a curve with steps 4 and 5 twice, and a torn last line."""
    for step in range(1, 6):
        setup.reporter.step(step, 9, {"loss": float(step)})
    setup.reporter.held_out(3, 0.5, {})
    setup.reporter.close(85, "stopped")
    with setup.run.metrics.open("a") as file:
        file.write('{"time": 1.0, "st')
    again = Setup(setup.run.root.parents[1])
    again.reporter.resumed(3, {3}, 2)
    again.reporter.step(4, 9, {"loss": 40.0})
    again.reporter.close(0, "done")
    assert [(line["step"], line.get("loss", "held out")) for line in again.numbers()] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (3, "held out"), (4, 40.0),
    ]  # fmt: skip
    assert again.lines()[0] == "resuming from step 3"


def test_a_run_that_begins_anew_forgets_its_first_measurement(setup):
    """Killed before its first checkpoint: step 0 is measured again. Catches a held-out loss that is there twice."""
    setup.reporter.held_out(0, 0.5, {})
    setup.reporter.close(137, "killed")
    again = Setup(setup.run.root.parents[1])
    again.reporter.resumed(0, {}, 2)
    again.reporter.held_out(0, 0.5, {})
    again.reporter.close(0, "done")
    assert [line["step"] for line in again.numbers()] == [0]


def test_a_measurement_that_the_checkpoint_does_not_know_is_forgotten(setup):
    """A stop kept step 4 from being measured; the next attempt measured it and was killed. Catches it there twice."""
    setup.reporter.held_out(2, 0.6, {})
    setup.reporter.step(4, 9, {"loss": 0.5})
    setup.reporter.held_out(4, 0.5, {})
    setup.reporter.close(137, "killed")
    again = Setup(setup.run.root.parents[1])
    again.reporter.resumed(4, {2}, 2)
    again.reporter.close(0, "done")
    assert [(line["step"], "loss" in line) for line in again.numbers()] == [(2, False), (4, True)]


def test_leaving_is_said_before_the_end(setup):
    """Whoever kills the process from then on finds the word. Catches one that is written by close alone."""
    setup.reporter.step(4, 9, {"loss": 0.5})
    setup.reporter.leaving("told to stop: step 4 of 9 is done and on disk")
    for place in (setup.log, setup.run.attempts / "2.json"):
        word = json.loads(place.read_text())
        assert (word["exitCode"], word["step"], word["message"][:12]) == (85, 4, "told to stop")
    Fence.claim(setup.run, Owner.now("uid-1", 3, "pod-2"))
    with pytest.raises(Superseded):
        setup.reporter.leaving("told to stop")


def test_leaving_stays_a_stop_where_the_volume_takes_no_word(setup):
    """Catches 73, which nobody tries again, for a run whose checkpoint is complete."""
    setup.run.attempts.write_text("in the way")
    setup.reporter.leaving("told to stop")
    assert json.loads(setup.log.read_text())["exitCode"] == 85
    setup.run.attempts.unlink()


@pytest.mark.parametrize("name", ["log", "metrics"])
def test_a_volume_that_takes_no_more_is_named_by_the_file(setup, name):
    """A failed write names no file of its own. Catches "the volume: no space left", and an end that fails again."""
    file = {"log": "_log", "metrics": "_numbers"}[name]
    with open("/dev/full", "w", buffering=1) as full:
        getattr(setup.reporter, file).close()
        setattr(setup.reporter, file, full)
        with pytest.raises(OSError, match="No space left") as caught:
            setup.reporter.step(1, 9, {"loss": 0.5}) if name == "metrics" else setup.reporter.info("a line")
        assert caught.value.filename == str(getattr(setup.run, name))
        setup.reporter.close(73, "no space left")
        assert json.loads(setup.log.read_text())["exitCode"] == 73
        with contextlib.suppress(OSError):
            full.close()


def test_a_fresh_run_does_not_say_that_it_resumes(setup):
    """Catches 'resuming from step 0'."""
    setup.reporter.resumed(0, {}, 2)
    assert setup.lines() == [] and setup.numbers() == []


@pytest.mark.parametrize(
    ("stage", "state", "words"),
    [
        ("train", "training", "finishing step 812, writing checkpoint; again to stop at once"),
        ("train", "validating", "leaving validation, writing checkpoint; again to stop at once"),
        ("train", "loading", "stopping before the first step; again to stop at once"),
        ("cache", "caching", "finishing the item at hand, keeping what is cached; again to stop at once"),
    ],
)
def test_the_first_signal_is_answered(tmp_path, stage, state, words):
    """Catches Ctrl-C that seems ignored while a step of a minute goes on."""
    setup = Setup(tmp_path, stage)
    if stage == "train":
        setup.reporter.step(810, 2000, {})
    setup.reporter.state(state)
    setup.reporter.stopping()
    setup.reporter._announcer.join(5)
    assert setup.lines()[-1] == words
    setup.reporter.close(85, "stopped")


def test_nothing_is_announced_at_a_normal_end(setup):
    """Catches the thread waking at close and claiming a stop."""
    setup.reporter.close(0, "done")
    assert not any("stop" in line for line in setup.lines())


def test_the_pages_are_served_while_it_runs_and_no_longer(tmp_path):
    """Catches a page that is built once, at the start."""
    setup = Setup(tmp_path, port=0)
    port = setup.reporter.server.port
    setup.reporter.state("training")
    setup.reporter.step(7, 20, {"loss": 0.5, "seconds_per_step": 2.0})
    setup.reporter.items(3, 9, "skipped", "video")
    page = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=5).read())
    assert (page["state"], page["step"], page["maxSteps"], page["loss"], page["etaSeconds"]) == (
        "training",
        7,
        20,
        0.5,
        26.0,
    )
    assert page["items"] == {"done": 3, "total": 9, "skipped": 1}
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    assert {family.name for family in text_string_to_metric_families(text)} >= {"ltx2_job_step", "ltx2_job_cache_items"}
    setup.reporter.close(0, "done")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_the_served_page_is_never_longer_than_a_termination_message(tmp_path):
    """Five long warnings about clips with four-byte names. Catches a page that is only cut where it is written."""
    setup = Setup(tmp_path, port=0)
    for index in range(5):
        setup.reporter.warn(f"{index}" + "🟫" * 400)
    setup.reporter.checkpoint(5, setup.run.checkpoints / ("🟫" * 200), 1.0)
    raw = urllib.request.urlopen(f"http://127.0.0.1:{setup.reporter.server.port}/progress", timeout=5).read()
    setup.reporter.close(80, "🟫" * 3000)
    for page in (raw, setup.log.read_bytes()):
        assert len(page) <= 4096, "what Kubernetes keeps of a termination message, and what the operator reads"
        assert json.loads(page)["checkpoint"]["step"] == 5


def test_a_port_that_is_taken_is_a_warning_not_an_end(tmp_path):
    """Two runs on one machine: the second trains on, and says what it lacks. Catches both a crash and silence."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        setup = Setup(tmp_path, port=port)
        setup.reporter.step(1, 2, {"loss": 1.0})
        assert setup.reporter.server is None
        assert f"port {port}" in setup.reporter.progress.warnings[0] and f"warning: port {port}" in setup.lines()[0]
        setup.reporter.close(0, "done")


def test_the_last_word_says_how_it_ended(setup):
    """The operator's proof of success. Catches a result or code that only one of the two places gets."""
    setup.reporter.step(20, 20, {"loss": 0.5})
    setup.reporter.result["lora"] = "runs/fox/lora.safetensors"
    setup.reporter.close(0, "done")
    word = json.loads(setup.log.read_text())
    assert word == json.loads((setup.run.attempts / "2.json").read_text())
    assert (word["exitCode"], word["reason"], word["step"]) == (0, "Completed", 20)
    assert word["result"] == {"lora": "runs/fox/lora.safetensors"}
    setup.reporter.close(70, "twice")
    assert json.loads(setup.log.read_text())["exitCode"] == 0


def test_a_checkpoint_leaves_a_word_for_the_case_of_a_kill(setup, tmp_path):
    """After kill -9 the volume must still say how far it was. Catches a last word that is only written at the end."""
    setup.reporter.step(500, 2000, {"loss": 0.5})
    setup.reporter.checkpoint(500, tmp_path / "step-0000500", 1.0)
    word = json.loads((setup.run.attempts / "2.json").read_text())
    assert word["checkpoint"]["step"] == word["step"] == 500 and "exitCode" not in word


def test_a_checkpoint_counts_as_a_step_that_was_done(setup, tmp_path):
    """The numbers of a step are read one step late. Catches a last word whose step is behind its own checkpoint."""
    setup.reporter.step(31, 2000, {"loss": 0.5})
    setup.reporter.checkpoint(32, tmp_path / "step-0000032", 1.0)
    assert setup.reporter.progress.step == 32


def test_the_last_word_asks_the_fence_whatever_the_clock_says(setup):
    """Superseded within the second for which log lines trust the last look. Catches a loser that speaks last."""
    Fence.claim(setup.run, Owner.now("uid-1", 2, "pod-2"))
    setup.reporter.close(0, "done")
    assert not (setup.run.attempts / "2.json").exists()


def test_a_superseded_attempt_stops_writing(setup):
    """Catches two attempts that append to one log, and a loser that overwrites the winner's last word."""
    successor = Owner.now("uid-1", 2, "pod-2")
    (setup.run.attempts).mkdir()
    (setup.run.attempts / "2.json").write_text("the winner's")
    Fence.claim(setup.run, successor)
    setup.now[0] += 2.0
    before = setup.run.metrics.read_text()
    with pytest.raises(Superseded):
        setup.reporter.step(1, 2, {"loss": 1.0})
    setup.reporter.close(87, "superseded")
    assert setup.run.metrics.read_text() == before
    assert (setup.run.attempts / "2.json").read_text() == "the winner's"
    assert json.loads(setup.log.read_text())["exitCode"] == 87


def test_the_first_loss_that_is_no_number_warns(setup):
    """Catches 2000 warnings, and none."""
    for step in (1, 2, 3):
        setup.reporter.step(step, 9, {"loss": float("nan") if step > 1 else 1.0})
    assert (
        len(setup.reporter.progress.warnings) == 1 and "step 2: the loss is nan" in setup.reporter.progress.warnings[0]
    )


def test_modules_leave_a_trace_without_a_reporter(setup):
    """Catches log records of a library room that vanish; and a handler that stays behind after the end."""
    logging.getLogger("ltx2_job.data.decode").warning("a.mp4: %d frames", 3)
    assert "WARNING a.mp4: 3 frames" in setup.run.log.read_text()
    setup.reporter.close(0, "done")
    assert logging.getLogger("ltx2_job").handlers == []


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_a_terminal_gets_bars_and_a_file_gets_lines():
    """Catches escape codes in a pod's log, and markup in a file name that is taken for a colour."""
    assert isinstance(open_console(io.StringIO()), PlainConsole)
    stream = Terminal()
    console = open_console(stream)
    assert isinstance(console, RichConsole)
    console.items("video", 3, 9)
    console.step(5, 20, "loss 0.5000")
    console.line("wrote [bold]a.mp4")
    console.close()
    text = stream.getvalue()
    assert (
        "video" in text and "3/9" in text and "5/20" in text and "loss 0.5000" in text and "wrote [bold]a.mp4" in text
    )


@pytest.mark.parametrize(
    ("columns", "numbers"), [(40, "loss 0.1"), (80, "audio 0.0234  1.83 s/s"), (160, "GPU 61.6 GiB")]
)
def test_a_narrow_terminal_cuts_the_numbers_and_never_the_count(monkeypatch, columns, numbers):
    """Catches `1250…` for 1250/2000: what a person looks for first is the last thing to be cut."""
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    console = RichConsole(stream)
    memory = ("GPU", int(61.6 * 2**30))
    values = {"loss": 0.1234, "loss_video": 0.1, "loss_audio": 0.0234, "seconds_per_step": 1.83}
    console.step(1250, 2000, describe(values, 1380, memory))
    console.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    last = next(line for line in reversed(shown.splitlines()) if "train" in line).strip()
    assert "1250/2000" in last and numbers in last
    assert len(last) <= columns


def test_numbers_for_people():
    """Catches hours shown as minutes, and parts of the loss mixed up."""
    assert [duration(seconds) for seconds in (0.4, 59.4, 59.6, 3540, 12000)] == ["0s", "59s", "1m", "59m", "3h 20m"]
    text = describe({"loss": 1, "loss_video": 0.75, "loss_audio": 0.25, "seconds_per_step": 2}, 120, ("GPU", 3 << 29))
    assert text == "loss 1.0000  video 0.7500  audio 0.2500  2.00 s/step  2m left  GPU 1.5 GiB"
