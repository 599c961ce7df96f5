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
CHECK: Final = "`ltx2 check FILE` says what to write"
EXPLAIN: Final = f"kubectl explain {KIND.lower()}"  # and the path of the object whose keys it lists

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


# The object as it was sent. Against the definition's types the keys of what is opaque there would be faults.
_GIVEN: Final = "variables.given"


def _literal(value: str | list[int]) -> str:
    """A text or a list of numbers as CEL writes it."""
    return json.dumps(value, ensure_ascii=True)


def _words(items: list[str]) -> str:
    """A CEL list of words: one text that is split, since the server compiles a list in the square of its length."""
    assert not any(" " in item for item in items), items
    return f"{_literal(' '.join(items))}.split(' ')" if items else "[]"


def _words_by(lists: dict[str, list[str]]) -> str:
    """A CEL map of lists of words, a line for each: of a fault in a long line the server makes seconds of work."""
    return "{" + ",\n".join(f"{_literal(key)}: {_words(items)}" for key, items in lists.items()) + "}"


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
    return "\n+ ".join(parts)


def _facts(prefix: str, names: Names) -> list[dict[str, str]]:
    found = known(names)
    return [
        {"name": f"{prefix}Names", "expression": _words(found.names)},
        {
            "name": f"{prefix}Forms",
            "expression": _words_by({form: sorted(found.forms.get(form, [])) for form in _FORMS}),
        },
        {"name": f"{prefix}Choices", "expression": _words_by(dict(sorted(found.choices.items())) or {"": []})},
    ]


def _enabled() -> str:
    """A CEL list of the indices of the datasets that are not disabled: `ltx2 check` does not read those either."""
    entry = f"{_GIVEN}.spec.datasets[i]"
    disabled = " || ".join(
        f"({name!r} in {entry} && ({entry}.{name} == true || {entry}.{name} == 1 || "
        f"(type({entry}.{name}) == string && {entry}.{name}.matches('^\\\\s*(?i:true|yes|on|1)\\\\s*$'))))"
        for name in ("disabled", "disable")
    )
    indices = _literal(list(range(DATASETS_MAX)))
    datasets = f"{_GIVEN}.spec.datasets"
    return f"!has({datasets}) ? [] : {indices}.filter(i, i < size({datasets}) && !({disabled}))"


def _datasets(block: str = "") -> str:
    """A CEL list of sentences, one per dataset that has problems: in its own keys, or in those of a block of it."""
    entry, place = f"{_GIVEN}.spec.datasets[i]", "'spec.datasets[' + string(i) + ']'"
    problems = _problems(entry, place, "dataset")
    if block:
        inner = _problems(f"{entry}.{block}", f"{place} + '.{block}'", block)
        problems = f"('{block}' in {entry} && type({entry}.{block}) == map ? {inner} : [])"
    return f"variables.datasets.map(i, ({problems}).join(' | ')).filter(text, text != '')"


def _unknown(what: str, names: list[str], prefix: str) -> str:
    return f"{what}.filter(k, !(k in {_words(names)})).map(k, {prefix} + k + ': unknown key')"


def _blocks(place: str, schema: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Every object of the typed half: its path and its keys. The pasted files and the patch of the pods are opaque."""
    if "properties" not in schema or place in ("spec.config", "spec.podTemplate"):
        return
    yield place, sorted(schema["properties"])
    for name, part in schema["properties"].items():
        yield from _blocks(f"{place}.{name}", part)


def _places() -> dict[str, str]:
    """Every object that is judged: its path as `kubectl explain` writes it, and a CEL list of sentences about it."""
    root = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found = {"": _unknown(_GIVEN, sorted(root["properties"]), "''")}
    for place, names in _blocks("spec", root["properties"]["spec"]):
        steps = place.split(".")
        there = [f"has({_GIVEN}.{'.'.join(steps[:depth])})" for depth in range(2, len(steps) + 1)]
        unknown = _unknown(f"{_GIVEN}.{place}", names, f"'{place}.'")
        found[f".{place}"] = f"({' && '.join(there)} ? {unknown} : [])" if there else unknown
    config = _problems(f"{_GIVEN}.spec.config", "'spec.config'", "config")
    found[".spec.config"] = f"(has({_GIVEN}.spec.config) ? {config} : [])"
    found[".spec.datasets"] = _datasets()
    found |= {f".spec.datasets.{block}": _datasets(block) for block in ("video", "audio")}
    return found


def _found() -> list[dict[str, str]]:
    """The variables with what is said: a text for each object, and `found`, a CEL list with [command that lists the
    keys, text] for each that has problems. The server compiles an expression in more than the square of its length.
    """
    texts, pairs = [], []
    for path, problems in _places().items():
        name = "said" + path.replace(".", "_")
        texts.append({"name": name, "expression": f"({problems}).join(' | ')"})
        pairs.append(f"[{_literal(f'`{EXPLAIN}{path}`')}, variables.{name}]")
    return [*texts, {"name": "found", "expression": "[" + ",\n".join(pairs) + "].filter(one, one[1] != '')"}]


def policy() -> dict[str, Any]:
    """The ValidatingAdmissionPolicy."""
    said, lists = ("variables.found.map(one, one[{}]).join('{}')".format(*how) for how in ((1, " | "), (0, ", ")))
    verb = "(size(variables.found) == 1 ? ' lists the keys' : ' list the keys')"
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
                {"name": "given", "expression": "dyn(object)"},
                *_facts("config", TRAINING),
                *_facts("dataset", DATASET),
                *_facts("video", VIDEO),
                *_facts("audio", AUDIO),
                {"name": "datasets", "expression": _enabled()},
                *_found(),
            ],
            "validations": [
                {
                    "expression": "size(variables.found) == 0",
                    "reason": "Invalid",
                    # Where the message below is longer than the server takes.
                    "message": f"unknown or mistyped keys; {CHECK}, `{EXPLAIN}.spec` lists the keys",
                    "messageExpression": f"{said} + {_literal(f'; {CHECK}, ')} + {lists} + {verb}",
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
