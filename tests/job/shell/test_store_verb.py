"""`ltx2-job store ls|gc`: what `ltx2 cache` runs."""

import json

import pytest

from ltx2_job import exitcodes
from ltx2_job.caching import manage
from ltx2_job.cli import main
from ltx2_job.store import Store
from ltx2_job.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    """Two video items; a run's index refers to one of them."""
    store = Store(tmp_path / "cache")
    for key, size in (("aa11", 1024), ("bb22", 3072)):
        store.path("video", key).parent.mkdir(parents=True)
        store.path("video", key).write_bytes(b"x" * size)
    sample = {
        "id": "clips/a.mp4", "dataset": "clips", "path": "a.mp4", "width": 64, "height": 64, "frames": 9, "fps": 25.0,
        "audio_latents": 0, "sounding": False, "video_key": "aa11", "audio_key": None, "text_keys": [], "repeats": 0,
        "probability": 1.0, "held_out": False,
    }  # fmt: skip
    run = tmp_path / "runs" / "fox"
    run.mkdir(parents=True)
    index = {"version": 1, "cache_root": "../../cache", "extra_roots": [], "prompts": {}, "samples": [sample]}
    (run / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_it_shows_and_frees_what_no_run_uses(workspace, capsys):
    store = Store(workspace / "cache")
    assert main(["store", "ls", "--workspace", str(workspace)]) == 0
    assert "video: 2 items, 4.0 KiB (1 unused, 3.0 KiB)" in capsys.readouterr().out
    assert main(["store", "gc", "--dry-run", "--workspace", str(workspace)]) == 0
    assert "1 items, 3.0 KiB would be freed" in capsys.readouterr().out
    assert store.has("video", "bb22")
    assert main(["store", "gc", "--workspace", str(workspace)]) == 0
    assert store.has("video", "aa11") and not store.has("video", "bb22")


def test_it_frees_nothing_while_a_cache_stage_works(workspace, capsys):
    with manage.in_use(Workspace(workspace)):
        assert main(["store", "gc", "--workspace", str(workspace)]) == exitcodes.UNAVAILABLE
    assert "a cache stage is at work" in capsys.readouterr().err
    assert Store(workspace / "cache").has("video", "bb22")


def test_an_empty_workspace_is_said_to_be_empty(tmp_path, capsys):
    assert main(["store", "ls", "--workspace", str(tmp_path)]) == 0
    assert "empty" in capsys.readouterr().out
