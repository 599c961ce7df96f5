"""The three real clips of scripts/demo_clips.py for tests."""

import importlib.util
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "demo_clips.py"


def demo_clips() -> Path:
    """The folder with the clips and captions, fetched once; skips the test where it cannot be had."""
    spec = importlib.util.spec_from_file_location("demo_clips", _SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        return script.make(script.FOLDER)
    except script.NoClips as error:
        pytest.skip(f"the real clips are not here: {error}")
