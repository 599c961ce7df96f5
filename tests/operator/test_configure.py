"""`ltx2 configure`: what it asks, what it refuses, and that what it writes is what the other verbs take."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ltx2_operator import machine, manifest
from ltx2_operator.cli import build_parser, main, questions
from ltx2_operator.gpus import BY_NAME
from ltx2_operator.machine import LocalGpu

EMPTY = "\n" * len(questions.QUESTIONS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty workspace on a machine without GPU."""
    monkeypatch.setattr(machine, "KFD", tmp_path / "none")
    monkeypatch.setattr(machine, "_nvidia", lambda environ: [])
    workspace = tmp_path / "Red Fox 2"
    workspace.mkdir()
    monkeypatch.chdir(workspace)
    return workspace


@pytest.fixture
def typing(monkeypatch):
    """Lets lines be typed."""

    def type_(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return type_


def clips(folder, captions):
    folder.mkdir(parents=True)
    for number, caption in enumerate(captions):
        (folder / f"{number}.mp4").touch()
        if caption:
            (folder / f"{number}.txt").write_text(caption)


def spec(path="training.yaml"):
    return manifest.training(manifest.load(Path(path))).body["spec"]


def lines(**answers):
    """What is typed when every question but these is answered with Return."""
    skipped = "instance_prompt"
    return "".join(f"{answers.get(q.key, '')}\n" for q in questions.QUESTIONS if q.key != skipped or q.key in answers)


def test_defaults_without_a_question(here, capsys):
    assert main(["configure", "--yes"]) == 0
    document = manifest.training(manifest.load(Path("training.yaml"))).body
    assert document["metadata"]["name"] == "red-fox-2"
    assert document["spec"] == {
        "gpu": {"class": "auto"},
        "config": {
            "pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": "dev", "max_train_steps": 2000,
        },
        "datasets": [
            {
                "id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos",
                "caption_strategy": "textfile", "resolution": 512, "video": {"num_frames": 49},
            }
        ],
    }  # fmt: skip
    shown = capsys.readouterr().out
    for command in ("ltx2 check training.yaml", "ltx2 estimate training.yaml", "ltx2 run training.yaml"):
        assert command in shown
    assert os.listdir() == ["training.yaml"]


def test_what_it_writes_is_what_check_takes(here, capsys):
    clips(here / "datasets/videos", ["a fox\nanother line", "", "a wolf"])
    assert main(["configure", "--yes", "--set", "learning_rate=5e-5", "--steps", "7"]) == 0
    assert spec()["config"] == {
        "pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": "dev", "max_train_steps": 7,
        "validation_prompt": "a fox", "learning_rate": 5e-5,
    }  # fmt: skip
    assert main(["estimate", "training.yaml"]) == 0
    capsys.readouterr()
    main(["check", "training.yaml"])
    assert "training.yaml: red-fox-2 is valid: 1 datasets, 7 steps" in capsys.readouterr().out


def test_every_answer_reaches_its_place(here, typing):
    clips(here / "films", ["", ""])
    answers = {
        "name": "wolf", "instance_data_dir": "films", "caption_strategy": "instanceprompt", "instance_prompt": "a wolf",
        "pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": "2.0", "class": "h100-80g",
        "max_train_steps": "500", "resolution": "640", "num_frames": "81", "validation_prompt": "a wolf runs",
        "trigger_words": "wlf, grey",
    }  # fmt: skip
    assert set(answers) == set(questions.BY_KEY)
    typing(lines(**answers))
    assert main(["configure", "other.yaml"]) == 0
    written = manifest.training(manifest.load(Path("other.yaml"))).body
    assert written["metadata"]["name"] == "wolf"
    assert written["spec"]["gpu"] == {"class": "h100-80g"}
    assert written["spec"]["config"] == {
        "pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": "dev", "max_train_steps": 500,
        "validation_prompt": "a wolf runs", "trigger_words": ["wlf", "grey"], "instance_prompt": "a wolf",
    }  # fmt: skip
    (dataset,) = written["spec"]["datasets"]
    assert (dataset["instance_data_dir"], dataset["caption_strategy"]) == ("films", "instanceprompt")
    assert (dataset["resolution"], dataset["video"]) == (640, {"num_frames": 81})


def test_wrong_answers_are_asked_again_with_the_nearest_name(here, typing, capsys):
    wrong = {
        "name": ("My Fox", "fox", "name: 'My Fox' has another form"),
        "caption_strategy": ("textfiles", "textfile", "did you mean textfile?"),
        "pretrained_model_name_or_path": (
            "models/nothing.safetensors",
            "Lightricks/LTX-2",
            "the checkpoint is not there",
        ),
        "model_flavour": ("devv", "dev", "did you mean dev?"),
        "class": ("h100-80gb", "h100-80g", "did you mean h100-80g?"),
        "max_train_steps": ("many", "9", "must be a whole number"),
        "resolution": ("-1", "512", "must be above 0"),
        "num_frames": ("0", "62", "must be 1 or more"),
    }
    typing(lines(**{key: f"{bad}\n{good}" for key, (bad, good, _) in wrong.items()}))
    assert main(["configure"]) == 0
    shown = capsys.readouterr().out
    for _, _, words in wrong.values():
        assert words in " ".join(shown.split())
    assert "62 → 57 (8k+1)" in shown
    assert spec()["datasets"][0]["video"] == {"num_frames": 57}
    assert spec()["config"]["max_train_steps"] == 9


def test_it_says_what_is_there(here, typing, capsys, monkeypatch):
    monkeypatch.setattr(
        machine, "_nvidia", lambda environ: [LocalGpu("0", "nvidia", "H100", 81559, BY_NAME["h100-80g"])]
    )
    clips(here / "datasets/videos", ["a fox", ""])
    (here / "models").mkdir()
    typing(EMPTY)
    assert main(["configure"]) == 0
    shown = capsys.readouterr().out
    assert "2 clips, 1 of them with a caption file" in shown and "this machine has 1 x h100-80g" in shown
    assert "[a fox]" in shown  # the first caption is the proposed prompt


def test_clips_without_captions_get_them_from_their_names(here):
    clips(here / "datasets/videos", ["", ""])
    assert main(["configure", "--yes"]) == 0
    assert spec()["datasets"][0]["caption_strategy"] == "filename"


def test_flags_are_not_asked_and_none_takes_a_default_away(here, typing, capsys):
    clips(here / "datasets/videos", ["a fox"])
    typing(lines(validation_prompt="none").replace("\n", "", 1))  # one question less
    assert main(["configure", "--name", "fox"]) == 0
    shown = capsys.readouterr().out
    assert "Name of the run" not in shown and "validation_prompt" not in spec()["config"]


def test_the_files_of_the_guide(here, capsys):
    assert main(["configure", "--guide", "--yes", "--name", "fox", "--set", "max_train_steps=500"]) == 0
    config = json.loads((here / "config/config.json").read_text())
    assert config == {
        "pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": "dev", "max_train_steps": 500,
        "data_backend_config": "config/multidatabackend.json", "output_dir": "runs/fox",
    }  # fmt: skip
    assert [entry["id"] for entry in json.loads((here / "config/multidatabackend.json").read_text())] == ["clips"]
    assert "ltx2 train\n" in capsys.readouterr().out
    main(["check", "config/config.json"])
    assert "fox is valid: 1 datasets, 500 steps" in capsys.readouterr().out
    assert main(["configure", "--guide", "--yes", "--force", "--name", "fox-2"]) == 0
    main(["check", "config/config.json"])
    assert "config.json: fox-2 is valid" in capsys.readouterr().out, "the name that was given"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--steps", "many"], 78, "max_train_steps: must be a whole number, not 'many'"),
        (["--flavour", "devv"], 78, "model_flavour: unknown value 'devv'; did you mean dev?"),
        (["--gpu", "h100"], 78, "class: h100 is no GPU class"),
        (["--set", "max_train_stepz=5"], 78, "ltx2: max_train_stepz: unknown key; did you mean max_train_steps?"),
        (["--set", "max_train_steps"], 64, "--set max_train_steps: write --set KEY=VALUE"),
        (["--name", "Fox!"], 78, "name: 'Fox!' has another form"),
        (["--guide", "fox.yaml"], 64, "fox.yaml: --guide writes config/config.json"),
        (["--set", "use_ema=true"], 78, "use_ema: not supported yet"),
    ],
)
def test_a_wrong_flag_ends_in_one_line_and_writes_nothing(here, capsys, arguments, code, words):
    assert main(["configure", "--yes", *arguments]) == code
    shown = capsys.readouterr()
    assert words in shown.err and shown.out == "" and os.listdir() == []


def test_nothing_is_overwritten_without_force(here, capsys):
    Path("training.yaml").write_text("mine")
    assert main(["configure", "--yes"]) == 64
    assert "training.yaml: exists already; give --force" in capsys.readouterr().err
    assert Path("training.yaml").read_text() == "mine"
    assert main(["configure", "--yes", "--force", "--name", "new"]) == 0
    assert manifest.load(Path("training.yaml"))[0].body["metadata"]["name"] == "new"


def test_input_that_ends_early_writes_nothing(here, typing, capsys):
    typing("fox\n")
    assert main(["configure"]) == 64
    assert "nothing was written (--yes takes all defaults)" in capsys.readouterr().err and os.listdir() == []


def test_ctrl_c_on_a_terminal_leaves_nothing(here):
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ltx2_operator.cli", "configure"], stdin=child, stdout=child, stderr=child,
        start_new_session=True, env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    os.close(child)
    shown = b""

    def until(words):
        nonlocal shown
        while words not in shown and select.select([parent], [], [], 60)[0]:
            try:
                shown += os.read(parent, 4096)
            except OSError:  # the other side is closed
                break
        assert words in shown, shown

    try:
        until(b"Name of the run")
        os.write(parent, b"fox\n")
        until(b"Folder of the clips")
        process.send_signal(signal.SIGINT)
        until(b"nothing was written")
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    assert b"Traceback" not in shown and os.listdir() == []


def test_every_question_has_its_flag():
    args = build_parser().parse_args(["configure"])
    flags = {question.flag.replace("-", "_") for question in questions.QUESTIONS}
    assert flags == {
        name
        for name in vars(args)
        if name not in ("verb", "parser", "file", "guide", "yes", "force", "set", "workspace")
    }
