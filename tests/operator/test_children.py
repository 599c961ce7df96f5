"""What the operator makes for a training: names, owners, policies; every object against the schemas of Kubernetes."""

import json
import re
from typing import Any

import kubernetes_validate
import pytest

from ltx2_job import exitcodes
from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError
from ltx2_operator import children
from ltx2_operator.api import NAME_MAX, Plan, parse
from ltx2_operator.settings import Settings
from trainings import DIGEST, amd_plan, cpu_plan, manifest, plan

KUBERNETES = "1.36"


class Configuration:
    """A stand-in for a resolved configuration."""

    def __init__(self, digest: str = DIGEST, **config: Any) -> None:
        self.digest = digest
        self.config = config

    def dump(self) -> dict[str, Any]:
        return {"config": self.config, "datasets": [{"id": "clips"}]}


def job(given: dict[str, Any] | None = None, stage_plan: Plan | None = None, attempt: int = 1) -> dict[str, Any]:
    chosen = stage_plan or plan()
    return children.job(given or manifest(), chosen, chosen.stage, attempt, Settings(), digest=DIGEST)


# --- names


def test_names() -> None:
    assert children.job_name("fox", "cache", 1) == "fox-cache-1"
    assert children.job_name("fox", "train", 12) == "fox-train-12"
    assert children.claim_name(parse(manifest("fox"))) == "fox-data"
    assert children.claim_name(parse(manifest("fox", storage={"claimName": "team"}))) == "team"
    assert re.fullmatch(r"fox-[0-9a-f]{8}", children.config_map_name("fox", DIGEST, plan()))


def test_names_of_the_longest_training_fit_into_a_label() -> None:
    """A pod of an Indexed Job is called <job>-<index>; 63 is the limit of DNS labels."""
    name = "a" * NAME_MAX
    longest = [
        children.job_name(name, "cache", 99999) + "-99",
        children.config_map_name(name, DIGEST, plan()),
        children.claim_name(parse(manifest(name))),
        children.service_name(name),
    ]
    assert all(len(text) <= 63 for text in longest), longest


def test_another_configuration_or_plan_is_another_config_map() -> None:
    names = {
        children.config_map_name("fox", DIGEST, plan()),
        children.config_map_name("fox", "e" * 64, plan()),
        children.config_map_name("fox", DIGEST, plan(memory="bf16/resident/keep:24")),
    }
    assert len(names) == 3
    assert children.config_map_name("fox", DIGEST, plan()) in names


# --- ConfigMap, claim, service


def test_config_map_holds_the_three_files_and_never_changes() -> None:
    resolved = Configuration(learning_rate=6e-5, validation_prompt="ein Fuchs läuft")
    made = children.configmap(manifest(), resolved, plan())
    assert made["immutable"] is True
    assert set(made["data"]) == {"config.json", "datasets.json", "plan.json"}
    assert json.loads(made["data"]["config.json"]) == resolved.config
    assert "läuft" in made["data"]["config.json"]
    assert json.loads(made["data"]["datasets.json"]) == [{"id": "clips"}]
    read = json.loads(made["data"]["plan.json"])
    keys = ("gpuClass", "device", "nodes", "processes", "memory", "cacheMemory")
    assert [read[key] for key in keys] == ["h100-80g", "cuda", 1, 1, "bf16/resident/keep:48", "device"]
    assert made["metadata"]["annotations"]["ltx2.dev/spec-hash"] == DIGEST


def test_the_job_mounts_the_config_map_that_is_made() -> None:
    """Mutation caught: two ways to compute the hash; the pod would wait for ever for its volume."""
    made = children.configmap(manifest(), Configuration(), plan())
    volumes = job()["spec"]["template"]["spec"]["volumes"]
    (mounted,) = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    assert mounted == made["metadata"]["name"]


def test_the_resolved_configuration_goes_in_as_it_is() -> None:
    resolved = resolve({"max_train_steps": 7}, [{"id": "clips", "instance_data_dir": "datasets/videos"}])
    made = children.configmap(manifest(), resolved, plan())
    again = resolve(json.loads(made["data"]["config.json"]), json.loads(made["data"]["datasets.json"]))
    assert again.digest == resolved.digest
    assert again.training.max_train_steps == 7


def test_a_configuration_that_no_config_map_can_hold_is_named() -> None:
    with pytest.raises(ConfigError, match="a ConfigMap holds 1048576"):
        children.configmap(manifest(), Configuration(prompts="x" * 2**20), plan())


def test_claim_size_is_the_users_else_the_plans() -> None:
    made = children.claim(manifest(), plan())
    assert made is not None
    assert made["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "140Gi"}}}
    made = children.claim(manifest(storage={"size": "1Ti", "storageClassName": "fast"}), plan())
    assert made is not None
    assert made["spec"]["resources"]["requests"]["storage"] == "1Ti"
    assert made["spec"]["storageClassName"] == "fast"


def test_claim_outlives_its_training() -> None:
    """Mutation caught: an owner reference, with which deleting the object deletes the weights."""
    made = children.claim(manifest(), plan())
    assert made is not None and "ownerReferences" not in made["metadata"]


def test_several_nodes_share_the_claim() -> None:
    made = children.claim(manifest(nodes=2), plan(nodes=2))
    assert made is not None and made["spec"]["accessModes"] == ["ReadWriteMany"]


def test_an_existing_claim_is_used_and_none_is_made() -> None:
    given = manifest(storage={"claimName": "team"})
    assert children.claim(given, plan()) is None
    volumes = job(given)["spec"]["template"]["spec"]["volumes"]
    assert {"name": "workspace", "persistentVolumeClaim": {"claimName": "team"}} in volumes


@pytest.mark.parametrize(
    ("nodes", "modes", "wrong"),
    [
        (1, ["ReadWriteOnce"], False),
        (2, ["ReadWriteOnce"], True),
        (2, ["ReadWriteOnce", "ReadWriteMany"], False),
        (2, [], True),
    ],
)
def test_an_unshared_claim_on_several_nodes_is_named(nodes: int, modes: list[str], wrong: bool) -> None:
    given = manifest(nodes=nodes, storage={"claimName": "team"})
    problem = children.claim_problem(given, {"spec": {"accessModes": modes}})
    assert (problem is not None) == wrong
    if problem is not None:
        assert problem.field == "spec.storage.claimName"
        assert "team" in problem.message and "ReadWriteMany" in problem.remedy


def test_service_resolves_pods_before_they_are_ready() -> None:
    made = children.service(manifest(nodes=2))
    assert made["spec"]["clusterIP"] == "None"
    assert made["spec"]["publishNotReadyAddresses"] is True
    labels = job(manifest(nodes=2), plan(nodes=2))["spec"]["template"]["metadata"]["labels"]
    assert made["spec"]["selector"].items() <= labels.items()
    assert job(manifest(nodes=2), plan(nodes=2))["spec"]["template"]["spec"]["subdomain"] == made["metadata"]["name"]


# --- Job


def test_a_job_is_one_attempt() -> None:
    made = job(attempt=3)
    assert made["metadata"]["name"] == "my-style-train-3"
    assert made["spec"]["backoffLimit"] == 0
    assert made["spec"]["podReplacementPolicy"] == "Failed"
    assert (made["spec"]["parallelism"], made["spec"]["completions"]) == (1, 1)
    assert "completionMode" not in made["spec"]
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert made["metadata"]["labels"] == made["spec"]["template"]["metadata"]["labels"]
    assert made["metadata"]["annotations"] == {"ltx2.dev/spec-hash": DIGEST}


def test_several_nodes_are_an_indexed_job() -> None:
    made = job(manifest(nodes=3), plan(nodes=3))
    assert made["spec"]["completionMode"] == "Indexed"
    assert (made["spec"]["parallelism"], made["spec"]["completions"]) == (3, 3)


def test_the_cache_stage_is_one_pod_whatever_the_nodes() -> None:
    made = job(manifest(nodes=3), plan(stage="cache"), attempt=2)
    assert made["metadata"]["name"] == "my-style-cache-2"
    assert made["spec"]["parallelism"] == 1
    assert "subdomain" not in made["spec"]["template"]["spec"]


def test_a_plan_of_another_stage_is_a_defect() -> None:
    with pytest.raises(ValueError, match="train stage was given for cache"):
        children.job(manifest(), plan(), "cache", 1, Settings(), digest=DIGEST)


def test_owner() -> None:
    expected = {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "name": "my-style", "uid": "0a1b-2c3d",
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    for made in (job(), children.service(manifest()), children.configmap(manifest(), Configuration(), plan())):
        assert made["metadata"]["ownerReferences"] == [expected]
        assert made["metadata"]["namespace"] == "team"


def test_the_queue_is_a_label_and_suspend_is_the_queues() -> None:
    """Mutation caught: writing `suspend`, which would start a Job past its queue."""
    assert "kueue.x-k8s.io/queue-name" not in job()["metadata"]["labels"]
    for queue in ("team-a", "team-b"):
        made = job(manifest(queueName=queue))
        assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue
        assert "suspend" not in made["spec"]
        assert "kueue.x-k8s.io/queue-name" not in made["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize(
    ("limit", "ran", "left"), [(None, 0, None), (600, 0, 600), (600, 250, 350), (600, 600, 1), (600, 9999, 1)]
)
def test_the_deadline_is_what_is_left(limit: int | None, ran: int, left: int | None) -> None:
    """A Job's own clock starts anew with each attempt, and counts the wait for its pods, too: an hour at most."""
    spec = {} if limit is None else {"activeDeadlineSeconds": limit}
    made = job(manifest(status={"runningSeconds": ran}, **spec))
    assert made["spec"].get("activeDeadlineSeconds") == (None if left is None else left + 3600)
    if limit is not None:
        spec["startDeadlineSeconds"] = 60
        assert job(manifest(status={"runningSeconds": ran}, **spec))["spec"]["activeDeadlineSeconds"] == left + 60


def test_failure_rules_are_one_per_verdict_class_in_order() -> None:
    rules = job()["spec"]["podFailurePolicy"]["rules"]
    shown = [rule.get("onExitCodes", {}).get("values") or "DisruptionTarget" for rule in rules]
    assert shown == [[64, 78, 81], [65], [66], [73], [77], [79], [80], "DisruptionTarget", [87], [0, 85, 86]]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert [rule["onExitCodes"]["operator"] for rule in rules if "onExitCodes" in rule] == ["In"] * 8 + ["NotIn"]
    assert rules[7]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert all("containerName" not in rule.get("onExitCodes", {}) for rule in rules), "init containers count too"
    assert len(rules) <= 20


def test_codes_of_one_rule_lead_to_one_verdict() -> None:
    """The Job's condition keeps only the rule: codes of one rule must mean the same action."""
    for rule in children.failure_rules():
        if rule.get("onExitCodes", {}).get("operator") == "In":
            assert len({exitcodes.lookup(code).action for code in rule["onExitCodes"]["values"]}) == 1


def test_every_special_code_has_a_rule() -> None:
    """Mutation caught: a new code in the table that the Job would record as "not 0"."""
    ruled = {code for rule in children.failure_rules() for code in rule.get("onExitCodes", {}).get("values", [])}
    special = {row.code for row in exitcodes.TABLE.values() if row.action is not exitcodes.Action.RETRY}
    assert special - ruled == {128}, "128 (no command in the image) is told by the container's own reason"


# --- as Kubernetes' own schemas see it

OBJECTS = {
    "job": job(),
    "job on AMD": job(stage_plan=amd_plan(gpu_count=2)),
    "job on a CPU": job(stage_plan=cpu_plan()),
    "job on nodes": job(
        manifest(nodes=2, queueName="q", priorityClassName="low", activeDeadlineSeconds=60), plan(nodes=2)
    ),
    "cache job": job(manifest(secrets={"hubToken": {"name": "hub"}}), plan(stage="cache")),
    "config map": children.configmap(manifest(), Configuration(a=1), plan()),
    "claim": children.claim(manifest(), plan()),
    "claim of a class": children.claim(manifest(storage={"size": "1Ti", "storageClassName": "fast"}), plan()),
    "service": children.service(manifest(nodes=2)),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_fit_the_schemas_of_kubernetes(name: str) -> None:
    kubernetes_validate.validate(OBJECTS[name], KUBERNETES, strict=True)


def test_the_schemas_find_a_misspelt_field() -> None:
    """The judge itself must be able to say no."""
    broken = job()
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_objects_are_json() -> None:
    for name, made in OBJECTS.items():
        assert json.loads(json.dumps(made)) == made, name
