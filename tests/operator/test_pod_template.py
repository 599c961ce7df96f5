"""What spec.podTemplate may change and what it may not: each refusal with its field, and what goes."""

from typing import Any

import pytest

from ltx2_job.errors import ConfigError
from ltx2_operator import pod_template, template
from ltx2_operator.settings import PodTemplate, Settings
from pod_patches import MALFORMED, container
from trainings import amd_plan, context, plan

EVERYTHING = PodTemplate(allow_host_path=True, allow_privileged=True, allow_service_account=True)
POD = "spec.podTemplate.spec"
JOB = "spec.podTemplate.spec.containers[name=job]"


def refusals(patch: dict[str, Any], allowed: PodTemplate | None = None) -> dict[str, str]:
    """Field -> the rest of what is said; empty where the patch is taken."""
    try:
        template.template(context(settings=Settings(pod_template=allowed or PodTemplate()), podTemplate=patch))
    except ConfigError as error:
        assert all(problem.remedy for problem in error.problems)
        return {problem.field: f"{problem.message}; {problem.remedy}" for problem in error.problems}
    return {}


def spec(**changed: Any) -> dict[str, Any]:
    return {"spec": changed}


@pytest.mark.parametrize(
    ("patch", "field", "words"),
    [
        ({"spce": {}}, "spec.podTemplate.spce", "unknown key"),
        ({"template": {}}, "spec.podTemplate.template", "leave this level out"),
        ({"$patch": "replace"}, "spec.podTemplate.$patch", "key by key"),
        ({"spec": {"$patch": "replace"}}, "spec.podTemplate.spec.$patch", "'replace'"),
        ({"spec": []}, "spec.podTemplate.spec", "no mapping"),
        ({"metadata": {"finalizers": ["x"]}}, "spec.podTemplate.metadata.finalizers", "labels and annotations"),
        ({"metadata": {"ownerReferences": []}}, "spec.podTemplate.metadata.ownerReferences", "labels and"),
        (spec(restartPolicy="Always"), "spec.podTemplate.spec.restartPolicy", "spec.retries"),
        (spec(restartPolicy=None), "spec.podTemplate.spec.restartPolicy", "spec.retries"),
        (spec(subdomain="x"), "spec.podTemplate.spec.subdomain", "find each other"),
        (spec(terminationGracePeriodSeconds=1), "spec.podTemplate.spec.terminationGracePeriodSeconds", "graceSeconds"),
        ({"metadata": {"labels": {"ltx2.dev/uid": "x"}}}, "spec.podTemplate.metadata.labels.ltx2.dev/uid", "operator"),
        ({"metadata": {"labels": {"ltx2.dev/uid": None}}}, "spec.podTemplate.metadata.labels.ltx2.dev/uid", "None"),
        ({"metadata": {"labels": {"ltx2.dev/new": "x"}}}, "spec.podTemplate.metadata.labels.ltx2.dev/new", "'x'"),
        (
            {"metadata": {"annotations": {"ltx2.dev/spec-hash": "x"}}},
            "spec.podTemplate.metadata.annotations.ltx2.dev/spec-hash",
            "'x'",
        ),
        (container(command=["sh"]), f"{JOB}.command", "spec.images"),
        (container(args=["x"]), f"{JOB}.args", "spec.config"),
        (container(args=None), f"{JOB}.args", "spec.config"),
        (container(restartPolicy="Always"), f"{JOB}.restartPolicy", "spec.retries"),
        (container(terminationMessagePath="/x"), f"{JOB}.terminationMessagePath", "last word"),
        (container(env=[{"name": "LTX2JOB_UID", "value": "x"}]), f"{JOB}.env[name=LTX2JOB_UID]", "another name"),
        (container(env=[{"name": "LTX2JOB_NEW", "value": "x"}]), f"{JOB}.env[name=LTX2JOB_NEW]", "another name"),
        (container(env=[{"name": "LTX2JOB_UID", "$patch": "delete"}]), f"{JOB}.env[name=LTX2JOB_UID]", "another"),
        (
            container(resources={"limits": {"nvidia.com/gpu": "8"}}),
            f"{JOB}.resources.limits.nvidia.com/gpu",
            "spec.gpu",
        ),
        (container(resources={"limits": {"amd.com/gpu": "1"}}), f"{JOB}.resources.limits.amd.com/gpu", "spec.gpu"),
        (
            container(volumeMounts=[{"mountPath": "/workspace", "name": "tmp"}]),
            f"{JOB}.volumeMounts[mountPath=/workspace]",
            "another path",
        ),
        (
            container(volumeMounts=[{"mountPath": "/etc/ltx2", "$patch": "delete"}]),
            f"{JOB}.volumeMounts[mountPath=/etc/ltx2]",
            "another path",
        ),
        (
            spec(volumes=[{"name": "workspace", "$patch": "delete"}]),
            "spec.podTemplate.spec.volumes[name=workspace]",
            "spec.storage",
        ),
        (
            spec(volumes=[{"name": "workspace", "persistentVolumeClaim": {"claimName": "other"}}]),
            "spec.podTemplate.spec.volumes[name=workspace]",
            "spec.storage",
        ),
        (
            spec(containers=[{"name": "job", "$patch": "delete"}]),
            "spec.podTemplate.spec.containers",
            "removes the container job",
        ),
        (
            spec(containers=[{"$patch": "replace"}, {"name": "mine", "image": "x"}]),
            "spec.podTemplate.spec.containers",
            "removes the container job",
        ),
    ],
)
@pytest.mark.parametrize("allowed", [PodTemplate(), EVERYTHING], ids=["default", "all allowed"])
def test_what_the_operator_relies_on_is_refused_always(
    patch: dict[str, Any], field: str, words: str, allowed: PodTemplate
) -> None:
    found = refusals(patch, allowed)
    assert list(found) == [field]
    assert words in found[field]


HOST_PATH = spec(volumes=[{"name": "disk", "hostPath": {"path": "/srv"}}])
TOKEN = spec(volumes=[{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}])


@pytest.mark.parametrize(
    ("patch", "field", "setting"),
    [
        (spec(serviceAccountName="own"), "spec.podTemplate.spec.serviceAccountName", "allowServiceAccount"),
        (spec(serviceAccount="own"), "spec.podTemplate.spec.serviceAccount", "allowServiceAccount"),
        (
            spec(automountServiceAccountToken=True),
            "spec.podTemplate.spec.automountServiceAccountToken",
            "allowServiceAccount",
        ),
        (TOKEN, "spec.podTemplate.spec.volumes[name=t].projected.sources", "allowServiceAccount"),
        (HOST_PATH, "spec.podTemplate.spec.volumes[name=disk].hostPath", "allowHostPath"),
        (spec(hostNetwork=True), "spec.podTemplate.spec.hostNetwork", "allowPrivileged"),
        (spec(hostPID=True), "spec.podTemplate.spec.hostPID", "allowPrivileged"),
        (spec(hostIPC=True), "spec.podTemplate.spec.hostIPC", "allowPrivileged"),
        (spec(securityContext={"runAsUser": 0}), "spec.podTemplate.spec.securityContext.runAsUser", "allowPrivileged"),
        (
            spec(securityContext={"runAsNonRoot": False}),
            "spec.podTemplate.spec.securityContext.runAsNonRoot",
            "allowPrivileged",
        ),
        (
            spec(securityContext={"seccompProfile": {"type": "Unconfined"}}),
            "spec.podTemplate.spec.securityContext.seccompProfile.type",
            "allowPrivileged",
        ),
        (container(securityContext={"runAsUser": 0}), f"{JOB}.securityContext.runAsUser", "allowPrivileged"),
        (container(securityContext={"privileged": True}), f"{JOB}.securityContext.privileged", "allowPrivileged"),
        (
            container(securityContext={"allowPrivilegeEscalation": True}),
            f"{JOB}.securityContext.allowPrivilegeEscalation",
            "allowPrivileged",
        ),
        (
            container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
            f"{JOB}.securityContext.capabilities.add",
            "allowPrivileged",
        ),
        (container(securityContext={"procMount": "Unmasked"}), f"{JOB}.securityContext.procMount", "allowPrivileged"),
        (
            container(ports=[{"containerPort": 80, "hostPort": 80}]),
            f"{JOB}.ports[containerPort=80].hostPort",
            "allowPrivileged",
        ),
        (
            spec(initContainers=[{"name": "i", "image": "x", "securityContext": {"privileged": True}}]),
            "spec.podTemplate.spec.initContainers[name=i].securityContext.privileged",
            "allowPrivileged",
        ),
    ],
)
def test_what_reaches_beyond_the_pod_needs_its_own_permission(patch: dict[str, Any], field: str, setting: str) -> None:
    """Refused by default and where only the others are allowed; taken where this one is."""
    found = refusals(patch)
    assert list(found) == [field]
    assert setting in found[field]
    own = {"allowServiceAccount": "allow_service_account", "allowHostPath": "allow_host_path"}.get(
        setting, "allow_privileged"
    )
    assert refusals(patch, EVERYTHING.model_copy(update={own: False})) == found
    assert refusals(patch, PodTemplate(**{own: True})) == {}


def test_what_nobody_foresaw_goes() -> None:
    patch = {
        "metadata": {"labels": {"team": "ml"}, "annotations": {"karpenter.sh/do-not-disrupt": "false"}},
        "spec": {
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "volumes": [{"name": "fast", "emptyDir": {}}],
            "containers": [
                {
                    "name": "job",
                    "resources": {"limits": {"memory": "99Gi"}},
                    "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                    "volumeMounts": [{"name": "fast", "mountPath": "/fast"}],
                }
            ],
        },
    }
    for given in (plan(), amd_plan(nodes=2)):
        pod = template.template(context(given, podTemplate=patch))
        before = template.template(context(given))
        (job,) = pod["spec"]["containers"]
        assert pod["metadata"]["labels"] == {**before["metadata"]["labels"], "team": "ml"}
        assert pod["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "false"
        assert pod["spec"]["nodeSelector"] == {"zone": "a"}
        assert job["resources"]["limits"] == {
            **before["spec"]["containers"][0]["resources"]["limits"],
            "memory": "99Gi",
        }
        assert {"name": "NCCL_DEBUG", "value": "INFO"} in job["env"]
        assert job["args"] == before["spec"]["containers"][0]["args"]


def test_a_container_beside_ours_leaves_ours_as_it_is() -> None:
    """It stands first, as the API server has it: rules that look at containers[0] would look at the wrong one."""
    pod = template.template(context(podTemplate=spec(containers=[{"name": "side", "image": "x", "command": ["sh"]}])))
    assert [box["name"] for box in pod["spec"]["containers"]] == ["side", "job"]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_patch_is_a_named_error(name: str) -> None:
    patch, field = MALFORMED[name]
    assert list(refusals(patch)) == [field]


@pytest.mark.parametrize(
    "patch",
    [
        spec(securityContext=5), spec(volumes=None), spec(containers=None), container(securityContext="x"),
        container(securityContext={"capabilities": 3}), container(env=5), container(ports={"a": 1}),
        spec(volumes=["x"]), spec(volumes=[{"name": "v", "projected": 3}]), {"metadata": {"labels": None}},
        {"metadata": {"labels": "x"}}, {"metadata": None}, container(resources=7), container(env=[{"name": ["a"]}]),
        spec(volumes=[{"name": "v", "hostPath": 3}]), container(env=None), container(volumeMounts=None),
    ],
)  # fmt: skip
def test_no_patch_of_another_form_is_a_traceback(patch: dict[str, Any]) -> None:
    """Named here, or left to the API server's schema; what the operator relies on never goes missing."""
    found = refusals(patch, EVERYTHING)
    assert all(field.startswith(pod_template.FIELD) for field in found)
    if patch not in (spec(securityContext=5), container(securityContext="x")):
        assert found or "capabilities" in str(patch) or "projected" in str(patch) or "hostPath" in str(patch)
