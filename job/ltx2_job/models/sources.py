"""Where the tensors of each part lie: in one combined file, or in a folder in diffusers' layout. Torch-free.

A folder has model_index.json and, per part, config.json beside one .safetensors file or several with an index.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ltx2_job.models.configs import FIRST_STAGE_END
from ltx2_job.models.derive import refuse_quantised
from ltx2_job.models.header import Header, TensorEntry, fault, read_header
from ltx2_job.models.layout import Version
from ltx2_job.models.names import PARTS, Part
from ltx2_job.models.planner import LoadPlan, plan_load

_CHUNK: Final = 8 << 20


@dataclass(frozen=True)
class Located:
    """A tensor of a file."""

    path: Path
    entry: TensorEntry


@dataclass(frozen=True)
class PartSource:
    """One part, ready to be read: class arguments, and for each name of the module's state dict its tensor."""

    part: str
    arguments: Mapping[str, Any]
    tensors: Mapping[str, Located]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the part's weights."""
        return tuple(dict.fromkeys(located.path for located in self.tensors.values()))


class CombinedFile:
    """A single .safetensors file in the official layout; everything is checked here, from the header alone."""

    def __init__(self, path: Path):
        self.path = path
        self.header: Header = read_header(path)
        self.plan: LoadPlan = plan_load(self.header)
        self.version: Version = self.plan.version

    def part(self, part: Part) -> PartSource:
        """The tensors and arguments of a part."""
        plan = self.plan.parts[part]
        return PartSource(part, plan.arguments, {name: Located(self.path, e) for name, e in plan.tensors.items()})


class DiffusersFolder:
    """A folder as `save_pretrained` writes it. Headers are checked here; names and shapes when a part is built."""

    def __init__(self, path: Path):
        self.path = path
        index = read_json_file(path / "model_index.json")
        missing = [part for part in PARTS if part not in index]
        if missing:
            raise fault(f"{path}/model_index.json names no {', '.join(missing)}", "take a folder of LTX-2 or LTX-2.3")
        config = read_json_file(path / "transformer" / "config.json")
        if config.get("use_keyframes_abs_pos_embedding") or config.get("ff_bias") is False:
            raise fault(f"{path} is LTX-2.5: not supported yet", "take the folder of LTX-2 or LTX-2.3")
        self.version: Version = "2.3" if config.get("cross_attn_mod") else "2.0"

    def part(self, part: Part) -> PartSource:
        """The tensors and arguments of a part."""
        folder = self.path / part
        config = read_json_file(folder / "config.json")
        arguments = {key: value for key, value in config.items() if not key.startswith("_")}
        if part == "vocoder" and self.version == "2.3":
            arguments["final_act_fn"] = FIRST_STAGE_END
        return PartSource(part, arguments, shards(folder))


def open_source(path: Path) -> CombinedFile | DiffusersFolder:
    """Open a combined .safetensors file or a folder in diffusers' layout. Raises CheckpointError."""
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise fault(f"{path} is a folder without model_index.json",
                        "name the combined .safetensors file itself, or a folder in diffusers' layout")  # fmt: skip
        return DiffusersFolder(path)
    return CombinedFile(path)


def shards(folder: Path) -> dict[str, Located]:
    """Every tensor of a folder's .safetensors files by name: one file, or several that an index names."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        raise fault(f"{folder} has {len(indices)} weight indices ({', '.join(i.name for i in indices)}); keep one")
    weight_map: dict[str, str] = {}
    if indices:
        weight_map = read_json_file(indices[0]).get("weight_map") or {}
        if not weight_map:
            raise fault(f"{indices[0]} has no weight_map", "download the folder again")
        files = [folder / name for name in sorted(set(weight_map.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            raise fault(f"{folder} has {len(files)} .safetensors files and no index", "download the folder again")
    found: dict[str, Located] = {}
    for file in files:
        header = read_header(file)
        refuse_quantised(header)
        for name, entry in header.tensors.items():
            if name in found:
                raise fault(f"tensor {name} is in both {found[name].path.name} and {file.name}")
            found[name] = Located(file, entry)
    if indices and (lost := sorted(set(weight_map) - set(found))):
        raise fault(f"{indices[0].name} names {len(lost)} tensors that no file has, such as {lost[0]}")
    return found


def content_hash(source: PartSource, extra: bytes = b"") -> str:
    """sha256 (hex) of what a part computes with: class arguments, names, dtypes, shapes and raw bytes of its tensors.

    It does not depend on the file around the part: order of the bytes, other parts, shards. Reads the part's bytes
    once: for large files the caller remembers the result.
    """
    digest = hashlib.sha256(json.dumps([source.part, source.arguments], sort_keys=True).encode())
    digest.update(extra)
    handles = {path: path.open("rb") for path in source.files}
    try:
        for name in sorted(source.tensors):
            entry = source.tensors[name].entry
            digest.update(json.dumps([name, entry.dtype, entry.shape]).encode())
            file = handles[source.tensors[name].path]
            file.seek(entry.begin)
            left = entry.nbytes
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise fault(f"{source.tensors[name].path} ends inside tensor {name}", "download the file again")
                digest.update(chunk)
                left -= len(chunk)
    finally:
        for file in handles.values():
            file.close()
    return digest.hexdigest()


def read_json_file(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder. Raises CheckpointError."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise fault(f"{path} does not exist", "download the folder again") from error
    except (OSError, ValueError) as error:
        raise fault(f"{path} cannot be read as JSON ({error})", "download the folder again") from error
    if not isinstance(value, dict):
        raise fault(f"{path} holds no JSON object", "download the folder again")
    return value
