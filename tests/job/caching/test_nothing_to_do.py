"""A thousand cached clips: the stage looks at every one, decodes none and imports no torch. (Time: benchmarks.)"""

import importlib.util
from pathlib import Path

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


def test_nothing_heavy_is_imported_and_nothing_decoded(tmp_path: Path, tiny20: Path) -> None:
    spec = importlib.util.spec_from_file_location("cache_check", SCRIPT)
    assert spec and spec.loader
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    videos = tmp_path / "datasets" / "videos"
    videos.mkdir(parents=True)
    (tmp_path / "models").symlink_to(tiny20.parent)
    for number in range(CLIPS):
        (videos / f"{number:04}.mp4").write_text(f"content {number}")
        (videos / f"{number:04}.txt").write_text(f"caption {number}")
    _, (filled, *heavy) = check.run(QUICKLY + check.FILL + check.STAGE, tmp_path)
    assert int(filled) == CLIPS and "torch" in heavy  # the first run does import it: the next assertion can fail
    _, words = check.run(NO_DECODER + check.STAGE, tmp_path)
    assert words == [str(CLIPS)]
