"""Where things lie: the workspace on the volume, a run's folder in it, and writes that are complete or absent."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx2_job.errors import ConfigError, NoInputError, Problem


@dataclass(frozen=True)
class RunFolder:
    """runs/<name>, or `output_dir`: everything one training leaves behind. Paths only; nothing is made here."""

    root: Path

    config = property(lambda self: self.root / "config.json")
    datasets = property(lambda self: self.root / "datasets.json")
    plan = property(lambda self: self.root / "plan.json")
    model = property(lambda self: self.root / "model.json")  # which files and commits of the model the run uses
    sources = property(lambda self: self.root / "sources.json")  # the commits of the datasets that come from the Hub
    index = property(lambda self: self.root / "index.json")  # the samples and their keys in the store
    report = property(lambda self: self.root / "report.json")
    checkpoints = property(lambda self: self.root / "checkpoints")
    validation = property(lambda self: self.root / "validation")
    lora = property(lambda self: self.root / "lora.safetensors")
    lora_diffusers = property(lambda self: self.root / "lora.diffusers.safetensors")
    loss_png = property(lambda self: self.root / "loss.png")
    metrics = property(lambda self: self.root / "metrics.jsonl")
    log = property(lambda self: self.root / "log.txt")
    history = property(lambda self: self.root / "history.jsonl")  # what happened to the run (history.py)
    attempt = property(lambda self: self.root / "attempt")
    attempts = property(lambda self: self.root / "attempts")
    result = property(lambda self: self.root / "result.json")


@dataclass(frozen=True)
class Workspace:
    """The folder that relative paths of a configuration resolve in: /workspace in pods, else the current folder."""

    root: Path

    models = property(lambda self: self.root / "models")
    cache = property(lambda self: self.root / "cache")
    downloads = property(lambda self: self.root / "downloads")  # datasets from elsewhere (mirror/place.py)

    def resolve(self, path: str | Path) -> Path:
        """An absolute path as it is, a relative one under the workspace. Raises ConfigError for a home of nobody."""
        return self.root / expanded(path)

    def run(self, name: str, output_dir: str | None = None) -> RunFolder:
        """The folder of a run; `output_dir` replaces runs/<name>."""
        return RunFolder(self.resolve(output_dir or Path("runs") / name))

    def runs(self) -> dict[str, RunFolder]:
        """Every run by name: the folders of runs/, and those elsewhere that a note in runs/ leads to.

        A name that was used for several folders stands for the one it was used for last.
        """
        named = {name: folders[-1] for name, folders in self._run_folders().items()}
        return {name: RunFolder(folder) for name, folder in sorted(named.items())}

    def every_run(self) -> list[RunFolder]:
        """As `runs`, with each folder that a name was used for before."""
        folders = {folder for folders in self._run_folders().values() for folder in folders}
        return [RunFolder(folder) for folder in sorted(folders)]

    def note_run(self, name: str, run: RunFolder) -> None:
        """Let `runs` find a run whose output_dir lies elsewhere: a note runs/<name>.json, the newest folder last."""
        note = self.root / "runs" / f"{name}.json"
        noted = _noted(note)
        if run.root.parent == note.parent and not noted:
            return  # it is found without one
        folder = str(run.root.relative_to(self.root) if run.root.is_relative_to(self.root) else run.root)
        folders = [*(each for each in noted if each != folder), folder]
        if folders != noted:
            write_json(note, {"folders": folders})

    def _run_folders(self) -> dict[str, list[Path]]:
        """Name -> folders that are there, the one used last at the end."""
        place = self.root / "runs"
        found = {folder.name: [folder] for folder in place.glob("*/")}
        for note in place.glob("*.json"):
            if there := [folder for folder in map(self.resolve, _noted(note)) if folder.is_dir()]:
                found.setdefault(note.stem, []).extend(there)
        return found


def _noted(note: Path) -> list[str]:
    """The folders of a note of `Workspace.note_run`; none where it is missing, or some other file of that name."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return [str(folder) for folder in read_json(note)["folders"]]
    return []


def require_folder(named: str, path: Path) -> None:
    """Raise NoInputError unless the path, which `named` tells of, is a folder."""
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "there is no such folder"
        raise NoInputError(f"{named}: {path}: {what}; make it first, or name another")


def expanded(path: str | Path) -> Path:
    """A path with ~ and ~user replaced by the home folder. Raises ConfigError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(Problem(str(path), "that user has no home folder here", "write the whole path")) from None


def name_of(path: Path, workspace: Path) -> str:
    """A path as messages name it: relative to the workspace where it lies in it; bytes that are no text as \\xNN."""
    text = path.relative_to(workspace).as_posix() if path.is_relative_to(workspace) else str(path)
    return os.fsencode(text).decode(errors="backslashreplace")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing: temporary file beside it, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename = str(path)  # what a person knows; a failed write names no file at all
        raise
    sync(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in the error of a write that the volume refused: the system's own error names none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def sweep(run: RunFolder) -> None:
    """Remove what a killed process left half written in a run's folder. Call as its only owner, before writing."""
    for folder in (run.root, run.attempts, run.validation):
        for path in folder.glob(".*.tmp"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented and sorted, complete or absent."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_bytes())


def read_page(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or none that can be read."""
    try:
        page = read_json(path)
    except (OSError, ValueError):
        return {}
    return page if isinstance(page, dict) else {}


def size_of(path: Path) -> int | None:
    """Bytes of a file; None where there is none, or none that can be looked at."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def sync(path: Path) -> None:
    """fsync a file, or a folder so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
