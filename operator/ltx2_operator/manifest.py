"""Reading manifests as kubectl reads them.

PyYAML follows YAML 1.1 in its own way: `1e-4` is a string to it, `1:30` the number 90, `0o17` a string. kubectl reads
0.0001,
"1:30" and 15, and makes a key `n` the string "false". A file must not mean one thing to `ltx2 run` and another to the
API server, so scalars are resolved here by the rules of the YAML library that kubectl uses. A repeated key is an error
there, too.
"""

import base64
import binascii
import codecs
import math
import re
from collections.abc import Hashable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from ltx2_job import strict_json
from ltx2_job.errors import JobError, NoInputError
from ltx2_job.exitcodes import CONFIG
from ltx2_operator.fields import API_VERSION, KIND

_TRUE: Final = frozenset({"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE: Final = frozenset({"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"^[-+]?(0[bB][01]+|0[oO][0-7]+|0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_INFINITE: Final = re.compile(r"^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
_READ: Final = ("Job", "ConfigMap", "Secret", "PersistentVolumeClaim", "Service")  # beside the training itself
_GUIDE_KEYS: Final = frozenset(
    {"pretrained_model_name_or_path", "model_type", "data_backend_config", "max_train_steps"}
)


class ManifestError(JobError):
    """A file that is no manifest, or not one of ours: file, line, and what to write instead."""

    exit_code = CONFIG


@dataclass(frozen=True)
class Document:
    """One document of a file and the line it begins at."""

    body: dict[str, Any]
    file: Path
    line: int

    @property
    def kind(self) -> str:
        """Its kind, or an empty string."""
        return str(self.body.get("kind") or "")

    @property
    def where(self) -> str:
        """file:line."""
        return f"{self.file}:{self.line}"


class _Loader(yaml.SafeLoader):
    """SafeLoader with kubectl's resolution of plain scalars and its refusal of repeated keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the class attribute that PyYAML looks at

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of a node: plain scalars by our table, everything else as PyYAML has it."""
        if kind is yaml.ScalarNode and implicit[0]:
            if value == "<<":
                return "tag:yaml.org,2002:merge"
            return f"tag:kubectl,{type(scalar(value)).__name__}"
        tag: str = super().resolve(kind, value, implicit)
        return tag

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping with string keys, as JSON has them."""
        own: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = _key(self.construct_object(key_node, deep=True), key_node)
            if key in own:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is set twice", key_node.start_mark)
            own.add(key)
        self.flatten_mapping(node)
        return {
            _key(self.construct_object(key_node, deep=True), key_node): self.construct_object(value_node, deep=deep)
            for key_node, value_node in node.value
        }


def _construct_plain(loader: _Loader, node: yaml.ScalarNode) -> Any:
    value = scalar(node.value)
    if isinstance(value, float) and not math.isfinite(value):
        raise yaml.constructor.ConstructorError(None, None, f"{node.value} has no form in JSON", node.start_mark)
    return value


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Any:
    data: dict[Hashable, Any] = {}
    yield data
    data.update(loader.construct_mapping(node))


for _name in ("bool", "int", "float", "str", "NoneType"):
    _Loader.add_constructor(f"tag:kubectl,{_name}", _construct_plain)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
# Times stay text: kubectl sends JSON, which has none.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: str(node.value))


def scalar(text: str) -> bool | int | float | str | None:
    """The value of a plain (unquoted) scalar, as kubectl has it."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INFINITE.match(text):
        return math.nan if "n" in text.lower()[:2] else math.copysign(math.inf, -1 if text[0] == "-" else 1)
    plain = text.replace("_", "") if text[:1].isdigit() or text[:1] in "+-" else text
    if _INTEGER.match(plain):
        sign, digits = (-1, plain[1:]) if plain[0] == "-" else (1, plain.lstrip("+"))
        if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
            digits = "0o" + digits[1:]
        number = sign * int(digits, 0)
        return number if -(2**63) <= number < 2**63 else float(number)
    if _FLOAT.match(plain):
        return float(plain)
    return text


def _key(value: Any, node: yaml.Node) -> str:
    """A mapping's key as JSON has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    raise yaml.constructor.ConstructorError(None, None, f"{value!r} cannot be a key", node.start_mark)


def load(path: Path) -> list[Document]:
    """The documents of a YAML or JSON file, empty ones left out.

    Raises NoInputError (no such file), ManifestError (no YAML, not a mapping: with file and line).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise NoInputError(f"{path}: {error.strerror}; give the path of a manifest") from None
    return parse(_text(raw, path), path)


def _text(raw: bytes, path: Path) -> str:
    """The text of a file, its byte order mark left out. Raises ManifestError."""
    if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and ":" in raw.decode("utf-16", errors="replace"):
        raise ManifestError(f"{path}: is UTF-16 text; save it as UTF-8")
    try:
        if b"\0" in raw:
            raise ManifestError(f"{path}: is no text; give the path of a manifest (YAML or JSON)")
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8 text; save it as UTF-8"
        ) from None


def parse(text: str, path: Path) -> list[Document]:
    """The documents of a text; `path` is for messages. Raises ManifestError."""
    try:
        return _documents(text, path)
    except RecursionError:
        raise ManifestError(f"{path}: is nested too deeply; is a bracket missing?") from None


def _documents(text: str, path: Path) -> list[Document]:
    wrong: strict_json.BadJson | None = None
    if text.lstrip().startswith("{"):
        try:
            return [_checked(Document(strict_json.loads(text), path, 1))]
        except strict_json.BadJson as error:
            wrong = error  # YAML's own flow style begins alike
    found = []
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            line = node.start_mark.line + 1
            body = _construct(node)
            if body is None:
                continue
            if not isinstance(body, dict):
                what = f"a {type(body).__name__}, not a mapping; {_BEGINS[path.suffix == '.json']}"
                raise ManifestError(f"{path}:{line}: {what}")
            found.append(_checked(Document(body, path, line)))
    except yaml.MarkedYAMLError as error:
        if wrong is not None and path.suffix == ".json":
            raise ManifestError(f"{path}:{wrong.line}: {wrong.message}") from None
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context)
        raise ManifestError(f"{path}:{mark.line + 1 if mark else 1}: {problem}{_remedy(problem)}") from None
    except yaml.YAMLError as error:
        what = f"{str(error).splitlines()[0]}; remove that character"
        raise ManifestError(f"{path}:{_line_of(text, error)}: {what}") from None
    if not found:
        raise ManifestError(f"{path}: holds no document; {_BEGINS[path.suffix == '.json']}")
    return found


_BEGINS: Final = ("a manifest begins with apiVersion and kind", "a config.json is one object: { … }")
# What to do about a complaint of the YAML library, by words of it.
_REMEDIES: Final = {
    "\\t": "indent with blanks, not with tabs",
    "mapping values are not allowed": "indent it as its neighbours, or put a text with a colon in quotes",
    "expected <block end>": "indent it as its neighbours of the same level",
    "could not find expected ':'": "write a blank after the colon, or close the quotes above",
    "expected ',' or": "close the bracket above, or put a comma between two entries",
    "is set twice": "keep one",
    "undefined alias": "put what starts with * in quotes, or define it before with &NAME",
    "cannot be a key": "fill in the template, or put it in quotes",
    "has no form in JSON": "write a finite number",
    "quoted scalar": "close the quotes",
    "cannot start any token": "put it in quotes",
}


def _remedy(problem: str) -> str:
    found = next((remedy for words, remedy in _REMEDIES.items() if words in problem), "")
    return f"; {found}" if found else "; look at this line and the one above it"


def _checked(document: Document) -> Document:
    """The document, if what is read of any object has the form of one. Raises ManifestError."""
    body = document.body
    if document.kind not in (KIND, *_READ):
        return document
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ManifestError(f"{document.where}: metadata is {metadata!r}, no mapping; write metadata: {{name: NAME}}")
    mappings = {f"metadata.{key}": metadata.get(key) for key in ("labels", "annotations")}
    if document.kind in ("ConfigMap", "Secret"):
        mappings |= {key: body.get(key) for key in ("data", "stringData")}
    for field, value in mappings.items():
        if not isinstance(value or {}, dict) or not all(isinstance(text, str) for text in (value or {}).values()):
            raise ManifestError(
                f"{document.where}: {document.kind} {field} must be a mapping of texts; quote its values"
            )
    if document.kind in _READ and not isinstance(metadata.get("name"), str):
        raise ManifestError(f"{document.where}: {document.kind} has no metadata.name; give it one")
    return document


def _construct(node: yaml.Node) -> Any:
    """The value of a composed document."""
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _line_of(text: str, error: yaml.YAMLError) -> int:
    """The line of a character that YAML does not allow."""
    position = getattr(error, "position", 0)
    return text.count("\n", 0, position) + 1


def training(documents: list[Document]) -> Document:
    """The one LTX2Training among the documents.

    Raises ManifestError: none, several, or a kind or version that is nearly ours; a config.json gets the way to use it.
    """
    ours = [document for document in documents if document.kind == KIND]
    if len(ours) > 1:
        lines = ", ".join(str(document.line) for document in ours)
        raise ManifestError(f"{ours[0].file}: {len(ours)} trainings (lines {lines}); one file holds one")
    if ours:
        version = ours[0].body.get("apiVersion")
        if version != API_VERSION:
            raise ManifestError(f"{ours[0].where}: apiVersion is {version!r}; write {API_VERSION}")
        name = (ours[0].body.get("metadata") or {}).get("name")
        if not isinstance(name, str) or not name:
            raise ManifestError(f"{ours[0].where}: metadata.name is {name!r}; give the training a name")
        return ours[0]
    first = documents[0]
    if _GUIDE_KEYS & first.body.keys():
        raise ManifestError(
            f"{first.where}: this is the guide's config.json, no manifest; use `ltx2 train --config {first.file}`"
        )
    near = get_close_matches(first.kind, [KIND], n=1, cutoff=0.5)
    hint = f"did you mean {KIND}?" if near else f"write apiVersion: {API_VERSION} and kind: {KIND}"
    raise ManifestError(f"{first.where}: kind is {first.body.get('kind')!r}, no {KIND}; {hint}")


def secrets(documents: list[Document]) -> dict[str, dict[str, str]]:
    """The Secrets among the documents: name -> key -> value."""
    found = {}
    for document in documents:
        if document.kind == "Secret":
            values = dict(document.body.get("stringData") or {})
            for key, text in (document.body.get("data") or {}).items():
                try:
                    values.setdefault(key, base64.b64decode(text, validate=True).decode())
                except (binascii.Error, ValueError, TypeError):
                    raise ManifestError(
                        f"{document.where}: Secret data.{key} is no base64; use stringData for plain text"
                    ) from None
            found[str(document.body["metadata"]["name"])] = values
    return found


def dump(documents: list[dict[str, Any]]) -> str:
    """Documents as YAML that kubectl and `load` read back to the same values."""
    return "---\n".join(
        yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120) for document in documents
    )


class _Dumper(yaml.SafeDumper):
    """Quotes every text that kubectl would read as something else, writes texts of lines as blocks, uses no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Anchors are for people who write YAML by hand."""
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    if not text.replace("\n", "").isprintable():
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    style = "|" if "\n" in text else None
    if style is None and (not isinstance(scalar(text), str) or text == "<<" or re.match(r"^\d{4}-\d", text)):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
