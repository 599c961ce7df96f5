"""Each modifier of the pod template alone: what it adds, and that it follows a second value."""

from collections.abc import Callable
from typing import Any

import pytest

from ltx2_operator import pods
from ltx2_operator.gpus import find
from ltx2_operator.pods import Context
from ltx2_operator.settings import Settings
from ltx2_operator.sizing import look_plan
from trainings import amd_plan, context, cpu_plan, plan

Modifier = Callable[[dict[str, Any], Context], None]


def applied(modify: Modifier, given: Context) -> dict[str, Any]:
    """The empty pod after one modifier."""
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "job"}]}}
    modify(pod, given)
    return pod


def container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def env(pod: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(pod).get("env", [])}


def mounts(pod: dict[str, Any]) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in container(pod)["volumeMounts"]}


@pytest.mark.parametrize(
    ("size", "text"), [(2**30, "1Gi"), (3 * 2**29, "1536Mi"), (2**41, "2Ti"), (1000, "1000"), (0, "0"), (2**10, "1Ki")]
)
def test_quantity_is_exact(size: int, text: str) -> None:
    assert pods.quantity(size) == text


def test_metadata() -> None:
    one = applied(pods.metadata, context())["metadata"]
    two = applied(pods.metadata, context(plan(stage="cache"), attempt=7))["metadata"]
    assert one["labels"]["ltx2.dev/training"] == "my-style"
    assert one["labels"]["ltx2.dev/uid"] == "0a1b-2c3d"
    assert (one["labels"]["ltx2.dev/stage"], one["labels"]["ltx2.dev/attempt"]) == ("train", "1")
    assert (two["labels"]["ltx2.dev/stage"], two["labels"]["ltx2.dev/attempt"]) == ("cache", "7")
    assert two["labels"]["app.kubernetes.io/component"] == "cache"
    assert one["annotations"] == {"ltx2.dev/spec-hash": "d" * 64}


def test_command() -> None:
    one, two = applied(pods.command, context()), applied(pods.command, context(plan(stage="cache"), attempt=3))
    assert container(one)["command"] == ["ltx2-job"]
    fixed = ["--files", "/etc/ltx2", "--workspace", "/workspace", "--run", "my-style", "--attempt"]
    assert container(one)["args"] == ["train", *fixed, "1"]
    assert container(two)["args"] == ["cache", *fixed, "3"]


def test_image_is_the_users_then_the_installations() -> None:
    settings = Settings(
        images={"cuda": "mine/cuda:2", "rocm": "mine/rocm:2", "cpu": "mine/cpu:2"}, image_pull_policy="Never"
    )
    assert container(applied(pods.command, context(settings=settings)))["image"] == "mine/cuda:2"
    assert container(applied(pods.command, context(amd_plan(), settings)))["image"] == "mine/rocm:2"
    assert container(applied(pods.command, context(settings=settings)))["imagePullPolicy"] == "Never"
    users = {"images": {"cache": "user/cache:1"}}
    assert container(applied(pods.command, context(plan(stage="cache"), settings, **users)))["image"] == "user/cache:1"
    assert container(applied(pods.command, context(settings=settings, **users)))["image"] == "mine/cuda:2"


def test_default_images_have_no_host_and_carry_the_version() -> None:
    assert set(Settings().images) == {"cuda", "rocm", "cpu"}
    assert Settings().images["rocm"].startswith("ltx2/job-rocm:")


def test_identity() -> None:
    one, two = env(applied(pods.identity, context())), env(applied(pods.identity, context(plan(nodes=2))))
    assert one["LTX2JOB_UID"] == "0a1b-2c3d"
    assert one["LTX2JOB_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert (one["LTX2JOB_NODES"], two["LTX2JOB_NODES"]) == ("1", "2")


def test_no_api_access() -> None:
    spec = applied(pods.no_api_access, context())["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_restricted_pod_security() -> None:
    """The whole list of the "restricted" standard: mutation caught, any one of them dropped."""
    pod = applied(pods.restricted, context())
    assert pod["spec"]["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_resources() -> None:
    one = applied(pods.resources, context())
    two = applied(
        pods.resources, context(plan(cpu_milli=12500, processes=4, memory_bytes=2**36, ephemeral_bytes=2**31))
    )
    limits = container(one)["resources"]["limits"]
    assert limits == {"memory": "14Gi", "ephemeral-storage": "10Gi"}
    assert container(one)["resources"]["requests"] == {"cpu": "6000m", **limits}
    assert container(two)["resources"]["limits"] == {"memory": "64Gi", "ephemeral-storage": "2Gi"}
    assert container(two)["resources"]["requests"]["cpu"] == "12500m"
    assert "cpu" not in container(two)["resources"]["limits"], "a CPU limit throttles the thread that launches kernels"
    assert (env(one)["OMP_NUM_THREADS"], env(two)["OMP_NUM_THREADS"]) == ("6", "3")
    assert env(applied(pods.resources, context(plan(cpu_milli=500))))["OMP_NUM_THREADS"] == "1"


def test_shared_memory() -> None:
    for size, text in ((2**28, "256Mi"), (2**32, "4Gi")):
        pod = applied(pods.shared_memory, context(plan(shm_bytes=size)))
        assert pod["spec"]["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": text}}]
        assert mounts(pod) == {"shm": "/dev/shm"}


def test_scratch() -> None:
    for size, text in ((2**30, "1Gi"), (5 * 2**30, "5Gi")):
        pod = applied(pods.scratch, context(plan(ephemeral_bytes=size)))
        assert pod["spec"]["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": text}}]
        assert mounts(pod) == {"tmp": "/tmp"}
        assert env(pod) == {"TMPDIR": "/tmp", "XDG_CACHE_HOME": "/tmp/cache", "MPLCONFIGDIR": "/tmp/matplotlib"}


def test_configuration_is_mounted_read_only() -> None:
    pod = applied(pods.configuration, context())
    (volume,) = pod["spec"]["volumes"]
    assert volume["configMap"]["name"] == "my-style-12345678"
    assert [item["key"] for item in volume["configMap"]["items"]] == ["config.json", "datasets.json", "plan.json"]
    assert container(pod)["volumeMounts"] == [{"name": "config", "mountPath": "/etc/ltx2", "readOnly": True}]


def test_workspace() -> None:
    pod = applied(pods.workspace, context())
    assert pod["spec"]["volumes"] == [{"name": "workspace", "persistentVolumeClaim": {"claimName": "my-style-data"}}]
    assert mounts(pod) == {"workspace": "/workspace"}


def test_device_of_nvidia() -> None:
    pod = applied(pods.device, context(plan(gpu_count=4)))
    assert container(pod)["resources"] == {"requests": {"nvidia.com/gpu": "4"}, "limits": {"nvidia.com/gpu": "4"}}
    assert pod["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    (match,) = term["matchExpressions"]
    assert (match["key"], match["operator"]) == ("nvidia.com/gpu.product", "In")
    assert "NVIDIA-H100-80GB-HBM3" in match["values"]
    assert "supplementalGroups" not in pod["spec"].get("securityContext", {})


def test_device_of_amd() -> None:
    """Either label of AMD's labeller will do, and the groups that own the device files are joined."""
    pod = applied(pods.device, context(amd_plan(), Settings(amd_device_groups=(44, 993))))
    assert container(pod)["resources"]["limits"] == {"amd.com/gpu": "1"}
    assert pod["spec"]["tolerations"] == [{"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    keys = [term["matchExpressions"][0]["key"] for term in required["nodeSelectorTerms"]]
    assert keys == ["amd.com/gpu.product-name", "amd.com/gpu.device-id"]
    assert pod["spec"]["securityContext"]["supplementalGroups"] == [44, 993]


def test_device_of_the_class_cpu_is_none() -> None:
    assert applied(pods.device, context(cpu_plan())) == {"spec": {"containers": [{"name": "job"}]}}


def test_device_adds_to_what_stands_there() -> None:
    """Mutation caught: assigning instead of adding would drop memory limits and tolerations of other modifiers."""
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "job"}]}}
    given = context(amd_plan())
    for modify in (pods.restricted, pods.resources, pods.node_loss, pods.device):
        modify(pod, given)
    assert container(pod)["resources"]["limits"] == {"memory": "14Gi", "ephemeral-storage": "10Gi", "amd.com/gpu": "1"}
    assert len(pod["spec"]["tolerations"]) == 3
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_node_loss() -> None:
    tolerations = applied(pods.node_loss, context())["spec"]["tolerations"]
    assert {(t["key"], t["effect"], t["tolerationSeconds"]) for t in tolerations} == {
        ("node.kubernetes.io/unreachable", "NoExecute", 20),
        ("node.kubernetes.io/not-ready", "NoExecute", 20),
    }


def test_ending() -> None:
    one = applied(pods.ending, context())
    two = applied(pods.ending, context(settings=Settings(grace_seconds=300, grace_margin_seconds=15)))
    assert one["spec"]["restartPolicy"] == "Never"
    assert one["spec"]["terminationGracePeriodSeconds"] == 150
    assert two["spec"]["terminationGracePeriodSeconds"] == 315
    assert (env(one)["LTX2JOB_GRACE_SECONDS"], env(two)["LTX2JOB_GRACE_SECONDS"]) == ("120", "300")
    assert container(one)["terminationMessagePath"] == env(one)["LTX2JOB_TERMINATION_LOG"] == "/dev/termination-log"
    assert container(one)["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_metrics() -> None:
    for port in (9464, 8080):
        pod = applied(pods.metrics, context(settings=Settings(metrics_port=port)))
        assert container(pod)["ports"] == [{"name": "metrics", "containerPort": port, "protocol": "TCP"}]
        assert env(pod) == {"LTX2JOB_PORT": str(port)}


def test_rendezvous() -> None:
    assert applied(pods.rendezvous, context()) == {"spec": {"containers": [{"name": "job"}]}}
    for attempt in (1, 12):
        pod = applied(pods.rendezvous, context(plan(nodes=2), attempt=attempt, nodes=2))
        assert pod["spec"]["subdomain"] == "my-style-peers"
        assert env(pod) == {"LTX2JOB_MASTER_ADDR": f"my-style-train-{attempt}-0.my-style-peers"}


def test_near_gpus() -> None:
    """A look takes no GPU and no image for one, but prefers the nodes of the class that training will run on."""
    for given in (plan(), plan(stage="cache")):
        assert applied(pods.near_gpus, context(given)) == {"spec": {"containers": [{"name": "job"}]}}
    for given, resource in ((plan(stage="cache"), "nvidia.com/gpu"), (amd_plan(), "amd.com/gpu")):
        pod = pods.template(context(look_plan(given), flavour="cuda"))
        assert resource not in container(pod)["resources"]["limits"]
        assert container(pod)["image"].startswith("ltx2/job-cpu:")
        assert container(pod)["args"][0] == "look"
        (one,) = pod["spec"]["affinity"].values()
        assert list(one) == ["preferredDuringSchedulingIgnoredDuringExecution"]
        required = find(given.gpu_class).affinity_terms()
        assert [entry["preference"] for entry in next(iter(one.values()))] == required
        assert resource in [entry["key"] for entry in pod["spec"]["tolerations"]]
    assert "affinity" not in pods.template(context(look_plan(cpu_plan())))["spec"]
    assert container(pods.template(context(look_plan(plan()), images={"cache": "own:1"})))["image"] == "own:1"


def test_hub_token() -> None:
    assert env(applied(pods.hub_token, context())) == {}
    for given, key in (({"name": "hub"}, "token"), ({"name": "hub", "key": "HF"}, "HF")):
        pod = applied(pods.hub_token, context(secrets={"hubToken": given}))
        assert env(pod) == {"HF_TOKEN": {"secretKeyRef": {"name": "hub", "key": key}}}


def test_priority() -> None:
    assert "priorityClassName" not in applied(pods.priority, context())["spec"]
    for name in ("low", "high"):
        assert applied(pods.priority, context(priorityClassName=name))["spec"]["priorityClassName"] == name


def test_every_modifier_is_in_the_list_once_and_tested() -> None:
    """Mutation caught: a modifier that is written and tested but never applied."""
    named = {
        name for name, value in vars(pods).items()
        if callable(value) and getattr(value, "__annotations__", {}).get("pod") is not None and not name.startswith("_")
    }  # fmt: skip
    assert named == {modify.__name__ for modify in pods.MODIFIERS}
    assert len(pods.MODIFIERS) == len(set(pods.MODIFIERS))
    tests = " ".join(name for name in globals() if name.startswith("test_"))
    assert [modify.__name__ for modify in pods.MODIFIERS if modify.__name__ not in tests] == []


@pytest.mark.parametrize(
    "given", [plan(), plan(stage="cache"), plan(nodes=2), amd_plan(), cpu_plan(), look_plan(plan())]
)
def test_args_and_env_name_only_mount_paths(given: Any) -> None:
    """What a run on one machine relies on: it replaces the mount paths and nothing else."""
    pod = pods.template(context(given, nodes=2))
    allowed = tuple(mounts(pod).values())
    paths = [text for text in [*container(pod)["args"], *map(str, env(pod).values())] if text.startswith("/")]
    assert paths
    strays = [path for path in paths if not path.startswith(allowed) and path != "/dev/termination-log"]
    assert strays == []


def test_env_names_are_unique() -> None:
    names = [entry["name"] for entry in container(pods.template(context(plan(nodes=2), nodes=2)))["env"]]
    assert len(names) == len(set(names))


def test_templates_do_not_share_parts() -> None:
    """Mutation caught: a constant dict put into two pods, so that changing one changes the other."""
    one, two = pods.template(context(amd_plan())), pods.template(context(amd_plan()))
    one["spec"]["securityContext"]["runAsUser"] = 0
    one["spec"]["affinity"]["nodeAffinity"].clear()
    assert two["spec"]["securityContext"]["runAsUser"] == 65532
    assert two["spec"]["affinity"]["nodeAffinity"]
