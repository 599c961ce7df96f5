"""What this machine has: GPUs by class, without torch; a free port."""

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ltx2_job import cgroup
from ltx2_job.errors import ConfigError, Problem
from ltx2_operator import gpus
from ltx2_operator.gpus import AMD_RESOURCE, NVIDIA_RESOURCE, GpuClass
from ltx2_operator.processes import Machine

MEMINFO: Final = Path("/proc/meminfo")
KFD: Final = Path("/sys/class/kfd/kfd/topology/nodes")
CGROUPS: Final = cgroup.ROOT
QUERY_SECONDS: Final = 15.0
MASKS: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")  # hide GPUs from a process and its children


@dataclass(frozen=True)
class LocalGpu:
    """One GPU: its index as the vendor's runtime counts, its product name, memory in MiB, its class or None.

    uuid: the other name by which CUDA_VISIBLE_DEVICES may ask for it; empty where the driver told none.
    """

    index: str
    vendor: str  # "nvidia" or "amd"
    product: str
    memory_mib: int
    gpu_class: GpuClass | None
    uuid: str = ""


def detect(environ: Mapping[str, str] | None = None, kfd: Path | None = None) -> list[LocalGpu]:
    """The GPUs that a process started here would see (CUDA_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES are honoured)."""
    environ = os.environ if environ is None else environ
    return _visible(_nvidia(environ), environ.get("CUDA_VISIBLE_DEVICES")) + _visible(
        _amd(kfd or KFD), environ.get("HIP_VISIBLE_DEVICES")
    )


def _visible(found: list[LocalGpu], mask: str | None) -> list[LocalGpu]:
    if mask is None:
        return found
    seen: list[LocalGpu] = []
    for entry in (part.strip() for part in mask.split(",")):
        named = [gpu for gpu in found if gpu.index == entry or _abbreviates(entry, gpu.uuid)]
        if not named:
            break  # as the runtimes do: what follows an entry that names no GPU is hidden
        seen += named
    return seen


def _abbreviates(entry: str, uuid: str) -> bool:
    """Whether CUDA takes an entry for a GPU: its whole name GPU-<hex> or the beginning of it."""
    return entry.startswith("GPU-") and uuid.startswith(entry)


def _nvidia(environ: Mapping[str, str]) -> list[LocalGpu]:
    command = ["nvidia-smi", "--query-gpu=index,name,memory.total,uuid", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=QUERY_SECONDS, env=dict(environ), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_nvidia(done.stdout) if done.returncode == 0 else []


def parse_nvidia(text: str) -> list[LocalGpu]:
    """The rows of nvidia-smi's index, name, memory.total (MiB), uuid as CSV without header."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) >= 3 and parts[0].isdigit():
            memory = int(parts[2]) if parts[2].isdigit() else 0
            found.append(LocalGpu(parts[0], "nvidia", parts[1], memory, gpus.of_product(parts[1]), *parts[3:]))
    return found


def _amd(kfd: Path) -> list[LocalGpu]:
    """The kernel's own list of AMD GPUs; CPUs stand in it too, with simd_count 0."""
    found: list[LocalGpu] = []
    nodes = sorted(kfd.glob("*/properties"), key=lambda path: int(path.parent.name)) if kfd.is_dir() else []
    for path in nodes:
        try:
            pairs = dict(line.split(maxsplit=1) for line in path.read_text().splitlines() if " " in line)
        except OSError:
            continue
        if int(pairs.get("simd_count", 0)) == 0:
            continue
        device = f"{int(pairs.get('device_id', 0)):x}"
        memory = 0
        for bank in path.parent.glob("mem_banks/*/properties"):
            values = dict(line.split(maxsplit=1) for line in bank.read_text().splitlines() if " " in line)
            memory = max(memory, int(values.get("size_in_bytes", 0)) // 2**20)
        found.append(LocalGpu(str(len(found)), "amd", f"AMD {device}", memory, gpus.of_device(device, memory)))
    return found


def classes(found: list[LocalGpu], count: int, field: str = "spec.gpu.class") -> list[GpuClass]:
    """The known classes that can train of which this machine has `count` or more, cheapest first; none without a GPU.

    Raises ConfigError where it has GPUs, but none that the table knows, none that computes in bf16, or fewer than
    `count` of each class.
    """
    known = [gpu.gpu_class for gpu in found if gpu.gpu_class is not None]
    if found and not known:
        raise ConfigError(_unknown(found, field))
    able = {entry.name: entry for entry in known if entry.bf16}
    if known and not able:
        refused = gpus.refusal(known[0], field)
        assert refused is not None
        raise ConfigError(refused)
    enough = [entry for entry in able.values() if known.count(entry) >= count]
    if able and not enough:
        most = max(known.count(entry) for entry in able.values())
        message = f"{count}, but this machine has at most {most} of one class that can train"
        raise ConfigError(Problem(f"{field.removesuffix('class')}count", message, f"set it to {most}"))
    return gpus.cheapest_first(enough)


def _unknown(found: list[LocalGpu], field: str) -> Problem:
    """What to name instead of a product of no class: the largest class of its maker that is not larger than it.

    Of the first maker only: the graphics of an AMD processor beside an NVIDIA card are no second GPU to train on.
    """
    found = [gpu for gpu in found if gpu.vendor == found[0].vendor]
    names = ", ".join(sorted({gpu.product for gpu in found}))
    least = min(gpu.memory_mib for gpu in found)
    smaller = [
        entry for entry in gpus.TRAINING if entry.vendor == found[0].vendor and entry.memory_bytes <= least * gpus.MIB
    ]
    remedy = f"name the nearest that is not larger: {smaller[-1].name}" if smaller else "use another GPU"
    return Problem(field, f"this machine's {names} ({least} MiB) is in no class", remedy)


def as_machine(found: list[LocalGpu], environ: Mapping[str, str]) -> Machine:
    """The machine as pods see it."""
    by_resource = {
        resource: tuple(gpu.index for gpu in found if gpu.vendor == vendor)
        for resource, vendor in ((NVIDIA_RESOURCE, "nvidia"), (AMD_RESOURCE, "amd"))
    }
    of_class: dict[str, tuple[str, ...]] = {}
    for gpu in found:
        if gpu.gpu_class is not None:
            of_class[gpu.gpu_class.name] = (*of_class.get(gpu.gpu_class.name, ()), gpu.index)
    env = dict(environ)
    if env.get("PYTHONPATH"):  # pods start in folders of their own
        env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in env["PYTHONPATH"].split(os.pathsep))
    return Machine(by_resource, env, of_class)


def host_memory(meminfo: Path | None = None) -> int | None:
    """Bytes of memory of this machine (MemTotal of /proc/meminfo), or of the container where its limit is lower.

    None where the system does not tell it so.
    """
    try:
        lines = (meminfo or MEMINFO).read_text().splitlines()
    except OSError:
        return None
    whole = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), None)
    limit = cgroup.memory_limit(CGROUPS)
    return whole if whole is None or limit is None else min(whole, limit)


def free_port() -> int:
    """A TCP port that nobody listens on now, so that two runs on one machine do not collide."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
