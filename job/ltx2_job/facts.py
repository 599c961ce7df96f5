"""What this installation is: versions, what torch was built for and sees, which codecs there are."""

import platform
import re
from importlib import metadata
from typing import Any


def facts() -> dict[str, Any]:
    """As JSON values: python, packages (name -> version), torch, codecs. What is not installed is null."""
    packages = {
        re.sub(r"[-_.]+", "-", name).lower(): distribution.version
        for distribution in metadata.distributions()
        if (name := distribution.metadata["Name"])
    }
    return {"python": platform.python_version(), "packages": packages, "torch": _torch(), "codecs": _codecs()}


def _torch() -> dict[str, Any] | None:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name == "torch":
            return None
        return {"error": str(error)}
    except (ImportError, OSError, RuntimeError) as error:  # a library of the driver or of CUDA is missing
        return {"error": str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "devices": [torch.cuda.get_device_name(index) for index in range(count)],
    }


def _codecs() -> dict[str, dict[str, bool]] | None:
    """Per codec, whether PyAV's own libraries can decode and encode it."""
    try:
        import av
    except ImportError:
        return None

    def has(name: str, mode: Any) -> bool:
        try:
            av.Codec(name, mode)
        except ValueError:  # what the library raises for a codec it was built without
            return False
        return True

    return {name: {"decode": has(name, "r"), "encode": has(name, "w")} for name in ("h264", "aac")}
