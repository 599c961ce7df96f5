"""The programs of the cluster, built from pinned Go modules, kept outside git under a key of what decides them."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

MODULES = Path(__file__).resolve().parents[1]
GO_NEEDED = (1, 26)


class Missing(Exception):
    """What this machine lacks for a cluster, and what to install."""


def cache_folder() -> Path:
    """Where programs, image layers and the state of clusters are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltx2-operator"


def kube() -> Path:
    """etcd, API server, controllers, scheduler, kubelet, proxy and kubectl in one program: `kube PART ARGUMENTS`.

    The first build takes 6 to 10 minutes on two cores.

    Raises:
        Missing: there is no Go, or its modules can be downloaded neither now nor before.
    """
    version = re.search(r"^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", (MODULES / "kube" / "go.mod").read_text(), re.M)
    assert version is not None, "tests/cluster/kube/go.mod names no version of Kubernetes"
    package = "k8s.io/component-base/version"
    values = {"gitVersion": version[1], "gitMajor": version[2], "gitMinor": version[3]}
    return _built("kube", " ".join(f"-X {package}.{name}={value}" for name, value in values.items()))


def dns() -> Path:
    """CoreDNS.

    Raises:
        Missing: as `kube`.
    """
    return _built("dns")


def box() -> Path:
    """What test pods run: one static program, also the pods' and the cluster's first process.

    Raises:
        Missing: as `kube`.
    """
    return _built("box")


def kwok() -> Path:
    """KWOK, which plays nodes and pods that are not there.

    Raises:
        Missing: as `kube`.
    """
    return _built("kwok", package="sigs.k8s.io/kwok/cmd/kwok")


def prometheus() -> Path:
    """Prometheus, which of all kinds of discovery knows the one of Kubernetes only.

    Raises:
        Missing: as `kube`.
    """
    return _of_prometheus("prometheus")


def promtool() -> Path:
    """What checks and tries the rules of Prometheus, of the same version.

    Raises:
        Missing: as `kube`.
    """
    return _of_prometheus("promtool")


def _of_prometheus(name: str) -> Path:
    package = f"github.com/prometheus/prometheus/cmd/{name}"
    # The clients of two dozen clouds would triple the time to build.
    return _built(name, package=package, tags="remove_all_sd,enable_kubernetes_sd", module="prometheus")


def _built(name: str, linker_flags: str = "", package: str = ".", tags: str = "", module: str = "") -> Path:
    source = MODULES / (module or name)
    flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", f"-s -w {linker_flags}".strip()]
    flags += ["-tags", tags] if tags else []
    digest = hashlib.sha256(" ".join(flags).encode())
    for file in sorted([*source.glob("*.go"), *source.glob("go.*")]):
        digest.update(file.name.encode() + file.read_bytes())
    program = cache_folder() / "bin" / f"{name}-{digest.hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with (program.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process builds, the others wait and find it
            if not program.exists():
                _build(source, flags, program, package)
    return program


def _build(source: Path, flags: list[str], program: Path, package: str) -> None:
    temporary = program.with_suffix(f".{os.getpid()}")
    command = [go(), "build", *flags, "-o", str(temporary), package]
    # The same CGO_ENABLED on every build: otherwise all of Kubernetes is compiled a second time.
    environment = {**os.environ, "CGO_ENABLED": "0"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        temporary.unlink(missing_ok=True)
        offline = any(word in done.stderr for word in ("dial tcp", "no such host", "connection refused", "i/o timeout"))
        if offline:
            raise Missing(f"the Go modules of {source.name} cannot be downloaded: {done.stderr[-300:]}")
        raise RuntimeError(f"{source} does not build: {done.stderr[-2000:]}")
    temporary.rename(program)


def go() -> str:
    wanted = ".".join(map(str, GO_NEEDED))
    go = shutil.which("go")
    if go is None:
        raise Missing(f"no Go: install Go {wanted} or newer (https://go.dev/dl) to build Kubernetes")
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", answer)
    if found is None or (int(found[1]), int(found[2])) < GO_NEEDED:
        raise Missing(f"{go} is {answer}: Kubernetes needs Go {wanted} or newer (https://go.dev/dl)")
    return go
