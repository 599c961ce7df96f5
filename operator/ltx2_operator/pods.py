"""The pod of one stage, as a list of small modifiers, each of which does one thing to a pod template.

A pod needs nothing from the API server: no token, no service account of its own. It passes the "restricted" Pod
Security standard: not root, read-only root file system, no capabilities. Arguments and environment name only mount
paths of volumes, so that a run on one machine can replace those and nothing else.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ltx2_job import history
from ltx2_operator.api import GROUP, LTX2Training, Plan
from ltx2_operator.settings import Settings

CONTAINER: Final = "job"
UID: Final = 65532  # "nonroot" of the images; the volume is made writable for this group
FILES: Final = "/etc/ltx2"
WORKSPACE: Final = "/workspace"
SHARED_MEMORY: Final = "/dev/shm"
SCRATCH: Final = "/tmp"
TERMINATION_LOG: Final = "/dev/termination-log"
CONFIG_FILES: Final = ("config.json", "datasets.json", "plan.json")

SLOWEST_VOLUME: Final = 10e6  # bytes per second: a network volume that many nodes write at once

TRAINING_LABEL: Final = f"{GROUP}/training"
STAGE_LABEL: Final = f"{GROUP}/stage"
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
UID_LABEL: Final = f"{GROUP}/uid"
HASH_ANNOTATION: Final = f"{GROUP}/spec-hash"

Pod = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """All that the modifiers look at."""

    training: LTX2Training
    plan: Plan
    attempt: int
    digest: str  # of the resolved configuration
    config_map: str
    claim: str
    service: str
    settings: Settings

    @property
    def name(self) -> str:
        """Name of the training."""
        return self.training.metadata.name

    @property
    def job(self) -> str:
        """Name of the Job; pods of an Indexed Job are called <job>-<index> on the network."""
        return f"{self.name}-{self.plan.stage}-{self.attempt}"


Modifier = Callable[[Pod, Context], None]

_UNITS: Final = (("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))
_FACTORS: Final = {**dict(_UNITS), "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def quantity(size: int) -> str:
    """Bytes as a Kubernetes quantity, in the largest unit that is exact: 1073741824 -> 1Gi."""
    for unit, factor in _UNITS:
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def quantity_value(text: str) -> float:
    """A Kubernetes quantity as a number: 1Gi -> 1073741824, 250m -> 0.25; 0 for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    return float(found[1]) * _FACTORS.get(found[2], 0) if found else 0.0


def labels(context: Context) -> dict[str, str]:
    """Labels of a Job and its pods: the usual ones, and what tells one attempt from another."""
    return {
        "app.kubernetes.io/name": "ltx2-training",
        "app.kubernetes.io/instance": context.name,
        "app.kubernetes.io/component": context.plan.stage,
        "app.kubernetes.io/part-of": "ltx2",
        "app.kubernetes.io/managed-by": "ltx2-operator",
        TRAINING_LABEL: context.name,
        STAGE_LABEL: context.plan.stage,
        ATTEMPT_LABEL: str(context.attempt),
        UID_LABEL: context.training.metadata.uid,
    }


def env(pod: Pod, name: str, value: str | dict[str, Any]) -> None:
    """Add a variable to the job's container: a text, or where its value comes from."""
    entry = {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}
    pod["spec"]["containers"][0].setdefault("env", []).append(entry)


def volume(pod: Pod, name: str, source: dict[str, Any], path: str, *, read_only: bool = False) -> None:
    """Add a volume to the pod and mount it at a path of the job's container."""
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        mount["readOnly"] = True
    pod["spec"].setdefault("volumes", []).append({"name": name, **source})
    pod["spec"]["containers"][0].setdefault("volumeMounts", []).append(mount)


def metadata(pod: Pod, context: Context) -> None:
    """Labels for selection and logs, the hash of the configuration as annotation."""
    pod["metadata"] = {"labels": labels(context), "annotations": {HASH_ANNOTATION: context.digest}}


def command(pod: Pod, context: Context) -> None:
    """The stage's command line and its image: the user's for this stage, else the installation's for the flavour."""
    stage, images = context.plan.stage, context.training.spec.images
    chosen = images.train if stage == "train" else images.cache
    flavour = context.plan.flavour if stage == "look" else context.training.spec.flavour or context.plan.flavour
    container = pod["spec"]["containers"][0]
    container["image"] = chosen or context.settings.images[flavour]
    container["imagePullPolicy"] = context.settings.image_pull_policy
    container["command"] = ["ltx2-job"]
    container["args"] = [
        stage, "--files", FILES, "--workspace", WORKSPACE, "--run", context.name, "--attempt", str(context.attempt),
    ]  # fmt: skip


def identity(pod: Pod, context: Context) -> None:
    """Who this process is: the object's uid and the pod's own fence writers on the volume from each other."""
    env(pod, "LTX2JOB_UID", context.training.metadata.uid)
    env(pod, "LTX2JOB_POD_UID", {"fieldRef": {"fieldPath": "metadata.uid"}})
    env(pod, "LTX2JOB_NODES", str(context.plan.nodes))


def verdicts(pod: Pod, context: Context) -> None:
    """How the attempts before this one ended, for the run's history on the volume. A look writes nothing there."""
    ended = [one.dump() for one in context.training.status.attempts]
    if ended and context.plan.stage != "look":
        env(pod, history.VERDICTS, history.handed_on(ended))


def no_api_access(pod: Pod, context: Context) -> None:
    """No token and no list of the namespace's services: the pod talks to nobody."""
    pod["spec"]["automountServiceAccountToken"] = False
    pod["spec"]["enableServiceLinks"] = False


def restricted(pod: Pod, context: Context) -> None:
    """The "restricted" Pod Security standard."""
    restrict(pod)


def restrict(pod: Pod) -> None:
    """As the user of the images, with no right at all; the volume's group is changed only where it is another one."""
    pod["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod["spec"]["containers"][0]["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def resources(pod: Pod, context: Context) -> None:
    """Memory and scratch disk are limited, so that no run takes a node down; CPU is a request only (no throttling)."""
    plan = context.plan
    limits = {"memory": quantity(plan.memory_bytes), "ephemeral-storage": quantity(plan.ephemeral_bytes)}
    pod["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": f"{plan.cpu_milli}m", **limits},
        "limits": limits.copy(),
    }
    env(pod, "OMP_NUM_THREADS", str(max(1, plan.cpu_milli // 1000 // plan.processes)))


def shared_memory(pod: Pod, context: Context) -> None:
    """/dev/shm of the planned size; the plan counts it into the memory limit, as the kernel does."""
    source = {"emptyDir": {"medium": "Memory", "sizeLimit": quantity(context.plan.shm_bytes)}}
    volume(pod, "shm", source, SHARED_MEMORY)


def scratch(pod: Pod, context: Context) -> None:
    """/tmp is the only writable folder beside the workspace; caches of libraries go there too."""
    volume(pod, "tmp", {"emptyDir": {"sizeLimit": quantity(context.plan.ephemeral_bytes)}}, SCRATCH)
    env(pod, "TMPDIR", SCRATCH)
    env(pod, "XDG_CACHE_HOME", f"{SCRATCH}/cache")
    env(pod, "MPLCONFIGDIR", f"{SCRATCH}/matplotlib")


def configuration(pod: Pod, context: Context) -> None:
    """The resolved files of this run, read-only."""
    items = [{"key": name, "path": name} for name in CONFIG_FILES]
    volume(pod, "config", {"configMap": {"name": context.config_map, "items": items}}, FILES, read_only=True)


def workspace(pod: Pod, context: Context) -> None:
    """The volume with data sets, models, cache and runs; relative paths of the configuration resolve here."""
    volume(pod, "workspace", {"persistentVolumeClaim": {"claimName": context.claim}}, WORKSPACE)


def grace_seconds(plan: Plan, settings: Settings) -> int:
    """Seconds from SIGTERM to the end of a last checkpoint, never less than the installation's.

    A run first finishes its step (predicted; twice that, since predictions err), then writes what a checkpoint holds,
    the LoRA and its optimizer's moments, to a volume that may be as slow as SLOWEST_VOLUME. The cache stage only gives
    up the clip it is at: the installation's time.
    """
    held = sum(size for name, size in plan.terms.items() if "lora" in name or "optimizer" in name)
    needed = 2 * float(plan.predicted_seconds_per_step or 0) + held / SLOWEST_VOLUME
    return max(settings.grace_seconds, math.ceil(needed) if plan.stage == "train" else 0)


def ending(pod: Pod, context: Context) -> None:
    """Time for a last checkpoint after SIGTERM, and a last word that outlives the process."""
    seconds = grace_seconds(context.plan, context.settings)
    pod["spec"]["restartPolicy"] = "Never"
    pod["spec"]["terminationGracePeriodSeconds"] = seconds + context.settings.grace_margin_seconds
    container = pod["spec"]["containers"][0]
    container["terminationMessagePath"] = TERMINATION_LOG
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    env(pod, "LTX2JOB_GRACE_SECONDS", str(seconds))
    env(pod, "LTX2JOB_TERMINATION_LOG", TERMINATION_LOG)


def metrics(pod: Pod, context: Context) -> None:
    """One port: Prometheus reads /metrics, the operator /progress."""
    port = context.settings.metrics_port
    pod["spec"]["containers"][0]["ports"] = [{"name": "metrics", "containerPort": port, "protocol": "TCP"}]
    env(pod, "LTX2JOB_PORT", str(port))


def rendezvous(pod: Pod, context: Context) -> None:
    """Several nodes meet at the first pod of the Indexed Job; the headless Service resolves it before it is ready."""
    if context.plan.nodes > 1:
        pod["spec"]["subdomain"] = context.service
        env(pod, "LTX2JOB_MASTER_ADDR", f"{context.job}-0.{context.service}")
