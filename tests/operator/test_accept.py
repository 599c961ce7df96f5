"""Acceptance with the real configuration and sizing: one sentence that names field and remedy, before any pod."""

from datetime import UTC, datetime

import pytest

from ltx2_operator.accept import resolve_spec
from ltx2_operator.api import parse
from ltx2_operator.draft import DryRunJob
from ltx2_operator.observed import DryRun, Observed
from ltx2_operator.reconcile import reconcile
from ltx2_operator.settings import Settings

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
CONFIG = {
    "pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": "dev", "model_type": "lora",
    "max_train_steps": 2000, "num_train_epochs": 0,
}  # fmt: skip
DATASETS = [
    {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}
    | {"caption_strategy": "textfile"}
]
H200 = {
    "metadata": {"labels": {"nvidia.com/gpu.product": "NVIDIA-H200"}},
    "status": {"allocatable": {"nvidia.com/gpu": "2"}},
}


def look(config=None, nodes=None, datasets=DATASETS, **spec):
    obj = {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training",
        "metadata": {"name": "fox", "namespace": "ml", "uid": "u", "generation": 1},
        "spec": {"gpu": {"class": "h200"}, "config": CONFIG | (config or {}), "datasets": datasets, **spec},
    }  # fmt: skip
    outcome = reconcile(obj, Observed(nodes=nodes), NOW, Settings())
    accepted = next(one for one in outcome.status["conditions"] if one["type"] == "Accepted")
    return outcome, accepted, obj


@pytest.mark.parametrize(
    ("config", "spec", "reason", "words"),
    [
        ({"num_train_epochs": 3}, {}, "InvalidConfig", ("spec.config: max_train_steps", "num_train_epochs")),
        ({}, {"resumeFrom": "../other"}, "InvalidConfig", ("spec.resumeFrom: '../other'", "inside the workspace")),
        ({}, {"resumeFrom": "/etc"}, "InvalidConfig", ("spec.resumeFrom: '/etc'", "inside the workspace")),
        ({}, {"resumeFrom": "runs/../../x"}, "InvalidConfig", ("spec.resumeFrom", "inside the workspace")),
        ({}, {"resumeFrom": "fox"}, "InvalidConfig", ("spec.resumeFrom: 'fox' is this very run",)),
        ({"resume_from_checkpoint": "step-1"}, {"resumeFrom": "old"}, "InvalidConfig", ("remove one of the two",)),
        ({"learning_rat": 1e-4}, {}, "InvalidConfig", ("spec.config.learning_rat: ", "learning_rate")),
        ({"enable_group_offload": True}, {}, "InvalidConfig", ("enable_group_offload", "not supported yet")),
        ({}, {"datasets": []}, "InvalidConfig", ("dataset",)),
        (
            {},
            {"podTemplate": {"spec": {"hostNetwork": True}}},
            "InvalidConfig",
            ("spec.podTemplate.spec.hostNetwork: True", "remove it"),
        ),
        ({}, {"gpu": {"class": "h20"}}, "UnsupportedGPU", ("spec.gpu.class: h20 is no GPU class; did you mean h200?",)),
        ({}, {"gpu": {"class": "auto"}}, "UnsupportedGPU", ("auto needs to read the cluster's nodes", "ltx2 gpus")),
        ({}, {"gpu": {"class": "rtx-4090"}}, "UnsupportedGPU", ("what would fit", "rtx-4090 has 23.3 GiB")),
    ],
)
def test_an_object_that_cannot_run_says_what_to_change(config, spec, reason, words):
    outcome, accepted, *_ = look(config, **spec)
    assert (accepted["status"], accepted["reason"], outcome.status["state"]) == ("False", reason, "Rejected")
    assert all(word in accepted["message"] for word in words), accepted["message"]
    assert outcome.actions == []
    assert [event.reason for event in outcome.events] == ["Rejected"]
    assert outcome.status["attempt"] == 0


def test_auto_waits_for_nodes_and_takes_what_they_offer():
    outcome, accepted, *_ = look(nodes=[], gpu={"class": "auto"})
    assert (accepted["reason"], outcome.requeue_after) == ("UnsupportedGPU", 60)
    outcome, accepted, *_ = look(nodes=[H200], gpu={"class": "auto"})
    assert (accepted["status"], outcome.status["plan"]["gpuClass"], outcome.status["gpu"]) == (
        "True",
        "h200",
        "1x h200",
    )


def test_the_plan_stands_in_status_and_in_words():
    outcome, accepted, *_ = look({"validation_num_video_frames": 62})
    status = outcome.status
    assert status["plan"]["memory"].startswith("bf16/resident/keep:")
    assert status["cachePlan"]["stage"] == "cache"
    assert len(status["configHash"]) == 64
    assert [warning for warning in status["warnings"] if "62 → 57" in warning]
    assert accepted["message"].startswith(f"1x h200, {status['plan']['memory']}, predicted peak ")
    assert "62 → 57" in outcome.events[0].message


def test_the_name_of_a_run_itself_is_no_mistake_of_the_pasted_config():
    assert look(resumeFrom="fox")[1]["message"].startswith("spec.resumeFrom: 'fox'")


def test_the_run_to_train_on_from_reaches_the_jobs_configuration():
    hashes = set()
    for reference in (None, "old", "runs/old/checkpoints/step-0000500"):
        training = parse(look(**({} if reference is None else {"resumeFrom": reference}))[2])
        resolved = resolve_spec(training)
        assert resolved.dump()["config"]["resume_from_checkpoint"] == (reference or "latest")
        hashes.add(resolved.digest)
    assert len(hashes) == 3


PATCH = {"spec": {"nodeSelector": {"zone": "a"}}}


def tried(answer=None, **spec):
    """A look at a training with a podTemplate, with what the API server said of its Job."""
    obj = {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training",
        "metadata": {"name": "fox", "namespace": "ml", "uid": "u", "generation": 3},
        "spec": {"gpu": {"class": "h200"}, "config": CONFIG, "datasets": DATASETS, "podTemplate": PATCH, **spec},
    }  # fmt: skip
    outcome = reconcile(obj, Observed(dry_run=answer), NOW, Settings())
    return outcome, next(one for one in outcome.status["conditions"] if one["type"] == "Accepted")


def test_a_pod_template_is_shown_to_the_api_server_before_it_is_accepted():
    """Mutation caught: an answer to another generation that counts."""
    for answer in (None, DryRun(2, True), DryRun(2, False, "old")):
        outcome, accepted = tried(answer)
        (action,) = outcome.actions
        assert isinstance(action, DryRunJob)
        assert action.body["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "a"}
        assert (accepted["status"], accepted["reason"], outcome.requeue_after) == ("Unknown", "Pending", 0)
        assert (outcome.status["attempt"], outcome.status["state"]) == (0, "Pending")
    outcome, accepted = tried(DryRun(3, True, warnings=("spec.template: deprecated",)))
    assert (accepted["status"], outcome.status["warnings"]) == ("True", ["spec.template: deprecated"])
    assert not [action for action in outcome.actions if isinstance(action, DryRunJob)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (DryRun(3, False, "spec.template.spec.nodeSelector: bad"), "spec.podTemplate: spec.template.spec.nodeSelector"),
        (DryRun(3, True, warnings=('would violate PodSecurity "restricted:latest": x',)), "PodSecurity"),
        (DryRun(3, True, warnings=('unknown field "spec.template.spec.tolerationz"',)), "mend its name"),
    ],
)
def test_what_the_server_says_against_a_pod_template_is_passed_on_and_asked_again(answer, words):
    outcome, accepted = tried(answer)
    assert (accepted["status"], accepted["reason"], outcome.requeue_after) == ("False", "InvalidConfig", 60)
    assert words in accepted["message"] and accepted["message"].startswith("spec.podTemplate: ")
    assert outcome.actions == []


@pytest.mark.parametrize(
    ("secrets", "there", "words"),
    [
        ({"hubToken": {"name": "hub"}}, {"store"}, "spec.secrets.hubToken.name: no Secret hub"),
        ({"objectStore": "store"}, {"hub"}, "spec.secrets.objectStore: no Secret store"),
        ({"objectStore": "store", "hubToken": {"name": "hub"}}, {"hub"}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_secret_that_is_not_there_is_named(secrets, there, words):
    obj = {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training",
        "metadata": {"name": "fox", "namespace": "ml", "uid": "u", "generation": 1},
        "spec": {"gpu": {"class": "h200"}, "config": CONFIG, "datasets": DATASETS, "secrets": secrets},
    }  # fmt: skip
    for names, expected in ((there, "False"), ({"hub", "store"}, "True"), (None, "True")):
        seen = Observed(secrets=None if names is None else frozenset(names))
        outcome = reconcile(obj, seen, NOW, Settings())
        accepted = next(one for one in outcome.status["conditions"] if one["type"] == "Accepted")
        assert accepted["status"] == expected
        if expected == "False":
            assert (accepted["reason"], outcome.requeue_after) == ("SecretNotFound", 60)
            assert words in accepted["message"]
