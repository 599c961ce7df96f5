"""Clips that cannot be used: `ltx2 check` says which and why, a run skips and reports them, and ends if none is left.

They are skipped and no error of their own (docs/datasets.md); the real commands are tried once on all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from media import write_clip
from mistakes.cases import MANIFEST, tree


def text(data: bytes | str) -> Callable[[Path], object]:
    """A file that is no video."""
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data.encode())


def clip(**options: object) -> Callable[[Path], object]:
    """A video."""
    return lambda path: write_clip(path, width=64, height=64, **{"frames": 17, **options})  # type: ignore[arg-type]


def cut_off(path: Path) -> None:
    """A download that ended early: what tells the frames stands at the end of the file."""
    write_clip(path, width=64, height=64, frames=17)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def sound_alone(path: Path) -> None:
    """A file with a track of sound and none of pictures."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        for first in range(0, 48_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def picture(path: Path) -> None:
    """A still picture under a clip's name."""
    from matplotlib import image

    image.imsave(path, [[0.0, 1.0], [1.0, 0.0]], format="png")


def caption(write: Callable[[Path], object]) -> Callable[[Path], object]:
    """A good video with another caption file."""

    def make(path: Path) -> None:
        write_clip(path, width=64, height=64, frames=17)
        path.with_suffix(".txt").unlink()
        write(path.with_suffix(".txt"))

    return make


@dataclass(frozen=True)
class Bad:
    """A file, how it is made, and the words of its reason: what is wrong, and what to do where that is not plain."""

    name: str
    make: Callable[[Path], object]
    says: tuple[str, ...]


def bad(name: str, make: Callable[[Path], object], *says: str) -> Bad:
    return Bad(name, make, says)


FILES = [
    bad("empty.mp4", text(b""), "the file is empty (0 bytes)"),
    bad("page.mp4", text("<!DOCTYPE html><html>404</html>" * 50), "cannot be read as a video"),
    bad("pointer.mp4", text("version https://git-lfs.github.com/spec/v1\nsize 5\n"), "cannot be read as a video"),
    bad("archive.mp4", text(b"PK\x03\x04" + bytes(500)), "cannot be read as a video"),
    bad("cut-off.mp4", cut_off, "it is cut off", "download it again"),
    bad("sound.mp4", sound_alone, "there is no video track in it"),
    bad("picture.mp4", picture, "1 frame at", "min_frames is 9"),
    bad("gone.mp4", lambda path: path.symlink_to("nowhere.mp4"), "it cannot be read (No such file or directory)"),
    bad("\udcff.mp4", clip(), "its name is not UTF-8 text; rename it"),
]
CONTENT = [
    bad("short.mp4", clip(frames=5), "5 frames at 25 fps, min_frames is 9"),
    bad("hdr.mp4", clip(tags={"color_trc": 16, "colorspace": 9}), "high dynamic range", "convert it to SDR"),
    bad("tilted.mp4", clip(rotation=45), "no multiple of 90 degrees", "render it upright"),
    bad("uncaptioned.mp4", caption(lambda path: None), "its caption file uncaptioned.txt is missing"),
    bad("blank.mp4", caption(text("\n \n")), "its caption file blank.txt is empty"),
    bad("latin.mp4", caption(text("ein Füchslein".encode("latin-1"))), "its caption file latin.txt is not UTF-8 text"),
    bad("folder.mp4", caption(Path.mkdir), "its caption file folder.txt cannot be read (Is a directory)"),
    bad("long/film.mp4", clip(frames=25), "25 frames at 25 fps, max_frames is 17"),
]
BAD = [("clips/files", one) for one in FILES] + [("clips/content", one) for one in CONTENT]
DATASETS = {
    "files": "    - {id: files, instance_data_dir: clips/files, resolution: 64, video: {num_frames: 9}}\n",
    "content": "    - {id: content, instance_data_dir: clips/content, resolution: 64, video: {num_frames: 9, max_frames: 17}}\n",
}
HEAD = MANIFEST[: MANIFEST.index("    - id")]


@dataclass(frozen=True)
class Outcome:
    """What was said, by verb; the report; and the workspace before and after."""

    code: dict[str, int]
    out: dict[str, str]
    err: dict[str, str]
    report: dict[str, dict[str, object]]
    root: Path
    before: dict[str, str]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Outcome:
    """`ltx2 check` on each half of the clips, then `ltx2 run` on all of them."""
    root = tmp_path_factory.mktemp("bad") / "w"
    for folder, one in BAD:
        path = root / folder / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text("a fox")
        one.make(path)
    (root / "models/gemma").mkdir(parents=True)
    for file in (tiny20, *(tiny20.parent / "gemma").iterdir()):
        (root / "models" / file.relative_to(tiny20.parent)).symlink_to(file)
    for name, text_ in {**DATASETS, "all": "".join(DATASETS.values())}.items():
        (root / f"{name}.yaml").write_text(HEAD + text_)
    temporary = root.parent / "temporary"
    temporary.mkdir()
    environ = {**os.environ, "TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": "", "PYTHONUTF8": "1"}
    before = tree(root, temporary)
    code, out, err = {}, {}, {}
    for name, verb in {"files": "check", "content": "check", "all": "run"}.items():
        command = [sys.executable, "-m", "ltx2_operator.cli", verb, f"{name}.yaml"]
        done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False)
        code[name], out[name], err[name] = done.returncode, done.stdout, done.stderr
        if verb == "check":
            assert tree(root, temporary) == before, "looking left something"
    page = json.loads((root / "runs/fox/report.json").read_text())
    return Outcome(code, out, err, {entry["path"]: entry for entry in page["skipped"]}, root, before)


@pytest.mark.parametrize(("folder", "one"), BAD, ids=[f"{folder}/{one.name!a}" for folder, one in BAD])
def test_a_clip_that_cannot_be_used_is_named_with_its_reason_by_check_and_by_the_report(outcome, folder, one):
    named = f"{folder}/{one.name}".encode(errors="surrogateescape").decode(errors="backslashreplace")
    said = [line for line in outcome.out[folder.rpartition("/")[2]].splitlines() if line.startswith(f"{named}: ")]
    assert len(said) == 1 and said[0].endswith("; would be skipped")
    entry = outcome.report[named]
    assert entry["dataset"] == folder.rpartition("/")[2]
    for words in one.says:
        assert words in said[0] and words in str(entry["reason"])


def test_check_ends_with_65_where_no_clip_is_left_and_counts_them(outcome):
    for name, many in (("files", len(FILES)), ("content", len(CONTENT))):
        assert outcome.code[name] == 65
        assert (
            f"{many} clips: 0 usable (0 held out, 0 with a sound track), {many} would be skipped" in outcome.out[name]
        )
        assert outcome.err[name].startswith("ltx2-job: no clip can be trained on; ")
        assert outcome.err[name].count("\n") == 1


def test_a_run_ends_with_65_names_them_and_says_so_once(outcome):
    assert outcome.code["all"] == 65
    assert len(outcome.report) == len(BAD)
    whole = outcome.out["all"] + outcome.err["all"]
    log = (outcome.root / "runs/fox/log.txt").read_text()
    assert "Traceback" not in whole + log
    assert f"({len(BAD)} of {len(BAD)} clips skipped, see report.json)" in whole
    last = [line for line in outcome.err["all"].splitlines() if line.startswith("ltx2: ")]
    assert last[0].startswith("ltx2: fox has failed (attempt 1): exit code 65, no usable clip in the dataset")
    assert whole.count("can be trained on") == 1, whole


def test_nothing_half_written_is_left(outcome):
    after = tree(outcome.root, outcome.root.parent / "temporary")
    assert {path: what for path, what in after.items() if path in outcome.before} == outcome.before
    new = [str(Path(path).relative_to(outcome.root)) for path in after if path not in outcome.before]
    assert all(path.startswith(("runs", "cache")) for path in new), new
    hidden = [path for path in new if Path(path).name.startswith(".") or path.endswith(".tmp")]
    assert hidden == ["cache/.lock"]  # which cache stages hold while they work
    assert not [path for path in new if path.endswith(".safetensors") or "checkpoint" in path]
    for path in new:
        if path.endswith(".json"):
            json.loads((outcome.root / path).read_text())
