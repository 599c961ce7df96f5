"""The custom resource definition, generated from the models: structural schema, CEL rules, printer columns.

`python -m ltx2_operator.crd > configs/crd/ltx2trainings.ltx2.dev.yaml` writes the file that is checked in; a test holds
it equal to what this module makes. The API server's rules that shape the output: every string and list has a bound (CEL
cost is estimated from them), no defaults (an upgrade would write them into stored objects), no floats outside opaque
objects.
"""

import sys
from typing import Any, Final

import yaml

from ltx2_job.config.layers import AUDIO, DATASET, TRAINING, VIDEO, Names
from ltx2_operator.api import Spec, Status, pattern_remedy
from ltx2_operator.fields import GROUP, KIND, NAME_MAX, NAME_PATTERN, PLURAL, VERSION, rule

Schema = dict[str, Any]

SHORT_NAME: Final = "ltx2"
CATEGORY: Final = "ml"

# What may change at any time; what changes while suspended, when no pod follows it; all else is fixed by the first
# attempt.
MUTABLE: Final = ("suspend", "retries", "ttlSecondsAfterFinished")
MUTABLE_WHILE_SUSPENDED: Final = ("queueName", "priorityClassName", "podTemplate")
MUTABLE_AFTER_FAILURE: Final = ("podTemplate",)  # what `ltx2 retry` may need changed

_BLOCKS: Final = {"video": VIDEO, "audio": AUDIO}  # objects in a dataset

# Keywords of JSON schema that the API server's structural form keeps, in the order they are written.
_KEPT: Final = (
    "description", "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems",
    "maxItems", "maxProperties", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations", "required",
)  # fmt: skip


def structural(schema: Schema, definitions: Schema) -> Schema:
    """A model's JSON schema in the API server's structural form: references inlined, "or null" and defaults dropped.

    Raises ValueError for a construct that has no structural form, so that a new field cannot be lost silently.
    """
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return structural({**target, **{key: value for key, value in schema.items() if key != "$ref"}}, definitions)
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option != {"type": "null"}]
        if len(options) != 1:
            raise ValueError(f"a union has no structural form: {schema}")
        return structural({**options[0], **{k: v for k, v in schema.items() if k != "anyOf"}}, definitions)
    made: Schema = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if made.get("type") == "number":
        raise ValueError(f"floats have no place in the definition: {schema}")
    if "properties" in schema:
        made["properties"] = {name: structural(part, definitions) for name, part in schema["properties"].items()}
    if "items" in schema:
        made["items"] = structural(schema["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = structural(schema["additionalProperties"], definitions)
    return made


def _of(model: type[Spec] | type[Status]) -> Schema:
    schema = model.model_json_schema(by_alias=True)
    return structural(schema, schema.get("$defs", {}))


def keys(names: Names) -> dict[str, Schema]:
    """The guide's keys for `kubectl explain`: described, but untyped, since `""` means "unset" in the guide's files.

    Naming them has a second use: the API server's comparison of two objects sees a key that was renamed only where the
    schema has it, and what the first attempt fixes is compared so.
    """
    described: dict[str, Schema] = {}
    for name, info in names.model.model_fields.items():
        described[name] = _described(info.description or "")
        if name in _BLOCKS:
            described[name]["properties"] = keys(_BLOCKS[name])
    described |= {alias: _described(f"another name of {name}") for alias, name in names.aliases.items()}
    return dict(sorted(described.items()))


def _described(text: str) -> Schema:
    return {"description": " ".join(text.split())[:1024], "x-kubernetes-preserve-unknown-fields": True}


def keeping(schema: Schema) -> Schema:
    """The schema with unknown keys kept, at every depth.

    A pruned key vanishes silently for every client that does not validate (Helm 3, a plain POST): the run would start
    without it. Kept, it is refused by the admission policy, or named with its nearest neighbour by the operator.
    """
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {name: keeping(part) for name, part in made["properties"].items()}
        made["x-kubernetes-preserve-unknown-fields"] = True
    return made


def worded(schema: Schema, place: str) -> Schema:
    """The schema with each pattern as a rule that says what to write: the server would show the bare pattern."""
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {name: worded(part, f"{place}.{name}") for name, part in made["properties"].items()}
    if "pattern" in made:
        said = f"has another form; {pattern_remedy(place)}"  # the server puts the value before it
        made["x-kubernetes-validations"] = [rule(f"self.matches('{made.pop('pattern')}')", message=said)]
    return made


def locks() -> list[Any]:
    """One rule per field that the first attempt fixes; before it a rejected object can be repaired."""
    rules = []
    for name in _of(Spec)["properties"]:
        if name in MUTABLE:
            continue
        same = f"has(self.spec.{name}) == has(oldSelf.spec.{name})"
        same += f" && (!has(self.spec.{name}) || self.spec.{name} == oldSelf.spec.{name})"
        free = "!has(oldSelf.status) || !has(oldSelf.status.attempt) || oldSelf.status.attempt == 0"
        message = f"spec.{name} is fixed once the first attempt exists; make a new object, the volume keeps everything"
        if name in MUTABLE_WHILE_SUSPENDED:
            free += " || (has(oldSelf.spec.suspend) && oldSelf.spec.suspend)"
            message = f"spec.{name} changes only while the training is suspended; set suspend: true first"
        if name in MUTABLE_AFTER_FAILURE:
            free += " || (has(oldSelf.status.conditions) && "
            free += "oldSelf.status.conditions.exists(one, one.type == 'Failed' && one.status == 'True'))"
            message = f"spec.{name} changes only while the training is suspended or has failed; set suspend: true first"
        rules.append(
            rule(f"{free} || ({same})", message=message, path=f".spec.{name}", reason="FieldValueForbidden"),
        )
    return rules


def root_rules() -> list[Any]:
    """Rules over the whole object: its name, the lock, and a budget that never falls."""
    return [
        rule(
            f"size(self.metadata.name) <= {NAME_MAX}",
            expression=f"'metadata.name: %d characters, at most {NAME_MAX}'.format([size(self.metadata.name)])",
        ),
        rule(
            f"self.metadata.name.matches('{NAME_PATTERN}')",
            message="metadata.name: small letters, digits and dashes only, beginning with a letter",
        ),
        rule(
            "!has(oldSelf.status) || !has(oldSelf.status.attempt) || "
            "(has(self.status) && has(self.status.attempt) && self.status.attempt >= oldSelf.status.attempt)",
            message="status.attempt never falls: it is the run's budget and its fence",
            reason="FieldValueForbidden",
        ),
        *locks(),
    ]


def columns() -> list[dict[str, Any]]:
    """What `kubectl get` prints; -o wide adds the rest. Status carries ready words, since kubectl formats nothing."""
    shown = {
        "State": ("string", ".status.state"),
        "Stage": ("string", ".status.stage"),
        "Progress": ("string", ".status.progressText"),
        "ETA": ("string", ".status.eta"),
        "Attempt": ("integer", ".status.attempt"),
        "GPU": ("string", ".status.gpu"),
        "Age": ("date", ".metadata.creationTimestamp"),
    }
    wide = {
        "Loss": ("string", ".status.progress.loss"),
        "Reason": ("string", ".status.reason"),
        "Queue": ("string", ".spec.queueName"),
        "Checkpoint": ("integer", ".status.checkpoint.step"),
    }
    return [
        *({"name": name, "type": kind, "jsonPath": path} for name, (kind, path) in shown.items()),
        *({"name": name, "type": kind, "jsonPath": path, "priority": 1} for name, (kind, path) in wide.items()),
    ]


def definition() -> Schema:
    """The CustomResourceDefinition of LTX2Training."""
    spec = worded(keeping(_of(Spec)), "spec")
    spec["properties"]["config"]["properties"] = keys(TRAINING)
    spec["properties"]["datasets"]["items"]["properties"] = keys(DATASET)
    spec["properties"]["podTemplate"]["properties"] = {
        "metadata": _described("Labels and annotations."),
        "spec": _described("As in a pod."),
    }
    root = {
        "description": "A training of LTX-2: which data, which configuration, on which GPUs, kept where.",
        "type": "object",
        "required": ["spec"],
        "x-kubernetes-preserve-unknown-fields": True,
        "x-kubernetes-validations": root_rules(),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _of(Status),
        },
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns(),
        "schema": {"openAPIV3Schema": root},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def render() -> str:
    """The definition as the YAML file that is checked in."""
    head = "# Generated from operator/ltx2_operator/api.py by `python -m ltx2_operator.crd`; do not edit.\n"
    return head + yaml.dump(definition(), Dumper=Plain, sort_keys=False, width=118, allow_unicode=True)


class Plain(yaml.SafeDumper):
    """YAML without anchors: not every reader of manifests knows them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    sys.stdout.write(render())
