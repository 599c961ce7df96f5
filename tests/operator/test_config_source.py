"""spec.configFrom: files of a ConfigMap as if they were pasted, kept from the first attempt on."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ltx2_job.errors import ConfigError
from ltx2_operator import accept, config_source
from ltx2_operator.acceptance import DRIFTED
from ltx2_operator.api import parse
from ltx2_operator.draft import Create, CreateJob
from ltx2_operator.observed import Observed, Outcome
from ltx2_operator.reconcile import reconcile
from ltx2_operator.settings import Settings

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
CONFIG = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": "dev", "max_train_steps": 2000}
DATASETS = [
    {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "v", "caption_strategy": "textfile"}
]


def configmap(config: Any = CONFIG, name: str = "files", **data: str) -> dict[str, Any]:
    texts = {"config.json": json.dumps(config), "datasets": json.dumps(DATASETS), **data}
    return {"kind": "ConfigMap", "metadata": {"name": name}, "data": texts}


def training(status: dict[str, Any] | None = None, **source: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training",
        "metadata": {"name": "fox", "namespace": "ml", "uid": "u", "generation": 1},
        "spec": {"gpu": {"class": "h200"}, "configFrom": {"name": "files", "datasetsKey": "datasets", **source}},
        **({"status": status} if status else {}),
    }  # fmt: skip


def look(obj: dict[str, Any], *configmaps: dict[str, Any], **observed: Any) -> Outcome:
    """A look after which the object has its status, as the API server would keep it."""
    outcome = reconcile(obj, Observed(configmaps=configmaps, **observed), NOW, Settings())
    obj["status"] = outcome.status
    return outcome


def accepted(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in outcome.status["conditions"] if one["type"] == "Accepted")
    return found


def test_files_count_as_if_they_were_pasted() -> None:
    outcome = look(training(), configmap())
    pasted = training()
    pasted["spec"] = {"gpu": {"class": "h200"}, "config": CONFIG, "datasets": DATASETS}
    assert accepted(outcome)["status"] == "True"
    assert outcome.status["configHash"] == accept.resolve_spec(parse(pasted)).digest
    other = look(training(), configmap({**CONFIG, "learning_rate": 3e-4}))
    assert other.status["configHash"] != outcome.status["configHash"]


def test_a_key_of_ones_own_and_pasted_datasets() -> None:
    obj = training(key="mine")
    del obj["spec"]["configFrom"]["datasetsKey"]
    obj["spec"]["datasets"] = DATASETS
    outcome = look(obj, configmap(mine=json.dumps({**CONFIG, "learning_rate": 3e-4})))
    assert (
        outcome.status["configHash"]
        == look(training(), configmap({**CONFIG, "learning_rate": 3e-4})).status["configHash"]
    )


@pytest.mark.parametrize(
    ("configmaps", "source", "reason", "words"),
    [
        ([], {}, "ConfigMapNotFound", ("configFrom.name: there is no ConfigMap files", "kubectl create configmap")),
        ([configmap(name="other")], {}, "ConfigMapNotFound", ("no ConfigMap files",)),
        ([configmap()], {"key": "c.json"}, "ConfigMapNotFound", ("has no key c.json; it has config.json, datasets",)),
        ([configmap()], {"datasetsKey": "d"}, "ConfigMapNotFound", ("has no key d",)),
        ([configmap(**{"config.json": "{\n1"})], {}, "InvalidConfig", ("ConfigMap files, config.json", "line 2")),
        ([configmap(**{"config.json": "[]"})], {}, "InvalidConfig", ("is no dict", "one object")),
        ([configmap(datasets="{}")], {}, "InvalidConfig", ("files, datasets: is no list",)),
        ([configmap(datasets="[1]")], {}, "InvalidConfig", ("spec.datasets[0]",)),
        ([configmap({"learning_rat": 1})], {}, "InvalidConfig", ("learning_rat", "learning_rate")),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named_and_looked_for_again(
    configmaps: list[dict[str, Any]], source: dict[str, Any], reason: str, words: tuple[str, ...]
) -> None:
    outcome = look(training(**source), *configmaps)
    assert (accepted(outcome)["status"], accepted(outcome)["reason"]) == ("False", reason)
    assert all(word in accepted(outcome)["message"] for word in words), accepted(outcome)["message"]
    assert (outcome.actions, outcome.requeue_after, outcome.status["state"]) == ([], 60, "Rejected")


def test_a_rejected_one_is_accepted_once_the_configmap_is_there() -> None:
    obj = training()
    assert accepted(look(obj))["status"] == "False"
    assert [event.reason for event in look(obj).events] == []
    assert accepted(look(obj, configmap()))["status"] == "True"


def test_datasets_from_two_places_are_refused() -> None:
    obj = training()
    obj["spec"]["datasets"] = DATASETS
    assert "spec.configFrom.datasetsKey: spec.datasets is set, too" in accepted(look(obj, configmap()))["message"]


def started() -> tuple[dict[str, Any], dict[str, Any]]:
    """A training at its first attempt, and the ConfigMap that was made for it."""
    obj = training()
    for _ in range(4):
        outcome = look(obj, configmap())
        made = [one.body for one in outcome.actions if isinstance(one, Create) and one.body["kind"] == "ConfigMap"]
        if made:
            return obj, dict(made[0])
    raise AssertionError("no attempt was made")


def test_changes_after_the_first_attempt_do_not_matter_and_are_told() -> None:
    """The second attempt gets what the first one got; the warning goes when the user takes the change back."""
    obj, own = started()
    digest, name = obj["status"]["configHash"], own["metadata"]["name"]
    assert obj["status"]["configMap"] == name
    assert config_source.wanted_configmaps(obj) == ["files", name]
    changed = configmap({**CONFIG, "learning_rate": 3e-4})
    outcome = look(obj, changed, own)
    assert DRIFTED in outcome.status["warnings"]
    assert "ConfigMapChanged" in [event.reason for event in outcome.events]
    assert "ConfigMapChanged" not in [event.reason for event in look(obj, changed, own).events]
    jobs = [one for one in look(obj, changed, own).actions if isinstance(one, CreateJob)]
    assert [job.body["metadata"]["annotations"]["ltx2.dev/spec-hash"] for job in jobs] == [digest]
    assert DRIFTED in look(obj, own).status["warnings"], "a source that is gone has changed, too"
    assert DRIFTED not in look(obj, configmap(), own).status["warnings"]


def test_without_the_kept_files_a_changed_source_is_no_silent_change() -> None:
    obj, _ = started()
    outcome = look(obj, configmap({**CONFIG, "learning_rate": 3e-4}))
    failed = next(one for one in outcome.status["conditions"] if one["type"] == "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "InvalidConfig")


def test_a_change_before_the_first_attempt_is_planned_anew() -> None:
    obj = training()
    obj["spec"]["suspend"] = True
    first = look(obj, configmap()).status["configHash"]
    second = look(obj, configmap({**CONFIG, "learning_rate": 3e-4})).status["configHash"]
    assert first != second


def test_what_the_operator_keeps_means_the_same_when_it_is_read_again() -> None:
    obj, own = started()
    again = config_source.inlined(obj, [own])
    assert accept.resolve_spec(parse(again)).digest == obj["status"]["configHash"]
    with pytest.raises(ConfigError):
        accept.resolve_spec(parse(obj))


def test_nothing_is_wanted_where_all_is_pasted() -> None:
    assert config_source.wanted_configmaps({"spec": {"config": {}}, "status": {"configMap": "x"}}) == []
    assert config_source.wanted_configmaps({"spec": "x"}) == []
    assert config_source.wanted_configmaps(training()) == ["files"]
