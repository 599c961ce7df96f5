"""spec.podTemplate: what a user changes of the pods that we make, and what nobody may change.

The operator creates pods with its own rights, so a patch must not reach further than its author could: what would is
refused unless the installation allows it. What the operator itself relies on (names, labels, command, fence, volumes)
is refused always. The rules look at the patched template, not at the patch: however a change is written, it is seen.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ltx2_job.errors import ConfigError, Problem
from ltx2_operator import strategic
from ltx2_operator.fields import GROUP
from ltx2_operator.gpus import RESOURCES
from ltx2_operator.pods import CONTAINER, FILES, WORKSPACE, Pod
from ltx2_operator.settings import PodTemplate

FIELD: Final = "spec.podTemplate"

# Fields of the pod that must stay as they are, with what to write instead.
_POD_FIXED: Final = {
    "restartPolicy": "remove it: one pod is one attempt; spec.retries says how many there are",
    "subdomain": "remove it: the nodes of a run find each other by it",
    "hostname": "remove it: the nodes of a run find each other by it",
    "setHostnameAsFQDN": "remove it: the nodes of a run find each other by their short names",
    "terminationGracePeriodSeconds": "remove it: a last checkpoint needs it; see jobs.graceSeconds of the chart",
}
_ACCOUNT: Final = ("serviceAccountName", "serviceAccount", "automountServiceAccountToken")
_HOST: Final = ("hostNetwork", "hostPID", "hostIPC")
_CONTAINER_FIXED: Final = {
    "command": "remove it: spec.images takes another image, spec.config steers what it does",
    "args": "remove it: spec.config steers what the job does",
    "restartPolicy": "remove it: one pod is one attempt; spec.retries says how many there are",
    "restartPolicyRules": "remove it: one pod is one attempt; spec.retries says how many there are",
    "terminationMessagePath": "remove it: the job leaves its last word there",
    "terminationMessagePolicy": "remove it: the job leaves its last word there",
}


def patched(pod: Pod, patch: Mapping[str, Any], allowed: PodTemplate) -> Pod:
    """Our pod template with the user's patch. Raises ConfigError with everything that may not be changed."""
    problems = list(_shape(patch))
    if problems:
        raise ConfigError(problems)
    found = strategic.merge(pod, patch, FIELD)
    problems = [*_missing(found), *_labels(pod, found)]
    if not problems:
        problems = [*_fixed(pod, found), *_job_container(pod, found), *_rights(pod, found, allowed)]
    if problems:
        raise ConfigError(problems)
    return found


def _shape(patch: Mapping[str, Any]) -> Iterator[Problem]:
    for key, value in patch.items():
        if key not in ("metadata", "spec"):
            remedy = f"write it under {FIELD}.spec" if not key.startswith("$") else "name what changes, key by key"
            yield Problem(f"{FIELD}.{key}", "unknown key", remedy if key != "template" else "leave this level out")
        elif not isinstance(value, Mapping):
            yield Problem(f"{FIELD}.{key}", f"{value!r} is no mapping", "write keys and values under it")
        elif "$patch" in value:
            yield Problem(f"{FIELD}.{key}.$patch", f"{value['$patch']!r}", "name what changes, key by key")
    metadata = patch.get("metadata")
    for key in metadata if isinstance(metadata, Mapping) else ():
        if key not in ("labels", "annotations", "$patch"):
            yield Problem(f"{FIELD}.metadata.{key}", "is not ours to give", "labels and annotations may be added")


def _missing(found: Pod) -> Iterator[Problem]:
    """What must be there for the other rules to have something to look at."""
    spec = _map(found.get("spec"))
    if not any(one.get("name") == CONTAINER for one in _maps(spec.get("containers"))):
        yield Problem(f"{FIELD}.spec.containers", f"removes the container {CONTAINER}", "leave it in")


def _labels(pod: Pod, found: Pod) -> Iterator[Problem]:
    """All that we wrote stays, and nothing is added under our name."""
    for part in ("labels", "annotations"):
        old, new = _map(pod["metadata"].get(part)), _map(_map(found.get("metadata")).get(part))
        for key in sorted({*old, *new}):
            ours = key in old or key.split("/")[0] == GROUP or key.split("/")[0].endswith(f".{GROUP}")
            if ours and old.get(key) != new.get(key) and not (part == "annotations" and key in _OFFERED):
                yield Problem(f"{FIELD}.metadata.{part}.{key}", f"{new.get(key)!r}", "remove it: the operator sets it")


# Annotations of ours that a user may change.
_OFFERED: Final = ("cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt")


def _fixed(pod: Pod, found: Pod) -> Iterator[Problem]:
    for key, remedy in _POD_FIXED.items():
        if pod["spec"].get(key) != found["spec"].get(key):
            yield Problem(f"{FIELD}.spec.{key}", f"{found['spec'].get(key)!r}", remedy)


def _job_container(pod: Pod, found: Pod) -> Iterator[Problem]:
    """Command, fence and volumes of the container that trains."""
    old, new = _job(pod), _job(found)
    where = f"{FIELD}.spec.containers[name={CONTAINER}]"
    for key, remedy in _CONTAINER_FIXED.items():
        if old.get(key) != new.get(key):
            yield Problem(f"{where}.{key}", f"{new.get(key)!r}", remedy)
    before, after = ({one["name"]: one for one in _maps(box.get("env"))} for box in (old, new))
    for name in sorted({*before, *after}):
        if name.startswith("LTX2JOB_") and before.get(name) != after.get(name):
            yield Problem(f"{where}.env[name={name}]", "is the operator's", "choose another name")
    for part in ("limits", "requests"):
        devices, given = (_map(_map(box.get("resources")).get(part)) for box in (old, new))
        for name in sorted({*devices, *given}):
            if name in RESOURCES.values() and devices.get(name) != given.get(name):
                remedy = "remove it: spec.gpu says which GPUs and how many, and the plan follows"
                yield Problem(f"{where}.resources.{part}.{name}", f"{given.get(name)!r}", remedy)
    for path in (WORKSPACE, FILES):
        mounts = [[one for one in _maps(box.get("volumeMounts")) if one.get("mountPath") == path] for box in (old, new)]
        if mounts[0] != mounts[1]:
            yield Problem(f"{where}.volumeMounts[mountPath={path}]", "is the operator's", "choose another path")
        for mount in mounts[0]:
            volumes = [
                [one for one in _maps(template["spec"].get("volumes")) if one.get("name") == mount["name"]]
                for template in (pod, found)
            ]
            if volumes[0] != volumes[1]:
                remedy = "choose another name; spec.storage says which claim the workspace is"
                yield Problem(f"{FIELD}.spec.volumes[name={mount['name']}]", "is the operator's", remedy)


def _rights(pod: Pod, found: Pod, allowed: PodTemplate) -> Iterator[Problem]:
    """What reaches beyond the pod."""
    spec, where = found["spec"], f"{FIELD}.spec"
    if not allowed.allow_service_account:
        for key in _ACCOUNT:
            if pod["spec"].get(key) != spec.get(key):
                yield _not_allowed(f"{where}.{key}", spec.get(key), "allowServiceAccount")
    for volume in _maps(spec.get("volumes")):
        place = f"{where}.volumes[name={volume.get('name')}]"
        if "hostPath" in volume and not allowed.allow_host_path:
            yield _not_allowed(f"{place}.hostPath", _map(volume["hostPath"]).get("path"), "allowHostPath")
        sources = _maps(_map(volume.get("projected")).get("sources"))
        if any("serviceAccountToken" in one for one in sources) and not allowed.allow_service_account:
            yield _not_allowed(f"{place}.projected.sources", "serviceAccountToken", "allowServiceAccount")
    if allowed.allow_privileged:
        return
    for key in _HOST:
        if spec.get(key):
            yield _not_allowed(f"{where}.{key}", spec[key], "allowPrivileged")
    yield from _identity(_map(spec.get("securityContext")), f"{where}.securityContext")
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for container in _maps(spec.get(group)):
            yield from _container_rights(container, f"{where}.{group}[name={container.get('name')}]")


def _container_rights(container: Mapping[str, Any], where: str) -> Iterator[Problem]:
    context, place = _map(container.get("securityContext")), f"{where}.securityContext"
    for key in ("privileged", "allowPrivilegeEscalation"):
        if context.get(key):
            yield _not_allowed(f"{place}.{key}", True, "allowPrivileged")
    if added := _map(context.get("capabilities")).get("add"):
        yield _not_allowed(f"{place}.capabilities.add", added, "allowPrivileged")
    if context.get("procMount") not in (None, "Default"):
        yield _not_allowed(f"{place}.procMount", context["procMount"], "allowPrivileged")
    for port in _maps(container.get("ports")):
        if port.get("hostPort"):
            yield _not_allowed(f"{where}.ports[containerPort={port.get('containerPort')}].hostPort", port["hostPort"],
                               "allowPrivileged")  # fmt: skip
    yield from _identity(context, place)


def _identity(context: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Of a pod's or a container's securityContext: who the process is, and its system calls."""
    if context.get("runAsUser") == 0:
        yield _not_allowed(f"{where}.runAsUser", 0, "allowPrivileged")
    if context.get("runAsNonRoot") is False:
        yield _not_allowed(f"{where}.runAsNonRoot", False, "allowPrivileged")
    if _map(context.get("seccompProfile")).get("type") == "Unconfined":
        yield _not_allowed(f"{where}.seccompProfile.type", "Unconfined", "allowPrivileged")


def _map(value: Any) -> Mapping[str, Any]:
    """A mapping of a template; what has another form is the API server's to refuse."""
    return value if isinstance(value, Mapping) else {}


def _maps(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _not_allowed(field: str, value: Any, setting: str) -> Problem:
    return Problem(
        field, f"{value!r} is not allowed here", f"remove it; the chart's jobs.podTemplate.{setting} allows it"
    )


def _job(pod: Pod) -> Mapping[str, Any]:
    """The container that trains."""
    return next(box for box in _maps(pod["spec"]["containers"]) if box.get("name") == CONTAINER)
