"""The command line: help, mistakes, and how a stage that cannot start leaves its last word."""

import json
import subprocess
import sys

import pytest

from job.shell.conftest import CONFIG, DATASETS, PLAN, write_files
from ltx2_job import exitcodes
from ltx2_job.cli import VERBS, build_parser, main
from ltx2_job.fence import Fence, Owner
from ltx2_job.supervise import Order, supervise
from ltx2_job.workspace import RunFolder


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_has_an_example_that_parses(verb, capsys):
    """Catches an example that drifted from the options, and a verb without one."""
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    import shlex

    example = capsys.readouterr().out.partition("example:\n")[2].strip()
    words = shlex.split(example)
    assert words[:2] == ["ltx2-job", verb]
    assert build_parser().parse_args(words[1:]).verb == verb


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["trian"], "did you mean train?"),
        (["genrate", "--prompt", "x"], "did you mean generate?"),
        (["xyz"], "ltx2-job --help"),
        ([], "VERB"),
        (["train", "--run", "fox"], "--files"),
        (["train", "--files", "f", "--run", "fox", "--attempt", "0"], "'0' is not a whole number of 1 or more"),
        (["train", "--files", "f", "--run", "fox", "--att", "2"], "--att"),
        (["generate", "--model", "m", "--prompt", "p", "--output", "o.mp4", "--frames", "50"], "'50' is not 8k+1"),
        (
            ["generate", "--model", "m", "--prompt", "p", "--output", "o.mp4", "--width", "720"],
            "'720' is not a multiple of 32, at least 64",
        ),
        (["generate", "--model", "m", "--prompt", "p", "--output", "o.gif"], "'o.gif' does not end in .mp4"),
        (["tiny", "d", "--version", "2.5"], "2.5"),
        (["config"], "reference|check"),
    ],
)
def test_usage_mistakes_are_64_and_name_the_way_out(words, text, capsys):
    """Catches argparse's code 2, abbreviations that change meaning when an option is added, and a traceback."""
    assert main(words) == exitcodes.USAGE
    error = capsys.readouterr().err
    assert text in error and "Traceback" not in error and len(error.strip().splitlines()) == 1


def test_help_loads_nothing_heavy():
    """The start of every pod and every mistake at the prompt pays for imports: catches one that slips in."""
    program = (
        "import sys; from ltx2_job.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'prometheus_client', 'rich', 'av', 'diffusers'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_launcher_loads_nothing_heavy():
    """It stands beside the training for days. Catches torch in process 1 (half a GiB for nothing)."""
    program = (
        "import sys; import ltx2_job.supervise\n"
        "sys.exit(', '.join({'torch', 'numpy', 'pydantic', 'prometheus_client', 'rich'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def stage(tmp_path, files, verb="train", **environ) -> tuple[int, dict]:
    """Run a stage as a pod does; its code and the termination message."""
    import os

    log = tmp_path / "termination-log"
    order = Order(verb, files, tmp_path, "fox", 1)
    arguments = [verb, "--files", str(files), "--workspace", str(tmp_path), "--run", "fox", "--attempt", "1"]
    code = supervise(order, arguments, {**os.environ, "LTX2JOB_TERMINATION_LOG": str(log), **environ})
    return code, json.loads(log.read_text())


def test_a_configuration_mistake_is_one_line_and_78(tmp_path, capfd):
    """From the launcher through a real worker. Catches a code lost on the way, a traceback, an empty message."""
    files = write_files(tmp_path / "files", {**CONFIG, "learning_rat": 1})
    code, word = stage(tmp_path, files)
    error = capfd.readouterr().err
    assert code == word["exitCode"] == exitcodes.CONFIG and word["reason"] == "InvalidConfig"
    assert "learning_rat" in word["message"] and "learning_rate" in word["message"]
    assert error.startswith("error: ") and error.count("error: ") == 1 and "Traceback" not in error
    assert (word["run"], word["stage"], word["attempt"]) == ("fox", "train", 1)


def test_training_without_a_cache_says_so(tmp_path, files):
    """Catches a defect's traceback where the cache stage never ran; the word is on the volume too."""
    code, word = stage(tmp_path, files)
    assert code == exitcodes.NO_INPUT and "index.json" in word["message"]
    assert json.loads((tmp_path / "runs" / "fox" / "attempts" / "1.json").read_text()) == word
    assert "exit code 66" in (tmp_path / "runs" / "fox" / "log.txt").read_text()


def test_several_nodes_without_an_address_are_refused_by_the_launcher(tmp_path):
    """Catches one-node training on every node of a cluster that forgot the address."""
    files = write_files(tmp_path / "files", plan={**PLAN, "nodes": 2})
    code, word = stage(tmp_path, files, JOB_COMPLETION_INDEX="1", LTX2JOB_MASTER_ADDR="")
    assert code == word["exitCode"] == exitcodes.CONFIG and "LTX2JOB_MASTER_ADDR" in word["message"]


def killed(monkeypatch, code: int) -> None:
    """Let the workers end with a code and without a word, as after SIGKILL."""
    monkeypatch.setattr("ltx2_job.supervise.Launcher.run", lambda self: code)


def test_the_launcher_speaks_for_a_killed_worker(tmp_path, files, monkeypatch, capsys):
    """The checkpoint's word stays, the ending is added. Catches an empty termination message after an OOM kill."""
    run = RunFolder(tmp_path / "runs" / "fox")
    Fence.claim(run, Owner.now("uid-1", 1, "pod-1"))
    run.attempts.mkdir()
    told = {"stage": "train", "step": 500, "checkpoint": {"step": 500}, "warnings": []}
    (run.attempts / "1.json").write_text(json.dumps(told))
    killed(monkeypatch, exitcodes.HOST_OUT_OF_MEMORY)
    code, word = stage(tmp_path, files, LTX2JOB_UID="uid-1", LTX2JOB_POD_UID="pod-1")
    assert code == word["exitCode"] == 79 and word["reason"] == "HostOutOfMemory"
    assert word["step"] == word["checkpoint"]["step"] == 500
    assert capsys.readouterr().err == "error: the host's memory limit was reached\n"
    assert json.loads((run.attempts / "1.json").read_text()) == word


@pytest.mark.parametrize(("word", "expected"), [({"exitCode": 85}, 85), ({"step": 4}, 86), (None, 86)])
def test_a_kill_after_the_stops_checkpoint_loses_nothing(tmp_path, files, monkeypatch, word, expected):
    """A second Ctrl-C, or the end of the grace period, while the worker takes itself apart; an older attempt's word of
    the same number stands there. Catches 86 for a run whose checkpoint is complete, and 85 for one whose is not.
    """
    run = RunFolder(tmp_path / "runs" / "fox")
    Fence.claim(run, Owner.now("", 1, "pod-1"))
    run.attempts.mkdir()
    told = run.attempts / "1.json"
    told.write_text(json.dumps({"stage": "train", "exitCode": 85, "step": 2}))

    def end(self) -> int:
        if word is not None:
            told.write_text(json.dumps({"stage": "train", **word}))
        return exitcodes.STOPPED_UNSAVED

    monkeypatch.setattr("ltx2_job.supervise.Launcher.run", end)
    code, last = stage(tmp_path, files)
    assert code == last["exitCode"] == expected


def test_the_launcher_leaves_another_owners_folder_alone(tmp_path, files, monkeypatch):
    """Catches a lost node's launcher that overwrites its successor's word."""
    run = RunFolder(tmp_path / "runs" / "fox")
    Fence.claim(run, Owner.now("uid-1", 1, "pod-2"))
    killed(monkeypatch, 137)
    code, word = stage(tmp_path, files, LTX2JOB_UID="uid-1", LTX2JOB_POD_UID="pod-1")
    assert code == word["exitCode"] == 137 and not run.attempts.exists()


def test_the_cache_stages_word_is_not_mistaken_for_the_train_stages(tmp_path, files, monkeypatch):
    """Both stages of an attempt use one file. Catches a train stage that was killed and reports the cache's success."""
    run = RunFolder(tmp_path / "runs" / "fox")
    Fence.claim(run, Owner.now("", 1, "pod-1"))
    run.attempts.mkdir()
    (run.attempts / "1.json").write_text(json.dumps({"stage": "cache", "exitCode": 0, "items": {"done": 9}}))
    killed(monkeypatch, 137)
    code, word = stage(tmp_path, files)
    assert code == word["exitCode"] == 137 and word["stage"] == "train" and "items" not in word


def test_caching_has_one_process_and_training_one_per_gpu(tmp_path, monkeypatch):
    """Catches eight writers of one store."""
    files = write_files(tmp_path / "files", plan={**PLAN, "processes": 8})
    started = []
    monkeypatch.setattr("ltx2_job.supervise.Launcher.run", lambda self: started.append(len(self.environments)) or 0)
    for verb in ("cache", "train"):
        stage(tmp_path, files, verb)
    assert started == [1, 8]


def test_config_check_explains(tmp_path, capsys):
    """Catches a check that passes what the run would refuse, and corrections that nobody sees."""
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "validation_num_video_frames": 62}))
    (tmp_path / "datasets.json").write_text(json.dumps(DATASETS))
    words = ["config", "check", str(tmp_path / "config.json"), "--datasets", str(tmp_path / "datasets.json")]
    assert main(words) == 0
    assert "62 → 57" in capsys.readouterr().out
    (tmp_path / "config.json").write_text("{")
    assert main(words) == exitcodes.CONFIG
    assert main(["config", "check", str(tmp_path / "absent.json")]) == exitcodes.NO_INPUT
