"""Reading a header: what is read, and what is refused by name before anything else happens."""

import json

import pytest

from ltx2_job.errors import CheckpointError
from ltx2_job.exitcodes import CONFIG
from ltx2_job.models.header import encode_header, read_header


def write(path, tensors, data, metadata=None):
    header = encode_header(tensors, metadata or {})
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def write_json(path, entries, data=b""):
    raw = json.dumps(entries).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert caught.value.exit_code == CONFIG
    return str(caught.value)


def test_header_gives_names_shapes_and_absolute_positions(tmp_path):
    path = write(tmp_path / "m.safetensors", {"a": ("F32", (2, 1)), "b": ("BF16", (3,))}, b"aaaabbbbcccccc",
                 {"config": '{"vae": null, "transformer": {"num_layers": 2}}'})  # fmt: skip
    header = read_header(path)
    assert {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()} == {
        "a": ("F32", (2, 1)),
        "b": ("BF16", (3,)),
    }
    raw = path.read_bytes()
    assert raw[header.tensors["a"].begin : header.tensors["a"].end] == b"aaaabbbb"
    assert raw[header.tensors["b"].begin : header.tensors["b"].end] == b"cccccc"
    assert (header.tensors["b"].elements, header.tensors["b"].nbytes, header.file_bytes) == (3, 6, len(raw))
    assert header.section("transformer") == {"num_layers": 2}
    assert header.section("vae") == {} == header.section("vocoder")  # null and missing are the same


def test_header_agrees_with_the_format_s_own_writer(tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file(
        {"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(4, dtype=torch.bfloat16)}, tmp_path / "m.safetensors"
    )
    header = read_header(tmp_path / "m.safetensors")
    assert {n: (e.dtype, e.shape) for n, e in header.tensors.items()} == {"x": ("F32", (2, 3)), "y": ("BF16", (4,))}


def test_missing_file_and_folder(tmp_path):
    assert "does not exist; give the path of the model" in refused(tmp_path / "none.safetensors")
    assert "is a folder" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGUF\x03\x00\x00\x00" + b"\0" * 64, "GGUF file: not supported yet"),
        (b"PK\x03\x04" + b"\0" * 64, "not a safetensors file"),  # a zip archive, as torch.save writes it
        (b"<!DOCTYPE html><html>", "not a safetensors file"),
        (b"", "not a safetensors file"),
        ((5).to_bytes(8, "little") + b"hello", "its header is no JSON"),
        ((2).to_bytes(8, "little") + b"[]", "its header is no JSON object"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, said):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert said in refused(path)


def test_damaged_files(tmp_path):
    good = write(tmp_path / "good.safetensors", {"a": ("F32", (2,))}, b"x" * 8).read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(good[:20])
    assert "ends inside its header" in refused(damaged)
    damaged.write_bytes(good[:-1])
    assert "is cut short" in refused(damaged)
    damaged.write_bytes(good + b"!")
    assert "has bytes that no tensor owns" in refused(damaged)


def test_entries_that_overlap_or_leave_gaps(tmp_path):
    def entry(begin, end):
        return {"dtype": "F32", "shape": [2], "data_offsets": [begin, end]}

    path = tmp_path / "m.safetensors"
    write_json(path, {"a": entry(0, 8), "b": entry(4, 12)}, b"x" * 12)
    assert "the bytes of tensor b begin" in refused(path)
    write_json(path, {"a": entry(0, 8), "b": entry(12, 20)}, b"x" * 20)
    assert "the bytes of tensor b begin" in refused(path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, "a has 8 bytes, but F32 [3] needs 12"),
        ({"a": {"shape": [2], "data_offsets": [0, 8]}}, "entry of tensor a is malformed"),
        ({"a": 3}, "entry of tensor a is malformed"),
        ({"__metadata__": {"config": 1}}, "__metadata__ must map names to strings"),
    ],
)
def test_malformed_entries(tmp_path, entries, said):
    assert said in refused(write_json(tmp_path / "m.safetensors", entries, b"x" * 8))


def test_config_that_is_no_json_object(tmp_path):
    for text, said in (("{", "is no JSON"), ("[1]", "is no JSON object")):
        header = read_header(write(tmp_path / "m.safetensors", {}, b"", {"config": text}))
        with pytest.raises(CheckpointError, match=said):
            header.section("vae")
