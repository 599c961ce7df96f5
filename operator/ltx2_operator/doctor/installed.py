"""Versions: this command's own, and those of the installation that `ltx2-job` runs in, as it tells them itself."""

import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from ltx2_job.errors import UnavailableError
from ltx2_operator.doctor.finding import Finding
from ltx2_operator.processes import find_program

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION: Final = "ltx2-operator"
FACTS_SECONDS: Final = 90.0  # importing torch from a cold disk
BASE: Final = "pip install . in the project's folder"
INSTALL: Final = "pip install '.[cuda]' in the project's folder (docs/install.md: AMD, CPU)"
CODECS: Final = ("h264", "aac")  # what sample clips are written with, and most clips are


@dataclass(frozen=True)
class Facts:
    """What `ltx2-job facts` says: python, packages (name -> version), torch, codecs. Empty where there is no job."""

    page: Mapping[str, Any] = field(default_factory=dict)

    @property
    def torch(self) -> Mapping[str, Any]:
        """version, cuda, hip, devices, or error; empty where torch is not installed."""
        return dict(self.page.get("torch") or {})


def ask_job(environ: Mapping[str, str]) -> tuple[Facts, list[Finding]]:
    """The facts of the job's installation, or why there are none."""
    try:
        program = find_program("ltx2-job", environ)
    except UnavailableError as error:
        message, _, remedy = str(error).partition("; ")
        return Facts(), [Finding("job", "note", f"{message}: manifests can be checked and rendered, not run", remedy)]
    try:
        done = subprocess.run(
            [program, "facts"], capture_output=True, text=True, timeout=FACTS_SECONDS, check=False, env=dict(environ)
        )
        page = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Facts(), [Finding("job", "fix", f"{program} facts does not end within {FACTS_SECONDS:g} s", INSTALL)]
    except (OSError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"it left with {done.returncode}"])[-1]
        return Facts(), [Finding("job", "fix", f"{program} cannot be used: {last}", INSTALL)]
    return Facts(page), [Finding("job", "ok", str(program))]


def versions(facts: Facts, requires: Sequence[str] | None = None) -> list[Finding]:
    """Python, this package, and every package with a range of its own, own environment first.

    requires: the ranges, None for those of the installed package.
    """
    found = [Finding("python", "ok", platform.python_version())]
    try:  # here and not above: this is what has to work where something is missing
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        return [*found, Finding("ltx2", "fix", "packaging is not installed", BASE)]
    try:
        own = metadata.version(DISTRIBUTION)
        ranges = list(metadata.requires(DISTRIBUTION) or []) if requires is None else list(requires)
    except metadata.PackageNotFoundError:
        return [*found, Finding("ltx2", "fix", f"{DISTRIBUTION} is not installed as a package", BASE)]
    found.append(Finding("ltx2", "ok", f"{DISTRIBUTION} {own}"))
    needed = [Requirement(text) for text in ranges]
    base = [one for one in needed if one.marker is None]
    found += _ranges(base, {one.name: _installed(one.name) for one in base}, "ltx2", BASE)
    if facts.page:
        extra = [one for one in needed if one.marker is not None and one.marker.evaluate({"extra": "job"})]
        there = {str(name): str(version) for name, version in (facts.page.get("packages") or {}).items()}
        found += _ranges(extra, {one.name: there.get(_plain(one.name)) for one in extra}, "job", INSTALL)
    return found


def _ranges(needed: Sequence["Requirement"], there: Mapping[str, str | None], area: str, remedy: str) -> list[Finding]:
    """One ok line for all that fit, one fix line for each that does not."""
    from packaging.version import Version

    fitting, wrong = [], []
    for one in needed:
        version = there[one.name]
        if version is None:
            wrong.append(Finding(area, "fix", f"{one.name} is not installed (wanted: {one.specifier})", remedy))
        elif not one.specifier.contains(Version(version), prereleases=True):
            message = f"{one.name} {version} does not fit {one.specifier}"
            wrong.append(Finding(area, "fix", message, f"pip install '{one.name}{one.specifier}'"))
        else:
            fitting.append(f"{one.name} {version}")
    return [*([Finding(area, "ok", ", ".join(fitting))] if fitting else []), *wrong]


def codecs(facts: Facts) -> list[Finding]:
    """Whether clips can be read and written: PyAV brings its own codecs, no ffmpeg has to be installed."""
    page = facts.page.get("codecs")
    if page is None:
        return []
    lacking = [
        f"{name} {way}" for name in CODECS for way in ("decode", "encode") if not (page.get(name) or {}).get(way)
    ]
    if lacking:
        message = f"PyAV lacks {', '.join(lacking)}"
        return [
            Finding("codecs", "fix", message, "install the wheel: pip install --only-binary av --force-reinstall av")
        ]
    return [Finding("codecs", "ok", f"{' and '.join(CODECS)} by PyAV; no ffmpeg is needed")]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _plain(name: str) -> str:
    """A distribution's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
