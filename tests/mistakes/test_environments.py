"""Mistakes of the surroundings: variables, programs, folders, rights, locale, a terminal that has gone."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from ltx2_job import workspace
from ltx2_operator import machine
from ltx2_operator.cli import preflight
from ltx2_operator.machine import parse_nvidia
from mistakes.cases import Mistake, both, edit, mistake, names, tree, try_it, variable

H200 = edit("{class: cpu}", "{class: h200}")


def environment(name, code, *says, change, argv="train"):
    """A mistake in the environment."""
    return mistake(name, code, *says, change=change, argv=argv)


def one_gpu(place):
    """A machine with one H200."""
    place.patch.setattr(machine, "_nvidia", lambda environ: parse_nvidia("0, NVIDIA H200, 143771"))


def no_job(place):
    """A machine on which only the operator is installed."""
    place.patch.setenv("PATH", str(place.root))
    place.patch.setattr(sys, "executable", str(place.root / "python"))


def little_memory(place):
    """A container that may use 1 GiB."""
    (place.root.parent / "cgroup").mkdir()
    (place.root.parent / "cgroup/memory.max").write_text(str(2**30))
    place.patch.setattr(machine, "CGROUPS", place.root.parent / "cgroup")


def nowhere_for_temporary_files(place):
    """No folder that tempfile would take."""

    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    place.patch.setattr(preflight, "tempfile", SimpleNamespace(gettempdir=nowhere))


def full_disk(place):
    """A volume without room: whatever is written atomically fails."""

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    place.patch.setattr(workspace, "write_atomic", full)


MISTAKES = [
    environment("a key that does not exist", 78, "LTX2_LERNING_RATE: unknown key", "did you mean LTX2_LEARNING_RATE?", change=variable("LTX2_LERNING_RATE", "1")),
    environment("a key nothing like any", 78, "LTX2_ZEBRA: unknown key", "lists every key", change=variable("LTX2_ZEBRA", "1")),
    environment("a number in words", 78, "LTX2_MAX_TRAIN_STEPS: must be a whole number, not 'many'", change=variable("LTX2_MAX_TRAIN_STEPS", "many")),
    environment("a number out of range", 78, "LTX2_LORA_RANK: must be 1 or more, not -4", change=variable("LTX2_LORA_RANK", "-4")),
    environment("no number", 78, "LTX2_LEARNING_RATE: must be a finite number, not 'nan'", change=variable("LTX2_LEARNING_RATE", "nan")),
    environment("a switch in words", 78, "LTX2_GRADIENT_CHECKPOINTING: must be true or false, not 'perhaps'", change=variable("LTX2_GRADIENT_CHECKPOINTING", "perhaps")),
    environment("a list that is no JSON", 78, "LTX2_DATA_BACKEND_CONFIG", "is not valid JSON", change=variable("LTX2_DATA_BACKEND_CONFIG", "[{")),
    environment("a key of a dataset", 78, "LTX2_INSTANCE_DATA_DIR: unknown key", "it belongs in a dataset", change=variable("LTX2_INSTANCE_DATA_DIR", "clips")),
    environment("steps and epochs together", 78, "max_train_steps and num_train_epochs are both set", "set one of them to 0", change=variable("LTX2_NUM_TRAIN_EPOCHS", "3")),
    environment("the same for check", 78, "LTX2_ZEBRA: unknown key", "lists every key", change=variable("LTX2_ZEBRA", "1"), argv="check config/config.json"),
    environment("a home that does not exist", 78, "~nosuchuser/m.safetensors", "no home folder", change=variable("LTX2_PRETRAINED_MODEL_NAME_OR_PATH", "~nosuchuser/m.safetensors")),
    environment("a hub that is no address", 78, "HF_ENDPOINT: 'huggingface.co' is no address", "write https://huggingface.co", change=both(edit("models/ltx-2-tiny.safetensors", "Lightricks/LTX-2"), variable("HF_ENDPOINT", "huggingface.co")), argv="run training.yaml"),
    environment("hidden GPUs", 78, "spec.gpu.class: h200 needs 1", "this machine shows 0", "CUDA_VISIBLE_DEVICES='seven'", change=both(H200, one_gpu, variable("CUDA_VISIBLE_DEVICES", "seven")), argv="run training.yaml"),
    environment("GPUs hidden altogether", 78, "this machine shows 0", "CUDA_VISIBLE_DEVICES=''", change=both(H200, one_gpu, variable("CUDA_VISIBLE_DEVICES", "")), argv="run training.yaml"),
    environment("fewer GPUs than asked for", 78, "spec.gpu.class: h200 needs 4 x nvidia.com/gpu, this machine shows 1", "set gpu.count", change=both(edit("{class: cpu}", "{class: h200, count: 4}"), one_gpu), argv="run training.yaml"),
    environment("a job that is not installed", 69, "ltx2-job is neither on PATH nor in", "pip install", change=no_job),
    environment("a tool that is not installed", 69, "ltx2-job is neither on PATH nor in", "pip install", change=no_job, argv="inspect models/ltx-2-tiny.safetensors"),
    environment("a container too small", 78, "of host memory, this machine has 1.0 GiB", "what would fit", change=little_memory),
    environment("nowhere for temporary files", 73, "no folder for temporary files", "TMPDIR", change=nowhere_for_temporary_files),
    environment("no space", 73, "No space left on device", "make room", change=full_disk),
]  # fmt: skip


@pytest.mark.parametrize("one", MISTAKES, ids=names(MISTAKES))
def test_a_mistake_of_the_surroundings_is_named_and_leaves_nothing(one: Mistake, place, started, temporary, capfd):
    try_it(one, place, started, temporary, capfd)


# ------------------------------------------------------------------------------------------- as processes of their own


def typed(place, *argv, code="", **environ):
    """The real command as a process of its own; the environment is what a shell would give it and `environ`."""
    start = f"{code}\nimport sys; from ltx2_operator.cli import main; sys.exit(main(sys.argv[1:]))"
    base = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", start, *argv], cwd=place.root, env={**base, **environ}, capture_output=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_prompt_that_the_locale_cannot_write_is_no_mistake(place, locale):
    place.edit(
        "training.yaml",
        "validation_disable: true",
        "validation_prompt: ein Fuchs läuft über Schnee 狐\n    validation_num_video_frames: 62",
    )
    done = typed(place, "check", "training.yaml", **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"validation_num_video_frames 62" in done.stdout
    done = typed(place, "render", "training.yaml", **locale)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and "läuft über Schnee 狐".encode() in done.stdout


def test_a_terminal_of_one_column_or_none_is_no_mistake(place):
    assert typed(place, "check", "training.yaml", COLUMNS="1", TERM="dumb").returncode == 0
    for verb in ("gpus", "check training.yaml", "inspect models/ltx-2-tiny.safetensors"):
        command = f"{sys.executable} -m ltx2_operator.cli {verb} >&-"
        done = subprocess.run(["bash", "-c", command], cwd=place.root, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_has_seen_enough_is_no_mistake(place):
    command = f"{sys.executable} -m ltx2_operator.cli render training.yaml | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=place.root, capture_output=True, check=False)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 1)


def test_no_home_is_no_mistake(place):
    done = typed(place, "check", "training.yaml", code="import os; os.environ.pop('HOME')")
    assert (done.returncode, done.stderr) == (0, b"")


# Everything is imported as root, which may own this Python; then the process is nobody.
NOBODY = """
import contextlib, io, os, sys
import ltx2_operator.cli.looking, ltx2_operator.cli.training
with contextlib.redirect_stdout(io.StringIO()):
    ltx2_operator.cli.main(["render", "training.yaml"])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.access(os.path.realpath("models/ltx-2-tiny.safetensors"), os.R_OK) or sys.exit(99)
"""


@pytest.fixture
def shared(place):
    """The workspace where another user can reach it (the test's own folder lets nobody in)."""
    root = Path(tempfile.mkdtemp(prefix="ltx2-mistakes-", dir="/tmp"))
    shutil.copytree(place.root, root, symlinks=True, dirs_exist_ok=True)
    for folder, _, files in os.walk(root):
        os.chmod(folder, 0o755)
        for name in files:
            if not Path(folder, name).is_symlink():
                os.chmod(Path(folder, name), 0o644)
    place.root = root
    place.patch.setenv("TMPDIR", "/tmp")
    yield place
    shutil.rmtree(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("closed", "mode", "code", "says"),
    [
        (".", 0o555, 73, ("runs", "Permission denied", "make it writable for this user")),
        ("training.yaml", 0o000, 66, ("training.yaml", "Permission denied", "give the path of a manifest")),
        ("clips", 0o000, 66, ("datasets[clips].instance_data_dir: clips", "may not read the folder", "chmod it")),
        (
            "models/copy.safetensors",
            0o000,
            78,
            ("models/copy.safetensors cannot be read", "Permission denied", "chmod"),
        ),
    ],
)
def test_what_this_user_may_not_touch_is_named(shared, tiny20, closed, mode, code, says):
    if typed(shared, "gpus", code=NOBODY).returncode == 99:
        pytest.skip("the tiny model lies where another user may not read it")
    if closed.startswith("models"):
        shutil.copy(tiny20, shared.root / closed)
        shared.edit("training.yaml", "models/ltx-2-tiny.safetensors", closed)
    os.chmod(shared.root / closed, mode)
    before = tree(shared.root)
    done = typed(shared, "run", "training.yaml", code=NOBODY)
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert text.count("\n") == 1 and "Traceback" not in text and done.stdout == b""
    assert all(word in text for word in says), text
    assert tree(shared.root) == before
