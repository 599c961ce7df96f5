"""What the Dockerfile and its lists say, without building anything."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ltx2_operator import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).parent / "hadolint"
# What decides which device torch is for; everything else of a job is the same in every image.
DEVICE = re.compile(r"torch|triton|nvidia-.*|cuda-.*")


def pins(name: str) -> dict[str, str]:
    """Package -> version of one of the lists."""
    return dict(re.findall(r"^([a-z0-9.-]+)==([^\s;\\]+)", (ROOT / "images" / name).read_text(), re.M))


def locked() -> dict[str, set[str]]:
    """Package -> versions in uv.lock."""
    versions: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        versions.setdefault(package["name"], set()).add(package.get("version", ""))
    return versions


def arguments(name: str) -> set[str]:
    """The defaults of an argument of the Dockerfile."""
    return set(re.findall(rf"^ARG {name}=(.*)$", DOCKERFILE, re.M))


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing() -> None:
    done = hadolint(ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("was", "becomes", "rule"),
    [("pip install --no-cache-dir", "pip install", "DL3042"), ("# hadolint ignore=SC2086\n", "", "SC2086")],
)
def test_hadolint_would_find_something(tmp_path: Path, was: str, becomes: str, rule: str) -> None:
    assert was in DOCKERFILE
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace(was, becomes))
    assert rule in hadolint(tmp_path / "Dockerfile").stdout


def test_the_version_is_that_of_the_project() -> None:
    assert arguments("VERSION") == {__version__}


@pytest.mark.parametrize("name", ["build.txt", "cuda.txt"])
def test_every_package_has_hashes(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / "images" / name).read_text())
    packages = [entry for entry in entries if not entry.startswith("#")]
    assert packages
    assert not [entry for entry in packages if "==" not in entry or "--hash=sha256:" not in entry]


def test_it_builds_with_the_uv_of_the_lock_file() -> None:
    assert {pins("build.txt")["uv"]} == locked()["uv"]


def test_cuda_is_the_torch_that_was_run_on_gpus_and_the_cuda_of_the_label() -> None:
    cuda = pins("cuda.txt")
    assert cuda["torch"] == "2.11.0"
    assert arguments("CUDA_VERSION") == {".".join(cuda["cuda-toolkit"].split(".")[:2])}
    assert all(cuda[name].startswith("13.") for name in ("nvidia-cublas", "nvidia-cuda-runtime", "nvidia-nvjitlink"))


def test_rocm_is_the_same_torch_for_the_rocm_of_the_label() -> None:
    (version,) = arguments("ROCM_VERSION")
    assert pins("rocm.txt")["torch"] == f"{pins('cuda.txt')['torch']}+rocm{version}"
    assert pins("rocm.txt")["setuptools"] == pins("cuda.txt")["setuptools"]


def test_the_lists_differ_from_the_lock_file_in_nothing_but_the_device() -> None:
    """setuptools aside: torch 2.11 refuses the one of the lock file."""
    others = {name for name in (*pins("cuda.txt"), *pins("rocm.txt")) if not re.match(DEVICE, name)}
    assert others == {"setuptools"}


def test_the_lists_are_complete(tmp_path: Path) -> None:
    """The list of a flavour and that of the other packages satisfy each other: what pip check asks in the build."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv
    skipped: list[Any] = []
    for name in locked():
        if re.fullmatch(DEVICE, name) or name == "setuptools":
            skipped += ["--no-emit-package", name]
    export = [uv, "export", "--quiet", "--frozen", "--no-emit-project", "--no-hashes", "--extra", "job", *skipped]
    subprocess.run([*export, "--output-file", tmp_path / "job.txt"], cwd=ROOT, check=True, capture_output=True)
    given = {f"{name}=={version}" for name, version in pins("cuda.txt").items()}
    (tmp_path / "all.in").write_text((tmp_path / "job.txt").read_text() + "\n".join(given))
    compiled = subprocess.run(
        [uv, "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python-version", "3.12",
         "--python-platform", "x86_64-manylinux_2_28", tmp_path / "all.in"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compiled.returncode == 0, compiled.stderr
    resolved = set(compiled.stdout.split())
    assert given <= resolved
    assert not [line for line in resolved - given if re.match(DEVICE, line)], "cuda.txt lacks what torch needs"
