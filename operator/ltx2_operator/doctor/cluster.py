"""Whether a training can be submitted: kubeconfig, API server, rights, the resource's definition, GPU nodes."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ltx2_operator import gpus
from ltx2_operator.doctor.finding import ANSWER_SECONDS, AREA_SECONDS, Finding, within
from ltx2_operator.doctor.installed import BASE

GROUP: Final = "ltx2.dev"  # as in fields.py, which needs pydantic: this has to work where something is missing
PLURAL: Final = "ltx2trainings"
NO_CLUSTER: Final = "`ltx2 run` needs no cluster"
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # of a pod: token, namespace


def ask_cluster(environ: Mapping[str, str]) -> list[Finding]:
    """Ask the API server of the kubeconfig (or of the pod that this runs in) what matters for a training."""
    named = environ.get("KUBECONFIG") or str(Path(environ.get("HOME") or "~").expanduser() / ".kube/config")
    inside = bool(environ.get("KUBERNETES_SERVICE_HOST")) and (ACCOUNT / "token").exists()
    files = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    if not inside and not any(file.exists() for file in files):
        if environ.get("KUBECONFIG"):
            return [Finding("cluster", "fix", f"KUBECONFIG: {named} does not exist", "name a file, or unset it")]
        return [Finding("cluster", "note", f"no kubeconfig ({named})", f"set KUBECONFIG to use one; {NO_CLUSTER}")]
    remedy = f"is the VPN up, is the address right? {NO_CLUSTER}"
    return within(AREA_SECONDS, "cluster", lambda: _ask(None if inside else named), remedy)


def _ask(kubeconfig: str | None) -> list[Finding]:
    try:
        import yaml
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError
    except ModuleNotFoundError as error:
        return [Finding("cluster", "fix", f"{error.name} is not installed", BASE)]

    settings = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=settings)
            namespace = (ACCOUNT / "namespace").read_text().strip()
        else:
            config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
            context = config.list_kube_config_contexts(config_file=kubeconfig)[1]
            namespace = str((context.get("context") or {}).get("namespace") or "default")
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"{kubeconfig or 'the service account'} cannot be used: {_first_line(error)}"
        return [Finding("cluster", "fix", message, "repair it, or point KUBECONFIG to another file")]
    settings.retries = False
    with client.ApiClient(settings) as api:
        try:
            version = client.VersionApi(api).get_code(_request_timeout=ANSWER_SECONDS)
        except HTTPError as error:
            message = f"{settings.host} is not reachable: {_first_line(error)}"
            remedy = f"is the VPN up, is the address right? Unset KUBECONFIG if you use no cluster; {NO_CLUSTER}"
            return [Finding("cluster", "fix", message, remedy)]
        except client.ApiException as error:
            remedy = "log in again (the credentials of the kubeconfig may have expired)"
            return [Finding("cluster", "fix", f"{settings.host} answers {error.status} {error.reason}", remedy)]
        found = [Finding("cluster", "ok", f"{settings.host}, Kubernetes {version.git_version}, namespace {namespace}")]
        for look in (_rights, _definition, _nodes):
            try:
                found.append(look(client, api, namespace))
            except HTTPError as error:
                return [*found, Finding("cluster", "fix", f"{settings.host} went away: {_first_line(error)}")]
            except client.ApiException as error:
                what = look.__name__.strip("_")
                found.append(
                    Finding("cluster", "note", f"{what}: the API server answers {error.status} {error.reason}")
                )
        return found


def _rights(client: Any, api: Any, namespace: str) -> Finding:
    attributes = {"group": GROUP, "resource": PLURAL, "verb": "create", "namespace": namespace}
    review = client.AuthorizationV1Api(api).create_self_subject_access_review(
        {"spec": {"resourceAttributes": attributes}}, _request_timeout=ANSWER_SECONDS
    )
    if review.status.allowed:
        return Finding("cluster", "ok", f"you may create {PLURAL}.{GROUP} in {namespace}")
    remedy = f"ask for the verbs create, get, list, watch, delete on {PLURAL}.{GROUP}, or use another namespace"
    return Finding("cluster", "fix", f"you may not create {PLURAL}.{GROUP} in {namespace}", remedy)


def _definition(client: Any, api: Any, namespace: str) -> Finding:
    name = f"{PLURAL}.{GROUP}"
    try:
        crd = client.ApiextensionsV1Api(api).read_custom_resource_definition(name, _request_timeout=ANSWER_SECONDS)
    except client.ApiException as error:
        if error.status == 404:
            return Finding("cluster", "fix", f"{name} is not defined", f"kubectl apply -f configs/crd/{name}.yaml")
        if error.status in (401, 403):
            return Finding("cluster", "note", f"you may not see whether {name} is defined", f"try kubectl get {PLURAL}")
        raise
    return Finding("cluster", "ok", f"{name} is defined: {', '.join(one.name for one in crd.spec.versions)}")


def _nodes(client: Any, api: Any, namespace: str) -> Finding:
    try:
        nodes = client.CoreV1Api(api).list_node(_request_timeout=ANSWER_SECONDS).items
    except client.ApiException as error:
        if error.status in (401, 403):
            return Finding("cluster", "note", "you may not list nodes", "name a class in spec.gpu.class")
        raise
    counts: Counter[str] = Counter()
    others: set[str] = set()
    for node in nodes:
        body = {"metadata": {"labels": node.metadata.labels}, "status": {"allocatable": node.status.allocatable}}
        offered = [(cls.name, cls.on(body)) for cls in gpus.CLASSES if cls.on(body) and gpus.refusal(cls) is None]
        counts.update(dict(offered))
        has = body["status"]["allocatable"] or {}
        if not offered and any(int(has.get(key, 0)) for key in (gpus.NVIDIA_RESOURCE, gpus.AMD_RESOURCE)):
            labels = node.metadata.labels or {}
            others.add(labels.get(gpus.NVIDIA_PRODUCT) or labels.get(gpus.AMD_PRODUCT) or "without a product label")
    words = ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()))
    unknown = f"; of no use here: {', '.join(sorted(others))}" if others else ""
    if counts:
        return Finding("cluster", "ok", f"GPUs of {len(nodes)} nodes: {words}{unknown}")
    remedy = "install the vendor's device plugin and feature discovery, or use a cluster with GPUs"
    return Finding("cluster", "note", f"no GPU of a known class on {len(nodes)} nodes{unknown}", remedy)


def _first_line(error: BaseException) -> str:
    """What a library says, without its own repetition of the address."""
    reason = getattr(error, "reason", None)
    text = str(reason if isinstance(reason, BaseException) else error).strip() or type(error).__name__
    return text.splitlines()[0].rpartition(">: ")[2].rpartition("): ")[2] or text.splitlines()[0]
