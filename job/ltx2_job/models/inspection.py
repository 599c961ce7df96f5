"""What a model file or folder holds, and what differs from the expected: from headers alone, without torch.

A file of 43 GB is described in the time that its header of 0.6 MB takes to read.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ltx2_job.console import size_text
from ltx2_job.errors import CheckpointError
from ltx2_job.models import configs, layout
from ltx2_job.models.derive import derive
from ltx2_job.models.gemma import find_gemma
from ltx2_job.models.header import Header, TensorEntry, fault, read_header
from ltx2_job.models.kinds import LTX2, LTX25, Kind, kind_of, official
from ltx2_job.models.names import PARTS, is_unused, place
from ltx2_job.models.planner import plan_load
from ltx2_job.models.precision import Precision, plain, precision_of
from ltx2_job.models.sources import DiffusersFolder

VERSIONS: Final[tuple[layout.Version, ...]] = ("2.0", "2.3")
SHOWN: Final = 5  # tensors named per kind of difference
_BF16: Final = "take the bf16 file of this release"
_WHY: Final = {
    LTX25: "LTX-2.5 is not supported yet; take LTX-2.0 or LTX-2.3",
    "ltx-video": "LTX-Video 0.9 is another model; take LTX-2.0 or LTX-2.3",
    "gemma-4": "it belongs to LTX-2.5, which is not supported yet",
    "latent-upscaler": "latent upscalers are not supported",
    "duration-head": "it belongs to LTX-2.5, which is not supported yet",
    "diffusion-vae": "it belongs to LTX-2.5, which is not supported yet",
    "part": "a part of LTX-2 alone; take the combined file",
    "lora": "it is a LoRA of another model",
    "gguf": "GGUF files are not supported; take the bf16 .safetensors file",
    "unknown": "it is no file of LTX-2",
}
_USES: Final = {
    "ltx-2-lora": "yes, as --lora of `ltx2 generate` and as init_lora",
    "gemma-3": "yes, as pretrained_gemma_model_name_or_path: its whole folder",
}


@dataclass(frozen=True)
class Difference:
    """One kind of difference from the expected layout: how many, and the first few in words."""

    what: str
    count: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What was found. parts: by name {tensors, parameters, bytes, dtypes}. usable: whether this program takes it today.

    use: how, or why not.
    """

    path: Path
    kind: str
    title: str
    bytes: int
    header_bytes: int
    parts: Mapping[str, Mapping[str, Any]]
    precision: Precision | None
    differences: tuple[Difference, ...]
    metadata: Mapping[str, str]
    usable: bool
    use: str

    def dump(self) -> dict[str, Any]:
        """As JSON, complete."""
        precision = self.precision
        return {
            "path": str(self.path), "kind": self.kind, "title": self.title, "bytes": self.bytes,
            "headerBytes": self.header_bytes, "tensors": sum(part["tensors"] for part in self.parts.values()),
            "parameters": sum(part["parameters"] for part in self.parts.values()), "parts": self.parts,
            "precision": None if precision is None else {
                "form": precision.form, "layers": dict(precision.layers), "blocks": list(precision.blocks),
            },
            "differences": [{"what": d.what, "count": d.count, "first": list(d.first)} for d in self.differences],
            "metadata": dict(self.metadata), "usable": self.usable, "use": self.use,
        }  # fmt: skip


def inspect(path: Path) -> Inspection:
    """Look at a .safetensors file, a GGUF file, a folder in diffusers' layout or a folder of Gemma.

    Raises CheckpointError for anything else, and for damaged files.
    """
    if path.is_dir():
        return _folder(path)
    if _starts_with(path, b"GGUF"):
        kind = Kind("gguf", "a GGUF file: weights packed for inference")
        return Inspection(path, kind.name, kind.title, path.stat().st_size, 0, {}, None, (), {}, False, _WHY["gguf"])
    return inspect_header(read_header(path))


def inspect_header(header: Header) -> Inspection:
    """The inspection of a file by its header; pure."""
    named = official(header)
    kind, precision = kind_of(named), precision_of(named)
    differences = tuple(_differences(named, kind, precision))
    usable, use = _verdict(named, kind, precision)
    return Inspection(
        path=header.path, kind=kind.name, title=kind.title, bytes=header.file_bytes, header_bytes=header.json_bytes,
        parts=_parts(named.tensors.values()), precision=precision, differences=differences,
        metadata=_metadata(header), usable=usable, use=use,
    )  # fmt: skip


def lines(found: Inspection) -> list[str]:
    """The inspection for people."""
    parts = found.parts
    total = sum(part["parameters"] for part in parts.values())
    tensors = sum(part["tensors"] for part in parts.values())
    shown = [f"{found.path}: {found.title}"]
    if parts:
        header = f"; header {size_text(found.header_bytes)}" if found.header_bytes else ""
        shown.append(f"  size        {size_text(found.bytes)}, {tensors:,} tensors, {_count(total)} parameters{header}")
    else:
        shown.append(f"  size        {size_text(found.bytes)}")
    for name, part in parts.items():
        dtypes = ", ".join(f"{dtype} {count:,}" for dtype, count in part["dtypes"].items())
        shown.append(
            f"  {name:<12} {part['tensors']:>5,} tensors  {_count(part['parameters']):>6}  "
            f"{size_text(part['bytes']):>9}  {dtypes}"
        )
    if found.precision is not None:
        shown.append(f"  precision   {found.precision}")
    if found.metadata:
        shown.append(f"  header      {'; '.join(f'{key}: {value}' for key, value in found.metadata.items())}")
    for difference in found.differences:
        more = (
            f" and {difference.count - len(difference.first)} more" if difference.count > len(difference.first) else ""
        )
        shown.append(f"  differs     {difference.count} {difference.what}: {'; '.join(difference.first)}{more}")
    if not found.differences and found.kind in (LTX2, LTX25):
        shown.append("  differs     nothing")
    return [*shown, f"  usable      {found.use}"]


def _folder(path: Path) -> Inspection:
    """A model or a text encoder as a folder."""
    if (path / "model_index.json").is_file():
        source = DiffusersFolder(path)
        sources: dict[str, list[TensorEntry]] = {
            part: [each.entry for each in source.part(part).tensors.values()] for part in PARTS
        }
        gemma = find_gemma(path)
        if gemma is not None:
            sources["text_encoder"] = [each.entry for each in gemma.tensors.values()]
        use = f"yes, as pretrained_model_name_or_path: {path}"
        return _of_folder(path, LTX2, f"LTX-{source.version}, folder in diffusers' layout", sources, use)
    gemma = find_gemma(path)
    if gemma is None:
        raise fault(f"{path} is a folder without model_index.json and without Gemma 3", "name the file itself")
    entries, text = [each.entry for each in gemma.tensors.values()], gemma.text_config
    title = f"Gemma 3, {text.get('num_hidden_layers')} layers of {text.get('hidden_size')}, with its tokenizer"
    use = f"yes, as pretrained_gemma_model_name_or_path: {path}"
    return _of_folder(path, "gemma-3", title, {"text_encoder": entries}, use)


def _of_folder(path: Path, kind: str, title: str, sources: Mapping[str, list[TensorEntry]], use: str) -> Inspection:
    parts = {name: _summary(entries) for name, entries in sources.items() if entries}
    every = [entry for entries in sources.values() for entry in entries]
    tensors = {f"{number}.{entry.name}": entry for number, entry in enumerate(every)}
    precision = precision_of(Header(path, tensors))
    size = sum(part["bytes"] for part in parts.values())
    return Inspection(path, kind, title, size, 0, parts, precision, (), {}, True, use)


def _verdict(header: Header, kind: Kind, precision: Precision) -> tuple[bool, str]:
    """Whether this program takes the file today, and how or why not."""
    if kind.name in _USES:
        return True, _USES[kind.name]
    if kind.name != LTX2:
        return False, f"no: {_WHY[kind.name]}"
    if precision.layers:
        return False, f"no: {precision.form} weights are not supported yet; {_BF16}"
    if set(kind.parts) != set(PARTS):
        return (
            False,
            f"no: {', '.join(part for part in PARTS if part not in kind.parts)} missing; take the combined file",
        )
    try:
        plan_load(header)
    except CheckpointError as error:
        count = len(error.problems)
        return False, f"no: {error.problems[0]}" + (f" (and {count - 1} more)" if count > 1 else "")
    return True, f"yes, as pretrained_model_name_or_path: {header.path}"


def _differences(header: Header, kind: Kind, precision: Precision) -> Iterable[Difference]:
    if kind.name not in (LTX2, LTX25, "part"):
        return
    whole = plain(header)
    stamp = header.metadata.get("model_version", "") if kind.name == LTX2 else ""
    stamped = replace(whole, metadata={**whole.metadata, "model_version": stamp})
    try:
        candidates = [derive(stamped)] if kind.name != "part" else _either(stamped)
    except CheckpointError as error:
        yield Difference("problems that hide the rest", 1, (str(error),))
        return
    compared = [list(_compared(whole.tensors, _expected(each, kind))) for each in candidates]
    nearest = min(range(len(candidates)), key=lambda index: sum(each.count for each in compared[index]))
    architecture = candidates[nearest]
    yield from compared[nearest]
    if kind.name == LTX2 and set(kind.parts) == set(PARTS):
        problems = [problem.message for problem in configs.disagreements(stamped, architecture)]
        yield from _difference("keys of the header's config", problems)
    yield from _difference("contradictions", list(precision.contradictions))


def _either(header: Header) -> list[layout.Architecture]:
    """Parts without a transformer: nothing in them tells the generation, and the number of heads does not matter."""
    sections = {**header.config, "transformer": {"num_attention_heads": 32}}
    headed = replace(header, metadata={**header.metadata, "config": json.dumps(sections)})
    return [derive(headed, version) for version in VERSIONS]


def _expected(architecture: layout.Architecture, kind: Kind) -> dict[str, layout.Shape]:
    """The tensors of the parts that the file holds; LTX-2.5 is 2.3 without feed-forward biases, and with key frames."""
    expected = {name: shape for name, shape in layout.tensors(architecture).items()
                if (at := place(name)) is not None and at.part in kind.parts}  # fmt: skip
    if kind.name != LTX25:
        return expected
    bias = (".ff.net.0.proj.bias", ".ff.net.2.bias")
    blocks = f"{layout.PREFIX}transformer_blocks."
    kept = {name: shape for name, shape in expected.items() if not (name.startswith(blocks) and name.endswith(bias))}
    if set(kind.parts) != set(PARTS):  # in the split pack the text projection lies with the text encoder
        kept = {name: shape for name, shape in kept.items() if name.startswith(layout.PREFIX)}
    return kept | {f"{layout.PREFIX}keyframes_abs_pos_embedding": (1, architecture.transformer.width)}


def _compared(present: Mapping[str, TensorEntry], expected: Mapping[str, layout.Shape]) -> Iterable[Difference]:
    missing = [f"{_short(name)} {list(shape)}" for name, shape in expected.items() if name not in present]
    unexpected = [_short(name) for name in present if name not in expected and not is_unused(name)]
    wrong = [
        f"{_short(name)} is {list(entry.shape)}, expected {list(expected[name])}"
        for name, entry in present.items()
        if name in expected and entry.shape != expected[name]
    ]
    yield from _difference("tensors missing", missing)
    yield from _difference("tensors unexpected", unexpected)
    yield from _difference("tensors of another shape", wrong)


def _difference(what: str, found: list[str]) -> Iterable[Difference]:
    if found:
        yield Difference(what, len(found), tuple(found[:SHOWN]))


def _parts(entries: Iterable[TensorEntry]) -> dict[str, dict[str, Any]]:
    """By part of LTX-2, and by the first name of their path what belongs to none."""
    groups: dict[str, list[TensorEntry]] = {part: [] for part in PARTS}
    for entry in entries:
        at = place(entry.name)
        groups.setdefault(at.part if at is not None else entry.name.partition(".")[0], []).append(entry)
    return {name: _summary(group) for name, group in groups.items() if group}


def _summary(entries: list[TensorEntry]) -> dict[str, Any]:
    return {
        "tensors": len(entries),
        "parameters": sum(entry.elements for entry in entries),
        "bytes": sum(entry.nbytes for entry in entries),
        "dtypes": dict(Counter(entry.dtype for entry in entries).most_common()),
    }


def _metadata(header: Header) -> dict[str, str]:
    """The header's metadata, short: of the config its sections, of long texts (licences) only the length."""
    short = {}
    for key, text in sorted(header.metadata.items()):
        if key == "config":
            text = "sections " + ", ".join(header.config)
        elif len(text) > 100:
            text = f"{len(text):,} characters"
        short[key] = text
    return short


def _short(name: str) -> str:
    return name.removeprefix(layout.PREFIX)


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False  # read_header says what is wrong
