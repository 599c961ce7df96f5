"""Whether a run lies finished in its folder: result.json is the proof of success. Torch-free."""

import contextlib
from typing import Any

from ltx2_job.workspace import RunFolder, read_json


def finished(run: RunFolder, digest: str) -> dict[str, Any] | None:
    """The result of a run that was trained to its end with the configuration of this digest; None if there is none.

    A result whose LoRA files were taken away is none: training again makes them anew.
    """
    with contextlib.suppress(OSError, ValueError):
        result = read_json(run.result)
        there = run.lora.is_file() and run.lora_diffusers.is_file()
        if there and isinstance(result, dict) and result.get("configDigest") == digest:
            return result
    return None
