"""Headers of published files that nobody has to download: names and shapes from the checked-in lists."""

import functools
import math
from pathlib import Path

import pytest

from ltx2_job.models.header import ITEM_BYTES, Header, TensorEntry
from reference import official_headers, official_names

FILE = Path("ltx-2.safetensors")


@functools.cache
def published_entries(version):
    return {name: entry(name, dtype, shape) for name, dtype, shape, _, _ in official_names.read(version)}


def entry(name, dtype, shape):
    """A tensor as a header describes it; its bytes lie nowhere."""
    return TensorEntry(name, dtype, tuple(shape), 0, ITEM_BYTES[dtype] * math.prod(shape))


@pytest.fixture
def published():
    """published(version, change=None, config=None, **metadata) -> the header of a full-size file.

    change: a function that may alter the dictionary {name: (dtype, shape)}; config: one that may alter the header's
    config.
    """

    def make(version, change=None, config=None, **metadata):
        entries = published_entries(version)
        tensors = {name: (known.dtype, known.shape) for name, known in entries.items()}
        sections = official_headers.config(version)
        if change:
            change(tensors)
        if config:
            config(sections)
        if change:
            entries = {name: entry(name, dtype, shape) for name, (dtype, shape) in tensors.items()}
        return Header(FILE, entries, official_headers.metadata(version, sections) | metadata)

    return make
