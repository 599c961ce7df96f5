"""The header of a .safetensors file, read without torch and without touching a weight.

A safetensors file is 8 bytes (little-endian length n), n bytes of JSON, then the tensors' raw bytes. The JSON maps each
name to {"dtype", "shape", "data_offsets": [begin, end)}, offsets counted from the end of the JSON; `__metadata__` holds
strings. LTX-2 files carry their architecture as JSON in the metadata's `config`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ltx2_job.errors import CheckpointError, Problem

# Bytes per element of the types that safetensors knows, by the names it writes.
ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip

# The format's own limit on the JSON's length; a larger number means the first 8 bytes are something else.
_MAX_JSON_BYTES: Final = 100_000_000


def fault(message: str, remedy: str = "") -> CheckpointError:
    """A CheckpointError with one sentence about the model file and, if there is one, what to do."""
    return CheckpointError(Problem("model", message, remedy))


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header describes it; `begin` and `end` are absolute positions in the file, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes in the file."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """All that a file says about itself: tensors by name (in the order of their bytes), metadata, sizes in bytes."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    json_bytes: int = 0
    file_bytes: int = 0

    @cached_property
    def config(self) -> dict[str, Any]:
        """The metadata's `config`, parsed; empty where the file has none. Sections that are null count as empty."""
        text = self.metadata.get("config")
        if not text:
            return {}
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError as error:
            raise fault(f"{self.path}: the header's config is no JSON ({error})", "download the file again") from error
        if not isinstance(parsed, dict):
            raise fault(f"{self.path}: the header's config is no JSON object", "download the file again")
        return parsed

    def section(self, name: str) -> dict[str, Any]:
        """A section of `config` (transformer, vae, audio_vae, vocoder); empty where it is missing or null."""
        value = self.config.get(name) or {}
        if not isinstance(value, dict):
            raise fault(f"{self.path}: section {name} of the header's config is no JSON object")
        return value


def read_header(path: Path) -> Header:
    """Read and check the header of a .safetensors file.

    Raises CheckpointError if the file is missing, is something else (GGUF, a pickle, an error page), is cut short, or
    if its entries overlap or do not match their shapes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if prefix[:4] == b"GGUF":
                raise fault(f"{path} is a GGUF file: not supported yet", "take the bf16 .safetensors file")
            if prefix == b"version ":
                raise fault(
                    f"{path} is a Git LFS pointer, not the file itself", "run git lfs pull, or download the file"
                )
            if prefix[:2] in (b"PK", b"\x80\x02"):
                raise fault(f"{path} is a pickle of torch, not a safetensors file", "take the .safetensors file")
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or not 2 <= length <= _MAX_JSON_BYTES:
                raise fault(f"{path} is not a safetensors file", "take the .safetensors file of the model")
            raw = file.read(length)
    except FileNotFoundError as error:
        raise fault(f"{path} does not exist", "give the path of the model's .safetensors file") from error
    except IsADirectoryError as error:
        raise fault(f"{path} is a folder, not a .safetensors file", "name the file in it") from error
    except OSError as error:
        raise fault(f"{path} cannot be read ({error.strerror})", "chmod it, or repair the volume") from error
    if len(raw) < length:
        raise fault(f"{path} ends inside its header ({size} bytes)", "download the file again")
    try:
        entries = json.loads(raw)
    except ValueError as error:
        raise fault(f"{path} is not a safetensors file (its header is no JSON)", "download the file again") from error
    return parse_header(entries, path=path, json_bytes=length, file_bytes=size)


def read_lora_header(path: Path) -> Header:
    """The header of a LoRA file, official or diffusers names. Raises CheckpointError as read_header, or for no LoRA."""
    header = read_header(path)
    if not any(name.endswith((".lora_A.weight", ".lora_down.weight")) for name in header.tensors):
        raise fault(
            f"{path} is no LoRA (no tensor is named .lora_A.weight)", "name a LoRA here, the model with --model"
        )
    return header


def parse_header(entries: Any, *, path: Path, json_bytes: int, file_bytes: int) -> Header:
    """The header of `read_header` from its parsed JSON; pure, so that tests can drive it without a file."""
    if not isinstance(entries, dict):
        raise fault(f"{path} is not a safetensors file (its header is no JSON object)", "download the file again")
    metadata = entries.get("__metadata__") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise fault(f"{path}: the header's __metadata__ must map names to strings")
    start = 8 + json_bytes
    tensors = [_entry(name, value, start, path) for name, value in entries.items() if name != "__metadata__"]
    tensors.sort(key=lambda entry: (entry.begin, entry.end, entry.name))
    position = start
    for entry in tensors:
        if entry.begin != position:
            raise fault(f"{path}: the bytes of tensor {entry.name} begin at {entry.begin}, not at {position}",
                        "download the file again")  # fmt: skip
        position = entry.end
    if position != file_bytes:
        what = "is cut short" if position > file_bytes else "has bytes that no tensor owns"
        raise fault(f"{path} {what}: its header describes {position} bytes, the file has {file_bytes}",
                    "download the file again")  # fmt: skip
    return Header(path, {entry.name: entry for entry in tensors}, metadata, json_bytes, file_bytes)


def _entry(name: str, value: Any, start: int, path: Path) -> TensorEntry:
    try:
        dtype, shape = value["dtype"], tuple(int(size) for size in value["shape"])
        begin, end = (start + int(offset) for offset in value["data_offsets"])
    except (TypeError, KeyError, ValueError) as error:
        raise fault(f"{path}: the header's entry of tensor {name} is malformed", "download the file again") from error
    if dtype in ITEM_BYTES and end - begin != ITEM_BYTES[dtype] * math.prod(shape):
        raise fault(f"{path}: tensor {name} has {end - begin} bytes, but {dtype} {list(shape)} needs "
                    f"{ITEM_BYTES[dtype] * math.prod(shape)}", "download the file again")  # fmt: skip
    return TensorEntry(name, dtype, shape, begin, end)


def encode_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The JSON of a header for tensors (name -> dtype, shape) that lie one behind the other in the order given.

    Padded with spaces to a multiple of 8 bytes, as the format's writers do. The 8 bytes of its length are not included.
    """
    position = 0
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, (dtype, shape) in tensors.items():
        end = position + ITEM_BYTES[dtype] * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(entries, separators=(",", ":")).encode()
    return raw + b" " * (-len(raw) % 8)
