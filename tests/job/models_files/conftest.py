"""Headers of published files that nobody has to download: names and shapes from the checked-in lists."""

import functools
import json
from pathlib import Path

import pytest

from ltx2_job.models.header import Header, encode_header, parse_header
from reference import official_headers, official_names

FILE = Path("ltx-2.safetensors")


def make_header(tensors, metadata) -> Header:
    """A header for tensors {name: (dtype, shape)} that exist nowhere."""
    raw = encode_header(tensors, metadata)
    entries = json.loads(raw)
    ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    return parse_header(entries, path=FILE, json_bytes=len(raw), file_bytes=8 + len(raw) + max(ends))


@functools.cache
def published_tensors(version):
    return {name: (dtype, shape) for name, dtype, shape, _, _ in official_names.read(version)}


@pytest.fixture
def published():
    """published(version, change=None, config=None, **metadata) -> the header of a full-size file.

    change: a function that may alter the dictionary of tensors; config: one that may alter the header's config.
    """

    def make(version, change=None, config=None, **metadata):
        tensors = dict(published_tensors(version))
        sections = official_headers.config(version)
        if change:
            change(tensors)
        if config:
            config(sections)
        return make_header(tensors, official_headers.metadata(version, sections) | metadata)

    return make
