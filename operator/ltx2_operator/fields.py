"""What the typed fields of LTX2Training are made of: names, constraints that the definition repeats, and CEL rules.

Constraints are the API server's own kind (maxLength, int32, ...), so that crd.py can copy them from the models.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

GROUP: Final = "ltx2.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "LTX2Training"
PLURAL: Final = "ltx2trainings"
API_VERSION: Final = f"{GROUP}/{VERSION}"
# Suffixes "-train-<attempt>-<index>" and a Service's name must fit into the 63 characters of a DNS label.
NAME_MAX: Final = 40
NAME_PATTERN: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"

# Constraints that the definition repeats, as strict as the API server (a text is no number). Numbers are int32, int64,
# never floats: those do not survive every client.
Int32 = Annotated[int, Field(strict=True, json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(strict=True, json_schema_extra={"format": "int64"})]
Count = Annotated[Int32, Field(ge=0)]
Bytes = Annotated[Int64, Field(ge=0)]
Seconds = Annotated[Int32, Field(ge=1, le=10**9)]
DnsName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
Label = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Opaque = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]


def _cut(limit: int) -> BeforeValidator:
    """Shorten a text to what the definition allows: a status must never be refused because a message is long."""
    return BeforeValidator(
        lambda text: text[: limit - 1] + "…" if isinstance(text, str) and len(text) > limit else text
    )


def _number_as_text(value: Any) -> Any:
    """Five significant digits: figures in a status are for people and stay strings (no floats in the definition)."""
    return f"{value:.5g}" if isinstance(value, float | int) and not isinstance(value, bool) else value


Word = Annotated[str, _cut(63), Field(max_length=63)]
Sentence = Annotated[str, _cut(1024), Field(max_length=1024)]
Message = Annotated[str, _cut(4096), Field(max_length=4096)]
Figure = Annotated[str, BeforeValidator(_number_as_text), Field(max_length=32)]


def rule(
    cel: str, *, message: str = "", expression: str = "", path: str = "", reason: str = ""
) -> dict[str, JsonValue]:
    """One CEL rule of the definition: what must hold, and what is said if not, as a text or as a CEL expression."""
    parts = {"rule": cel, "message": message, "messageExpression": expression, "fieldPath": path, "reason": reason}
    return {key: value for key, value in parts.items() if value}


class Model(BaseModel):
    """camelCase outside, snake_case inside; unknown keys of a spec are mistakes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def dump(self) -> dict[str, Any]:
        """JSON of the fields that are set, by their names in a manifest."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
