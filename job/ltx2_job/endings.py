"""How a command ends: every exception becomes one exit code of exitcodes.py and one line for the user.

Nothing here imports torch: its errors are recognised by class name and by the texts that its allocators and collectives
raise, so that a command that failed before torch was loaded ends the same way.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ltx2_job import exitcodes
from ltx2_job.console import size_text
from ltx2_job.errors import JobError
from ltx2_job.storage import CLOSED, FULL, free

_GPU_MEMORY: Final = (
    "CUDA out of memory",
    "HIP out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_HOST_MEMORY: Final = ("DefaultCPUAllocator", "Cannot allocate memory", "not enough memory")
_NO_SPACE: Final = ("No space left on device", "os error 28")
_COLLECTIVES: Final = ("gloo/transport", "NCCL error", "Connection closed by peer", "ncclRemoteError")
# What the extra `job` installs and the base install does not have.
_EXTRA: Final = frozenset(
    (
        "torch",
        "diffusers",
        "transformers",
        "tokenizers",
        "peft",
        "accelerate",
        "safetensors",
        "av",
        "huggingface_hub",
        "boto3",
        "botocore",
        "httpx2",
        "numpy",
        "matplotlib",
    )
)
_UNREACHABLE: Final = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


@dataclass(frozen=True)
class Ending:
    """An exit code, the user's line, and whether the traceback is worth keeping (it is for a defect of ours)."""

    code: int
    message: str
    defect: bool = False


def ending(error: BaseException, workspace: Path | None = None) -> Ending:
    """The ending that an exception stands for; `workspace` tells a volume that is not writable from any other file."""
    if isinstance(error, JobError):
        return Ending(error.exit_code, str(error))
    if isinstance(error, KeyboardInterrupt):
        return Ending(exitcodes.STOPPED, "stopped from the keyboard")
    if isinstance(error, ModuleNotFoundError) and (missing := (error.name or "").partition(".")[0]) in _EXTRA:
        return Ending(
            exitcodes.CONFIG,
            f"{missing} is not installed: this command needs the extra `job`; "
            "pip install '.[cuda]' in the project's folder (docs/install.md: AMD, CPU)",
        )
    text, names = str(error), {kind.__name__ for kind in type(error).__mro__}
    if "OutOfMemoryError" in names or _says(error, _GPU_MEMORY):
        return Ending(exitcodes.GPU_OUT_OF_MEMORY, f"GPU out of memory: {_first_line(text)}")
    if isinstance(error, MemoryError) or _says(error, _HOST_MEMORY):
        return Ending(exitcodes.HOST_OUT_OF_MEMORY, f"host out of memory: {_first_line(text) or type(error).__name__}")
    if any(name.startswith("Dist") and name.endswith("Error") for name in names) or _says(error, _COLLECTIVES):
        return Ending(exitcodes.TEMPORARY, f"a peer was lost: {_first_line(text)}")
    if isinstance(error, OSError) and (known := _storage(error, workspace)):
        return known
    if _says(error, _NO_SPACE):
        return Ending(exitcodes.STORAGE, _full(None))
    return Ending(exitcodes.SOFTWARE, f"unexpected {type(error).__name__}: {_first_line(text)}", defect=True)


def _storage(error: OSError, workspace: Path | None) -> Ending | None:
    """The ending of an error of the volume or the network; None for any other OSError (a missing file is a defect)."""
    name = error.filename if isinstance(error.filename, (str, bytes)) else None
    path = Path(os.fsdecode(name)) if name else None
    if error.errno in FULL:
        return Ending(exitcodes.STORAGE, _full(path))
    inside = path is not None and workspace is not None and path.absolute().is_relative_to(workspace.absolute())
    if error.errno in CLOSED and inside:
        return Ending(
            exitcodes.STORAGE,
            f"{path}: {error.strerror} for uid {os.getuid()}; make the volume writable for it (fsGroup, chown)",
        )
    if isinstance(error, (ConnectionError, TimeoutError)) or error.errno in _UNREACHABLE:
        return Ending(exitcodes.UNAVAILABLE, f"not reachable: {error}")
    return None


def _full(path: Path | None) -> str:
    left = f" ({size_text(free(path))} free)" if path is not None else ""
    return f"{path or 'the volume'}: no space left{left}; grow the claim, then run again: nothing is lost"


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    """Whether a library's error holds one of the texts. Errors of the operating system carry a number instead."""
    return isinstance(error, Exception) and not isinstance(error, OSError) and any(text in str(error) for text in texts)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
