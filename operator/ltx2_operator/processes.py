"""A pod template as a process of this machine: argv, environment, files. All of it comes from the rendered Job.

Every field of a Job is honoured, or stands below with a word why it has no meaning for a process, or is refused by
name. Values of args, env and workingDir that begin with a mountPath (or the terminationMessagePath) get the folder in
its place, and the stable host names of an Indexed Job's pods become this machine; nothing else is changed.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ltx2_job.errors import JobError, UnavailableError
from ltx2_job.exitcodes import AUTH, USAGE
from ltx2_operator.form import CannotHonourError, check_form
from ltx2_operator.gpus import TRAINING

NOTHING: Final[Mapping[str, str]] = {}

# Fields without meaning for a process, each with its reason.
JOB_FIELDS: Final = {
    "podReplacementPolicy": "with backoffLimit 0 no pod is ever replaced",
    "ttlSecondsAfterFinished": "nothing is left of a finished process",
}
POD_FIELDS: Final = {
    "securityContext": "a process keeps the identity of the user who started it",
    "tolerations": "there is one node",
    "affinity": "there is one node; of its GPUs, those of the class that is asked for come first",
    "nodeSelector": "there is one node",
    "priorityClassName": "nothing is preempted",
    "schedulerName": "there is one node",
    "automountServiceAccountToken": "there is no API server",
    "serviceAccountName": "there is no API server",
    "enableServiceLinks": "there are no services",
    "imagePullSecrets": "there is no image",
    "runtimeClassName": "there is no container runtime",
}
CONTAINER_FIELDS: Final = {
    "name": "only the failure policy asks for it",
    "image": "this machine's own installation runs",
    "imagePullPolicy": "there is no image",
    "securityContext": "a process keeps the identity of the user who started it",
    "ports": "the process opens its ports on this machine",
    "terminationMessagePolicy": "the log is the terminal",
}
RESOURCES: Final = {
    "cpu": "the machine's cores are shared",
    "memory": "the machine's memory is the limit",
    "ephemeral-storage": "the machine's disk is the limit",
}
EMPTY_DIR: Final = {"medium": "a folder on disk serves", "sizeLimit": "the machine's disk is the limit"}
SHARED_MEMORY: Final = "/dev/shm"  # the machine's own; a folder elsewhere would be no shared memory

# What an image would bring along: where programs and libraries lie, how to reach the network, how the terminal speaks.
# Nothing that steers a training; tokens come from Secrets alone.
MACHINE_ENV: Final = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "COLUMNS", "LINES",
        "NO_COLOR",
        "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_HOME", "CUDA_PATH",
        "ROCM_PATH", "HIP_PATH",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HF_ENDPOINT", "HF_HUB_OFFLINE",
        "HF_HOME", "HF_HUB_CACHE",
        "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
        "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED",
        "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    }
)  # fmt: skip
_EXPANSION = re.compile(r"\$(\$|\(([^()]+)\))")


class SecretMissingError(JobError):
    """A Secret that the Job refers to has no counterpart on this machine."""

    exit_code = AUTH


class GpusMissingError(UnavailableError):
    """The Job asks for more GPUs than this machine shows."""

    exit_code = USAGE


@dataclass(frozen=True)
class Machine:
    """What this machine offers a pod.

    gpus: per extended resource the device indices that are visible here. of_class: the indices of each GPU class.
    """

    gpus: Mapping[str, tuple[str, ...]]
    env: Mapping[str, str]
    of_class: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Process:
    """How to start one pod. grace: seconds between SIGTERM and SIGKILL. files: content by path, written first."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    files: Mapping[Path, str]
    folders: tuple[Path, ...]
    termination_log: Path
    grace: float


VISIBLE: Final = {"nvidia.com/gpu": "CUDA_VISIBLE_DEVICES", "amd.com/gpu": "HIP_VISIBLE_DEVICES"}


def check_job(job: Mapping[str, Any]) -> None:
    """Refuse what a local run cannot honour. Raises CannotHonourError with the first such field."""
    check_form(job)
    spec = job["spec"]
    known = {
        "backoffLimit",
        "parallelism",
        "completions",
        "completionMode",
        "podFailurePolicy",
        "activeDeadlineSeconds",
        "template",
    }
    _only("spec", spec, known, JOB_FIELDS)
    if spec.get("backoffLimit") != 0:
        raise CannotHonourError("spec.backoffLimit", f"{spec.get('backoffLimit', 6)}; one Job is one attempt, write 0")
    count = int(spec.get("parallelism", 1))
    if int(spec.get("completions", count)) != count:
        raise CannotHonourError(
            "spec.completions", f"{spec['completions']} beside parallelism {count}; all pods run at once"
        )
    if count > 1 and spec.get("completionMode") != "Indexed":
        raise CannotHonourError("spec.completionMode", f"{count} pods need Indexed to know their number")
    for index, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or []):
        if rule.get("action") != "FailJob":
            raise CannotHonourError(
                f"spec.podFailurePolicy.rules[{index}].action", f"{rule.get('action')}; only FailJob"
            )
    template = spec["template"]
    _only("spec.template", template, {"metadata", "spec"}, NOTHING)
    pod, where = template["spec"], "spec.template.spec"
    _only(
        where, pod, {"containers", "volumes", "restartPolicy", "terminationGracePeriodSeconds", "subdomain"}, POD_FIELDS
    )
    if pod.get("restartPolicy") != "Never":
        raise CannotHonourError(f"{where}.restartPolicy", f"{pod.get('restartPolicy')}; write Never")
    if len(pod["containers"]) != 1:
        raise CannotHonourError(
            f"{where}.containers", f"{len(pod['containers'])} of them; one process is one container"
        )
    container, place = pod["containers"][0], f"{where}.containers[0]"
    honoured = {"command", "args", "env", "workingDir", "volumeMounts", "resources", "terminationMessagePath"}
    _only(place, container, honoured, CONTAINER_FIELDS)
    if not container.get("command"):
        raise CannotHonourError(f"{place}.command", "missing; there is no image whose entry point could run")
    for part in ("limits", "requests"):
        _only(f"{place}.resources.{part}", (container.get("resources") or {}).get(part) or {}, set(VISIBLE), RESOURCES)
    _only(f"{place}.resources", container.get("resources") or {}, {"limits", "requests"}, NOTHING)
    for index, entry in enumerate(container.get("env") or []):
        _only(f"{place}.env[{index}]", entry, {"name", "value", "valueFrom"}, NOTHING)
        if "valueFrom" in entry:
            _only(f"{place}.env[{index}].valueFrom", entry["valueFrom"], {"fieldRef", "secretKeyRef"}, NOTHING)
    for index, mount in enumerate(container.get("volumeMounts") or []):
        _only(f"{place}.volumeMounts[{index}]", mount, {"name", "mountPath", "readOnly"}, NOTHING)
        files = any(one["name"] == mount["name"] and "configMap" in one for one in pod.get("volumes") or [])
        if mount.get("readOnly") and not files:  # files of a ConfigMap are written read-only
            raise CannotHonourError(f"{place}.volumeMounts[{index}].readOnly", "its folder stays writable; remove it")
    for index, volume in enumerate(pod.get("volumes") or []):
        _volume_fields(f"{where}.volumes[{index}]", volume)


def _volume_fields(where: str, volume: Mapping[str, Any]) -> None:
    _only(where, volume, {"name", "configMap", "persistentVolumeClaim", "emptyDir"}, NOTHING)
    if "configMap" in volume:
        _only(
            f"{where}.configMap", volume["configMap"], {"name", "items"}, {"defaultMode": "files are read-only anyway"}
        )
        for number, item in enumerate(volume["configMap"].get("items") or []):
            _only(f"{where}.configMap.items[{number}]", item, {"key", "path"}, NOTHING)
    if "persistentVolumeClaim" in volume:
        _only(f"{where}.persistentVolumeClaim", volume["persistentVolumeClaim"], {"claimName"}, NOTHING)
    if "emptyDir" in volume:
        _only(f"{where}.emptyDir", volume["emptyDir"], set(), EMPTY_DIR)


def _only(where: str, found: Mapping[str, Any], honoured: set[str], meaningless: Mapping[str, str]) -> None:
    for key in found:
        if key not in honoured and key not in meaningless:
            raise CannotHonourError(f"{where}.{key}")


def translate(
    job: Mapping[str, Any],
    index: int,
    pod: Mapping[str, Any],
    root: Path,
    workspace: Path,
    configmaps: Mapping[str, Mapping[str, Any]],
    secret: Callable[[str, str, str], str | None],
    machine: Machine,
) -> Process:
    """The process of one pod of a checked Job.

    pod: the pod object that runs (name, uid, labels). root: an empty folder of this pod's own. workspace: what claims
    stand for. secret: (Secret, key, name of the variable) -> value or None. Raises CannotHonourError,
    SecretMissingError, GpusMissingError, UnavailableError (program not found).
    """
    template = job["spec"]["template"]["spec"]
    container = template["containers"][0]
    places, files, folders = _mounts(container, template, root, workspace, configmaps)
    log = root / "termination-log"
    places[container.get("terminationMessagePath") or "/dev/termination-log"] = log
    hosts = _host_names(job)

    def local(value: str) -> str:
        if value in hosts:
            return "127.0.0.1"
        return _replaced(value, places)

    env = {key: value for key, value in machine.env.items() if key in MACHINE_ENV or key.startswith("LC_")}
    own: dict[str, str] = {}
    for entry in container.get("env") or []:
        value = _value(entry, own, pod, secret)
        if value is not None:
            own[entry["name"]] = value
    if job["spec"].get("completionMode") == "Indexed":
        own["JOB_COMPLETION_INDEX"] = str(index)
    env |= {name: local(value) for name, value in own.items()} | _devices(template, index, machine)
    words = [_expand(word, own) for word in [*container["command"], *(container.get("args") or [])]]
    argv = (find_program(words[0], env), *(local(word) for word in words[1:]))
    cwd = Path(local(container["workingDir"])) if container.get("workingDir") else root
    return Process(argv, env, cwd, files, tuple(folders), log, float(template.get("terminationGracePeriodSeconds", 30)))


def _mounts(
    container: Mapping[str, Any],
    template: Mapping[str, Any],
    root: Path,
    workspace: Path,
    configmaps: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Path], dict[Path, str], list[Path]]:
    """Folder by mountPath, files to write, folders to make."""
    volumes = {volume["name"]: volume for volume in template.get("volumes") or []}
    places: dict[str, Path] = {}
    files: dict[Path, str] = {}
    folders: list[Path] = [root]
    for mount in container.get("volumeMounts") or []:
        path, volume = mount["mountPath"], volumes.get(mount["name"])
        if volume is None:
            raise CannotHonourError(
                f"spec.template.spec.containers[0].volumeMounts: {mount['name']}", "there is no such volume"
            )
        if "persistentVolumeClaim" in volume:
            places[path] = workspace
        elif "configMap" in volume:
            source = volume["configMap"]
            found = configmaps.get(source["name"])
            if found is None:
                raise CannotHonourError(
                    f"spec.template.spec.volumes: ConfigMap {source['name']}", "it is not among the documents"
                )
            data = found.get("data") or {}
            items = source.get("items") or [{"key": key, "path": key} for key in data]
            places[path] = root / mount["name"]
            for item in items:
                if item["key"] not in data:
                    raise CannotHonourError(
                        f"spec.template.spec.volumes: ConfigMap {source['name']}", f"it has no key {item['key']}"
                    )
                files[places[path] / item["path"]] = data[item["key"]]
            folders.append(places[path])
        elif "emptyDir" in volume:
            if path != SHARED_MEMORY:
                places[path] = root / mount["name"]
                folders.append(places[path])
        else:
            raise CannotHonourError(f"spec.template.spec.volumes: {mount['name']}", "it names no source")
    return places, files, folders


def _replaced(value: str, places: Mapping[str, Path]) -> str:
    """The value with a leading mount path replaced, the longest that matches."""
    for path in sorted(places, key=len, reverse=True):
        if value == path:
            return str(places[path])
        if value.startswith(path.rstrip("/") + "/"):
            return str(places[path]) + value[len(path.rstrip("/")) :]
    return value


def _host_names(job: Mapping[str, Any]) -> set[str]:
    """The stable names of an Indexed Job's pods, with and without the headless Service."""
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"].get("subdomain")
    if job["spec"].get("completionMode") != "Indexed":
        return set()
    short = {f"{name}-{index}" for index in range(int(job["spec"].get("parallelism", 1)))}
    return short | {f"{one}.{subdomain}" for one in short if subdomain}


def _value(
    entry: Mapping[str, Any],
    defined: Mapping[str, str],
    pod: Mapping[str, Any],
    secret: Callable[[str, str, str], str | None],
) -> str | None:
    source = entry.get("valueFrom")
    if source is None:
        return _expand(str(entry.get("value", "")), defined)
    if "fieldRef" in source:
        return _field(source["fieldRef"]["fieldPath"], pod)
    reference = source["secretKeyRef"]
    value = secret(reference["name"], reference["key"], entry["name"])
    if value is None and not reference.get("optional"):
        raise SecretMissingError(
            f"Secret {reference['name']} (key {reference['key']}) does not exist on this machine; "
            f"export {entry['name']} instead"
        )
    return value


def _field(path: str, pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    simple = {
        "metadata.name": metadata["name"], "metadata.namespace": metadata.get("namespace", "default"),
        "metadata.uid": metadata["uid"],
        "status.podIP": "127.0.0.1", "status.hostIP": "127.0.0.1",
    }  # fmt: skip
    if path not in simple:
        raise CannotHonourError(f"spec.template.spec.containers[0].env: fieldRef {path}")
    return str(simple[path])


def _expand(text: str, defined: Mapping[str, str]) -> str:
    """$(NAME) of a variable defined before; $$ is a dollar sign; unknown names stay as they are (Kubernetes' rule)."""
    return _EXPANSION.sub(lambda hit: "$" if hit[1] == "$" else defined.get(hit[2], hit[0]), text)


def _devices(template: Mapping[str, Any], index: int, machine: Machine) -> dict[str, str]:
    """The GPUs that the pod sees: as many as its limit, none without a limit, as in a container.

    Where a machine has several classes, those of the class that the pod's affinity names come first.
    """
    limits = (template["containers"][0].get("resources") or {}).get("limits") or {}
    own = machine.of_class.get(_class_of(template), ())
    seen = {}
    for resource, variable in VISIBLE.items():
        count = int(limits.get(resource, 0))
        offered = sorted(machine.gpus.get(resource, ()), key=lambda device: device not in own)
        first = index * count
        if len(offered) < first + count:
            raise GpusMissingError(
                f"resources.limits.{resource}: pod {index} needs {count} beside {first} of its peers, "
                f"this machine shows {len(offered)}; set gpu.count or nodes lower, or run it on a cluster"
            )
        seen[variable] = ",".join(offered[first : first + count])
    if seen["CUDA_VISIBLE_DEVICES"]:
        seen["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts, where the indices come from
    return seen


def _class_of(template: Mapping[str, Any]) -> str:
    """The name of the GPU class that a pod's node affinity asks for; empty where it asks for none."""
    affinity = ((template.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    terms = [
        {"matchExpressions": term.get("matchExpressions")} for term in affinity.get("nodeSelectorTerms") or []
    ]  # matchFields say which nodes, not which GPUs
    return next((entry.name for entry in TRAINING if entry.affinity_terms() == terms), "")


def find_program(name: str, env: Mapping[str, str]) -> str:
    """A program on PATH, else in the folder of scripts beside this interpreter (a venv that is not activated)."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=env.get("PATH", os.defpath)) or shutil.which(name, path=str(beside))
    if found is None:
        raise UnavailableError(
            f"{name} is neither on PATH nor in {beside}; install the job: in the project's folder "
            "pip install '.[cuda]' (docs/install.md: AMD, CPU)"
        )
    return found
