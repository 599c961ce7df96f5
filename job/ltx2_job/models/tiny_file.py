"""Writes .safetensors files whose bytes depend on nothing but their content, and draws weights by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ltx2_job.models.header import encode_header

TYPES: Final = {"F32": torch.float32, "BF16": torch.bfloat16}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file whose bytes depend on its content only: wide types first, then by name.

    (The library's writer orders the metadata by a random hash.)
    """
    codes = {dtype: code for code, dtype in TYPES.items()}
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = encode_header({name: (codes[tensors[name].dtype], tuple(tensors[name].shape)) for name in names}, metadata)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            file.write(raw_bytes(tensors[name]))


def seeded(name: str, seed: int) -> torch.Generator:
    """A generator for one tensor: its values depend on its name and the seed, not on what was drawn before."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def raw_bytes(tensor: Tensor) -> bytes:
    """The tensor's bytes as a file holds them (little-endian machines)."""
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
