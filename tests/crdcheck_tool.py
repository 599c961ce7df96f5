"""Builds and runs tests/crdcheck: the API server's own validation code, judging our definition and example objects."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "tests" / "crdcheck"


def binary() -> Path:
    """The program, built once per content of its sources. Skips the test where Go or its modules are not at hand."""
    digest = hashlib.sha256()
    for name in ("main.go", "go.mod", "go.sum"):
        digest.update((SOURCE / name).read_bytes())
    built = ROOT / ".cache" / "crdcheck" / digest.hexdigest()[:16]
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go: the API server's validation code cannot be built")
    built.parent.mkdir(parents=True, exist_ok=True)
    temporary = built.with_suffix(f".{os.getpid()}")
    command = [go, "build", "-trimpath", "-o", str(temporary), "."]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(
        command, cwd=SOURCE, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        offline = any(word in done.stderr for word in ("dial tcp", "no such host", "connection refused", "i/o timeout"))
        if offline:
            pytest.skip(f"Go modules cannot be downloaded: {done.stderr[-300:]}")
        pytest.fail(f"crdcheck does not build: {done.stderr[-2000:]}")
    temporary.rename(built)
    return built


def judge(definition: Path, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The verdict on a definition and on cases [{"name", "object", "old"?}]: {"crd", "cases", "kept"}."""
    done = subprocess.run(
        [str(binary()), str(definition)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict
