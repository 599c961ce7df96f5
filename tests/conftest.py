"""Fixtures shared by all tests."""

import fcntl
import hashlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from clips import demo_clips

ROOT = Path(__file__).resolve().parents[1]
_MODELS = ROOT / "job" / "ltx2_job" / "models"
# What decides the bytes of a tiny model.
_SOURCES = ("tiny.py", "tiny_clips.py", "tiny_file.py", "tiny_gemma.py", "tiny_header.py", "layout.py", "mel.py")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it puts into the background with SIGINT ignored: a test's Ctrl-C would wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _tiny(version: str) -> Path:
    """The tiny model's combined file, made once per state of its sources and shared by all workers and sessions."""
    key = hashlib.sha256(b"".join((_MODELS / name).read_bytes() for name in _SOURCES)).hexdigest()[:16]
    cache = ROOT / ".cache" / "tiny"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{version}-{key}"
    with (cache / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one worker writes, the others wait and find it
        if not folder.exists():
            from ltx2_job.models.tiny import write_tiny

            for old in cache.glob(f"{version}-*"):
                shutil.rmtree(old)
            unfinished = cache / f".{version}-{os.getpid()}"
            write_tiny(unfinished, version)
            unfinished.rename(folder)
    return folder / "ltx-2-tiny.safetensors"


@pytest.fixture(scope="session")
def tiny20() -> Path:
    """A tiny LTX-2.0 as a combined file, Gemma beside it. Shared and read-only: copy it before changing it."""
    return _tiny("2.0")


@pytest.fixture(scope="session")
def tiny23() -> Path:
    """A tiny LTX-2.3 as a combined file, Gemma beside it. Shared and read-only: copy it before changing it."""
    return _tiny("2.3")


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Folder of bigbuckbunny, bikes and carphone with their captions. Shared and read-only."""
    return demo_clips()
