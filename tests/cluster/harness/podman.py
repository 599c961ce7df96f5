"""podman with runc, from a test: commands, restricted containers, and one build at a time."""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .binaries import cache_folder

# The limits that podman 4.3 sets by itself are above what its parent may grant, and its own runtime may be missing.
_CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=1024:20000", "nproc=4096:20000"]
[engine]
runtime = "runc"
"""


def podman(*arguments: str) -> str:
    """Run podman; returns what it printed.

    Raises:
        RuntimeError: it failed; the message ends with the end of its output.
    """
    return must("podman", *arguments)


def must(*command: str) -> str:
    """Run a command; returns what it printed, or raises RuntimeError with the end of its output."""
    done = attempt(*command)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def attempt(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command whatever it ends with."""
    return subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())


def inspect(name: str) -> dict[str, Any]:
    """What podman knows of an image."""
    described: dict[str, Any] = json.loads(podman("image", "inspect", name))[0]
    return described


def run(name: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command in a container as a restricted pod does: no network, read-only root, no capabilities, own /tmp."""
    restricted = ["--rm", "--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
    # podman would mount more that is writable than a pod has.
    restricted += ["--read-only-tmpfs=false", "--tmpfs=/tmp:rw,mode=1777,size=1g", "--pull=never"]
    return attempt("podman", "run", *restricted, *options, name, *command)


@contextmanager
def mounted(name: str) -> Iterator[Path]:
    """The file system of an image, to look at."""
    folder = Path(podman("image", "mount", name).strip())
    try:
        yield folder
    finally:
        podman("image", "unmount", name)


@contextmanager
def one_build_at_a_time() -> Iterator[None]:
    """A second build waits, and finds the layers of the first."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _environment() -> dict[str, str]:
    configuration = cache_folder() / "containers.conf"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    if not configuration.exists() or configuration.read_text() != _CONTAINERS_CONF:
        configuration.write_text(_CONTAINERS_CONF)
    return {**os.environ, "CONTAINERS_CONF": str(configuration)}
