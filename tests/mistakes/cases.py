"""What a case of tests/mistakes is, and how it is tried: by the real command; nothing is started, nothing left."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ltx2_operator.cli import main

MANIFEST = """\
apiVersion: ltx2.dev/v1alpha1
kind: LTX2Training
metadata:
  name: fox
spec:
  gpu: {class: cpu}
  storage: {size: 20Gi}
  config:
    pretrained_model_name_or_path: models/ltx-2-tiny.safetensors
    max_train_steps: 5
    validation_disable: true
  datasets:
    - id: clips
      type: local
      dataset_type: video
      instance_data_dir: clips
      caption_strategy: textfile
      resolution: 64
      video: {num_frames: 9}
"""
CONFIG = """\
{
  "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors",
  "max_train_steps": 5,
  "num_train_epochs": 0,
  "learning_rate": 1e-4,
  "lora_rank": 4,
  "validation_disable": true,
  "data_backend_config": "config/multidatabackend.json"
}
"""
DATASETS = """\
[
  {
    "id": "clips",
    "type": "local",
    "dataset_type": "video",
    "instance_data_dir": "clips",
    "caption_strategy": "textfile",
    "resolution": 64,
    "video": { "num_frames": 9 }
  }
]
"""


class Became(BaseException):
    """What exec is in these tests: the exit code of the program that `ltx2` became."""

    def __init__(self, code: int):
        self.code = code
        super().__init__(code)


@dataclass
class Place:
    """A workspace in which a training would run: manifest, the guide's two files, a tiny model, a clip."""

    root: Path
    patch: pytest.MonkeyPatch

    def edit(self, name: str, old: str, new: str) -> None:
        """Put a text in place of another, which has to be there, once."""
        text = (self.root / name).read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        (self.root / name).write_text(text.replace(old, new))

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file; a link or file of that name is replaced."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


Change = Callable[[Place], None]


@dataclass(frozen=True)
class Mistake:
    """One mistake: how the place is changed, what is typed, how it ends and what standard error says, line by line.

    lines: for each line of standard error the texts that stand in it: field or file, value, remedy.
    """

    name: str
    code: int
    lines: tuple[tuple[str, ...], ...]
    change: Change = lambda place: None
    argv: tuple[str, ...] = ("run", "training.yaml")


def mistake(
    name: str, code: int, *says: str, change: Change | None = None, argv: str | tuple[str, ...] = ""
) -> Mistake:
    """A mistake of one line. `argv` as text is split at blanks."""
    words = tuple(argv.split()) if isinstance(argv, str) else argv
    return Mistake(name, code, (says,), change or (lambda place: None), words or ("run", "training.yaml"))


def mistakes(name: str, code: int, *lines: tuple[str, ...], change: Change, argv: str = "run training.yaml") -> Mistake:
    """A mistake that several lines tell of."""
    return Mistake(name, code, lines, change, tuple(argv.split()))


def edit(old: str, new: str, name: str = "training.yaml") -> Change:
    """Put a text in place of another."""
    return lambda place: place.edit(name, old, new)


def write(data: bytes | str, name: str = "training.yaml") -> Change:
    """Write a whole file."""
    return lambda place: place.write(name, data)


def variable(name: str, value: str) -> Change:
    """Set a variable of the environment."""
    return lambda place: place.patch.setenv(name, value)


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(place: Place) -> None:
        for one in changes:
            one(place)

    return change


def tree(*roots: Path) -> dict[str, str]:
    """Every path below the roots with its kind, mode, and content or target."""
    found = {}
    for root in roots:
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink():
                    what = f"link to {os.readlink(path)}"
                elif path.is_file():
                    what = hashlib.sha256(path.read_bytes()).hexdigest()
                else:
                    what = "folder"
                found[str(path)] = f"{path.lstat().st_mode:o} {what}"
    return found


def names(mistakes: Iterable[Mistake]) -> list[str]:
    """Names for pytest, each once."""
    found = [one.name for one in mistakes]
    assert len(set(found)) == len(found), sorted(name for name in found if found.count(name) > 1)
    return found


def try_it(
    one: Mistake, place: Place, started: list[object], temporary: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Type it and see that it ends as it should: code, lines, no traceback, nothing started, nothing left."""
    one.change(place)
    before = tree(place.root, temporary)
    try:
        code = main(one.argv)
    except Became as end:
        code = end.code
    shown = capfd.readouterr()
    lines = shown.err.splitlines()
    assert code == one.code, shown.err
    assert "Traceback" not in shown.err + shown.out
    assert len(lines) == len(one.lines), shown.err
    for line, texts in zip(lines, one.lines, strict=True):
        for text in texts:
            assert text in line, f"{text!r} is not in: {line}"
    assert lines[0].startswith(("ltx2: ", "ltx2-job: "))
    assert shown.out == "", "something was said as if it went on"
    assert started == []
    assert tree(place.root, temporary) == before
