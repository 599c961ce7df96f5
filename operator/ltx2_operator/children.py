"""What the operator makes for one training, as pure builders of dicts: ConfigMap, claim, headless Service and Jobs.

Jobs and the Service go with the training object (ownerReferences); the claim does not: weights outlive the object that
made them. A Job is one attempt of one stage: it never restarts a pod, and its podFailurePolicy is the durable record of
the exit code, since the final status of a deleted or evicted pod is gone within a second.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from ltx2_job import exitcodes
from ltx2_job.errors import ConfigError, Problem
from ltx2_operator import pods
from ltx2_operator.api import API_VERSION, KIND, LTX2Training, Plan, parse
from ltx2_operator.pods import HASH_ANNOTATION, TRAINING_LABEL, UID_LABEL, Context
from ltx2_operator.settings import Settings
from ltx2_operator.template import template

QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
CONFIG_MAP_LIMIT: Final = 2**20  # the API server's limit on a ConfigMap's data
Stage = Literal["look", "cache", "train"]
Manifest = dict[str, Any]

# One rule per verdict class; the first that matches becomes part of the Job's Failed condition. DisruptionTarget stands
# before the other codes: such a pod was preempted, whatever it left with. The codes of a stopped pod have no rule: a
# queue that suspends a Job stops its pods, and for a moment the Job controller may still see them as failed (in 1.36
# half of the time). A rule would fail the Job; without one they do not count. Where somebody else has stopped a pod,
# its Job fails all the same, by its backoffLimit of 0.
_CODES_BEFORE_DISRUPTION: Final = (
    (exitcodes.USAGE, exitcodes.CONFIG, exitcodes.LOSS_NOT_FINITE),
    (exitcodes.DATA,),
    (exitcodes.NO_INPUT,),
    (exitcodes.STORAGE,),
    (exitcodes.AUTH,),
    (exitcodes.HOST_OUT_OF_MEMORY,),
    (exitcodes.GPU_OUT_OF_MEMORY,),
)
_STOPPED: Final = (exitcodes.STOPPED, exitcodes.STOPPED_UNSAVED)


class Configuration(Protocol):
    """The part of ltx2_job.config.Resolved that is rendered."""

    @property
    def digest(self) -> str: ...

    def dump(self) -> dict[str, Any]: ...


# --------------------------------------------------------------------------------------------------------------- names


def job_name(name: str, stage: Stage, attempt: int) -> str:
    """`<name>-look-<n>`, `<name>-cache-<n>` or `<name>-train-<n>`."""
    return f"{name}-{stage}-{attempt}"


def config_map_name(name: str, digest: str, plan: Plan) -> str:
    """`<name>-<hash8>`: another configuration or another plan is another ConfigMap, so each can be immutable."""
    seed = json.dumps([digest, plan.dump()], sort_keys=True)
    return f"{name}-{hashlib.sha256(seed.encode()).hexdigest()[:8]}"


def claim_name(training: LTX2Training) -> str:
    """The user's claim, else `<name>-data`."""
    return training.spec.storage.claim_name or f"{training.metadata.name}-data"


def service_name(name: str) -> str:
    """`<name>-peers`, the headless Service through which the nodes of one run find each other."""
    return f"{name}-peers"


# ------------------------------------------------------------------------------------------------------------ builders


def configmap(obj: Mapping[str, Any], resolved: Configuration, plan: Plan) -> Manifest:
    """The resolved files of a run: config.json, datasets.json and plan.json, immutable.

    Raises ConfigError if they exceed what a ConfigMap can hold (1 MiB).
    """
    training = parse(obj)
    dump = resolved.dump()
    files = {"config.json": dump["config"], "datasets.json": dump["datasets"], "plan.json": plan.dump()}
    data = {
        name: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n" for name, value in files.items()
    }
    if (size := sum(len(text.encode()) for text in data.values())) > CONFIG_MAP_LIMIT:
        message = f"{size} bytes when resolved, a ConfigMap holds {CONFIG_MAP_LIMIT}"
        raise ConfigError(Problem("spec.config, spec.datasets", message, "put long lists into files on the volume"))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            **_metadata(training, config_map_name(training.metadata.name, resolved.digest, plan)),
            "annotations": {HASH_ANNOTATION: resolved.digest},
        },
        "immutable": True,
        "data": data,
    }


def claim(obj: Mapping[str, Any], plan: Plan) -> Manifest | None:
    """The claim to make, or None where the user names one. It has no owner: deleting the training keeps the weights.

    Its size is the user's, else the plan's prediction; more than one node needs a volume that many nodes write (RWX).
    """
    training = parse(obj)
    storage = training.spec.storage
    if storage.claim_name:
        return None
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany" if training.spec.nodes > 1 else "ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size or pods.quantity(plan.volume_bytes)}},
    }
    if storage.storage_class_name:
        spec["storageClassName"] = storage.storage_class_name
    metadata = _metadata(training, claim_name(training))
    del metadata["ownerReferences"]
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def claim_problem(obj: Mapping[str, Any], claim: Mapping[str, Any]) -> Problem | None:
    """Why an existing claim cannot hold this run: several nodes need one that many nodes can write."""
    training = parse(obj)
    modes = claim.get("spec", {}).get("accessModes") or []
    if training.spec.nodes == 1 or "ReadWriteMany" in modes:
        return None
    message = (
        f"{claim_name(training)} has access modes {', '.join(modes) or 'none'}; {training.spec.nodes} nodes share it"
    )
    return Problem("spec.storage.claimName", message, "use a ReadWriteMany claim or set nodes: 1")


def service(obj: Mapping[str, Any]) -> Manifest:
    """The headless Service of a run on several nodes; it resolves pods before they are ready."""
    training = parse(obj)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(training, service_name(training.metadata.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {TRAINING_LABEL: training.metadata.name, UID_LABEL: training.metadata.uid},
        },
    }


def job(obj: Mapping[str, Any], plan: Plan, stage: Stage, attempt: int, settings: Settings, *, digest: str) -> Manifest:
    """The Job of one attempt of one stage. `digest` is that of the resolved configuration.

    `suspend` is left alone: where the training names a queue, the queue sets it. A Job's own clock also counts the wait
    for its pods and starts anew with each attempt, so it only holds where the operator is down: it gets what is left of
    spec.activeDeadlineSeconds after status.runningSeconds, and that wait on top.
    """
    if plan.stage != stage:
        raise ValueError(f"a plan of the {plan.stage} stage was given for {stage}")
    training = parse(obj)
    name = training.metadata.name
    context = Context(
        training=training,
        plan=plan,
        attempt=attempt,
        digest=digest,
        config_map=config_map_name(name, digest, plan),
        claim=claim_name(training),
        service=service_name(name),
        settings=settings,
    )
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "parallelism": plan.nodes,
        "completions": plan.nodes,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": failure_rules()},
        "template": template(context),
    }
    if plan.nodes > 1:
        spec["completionMode"] = "Indexed"
    if (limit := training.spec.active_deadline_seconds) is not None and stage != "look":
        left = max(1, limit - training.status.running_seconds)
        spec["activeDeadlineSeconds"] = left + training.spec.start_deadline_seconds
    metadata = _metadata(training, job_name(name, stage, attempt))
    metadata["labels"] = pods.labels(context)
    if training.spec.queue_name:
        metadata["labels"][QUEUE_LABEL] = training.spec.queue_name
    metadata["annotations"] = {HASH_ANNOTATION: digest}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def failure_rules() -> list[dict[str, Any]]:
    """The podFailurePolicy: one FailJob rule per verdict class, so that the Job's condition names the class."""

    def codes(operator: str, values: tuple[int, ...]) -> dict[str, Any]:
        return {"action": "FailJob", "onExitCodes": {"operator": operator, "values": sorted(values)}}

    disrupted = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [
        *(codes("In", values) for values in _CODES_BEFORE_DISRUPTION),
        disrupted,
        codes("In", (exitcodes.SUPERSEDED,)),
        codes("NotIn", (exitcodes.OK, *_STOPPED)),
    ]


def _metadata(training: LTX2Training, name: str) -> dict[str, Any]:
    """Name, namespace, labels and the owner of a child."""
    own = training.metadata
    return {
        "name": name,
        "namespace": own.namespace,
        "labels": {
            "app.kubernetes.io/name": "ltx2-training",
            "app.kubernetes.io/instance": own.name,
            "app.kubernetes.io/part-of": "ltx2",
            "app.kubernetes.io/managed-by": "ltx2-operator",
            TRAINING_LABEL: own.name,
            UID_LABEL: own.uid,
        },
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": own.name,
                "uid": own.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
