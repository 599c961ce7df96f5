"""A thousand cached clips: the stage looks at every one, decodes none and imports no torch. (Time: benchmarks.)"""

import importlib.util
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "cache_check.py"
CLIPS = 1000

# Filling needs neither real clips nor durable writes: what is tested is the run after it.
QUICKLY = """
import os
os.fsync = lambda descriptor: None
from ltx2_job.data.decoder import Decoder

def probe(self, path):
    return {"width": 64, "height": 64, "aspect": "1", "frames": 9, "rate": "25", "regular": True, "seconds": "9/25",
            "origin": "0", "sound": True}

Decoder.probe = probe
Decoder.sound = lambda self, path, seconds, origin: (None, True)
"""

NO_DECODER = """
from ltx2_job.data.decoder import Decoder

def start(self):
    raise AssertionError("a media worker was started")

Decoder._start = start
"""


KILLED = """
import os, signal
from ltx2_job.store import Store
put, puts = Store.put, []

def put_and_die(self, *args):
    put(self, *args)
    puts.append(1)
    if len(puts) == 25:
        os.kill(os.getpid(), signal.SIGKILL)

Store.put = put_and_die
"""


@pytest.fixture
def check() -> Any:
    """benchmarks/cache_check.py as a module."""
    spec = importlib.util.spec_from_file_location("cache_check", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fill(workspace: Path, clips: int, model: Path) -> None:
    videos = workspace / "datasets" / "videos"
    videos.mkdir(parents=True)
    (workspace / "models").symlink_to(model.parent)
    for number in range(clips):
        (videos / f"{number:04}.mp4").write_text(f"content {number}")
        (videos / f"{number:04}.txt").write_text(f"caption {number}")


def test_nothing_heavy_is_imported_and_nothing_decoded(check: Any, tmp_path: Path, tiny20: Path) -> None:
    fill(tmp_path, CLIPS, tiny20)
    _, (filled, *heavy) = check.run(QUICKLY + check.FILL + check.STAGE, tmp_path)
    assert int(filled) == CLIPS and "torch" in heavy  # the first run does import it: the next assertion can fail
    _, words = check.run(NO_DECODER + check.STAGE, tmp_path)
    assert words == [str(CLIPS)]


def test_a_killed_stage_has_lost_nothing_it_had_stored(check: Any, tmp_path: Path, tiny20: Path) -> None:
    fill(tmp_path, 20, tiny20)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        check.run(QUICKLY + check.FILL + KILLED + check.STAGE, tmp_path)
    assert caught.value.returncode == -signal.SIGKILL
    assert not (tmp_path / "runs" / "check" / "index.json").exists()
    check.run(QUICKLY + check.FILL + check.STAGE, tmp_path)
    report = json.loads((tmp_path / "runs" / "check" / "report.json").read_text())
    assert report["cache"] == {
        "video": {"encoded": 0, "reused": 20}, "audio": {"encoded": 15, "reused": 5},
        "text": {"encoded": 22, "reused": 0},
    }  # fmt: skip
