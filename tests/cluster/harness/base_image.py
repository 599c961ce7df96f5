"""The base of the images where none can be pulled: Debian's packages and this machine's Python 3.12."""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from .binaries import Missing
from .podman import attempt, must, one_build_at_a_time, podman

NAME = "localhost/ltx2/python:3.12-slim"
# Of Debian 12: what the official python:3.12-slim-bookworm holds, and the libraries that Python's modules link to.
_PACKAGES = (
    "bash,ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,zlib1g,libbz2-1.0,liblzma5,libreadline8,"
    "libncursesw6,libuuid1,libexpat1"
)
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_NOT_PYTHON = re.compile(  # its tests, its windows, what was installed into it, and scripts that name its old folder
    r"/(tests?|idlelib|tkinter|turtledemo|site-packages|__pycache__|config-3\.12-[^/]*|include|share)(/|$)"
    r"|\.a$|/bin/(?!python3?(\.12)?$)"
)
_DOCKERFILE = """ARG BARE
FROM ${BARE}
RUN ldconfig && python3.12 -m ensurepip --default-pip && python3.12 -m compileall -q /usr/local/lib
"""
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/bin:/usr/sbin:/sbin"


def base_image() -> str:
    """A base image like python:3.12-slim-bookworm; made once for each Python and each set of the constants above.

    Raises:
        Missing: this is not Debian 12, or pyenv has no Python 3.12; says what to do.
    """
    python = _python()
    if "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text() or python is None:
        raise Missing(
            "a base image is made on Debian 12 with pyenv's Python 3.12; elsewhere name one that podman can pull: "
            "TEST_BASE_IMAGE=docker.io/library/python:3.12-slim-bookworm"
        )
    if shutil.which("mmdebstrap") is None:
        raise Missing("the images' base needs the package mmdebstrap")
    decides = (_PACKAGES, _EXCLUDED, _NOT_PYTHON.pattern, _DOCKERFILE, _PATH, str(python))
    key = hashlib.sha256(repr(decides).encode()).hexdigest()[:16]
    with one_build_at_a_time():
        found = attempt("podman", "image", "inspect", "--format", '{{index .Labels "ltx2.key"}}', NAME)
        if found.stdout.strip() != key:
            _make(python, key)
    return NAME


def _make(python: Path, key: str) -> None:
    with tempfile.TemporaryDirectory(prefix="ltx2-base-") as temporary:
        archive = Path(temporary) / "root.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}"]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
        must(*command, "bookworm", str(archive))
        _add_python(archive, python)
        changes = [f"--change=ENV PATH={_PATH}", f"--change=LABEL ltx2.key={key}"]
        bare = podman("import", "--quiet", *changes, str(archive)).strip()
        (Path(temporary) / "Dockerfile").write_text(_DOCKERFILE)
        podman("build", "--isolation=chroot", "--squash-all", f"--build-arg=BARE={bare}", "-t", NAME, temporary)
        podman("rmi", bare)


def _add_python(archive: Path, python: Path) -> None:
    with tarfile.open(archive, "a") as root:
        known = {os.path.normpath(name) for name in root.getnames()}
        for path in sorted(python.rglob("*")):
            name = f"usr/local/{path.relative_to(python)}"
            if name not in known and not _NOT_PYTHON.search(name):
                root.add(path, name, recursive=False, filter=_owned_by_root)


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _python() -> Path | None:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [path for path in root.glob("3.12.*") if (path / "bin" / "python3.12").exists()]
    return max(found, key=lambda path: int(path.name.split(".")[2]), default=None)
