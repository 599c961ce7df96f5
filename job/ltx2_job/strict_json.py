"""JSON as people write it into files: every mistake with its line, no key twice, no number that is none. Torch-free."""

import json
import math
from typing import Any, Final

REMEDY: Final = "texts stand in double quotes, a comma between two entries and none after the last, no comments"


class BadJson(ValueError):
    """A text that is not JSON: the line (counted from 1), and what is wrong there."""

    def __init__(self, line: int, message: str):
        self.line = line
        self.message = message
        super().__init__(f"line {line}: {message}")


def loads(raw: bytes | str) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte order mark. Raises BadJson."""
    text = raw if isinstance(raw, str) else _decoded(raw)
    if not text.strip():
        raise BadJson(1, "nothing stands in it")
    try:
        return json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    except json.JSONDecodeError as error:
        raise BadJson(error.lineno, f"{error.msg} at column {error.colno}; {REMEDY}") from None
    except _Twice as error:
        line = _second_line(text, error.key)
        raise BadJson(line, f"key {error.key!r} is set twice; keep one") from None
    except _NotFinite as error:
        raise BadJson(_line_of(text, error.text), f"{error.text} is no number of JSON; write a finite number") from None
    except RecursionError:
        raise BadJson(1, "is nested too deeply; is a bracket missing?") from None


class _Twice(Exception):
    def __init__(self, key: str):
        self.key = key


class _NotFinite(Exception):
    def __init__(self, text: str):
        self.text = text


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadJson(line, f"byte 0x{raw[error.start]:02x} is not UTF-8 text; save the file as UTF-8") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _NotFinite(text)
    return number


def _second_line(text: str, key: str) -> int:
    """The line of a key's second place, as far as the text alone tells it."""
    quoted = json.dumps(key, ensure_ascii=False)
    first = text.find(quoted)
    second = text.find(quoted, first + 1)
    return text.count("\n", 0, max(first, second, 0)) + 1


def _line_of(text: str, part: str) -> int:
    return text.count("\n", 0, max(text.find(part), 0)) + 1
