"""The definition: generated, checked in, and judged by the API server's own validation code."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from crdcheck_tool import judge
from ltx2_job.config import TrainingConfig
from ltx2_job.config.layers import AUDIO, DATASET, TRAINING, VIDEO
from ltx2_job.errors import ConfigError
from ltx2_operator import crd
from ltx2_operator.api import parse

FILE = Path(__file__).resolve().parents[2] / "configs" / "crd" / "ltx2trainings.ltx2.dev.yaml"
UPDATE = "run: python -m ltx2_operator.crd > configs/crd/ltx2trainings.ltx2.dev.yaml"


def manifest(name: str = "my-style", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    obj: dict[str, Any] = {
        "apiVersion": "ltx2.dev/v1alpha1",
        "kind": "LTX2Training",
        "metadata": {"name": name, "namespace": "default", "uid": "0a1b"},
        "spec": {"config": {"max_train_steps": 100}, **spec},
    }
    if status is not None:
        obj["status"] = status
    return obj


def without(obj: dict[str, Any], key: str) -> dict[str, Any]:
    obj = copy.deepcopy(obj)
    del obj["spec"][key]
    return obj


# ---------------------------------------------------------------------------------------------------- without a server


def test_the_file_is_what_the_models_make() -> None:
    """Mutation caught: a field added to api.py without regenerating the file that the chart installs."""
    assert FILE.read_text() == crd.render(), UPDATE


def test_names_are_those_of_the_manifests() -> None:
    made = crd.definition()
    assert made["metadata"]["name"] == "ltx2trainings.ltx2.dev"
    names = made["spec"]["names"]
    assert (names["kind"], names["shortNames"], names["categories"]) == ("LTX2Training", ["ltx2"], ["ml"])
    (version,) = made["spec"]["versions"]
    assert version["name"] == "v1alpha1" and version["subresources"] == {"status": {}}


def test_columns_are_those_a_user_is_promised() -> None:
    columns = crd.columns()
    first = [column["name"].upper() for column in columns if not column.get("priority")]
    assert first == ["STATE", "STAGE", "PROGRESS", "ETA", "ATTEMPT", "GPU", "AGE"]
    assert [column["name"] for column in columns if column.get("priority") == 1] == [
        "Loss",
        "Reason",
        "Queue",
        "Checkpoint",
    ]


def test_every_column_points_at_a_field() -> None:
    """Mutation caught: a renamed status field, whose column would print blank for ever."""
    root = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for column in crd.columns():
        place = root
        for part in column["jsonPath"].strip(".").split("."):
            if part == "metadata":
                break
            place = place["properties"][part]
        else:
            assert place["type"] == column["type"], column


def walk(schema: dict[str, Any], path: str = "") -> Any:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(schema[key], f"{path}[]")


def typed() -> list[tuple[str, dict[str, Any]]]:
    root = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    skipped = (".apiVersion", ".kind", ".metadata")
    return [
        (path, schema)
        for path, schema in walk(root)
        if path not in skipped and not (path.startswith(".spec.config.") or schema.get("type") is None)
    ]


def test_strings_lists_and_maps_are_bounded_and_numbers_are_integers() -> None:
    """The rules of the Kubernetes API linter; CEL's cost estimate explodes without the bounds."""
    for path, schema in typed():
        kind = schema["type"]
        if kind == "string":
            assert "maxLength" in schema or "enum" in schema, path
        elif kind == "array":
            assert {"maxItems", "x-kubernetes-list-type"} <= schema.keys(), path
        elif kind == "integer":
            assert schema["format"] in ("int32", "int64"), path
        elif kind == "object" and "additionalProperties" in schema:
            assert "maxProperties" in schema, path
        else:
            assert kind in ("boolean", "object"), path
        assert "default" not in schema, f"{path}: a default would change stored objects on an upgrade"


def test_every_typed_field_is_described() -> None:
    for path, schema in typed():
        if path and not path.endswith("[]"):
            assert schema.get("description"), path


def test_every_key_of_the_guide_is_explained() -> None:
    root = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    config = root["properties"]["spec"]["properties"]["config"]
    assert config["x-kubernetes-preserve-unknown-fields"] is True
    assert set(config["properties"]) == {*TrainingConfig.model_fields, *TRAINING.aliases}
    for name, schema in config["properties"].items():
        assert schema["description"], name
        assert "type" not in schema, f"{name}: the guide writes an empty string for unset numbers"


def test_every_key_of_a_dataset_is_explained() -> None:
    root = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    dataset = root["properties"]["spec"]["properties"]["datasets"]["items"]
    for schema, names in (
        (dataset, DATASET),
        (dataset["properties"]["video"], VIDEO),
        (dataset["properties"]["audio"], AUDIO),
    ):
        assert schema["x-kubernetes-preserve-unknown-fields"] is True
        assert set(schema["properties"]) == {*names.model.model_fields, *names.aliases}
        for name, part in schema["properties"].items():
            assert part["description"] and "type" not in part, f"{name}: the guide writes null for unset"


def test_no_user_is_shown_a_pattern() -> None:
    """The server's own message for a pattern is the bare pattern; a rule says what to write."""
    spec = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert "pattern" not in str(spec)
    size = spec["properties"]["storage"]["properties"]["size"]["x-kubernetes-validations"]
    assert "write a quantity such as 200Gi" in size[0]["message"]


def test_a_union_or_a_float_cannot_slip_into_the_definition() -> None:
    class Union(BaseModel):
        value: int | str

    class Float(BaseModel):
        value: float

    for model in (Union, Float):
        schema = model.model_json_schema()
        with pytest.raises(ValueError):
            crd.structural(schema, schema.get("$defs", {}))


def test_the_file_has_no_anchors() -> None:
    assert not re.search(r"^\s*[^#'\"]*: [&*]id\d", FILE.read_text(), re.MULTILINE)


# --------------------------------------------------------------------------------- judged by the API server's own code

STARTED = {"attempt": 1}
GOOD: dict[str, dict[str, Any]] = {
    "shortest": manifest(),
    "verbatim guide values": manifest(
        config={"learning_rate": 6e-5, "skip_file_discovery": "", "tread_config": {"routes": [{"ratio": 0.5}]}}
    ),
    "null in config": manifest(config={"lora_alpha": None}),
    "all Kubernetes fields": manifest(
        gpu={"class": "h100-80g", "count": 2},
        nodes=2,
        storage={"size": "200Gi", "storageClassName": "fast"},
        cache={"gpu": {"class": "rtx-4090"}, "shards": 1},
        memory="bf16/resident/keep:24",
        flavour="cuda",
        images={"cache": "registry.example/ltx2/job:1", "train": "registry.example/ltx2/job@sha256:00"},
        secrets={"hubToken": {"name": "hub"}, "objectStore": "bucket"},
        suspend=False,
        queueName="team-a",
        priorityClassName="low",
        activeDeadlineSeconds=3600,
        startDeadlineSeconds=600,
        ttlSecondsAfterFinished=0,
        retries=0,
        datasets=[{"id": "clips", "video": {"num_frames": 49}}],
    ),
    "existing claim": manifest(storage={"claimName": "team-data"}),
    "name of 40": manifest(name="a" * 40),
    "streamed plan by name": manifest(memory="int8/streamed:16/keep:0"),
}  # fmt: skip
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "name of 41": (manifest(name="a" * 41), "", "metadata.name: 41 characters, at most 40"),
    "name with a dot": (manifest(name="a.b"), "", "small letters, digits and dashes"),
    "size and claim": (
        manifest(storage={"size": "1Gi", "claimName": "mine"}), "spec.storage",
        "size 1Gi and claimName mine are both set",
    ),
    "class on a claim": (
        manifest(storage={"claimName": "mine", "storageClassName": "fast"}), "spec.storage",
        "storageClassName fast has no",
    ),
    "no config": (without(manifest(), "config"), "spec", "exactly one of config and configFrom"),
    "two configs": (manifest(configFrom={"name": "files"}), "spec", "exactly one of config and configFrom"),
    "no GPUs": (manifest(gpu={"count": 0}), "spec.gpu.count", "greater than or equal to 1"),
    "17 GPUs": (manifest(gpu={"count": 17}), "spec.gpu.count", "less than or equal to 16"),
    "text for a number": (manifest(retries="3"), "spec.retries", "must be of type integer"),
    "broken plan": (manifest(memory="bf16"), "spec.memory", "write auto, or a plan's name such as bf16"),
    "unknown flavour": (manifest(flavour="vulkan"), "spec.flavour", "supported values"),
    "size in words": (manifest(storage={"size": "200 GB"}), "spec.storage.size", "write a quantity such as 200Gi"),
    "65 data sets": (
        manifest(datasets=[{"id": str(n)} for n in range(65)]), "spec.datasets", "must have at most 64 items",
    ),
    "two conditions of a type": (
        manifest(status={"conditions": 2 * [
            {"type": "Failed", "status": "True", "reason": "AppError", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ]}), "status.conditions[1]", "",
    ),
}  # fmt: skip
LOCKED: dict[str, Any] = {
    "gpu": {"class": "h200"}, "nodes": 2, "storage": {"size": "9Gi"}, "cache": {"shards": 2}, "memory": "auto",
    "flavour": "rocm", "images": {"train": "x"}, "secrets": {"objectStore": "x"}, "activeDeadlineSeconds": 9,
    "startDeadlineSeconds": 9, "resumeFrom": "runs/old",
    "datasets": [{"id": "other"}], "config": {"max_train_steps": 101},
}  # fmt: skip
FREE: dict[str, Any] = {"suspend": True, "retries": 9, "ttlSecondsAfterFinished": 60}
WHILE_SUSPENDED: dict[str, Any] = {
    "queueName": "other", "priorityClassName": "high", "podTemplate": {"spec": {"hostname": "x"}},
}  # fmt: skip
FAILED = {"type": "Failed", "status": "True", "reason": "HostOutOfMemory", "lastTransitionTime": "2026-01-01T00:00:00Z"}


RENAMED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "key": ({"config": {"lora_rank": 4}}, {"config": {"lora_alpha": 4}}),
    "alias": ({"config": {"validation_steps": 4}}, {"config": {"save_total_limit": 4}}),
    "key of a dataset": ({"datasets": [{"id": "a", "repeats": 1}]}, {"datasets": [{"id": "a", "probability": 1}]}),
    "part of the patch": ({"podTemplate": {"spec": {"a": "b"}}}, {"podTemplate": {"metadata": {"a": "b"}}}),
    "key of a dataset's video": (
        {"datasets": [{"video": {"min_frames": 9}}]},
        {"datasets": [{"video": {"max_frames": 9}}]},
    ),
}


def cases() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"name": f"good: {name}", "object": obj} for name, obj in GOOD.items()]
    made += [{"name": f"bad: {name}", "object": obj} for name, (obj, _, _) in BAD.items()]
    for field, value in {**LOCKED, **FREE, **WHILE_SUSPENDED}.items():
        started, changed = manifest(status=STARTED), manifest(status=STARTED, **{field: value})
        made += [
            {"name": f"before: {field}", "old": manifest(), "object": manifest(**{field: value})},
            {"name": f"before, attempt 0: {field}", "old": manifest(status={"attempt": 0}),
             "object": manifest(status={"attempt": 0}, **{field: value})},
            {"name": f"set: {field}", "old": started, "object": changed},
        ]  # fmt: skip
        if field != "config":
            made.append({"name": f"unset: {field}", "old": changed, "object": started})
    for field, value in WHILE_SUSPENDED.items():
        paused: dict[str, Any] = {"status": STARTED, "suspend": True}
        made.append(
            {"name": f"suspended: {field}", "old": manifest(**paused), "object": manifest(**paused, **{field: value})}
        )
        for words, conditions in {
            "failed": [FAILED], "not failed": [{**FAILED, "status": "False"}],
            "succeeded": [{**FAILED, "type": "Succeeded"}],
        }.items():  # fmt: skip
            ended: dict[str, Any] = {"status": {**STARTED, "conditions": conditions}}
            made.append(
                {"name": f"{words}: {field}", "old": manifest(**ended), "object": manifest(**ended, **{field: value})}
            )
    statuses = {"rises": (1, 2), "stays": (2, 2), "falls": (2, 1)}
    for name, (old, new) in statuses.items():
        made.append(
            {
                "name": f"attempt {name}",
                "old": manifest(status={"attempt": old}),
                "object": manifest(status={"attempt": new}),
            }
        )
    made.append({"name": "attempt vanishes", "old": manifest(status=STARTED), "object": manifest(status={})})
    made.append({"name": "typo in the typed half", "object": manifest(nodez=2)})
    made.append({"name": "typo deeper in the typed half", "object": manifest(gpu={"clas": "h200"})})
    ratio = [manifest(status=STARTED, config={"tread_config": {"routes": [{"ratio": r}]}}) for r in (0.5, 0.6)]
    made.append({"name": "deep change", "old": ratio[0], "object": ratio[1]})
    for name, (before, after) in RENAMED.items():
        old, new = manifest(status=STARTED, **before), manifest(status=STARTED, **after)
        made.append({"name": f"renamed: {name}", "old": old, "object": new})
    return made


@pytest.fixture(scope="module")
def verdict() -> dict[str, Any]:
    return judge(FILE, cases())


def errors(verdict: dict[str, Any], name: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = verdict["cases"][name]
    return found


pytest_server = pytest.mark.slow  # the first build takes minutes, later runs a second


@pytest_server
def test_the_api_server_takes_the_definition(verdict: dict[str, Any]) -> None:
    assert verdict["crd"] == []


@pytest_server
def test_a_definition_over_the_cost_budget_is_refused(tmp_path: Path) -> None:
    """The judge itself must be able to say no: unbounded strings in a nested rule blow CEL's budget."""
    broken = crd.definition()
    spec = broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["names"] = {"type": "array", "items": {"type": "string"}}
    spec["x-kubernetes-validations"].append({"rule": "self.names.all(a, self.names.exists(b, a == b + b))"})
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(broken))
    found = judge(path, [])["crd"]
    assert any("budget" in error["detail"] for error in found), found


@pytest_server
@pytest.mark.parametrize("name", GOOD)
def test_good_objects_are_taken_by_server_and_operator(verdict: dict[str, Any], name: str) -> None:
    assert errors(verdict, f"good: {name}") == []
    parse(GOOD[name])


@pytest_server
@pytest.mark.parametrize("name", BAD)
def test_bad_objects_are_refused_by_server_and_operator(verdict: dict[str, Any], name: str) -> None:
    """Mutation caught: a rule written for the server and forgotten for local manifests, or the other way round."""
    obj, field, message = BAD[name]
    found = errors(verdict, f"bad: {name}")
    assert found, "the server takes it"
    assert any(error["field"].startswith(field) and message in error["detail"] for error in found), found
    if "status" not in obj:
        with pytest.raises(ConfigError):
            parse(obj)


@pytest_server
@pytest.mark.parametrize("field", [*LOCKED, *FREE, *WHILE_SUSPENDED])
def test_everything_may_change_before_the_first_attempt(verdict: dict[str, Any], field: str) -> None:
    assert errors(verdict, f"before: {field}") == []
    assert errors(verdict, f"before, attempt 0: {field}") == []


@pytest_server
@pytest.mark.parametrize("field", [*LOCKED, *WHILE_SUSPENDED])
def test_the_first_attempt_locks_the_spec(verdict: dict[str, Any], field: str) -> None:
    """Setting and unsetting: a rule on the field alone would miss both."""
    names = [f"set: {field}"] if field == "config" else [f"set: {field}", f"unset: {field}"]
    for name in names:
        found = errors(verdict, name)
        assert [error["field"] for error in found] == [f"spec.{field}"], (name, found)
        assert found[0]["type"] == "FieldValueForbidden"
        assert f"spec.{field}" in found[0]["detail"]


@pytest_server
@pytest.mark.parametrize("field", FREE)
def test_these_stay_free(verdict: dict[str, Any], field: str) -> None:
    assert errors(verdict, f"set: {field}") == errors(verdict, f"unset: {field}") == []


@pytest_server
@pytest.mark.parametrize("field", WHILE_SUSPENDED)
def test_queue_priority_and_pods_change_while_suspended(verdict: dict[str, Any], field: str) -> None:
    assert errors(verdict, f"suspended: {field}") == []


@pytest_server
@pytest.mark.parametrize("field", WHILE_SUSPENDED)
def test_the_pod_template_changes_after_a_failure_too(verdict: dict[str, Any], field: str) -> None:
    """Mutation caught: a rule that takes any condition for a failure, or Failed=False for one."""
    assert bool(errors(verdict, f"failed: {field}")) == (field not in crd.MUTABLE_AFTER_FAILURE)
    assert errors(verdict, f"not failed: {field}") and errors(verdict, f"succeeded: {field}")


@pytest_server
def test_the_attempt_never_falls(verdict: dict[str, Any]) -> None:
    assert errors(verdict, "attempt rises") == errors(verdict, "attempt stays") == []
    for name in ("attempt falls", "attempt vanishes"):
        assert [error["type"] for error in errors(verdict, name)] == ["FieldValueForbidden"], name


@pytest_server
def test_changes_deep_in_the_opaque_half_are_seen(verdict: dict[str, Any]) -> None:
    assert [error["field"] for error in errors(verdict, "deep change")] == ["spec.config"]


@pytest_server
@pytest.mark.parametrize("name", RENAMED)
def test_a_key_that_becomes_another_is_seen(verdict: dict[str, Any], name: str) -> None:
    """The server compares names only where the definition has them. Mutation caught: datasets without properties."""
    (field,) = (f"spec.{part}" for part in ("datasets", "podTemplate", "config") if part in RENAMED[name][1])
    assert [error["field"] for error in errors(verdict, f"renamed: {name}")] == [field]


@pytest_server
def test_what_a_client_sends_is_kept_at_every_depth(verdict: dict[str, Any]) -> None:
    guide = GOOD["verbatim guide values"]["spec"]["config"]
    assert verdict["kept"]["good: verbatim guide values"]["spec"]["config"] == guide
    assert verdict["kept"]["good: null in config"]["spec"]["config"] == {"lora_alpha": None}
    typo = verdict["kept"]["typo in the typed half"]
    assert typo["spec"]["nodez"] == 2, "pruned: a client that does not validate would never hear of its mistake"
    with pytest.raises(ConfigError, match=r"spec\.nodez: unknown key; did you mean nodes\?"):
        parse(typo)
    deeper = verdict["kept"]["typo deeper in the typed half"]
    with pytest.raises(ConfigError, match=r"spec\.gpu\.clas: unknown key; did you mean class\?"):
        parse(deeper)


def test_a_lock_exists_for_every_field_that_is_not_free() -> None:
    """Mutation caught: a new spec field that can change under a running Job."""
    locked = {rule["fieldPath"] for rule in crd.locks()}
    from ltx2_operator.api import Spec

    fields = {info.alias or name for name, info in Spec.model_fields.items()}
    assert locked == {f".spec.{name}" for name in fields - set(crd.MUTABLE)}
