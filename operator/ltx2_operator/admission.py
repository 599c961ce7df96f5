"""A ValidatingAdmissionPolicy that refuses unknown keys, and mistyped ones of the pasted files, for every client.

The definition keeps unknown keys at every depth, so that no client's typo vanishes; here they are refused.
`spec.config` and `spec.datasets` are opaque to the definition, since the guide's files write null and "" for "unset"
and numbers as texts. This policy knows the keys (from ltx2_job.config) and the coarse form of their values. It refuses
nothing that the operator would take; what needs more knowledge (ranges, two keys at once, the nearest name) is said by
the operator and by `ltx2 check`. An object that is stored already is not looked at again unless its spec changes.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from ltx2_job.config import values
from ltx2_job.config.keys import facts
from ltx2_job.config.layers import AUDIO, DATASET, TRAINING, VIDEO, Names
from ltx2_job.config.values import OneOf
from ltx2_operator import crd
from ltx2_operator.fields import GROUP, KIND, PLURAL, VERSION

NAME: Final = f"keys.{PLURAL}.{GROUP}"
DATASETS_MAX: Final = 64  # as spec.datasets' maxItems
REMEDY: Final = f"; `ltx2 check FILE` says what to write, `kubectl explain {KIND.lower()}.spec.config` lists the keys"

# Forms: the CEL test of a value that is set, given its place, and the words for it.
_NUMBER: Final = "^\\\\s*[-+]?([0-9][0-9_]*[.]?[0-9_]*|[.][0-9][0-9_]*)([eE][-+]?[0-9_]+)?\\\\s*$"
_WORD: Final = "^\\\\s*(?i:true|yes|on|1|y|t|false|no|off|0|n|f)\\\\s*$"


def _is(value: str, *types: str) -> str:
    return f"({' || '.join(f'type({value}) == {one}' for one in types)})"


_FORMS: Final[dict[str, tuple[Callable[[str], str], str]]] = {
    "number": (
        lambda v: f"{_is(v, 'int', 'double')} || ({_is(v, 'string')} && {v}.matches('{_NUMBER}'))",
        "must be a number",
    ),
    "boolean": (
        lambda v: f"{_is(v, 'bool', 'int', 'double')} || ({_is(v, 'string')} && {v}.matches('{_WORD}'))",
        "must be true or false",
    ),
    "text": (lambda v: f"!{_is(v, 'bool', 'map', 'list')}", "must be text"),
    "block": (lambda v: _is(v, "map"), "must be an object"),
}
_BY_VALIDATOR: Final = {
    values.Float: "number",
    values.Int: "number",
    values.Bool: "boolean",
    values.Text: "text",
}


@dataclass
class Known:
    """What is known about the keys of one object: all names, names by form, and the choices of those that have some."""

    names: list[str]
    forms: dict[str, list[str]] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)


def known(names: Names) -> Known:
    """The names of an object of the configuration, with the forms of its supported keys.

    Keys whose feature is not built yet take several words for "no"; their values are left to the operator.
    """
    found = Known(sorted(names.known()))
    spellings: dict[str, list[str]] = {name: [name] for name in names.model.model_fields}
    for alias, name in names.aliases.items():
        spellings[name].append(alias)
    for name, info in names.model.model_fields.items():
        if facts(info).status != "supported":
            continue
        form, choices = _form(info)
        for spelling in spellings[name]:
            if form:
                found.forms.setdefault(form, []).append(spelling)
            if choices:
                found.choices[spelling] = choices
    return found


def _form(info: FieldInfo) -> tuple[str, list[str]]:
    """The form of a key's values ("" where the policy does not judge it) and, for a choice, what may be chosen."""
    options = [option for option in _options(info.rebuild_annotation()) if option is not type(None)]
    if len(options) != 1:
        return "", []
    (option,) = options
    if get_origin(option) is Literal:
        return "text", [str(choice) for choice in get_args(option)]
    for validator in _validators(option):
        if isinstance(validator, OneOf):
            return "text", [] if validator.many else [*validator.known, *validator.aliases]
        for known_type, form in _BY_VALIDATOR.items():
            if validator in _validators(known_type):
                return form, []
    return "block" if option in (names.model for names in (VIDEO, AUDIO)) else "", []


def _options(annotation: Any) -> Iterator[Any]:
    """The members of a union, a lone annotation itself; what annotates the union is not looked at."""
    inner = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    if not list(_validators(annotation)) and inner is not annotation:
        yield from _options(inner)
    elif type(None) in get_args(annotation):
        yield from get_args(annotation)
    else:
        yield annotation


def _validators(annotation: Any) -> list[Any]:
    return [item.func for item in getattr(annotation, "__metadata__", ()) if isinstance(item, BeforeValidator)]


# ----------------------------------------------------------------------------------------------------------------- CEL


def _literal(value: Any) -> str:
    """Texts, lists and maps of texts as CEL writes them."""
    return json.dumps(value, ensure_ascii=True)


def _problems(what: str, place: str, facts_of: str) -> str:
    """A CEL list of sentences about the map `what`. place: a CEL text, its path. facts_of: prefix of the variables."""
    plain = "(k.startsWith('--') ? k.substring(2) : k)"
    parts = [
        f"{what}.filter(k, !({plain} in variables.{facts_of}Names)).map(k, {place} + '.' + k + ': unknown key')",
    ]
    for form, (test, words) in _FORMS.items():
        value = f"{what}[k]"
        wrong = f"{value} != null && {value} != '' && !({test(value)})"  # null and "" mean unset
        parts.append(
            f"variables.{facts_of}Forms[{_literal(form)}].filter(k, k in {what} && {wrong})"
            f".map(k, {place} + '.' + k + ': {words}')"
        )
    parts.append(
        f"variables.{facts_of}Choices.filter(k, k in {what} && type({what}[k]) == string && {what}[k] != '' && "
        f"!({what}[k] in variables.{facts_of}Choices[k]))"
        f".map(k, {place} + '.' + k + ': unknown value ' + {what}[k])"
    )
    return " + ".join(parts)


def _facts(prefix: str, names: Names) -> list[dict[str, str]]:
    found = known(names)
    return [
        {"name": f"{prefix}Names", "expression": _literal(found.names)},
        {
            "name": f"{prefix}Forms",
            "expression": _literal({form: sorted(found.forms.get(form, [])) for form in _FORMS}),
        },
        {"name": f"{prefix}Choices", "expression": _literal(dict(sorted(found.choices.items())) or {"": [""]})},
    ]


def _datasets() -> str:
    """A CEL list of sentences, one per dataset that has problems."""
    entry, place = "object.spec.datasets[i]", "'spec.datasets[' + string(i) + ']'"
    disabled = " || ".join(
        f"({name!r} in {entry} && ({entry}.{name} == true || {entry}.{name} == 1 || "
        f"(type({entry}.{name}) == string && {entry}.{name}.matches('^\\\\s*(?i:true|yes|on|1)\\\\s*$'))))"
        for name in ("disabled", "disable")
    )
    parts = [_problems(entry, place, "dataset")]
    for block in ("video", "audio"):
        inner = _problems(f"{entry}.{block}", f"{place} + '.{block}'", block)
        parts.append(f"('{block}' in {entry} && type({entry}.{block}) == map ? {inner} : [])")
    indices = _literal(list(range(DATASETS_MAX)))
    return (
        f"!has(object.spec.datasets) ? [] : {indices}"
        f".filter(i, i < size(object.spec.datasets) && !({disabled}))"
        f".map(i, ({' + '.join(parts)}).join(' | ')).filter(text, text != '')"
    )


def _typed() -> str:
    """A CEL list of sentences about unknown keys of the object itself, outside the pasted files."""
    root = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = [_unknown("object", sorted(root["properties"]), "''")]
    for place, names in _blocks("spec", root["properties"]["spec"]):
        steps = place.split(".")
        there = [f"has(object.{'.'.join(steps[:depth])})" for depth in range(2, len(steps) + 1)]
        unknown = _unknown(f"object.{place}", names, f"'{place}.'")
        parts.append(f"({' && '.join(there)} ? {unknown} : [])" if there else unknown)
    return " + ".join(parts)


def _unknown(what: str, names: list[str], prefix: str) -> str:
    return f"{what}.filter(k, !(k in {_literal(names)})).map(k, {prefix} + k + ': unknown key')"


def _blocks(place: str, schema: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Every object of the typed half: its path and its keys. `spec.config` and the patch of the pods are opaque."""
    if "properties" not in schema or place == "spec.config":
        return
    yield place, sorted(schema["properties"])
    for name, part in schema["properties"].items():
        yield from _blocks(f"{place}.{name}", part)


def policy() -> dict[str, Any]:
    """The ValidatingAdmissionPolicy."""
    config = _problems("object.spec.config", "'spec.config'", "config")
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
            # Never in the way: what this policy cannot judge is judged by the operator.
            "failurePolicy": "Ignore",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [PLURAL],
                    }
                ]
            },
            "matchConditions": [
                {
                    "name": "spec-is-new",
                    "expression": "request.operation == 'CREATE' || object.spec != oldObject.spec",
                }
            ],
            "variables": [
                *_facts("config", TRAINING),
                *_facts("dataset", DATASET),
                *_facts("video", VIDEO),
                *_facts("audio", AUDIO),
                {"name": "configProblems", "expression": f"has(object.spec.config) ? {config} : []"},
                {"name": "datasetProblems", "expression": _datasets()},
                {"name": "typedProblems", "expression": _typed()},
                {
                    "name": "problems",
                    "expression": "variables.typedProblems + variables.configProblems + variables.datasetProblems",
                },
            ],
            "validations": [
                {
                    "expression": "size(variables.problems) == 0",
                    "reason": "Invalid",
                    "message": f"unknown or mistyped keys{REMEDY}",
                    "messageExpression": f"variables.problems.join(' | ') + {_literal(REMEDY)}",
                }
            ],
        },
    }


def binding() -> dict[str, Any]:
    """What puts the policy into force, in the whole cluster."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME, "validationActions": ["Deny"]},
    }
