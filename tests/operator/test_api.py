"""The typed half of a manifest: what is read, how mistakes are named, and that a status is never refused."""

from typing import Any

import pytest

from ltx2_job.errors import ConfigError
from ltx2_operator.api import (
    Condition,
    LTX2Training,
    Plan,
    Progress,
    Spec,
    Status,
    not_supported_yet,
    parse,
)
from trainings import manifest, plan


def problems(obj: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(obj)
    return [str(problem) for problem in caught.value.problems]


def test_the_shortest_manifest_and_its_defaults() -> None:
    spec = parse(manifest()).spec
    assert (spec.gpu.class_, spec.gpu.count, spec.nodes) == ("auto", 1, 1)
    assert (spec.memory, spec.retries, spec.suspend, spec.start_deadline_seconds) == ("auto", 3, False, 3600)
    assert spec.ttl_seconds_after_finished is None, "a TTL that deletes the object retrains for ever under GitOps"
    assert spec.active_deadline_seconds is None
    assert spec.config == {"max_train_steps": 100}


def test_defaults_are_not_shared() -> None:
    assert Status().conditions is not Status().conditions


def test_the_manifest_of_the_documentation() -> None:
    spec = parse(
        manifest(
            gpu={"class": "h100-80g", "count": 2},
            nodes=2,
            storage={"size": "200Gi"},
            cache={"gpu": {"class": "rtx-4090"}},
            secrets={"hubToken": {"name": "hub"}},
            datasets=[{"id": "clips", "type": "local"}],
        )
    ).spec
    assert (spec.gpu.class_, spec.gpu.count, spec.nodes) == ("h100-80g", 2, 2)
    assert spec.cache_gpu.class_ == "rtx-4090"
    assert spec.secrets.hub_token is not None and spec.secrets.hub_token.key == "token"
    assert spec.datasets == [{"id": "clips", "type": "local"}]


def test_the_cache_stage_runs_where_training_runs_unless_told() -> None:
    assert parse(manifest(gpu={"class": "h200"})).spec.cache_gpu.class_ == "h200"


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"nodez": 2}, "spec.nodez: unknown key; did you mean nodes?"),
        ({"gpu": {"clas": "h200"}}, "spec.gpu.clas: unknown key; did you mean class?"),
        ({"secrets": {"hubToken": {"nam": "x"}}}, "spec.secrets.hubToken.nam: unknown key; did you mean name?"),
        ({"storage": {"qqqq": 1}}, "spec.storage.qqqq: unknown key"),
        ({"gpu": {"count": 0}}, "spec.gpu.count: 0: must be greater than or equal to 1"),
        ({"retries": "3"}, "spec.retries: '3': must be a valid integer"),
        ({"nodes": True}, "spec.nodes: True: must be a valid integer"),
        ({"suspend": "yes"}, "spec.suspend: 'yes': must be a valid boolean"),
        ({"flavour": "vulkan"}, "spec.flavour: 'vulkan': must be 'cuda', 'rocm' or 'cpu'"),
        (
            {"storage": {"size": "1Gi", "claimName": "mine"}},
            "spec.storage: size 1Gi and claimName mine are both set; "
            "remove size to use the claim, or claimName to have one made",
        ),
        (
            {"storage": {"claimName": "mine", "storageClassName": "fast"}},
            "spec.storage: storageClassName fast has no effect on the existing claim mine; remove one of the two",
        ),
        (
            {"configFrom": {"name": "files"}},
            "spec: exactly one of config and configFrom must be set; paste the guide's config.json under config",
        ),
    ],
)
def test_a_mistake_is_one_line_with_field_value_and_remedy(spec: dict[str, Any], line: str) -> None:
    assert any(line in found for found in problems(manifest(**spec))), problems(manifest(**spec))


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(manifest("A" * 41, nodes=0, retries=-1, memory="fast"))
    fields = [line.split(":")[0] for line in found]
    assert fields == ["metadata.name", "spec.nodes", "spec.memory", "spec.retries"]
    assert "41 characters, at most 40; choose a shorter name" in found[0]


def test_another_kind_is_named() -> None:
    obj = manifest()
    obj["kind"] = "LTXTraining"
    assert problems(obj) == ["apiVersion, kind: ltx2.dev/v1alpha1, LTXTraining is not ltx2.dev/v1alpha1, LTX2Training"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"cache": {"shards": 2}}, "spec.cache.shards"),
        ({"secrets": {"trackerKey": {"name": "t"}}}, "spec.secrets.trackerKey"),
    ],
)
def test_what_is_not_built_yet_is_named(spec: dict[str, Any], field: str) -> None:
    """Mutation caught: a field of the definition that is taken and silently ignored."""
    found = not_supported_yet(parse(manifest(**spec)).spec)
    assert [problem.field for problem in found] == [field]
    assert "not supported yet" in found[0].message and found[0].remedy


def test_what_is_built_is_not_refused() -> None:
    spec = {
        "queueName": "q", "priorityClassName": "low", "activeDeadlineSeconds": 60, "images": {"train": "x"},
        "secrets": {"hubToken": {"name": "hub"}, "objectStore": "s3"}, "podTemplate": {}, "nodes": 2,
        "gpu": {"count": 2}, "cache": {"shards": 1},
    }  # fmt: skip
    assert not_supported_yet(parse(manifest(**spec)).spec) == []


# --- status


def test_a_plan_survives_the_api_server() -> None:
    given = plan()
    dumped = given.dump()
    assert dumped["gpuClass"] == "h100-80g" and dumped["predictedSecondsPerStep"] == "1.7568"
    assert Plan.model_validate(dumped) == given
    assert "resourceName" not in plan(resource_name=None).dump()


def test_a_status_survives_the_api_server() -> None:
    condition = Condition(type="Failed", status="True", reason="AppError", last_transition_time="2026-01-01T00:00:00Z")
    status = Status(attempt=2, conditions=[condition], plan=plan(), result={"finalLoss": 0.25}, running_seconds=7)
    dumped = status.dump()
    assert dumped["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert Status.model_validate(dumped) == status
    assert parse(manifest(status=dumped)).status == status


def test_figures_of_a_status_are_text() -> None:
    """Mutation caught: a float in status, which the definition refuses at run time only."""
    progress = Progress(step=5, max_steps=10, loss=0.123456789, held_out_loss=2, seconds_per_step=1e-7)  # type: ignore[arg-type]
    assert progress.dump() == {
        "step": 5, "maxSteps": 10, "loss": "0.12346", "heldOutLoss": "2", "secondsPerStep": "1e-07",
    }  # fmt: skip


def test_long_messages_are_cut_never_refused() -> None:
    made = Condition(type="Failed", status="True", reason="r" * 100, message="m" * 9000, last_transition_time="t")
    assert len(made.reason) == 63 and len(made.message) == 4096
    assert made.message.endswith("m…")
    assert Status(warnings=["w" * 2000]).warnings[0].endswith("…")


def test_a_status_of_a_newer_operator_is_read() -> None:
    """An operator that is rolled back must not crash on what the newer one wrote; a user's typo in spec is told."""
    training = parse(manifest(status={"attempt": 3, "invented": {"a": 1}}))
    assert training.status.attempt == 3
    assert "invented" not in training.status.dump()


def test_models_cannot_be_changed() -> None:
    training: LTX2Training = parse(manifest())
    with pytest.raises(ValueError, match="frozen"):
        training.spec.nodes = 2


def test_spec_by_python_names_equals_spec_by_manifest_names() -> None:
    assert Spec(queue_name="q", config={}) == Spec.model_validate({"queueName": "q", "config": {}})
