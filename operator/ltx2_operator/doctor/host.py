"""This machine: GPU, cores, memory, disk, shared memory, the folder for temporary files."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ltx2_job import cgroup, estimate
from ltx2_job.errors import ConfigError
from ltx2_job.estimate import GIB
from ltx2_operator import gpus, machine
from ltx2_operator.doctor.finding import Finding
from ltx2_operator.doctor.installed import INSTALL, Facts
from ltx2_operator.machine import QUERY_SECONDS, LocalGpu

MOUNTS: Final = Path("/proc/mounts")
SHARED_MEMORY: Final = Path("/dev/shm")
LEAST_SHARED: Final = 32 * 2**20
LEAST_DISK: Final = GIB
NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "beegfs", "fuse.sshfs"})
_CUDA_OF_DRIVER: Final = re.compile(r"CUDA Version:\s*(\d+)\.(\d+)")


def gpu(facts: Facts, environ: Mapping[str, str]) -> list[Finding]:
    """The GPUs by class, and whether the job's torch can use them."""
    found = machine.detect(environ)
    hidden = machine.detect({key: value for key, value in environ.items() if key not in machine.MASKS})
    if not found and hidden:
        mask = ", ".join(f"{name}={environ[name]!r}" for name in machine.MASKS if name in environ)
        names = ", ".join(sorted({one.product for one in hidden}))
        return [Finding("gpu", "fix", f"{mask} hides every GPU of this machine ({names})", "unset it, or name indices")]
    if not found:
        reason = "nvidia-smi shows none" if shutil.which("nvidia-smi", path=environ.get("PATH")) else "no nvidia-smi"
        remedy = "only tiny models train here (class cpu); a manifest for GPUs runs on a cluster unchanged"
        return [Finding("gpu", "note", f"no GPU ({reason}, no AMD card)", remedy)]
    return [*_classes(found), *_torch(facts, found, _driver_cuda(environ))]


def _classes(found: list[LocalGpu]) -> list[Finding]:
    lines = []
    for product in dict.fromkeys(one.product for one in found):
        group = [one for one in found if one.product == product]
        known = group[0].gpu_class
        what = f"{len(group)} x {product}, {group[0].memory_mib} MiB"
        refused = gpus.refusal(known) if known is not None else None
        if refused is not None:
            lines.append(Finding("gpu", "note", f"{what}: {refused.message}", refused.remedy))
            continue
        if known is not None:
            lines.append(Finding("gpu", "ok", f"{what}: class {known.name}"))
            continue
        try:
            machine.classes(group, 1)
        except ConfigError as error:
            lines.append(Finding("gpu", "note", f"{what}: in no class", error.problems[0].remedy))
    return lines


def _torch(facts: Facts, found: list[LocalGpu], driver: tuple[int, int] | None) -> list[Finding]:
    """Whether torch was built for these GPUs, is not newer than their driver, and sees them."""
    torch = facts.torch
    if not torch or torch.get("error"):
        return []  # said with the versions
    version, cuda, hip = str(torch.get("version")), torch.get("cuda"), torch.get("hip")
    amd = any(one.vendor == "amd" for one in found)
    if amd and not hip and not any(one.vendor == "nvidia" for one in found):
        return [Finding("torch", "fix", f"torch {version} is not built for AMD GPUs", _index("ROCm's"))]
    if not amd and not cuda:
        return [Finding("torch", "fix", f"torch {version} is not built for NVIDIA GPUs", _index("a CUDA"))]
    built = f"CUDA {cuda}" if cuda else f"ROCm {hip}"
    if cuda and driver is not None and int(str(cuda).split(".")[0]) > driver[0]:
        message = f"torch {version} wants {built}, the driver offers CUDA {driver[0]}.{driver[1]}"
        return [Finding("torch", "fix", message, "update the driver, or install torch of an older CUDA index")]
    seen = [str(name) for name in torch.get("devices") or []]
    served = [one for one in found if one.vendor == ("amd" if hip else "nvidia")]  # one build serves one maker
    if len(seen) != len(served):
        message = f"torch {version} ({built}) sees {len(seen)} of {len(served)} GPUs"
        return [Finding("torch", "fix", message, "is the driver loaded, are /dev/nvidia* or /dev/kfd readable here?")]
    return [Finding("torch", "ok", f"{version}, {built}, sees {len(seen)} GPU{'s' if len(seen) > 1 else ''}")]


def _index(whose: str) -> str:
    return f"install torch from {whose} index: {INSTALL}"


def _driver_cuda(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """The newest CUDA that the NVIDIA driver serves, as nvidia-smi's heading says; None without one."""
    try:
        done = subprocess.run(
            ["nvidia-smi"], capture_output=True, text=True, timeout=QUERY_SECONDS, check=False, env=dict(environ)
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    hit = _CUDA_OF_DRIVER.search(done.stdout)
    return (int(hit[1]), int(hit[2])) if hit else None


def cores() -> list[Finding]:
    """The cores that a process may use; a container's quota counts."""
    here = len(os.sched_getaffinity(0))
    quota = cgroup.cpu_limit()
    if quota is not None and quota < here:
        return [Finding("cpu", "ok", f"{quota:g} of {here} cores (the container's quota)")]
    return [Finding("cpu", "ok", f"{here} cores")]


def memory() -> list[Finding]:
    """Host memory; a container's limit counts."""
    have = machine.host_memory()
    if have is None:
        return [Finding("memory", "note", "the system does not tell how much there is")]
    return [Finding("memory", "ok", f"{have / GIB:.1f} GiB of host memory; `ltx2 estimate FILE` says what a run needs")]


def disk(workspace: Path) -> list[Finding]:
    """Whether the workspace can be written, what it lies on, and whether the models would fit."""
    place = next(path for path in (workspace, *workspace.parents) if path.exists())
    if not place.is_dir():
        return [Finding("disk", "fix", f"{place} is a file, not a folder", "give a folder with --workspace")]
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return [Finding("disk", "fix", f"{place}: {error.strerror}", "make it writable, or give another --workspace")]
    kind, free = file_system(place.resolve()), shutil.disk_usage(place).free
    text = f"{workspace}: {free / GIB:.1f} GiB free" + (f" on {kind}" if kind else "")
    whole = sum(estimate.download_bytes(estimate.known_model("2.0")))
    if free < LEAST_DISK:
        return [Finding("disk", "fix", text, "make room, or give another --workspace")]
    if kind in ("tmpfs", "ramfs"):
        return [Finding("disk", "note", text, "this is memory: it is lost at the next start; give another --workspace")]
    if kind in NETWORK:
        return [Finding("disk", "note", text, "a network file system is slow for clips and cache; a local disk is not")]
    if free < whole:
        remedy = "make room unless the model lies there already, or train a tiny model"
        return [Finding("disk", "note", f"{text}; LTX-2 and Gemma take {whole / GIB:.0f} GiB", remedy)]
    return [Finding("disk", "ok", text)]


def file_system(path: Path, mounts: Path | None = None) -> str:
    """The type of the file system that holds a path (ext4, nfs4, ...); empty where the system does not tell."""
    best, kind = -1, ""
    try:
        lines = (mounts or MOUNTS).read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        point = Path(re.sub(r"\\([0-7]{3})", lambda hit: chr(int(hit[1], 8)), fields[1]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def shared_memory(folder: Path | None = None) -> list[Finding]:
    """/dev/shm, through which processes of several GPUs hand tensors to each other."""
    place = folder or SHARED_MEMORY
    try:
        size = shutil.disk_usage(place)
    except OSError:
        return [Finding("shm", "note", f"there is no {place}", "more than one GPU needs it: mount a tmpfs there")]
    text = f"{place}: {size.total / GIB:.1f} GiB, {size.free / GIB:.1f} GiB free"
    if size.free < LEAST_SHARED:
        return [Finding("shm", "fix", text, "remove what dead processes left there, or start with --shm-size=1g")]
    if size.total < estimate.constants()["host"]["shm_bytes"]["value"]:
        return [Finding("shm", "note", text, "enough for one process; for several GPUs start with --shm-size=1g")]
    return [Finding("shm", "ok", text)]


def temporary() -> list[Finding]:
    """Where processes of a run get their folders."""
    try:
        return [Finding("tmp", "ok", tempfile.gettempdir())]
    except FileNotFoundError:
        remedy = "set TMPDIR to a folder that exists and can be written"
        return [Finding("tmp", "fix", "no folder for temporary files can be written", remedy)]
