"""Which lists of a pod template a strategic merge patch merges by key: operator/ltx2_operator/merge_keys.json.

    kubectl get --raw /openapi/v3/apis/batch/v1 | python scripts/merge_keys.py > operator/ltx2_operator/merge_keys.json

A test with a real API server holds the file to what that server says.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

ROOT = "io.k8s.api.core.v1.PodTemplateSpec"


def merge_keys(document: Mapping[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """Type -> field -> {type: of the value or of a list's items, key: a list's merge key, merge: how}.

    Only fields that are merged lists, or lead to one; every other mapping is merged by its keys and every other list
    is replaced. `merge` is "key" (items are mappings) or "set" (items are plain values).
    """
    schemas = document["components"]["schemas"]
    found: dict[str, dict[str, dict[str, str]]] = {}

    def walk(name: str) -> None:
        if name in found:
            return
        found[name] = {}
        for field, schema in schemas[name].get("properties", {}).items():
            strategies = schema.get("x-kubernetes-patch-strategy", "").split(",")
            inner = _reference(schema.get("items", {}) if schema.get("type") == "array" else schema)
            if schema.get("type") == "array" and "merge" not in strategies:
                continue
            if inner:
                walk(inner)
            if schema.get("type") != "array":
                if inner and "replace" in strategies:
                    raise ValueError(f"{name}.{field} is replaced as a whole: the merge knows no such mapping")
                if inner:
                    found[name][field] = {"type": inner}
            elif inner:
                found[name][field] = {"type": inner, "key": schema["x-kubernetes-patch-merge-key"], "merge": "key"}
            else:
                found[name][field] = {"merge": "set"}

    walk(ROOT)
    return _pruned(found)


def _pruned(found: Mapping[str, Mapping[str, dict[str, str]]]) -> dict[str, dict[str, dict[str, str]]]:
    """Without what leads to no merged list, and with the short names of types."""
    useful = {name for name, fields in found.items() if any("merge" in entry for entry in fields.values())}
    while True:
        more = {name for name, fields in found.items() if any(entry.get("type") in useful for entry in fields.values())}
        if more <= useful:
            break
        useful |= more
    return {
        _short(name): {
            field: {key: _short(value) if key == "type" else value for key, value in entry.items()}
            for field, entry in sorted(found[name].items())
            if "merge" in entry or entry["type"] in useful
        }
        for name in sorted(useful)
    }


def _short(name: str) -> str:
    return name.rsplit(".", 1)[1]


def _reference(schema: Mapping[str, Any]) -> str:
    """The type that a schema refers to, empty for a plain value."""
    for part in (schema, *schema.get("allOf", [])):
        if "$ref" in part:
            return str(part["$ref"].rsplit("/", 1)[1])
    return ""


if __name__ == "__main__":
    json.dump(merge_keys(json.load(sys.stdin)), sys.stdout, indent=2)
    sys.stdout.write("\n")
