"""How a value of a configuration is read, and the arithmetic of frames and sizes.

JSON, YAML, environment variables and flags write the same number in different ways ("1e-4", 0.0001, 1e-4), so every
type here accepts the written form as well as the value. What cannot be read is refused with the value in the message.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

FRAME_STEP = 8  # the video VAE folds 8 frames into one latent frame, after a first frame of its own
SIZE_STEP = 32  # the video VAE folds 32 x 32 pixels into one latent cell
SAMPLE_SIDE = 64  # its decoder pads by reflection: two latent cells are the least it can decode

_TRUE = frozenset({"true", "yes", "on", "1", "y", "t"})
_FALSE = frozenset({"false", "no", "off", "0", "n", "f"})


def refuse(message: str) -> PydanticCustomError:
    """The error of a field whose value cannot be used; `message` is a sentence without the field's name."""
    return PydanticCustomError("ltx2", "{message}", {"message": message})


def is_boolean_word(value: str) -> bool:
    """Whether a written value is one of the words that mean true or false."""
    return value.strip().lower() in _TRUE | _FALSE


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise refuse(f"must be true or false, not {value!r}")


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str):
        try:
            number = float(value.strip())
        except ValueError:
            raise refuse(f"must be a number, not {value!r}") from None
    else:
        raise refuse(f"must be a number, not {value!r}")
    if not math.isfinite(number):
        raise refuse(f"must be a finite number, not {value!r}")
    return number


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            pass
    try:
        number = _number(value)
    except PydanticCustomError:
        raise refuse(f"must be a whole number, not {value!r}") from None
    if number != int(number):
        raise refuse(f"must be a whole number, not {value!r}")
    return int(number)


def _boolean_or_text(value: Any) -> Any:
    if isinstance(value, str) and not is_boolean_word(value):
        return value
    return _boolean(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # YAML reads an unquoted 2.3 as a number
    raise refuse(f"must be text, not {value!r}")


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        value = _decoded(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, (list, tuple)):
        raise refuse(f"must be a list of texts or comma-separated text, not {value!r}")
    return [part for part in (_text(item).strip() for item in value) if part]


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise refuse(f"is not valid JSON ({error}): {value[:80]!r}") from None


def _path_or_json(value: Any) -> Any:
    if isinstance(value, str):
        return _decoded(value) if value.lstrip().startswith(("{", "[")) else value
    if isinstance(value, (dict, list)):
        return value
    raise refuse(f"must be a path or JSON, not {value!r}")


def _json_object(value: Any) -> Any:
    if isinstance(value, str):
        value = _decoded(value)
    if not isinstance(value, (dict, list)):
        raise refuse(f"must be JSON (an object or a list), not {value!r}")
    return value


def _size(value: Any) -> tuple[int, int]:
    parts = value.strip().lower().split("x") if isinstance(value, str) else value
    try:
        if not isinstance(parts, (list, tuple)) or not (len(parts) == 2 or (len(parts) == 1 and parts is not value)):
            raise refuse("")
        width, height = _integer(parts[0]), _integer(parts[-1])
    except PydanticCustomError:
        raise refuse(f"must be WxH, for example 768x512, not {value!r}") from None
    if width < 1 or height < 1:
        raise refuse(f"must be WxH with both above 0, not {value!r}")
    return width, height


def _sizes(value: Any) -> list[tuple[int, int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)) or not value:
        raise refuse(f"must be WxH or a list of WxH, for example 768x512, not {value!r}")
    return [_size(item) for item in value]


class OneOf:
    """The check that a value is one of `known`, after `aliases` were put in place of their meaning."""

    def __init__(self, names: Iterable[str], aliases: Mapping[str, str] | None = None, *, many: bool = False):
        self.known, self.aliases, self.many = tuple(names), aliases or {}, many

    def __call__(self, value: Any) -> str:
        """The canonical name, or several with commas where `many` is set."""
        text = _text(value)
        return ",".join(self._one(part.strip()) for part in text.split(",")) if self.many else self._one(text)

    def _one(self, text: str) -> str:
        text = self.aliases.get(text, text)
        if text not in self.known:
            raise PydanticCustomError("ltx2_choice", "unknown value", {"raw": text, "known": list(self.known)})
        return text


def one_of(names: Iterable[str], aliases: Mapping[str, str] | None = None) -> BeforeValidator:
    """For Annotated[str, …]: a text that must be one of `names` or `aliases`."""
    return BeforeValidator(OneOf(names, aliases))


def several_of(names: Iterable[str]) -> BeforeValidator:
    """For Annotated[str, …]: one or more of `names`, with commas between them."""
    return BeforeValidator(OneOf(names, many=True))


Bool = Annotated[bool, BeforeValidator(_boolean)]
Float = Annotated[float, BeforeValidator(_number)]
Int = Annotated[int, BeforeValidator(_integer)]
Text = Annotated[str, BeforeValidator(_text)]
BoolOrText = Annotated[bool | str, BeforeValidator(_boolean_or_text)]
Texts = Annotated[list[str], BeforeValidator(_texts)]  # a JSON list, or text with commas
Sizes = Annotated[list[tuple[int, int]], BeforeValidator(_sizes)]  # (width, height) in pixels
PathOrJson = Annotated[
    str | dict[str, Any] | list[Any], BeforeValidator(_path_or_json)
]  # a file's path, or its content
JsonValue = Annotated[dict[str, Any] | list[Any], BeforeValidator(_json_object)]


def frames_down(frames: int) -> int:
    """The largest 8k+1 that is not above `frames`; 0 where there is none (frames < 1).

    The video VAE takes a first frame and then groups of 8, so only 8k+1 frames can be encoded.
    """
    return 0 if frames < 1 else (frames - 1) // FRAME_STEP * FRAME_STEP + 1


def side_nearest(pixels: int) -> int:
    """The side of a sample clip: the multiple of 32 nearest to `pixels`, halfway down (720 -> 704), at least 64."""
    return max(SAMPLE_SIDE, -((SIZE_STEP // 2 - pixels) // SIZE_STEP) * SIZE_STEP)
