"""The maker of the full-size checkpoint, without a GPU: a file of 43 GB costs nothing while it has no values."""

from pathlib import Path

import torch

from gpu.full_size import reserve, write_checkpoint
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.tiny import tiny_architecture

PUBLISHED_BYTES = 43_285_058_242 - 8 - 603_120  # of the published 2.0 dev file, less its header


def test_the_full_size_file_is_the_published_one_to_the_byte(tmp_path: Path) -> None:
    header = reserve(tmp_path / "full.safetensors")
    assert header.file_bytes - 8 - header.json_bytes == PUBLISHED_BYTES
    assert len(header.tensors) == 4052
    source = Checkpoint.open(header.path).source.part("transformer")
    assert len(source.tensors) == 3510
    assert sum(located.entry.elements for located in source.tensors.values()) == 18_876_174_592


def test_the_transformer_alone_has_values_and_no_block_equals_another(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    written = write_checkpoint(path, tiny_architecture("2.0", 2))
    base = Checkpoint.open(path)
    located = base.source.part("transformer").tensors.values()
    assert written == sum(each.entry.nbytes for each in located)
    model = base.transformer(MemoryPlan.parse("fp32/resident/keep:48"), "cpu")
    state = model.state_dict()
    assert all(bool(value.any()) for value in state.values())
    block = "transformer_blocks.0."
    pairs = [(state[name], state[name.replace(block, "transformer_blocks.1.")]) for name in state if block in name]
    assert pairs
    assert not any(torch.equal(first, second) for first, second in pairs)
    connectors = base.connectors("cpu", torch.float32).state_dict()
    assert not any(bool(value.any()) for name, value in connectors.items() if name.endswith("weight"))
