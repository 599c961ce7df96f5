"""Where pods may run: each modifier alone."""

from typing import Any

from ltx2_operator import placement, pods, template
from ltx2_operator.gpus import find
from ltx2_operator.settings import Settings
from ltx2_operator.sizing import look_plan
from pod_parts import applied, container
from trainings import amd_plan, context, cpu_plan, plan


def test_device_of_nvidia() -> None:
    pod = applied(placement.device, context(plan(gpu_count=4)))
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
    pod = applied(placement.device, context(amd_plan(), Settings(amd_device_groups=(44, 993))))
    assert container(pod)["resources"]["limits"] == {"amd.com/gpu": "1"}
    assert pod["spec"]["tolerations"] == [{"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    keys = [term["matchExpressions"][0]["key"] for term in required["nodeSelectorTerms"]]
    assert keys == ["amd.com/gpu.product-name", "amd.com/gpu.device-id"]
    assert pod["spec"]["securityContext"]["supplementalGroups"] == [44, 993]


def test_device_of_the_class_cpu_is_none() -> None:
    assert applied(placement.device, context(cpu_plan())) == {"spec": {"containers": [{"name": "job"}]}}


def test_device_adds_to_what_stands_there() -> None:
    """Mutation caught: assigning instead of adding would drop memory limits and tolerations of other modifiers."""
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "job"}]}}
    given = context(amd_plan())
    for modify in (pods.restricted, pods.resources, placement.node_loss, placement.device):
        modify(pod, given)
    assert container(pod)["resources"]["limits"] == {"memory": "14Gi", "ephemeral-storage": "10Gi", "amd.com/gpu": "1"}
    assert len(pod["spec"]["tolerations"]) == 3
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_node_loss() -> None:
    tolerations = applied(placement.node_loss, context())["spec"]["tolerations"]
    assert {(t["key"], t["effect"], t["tolerationSeconds"]) for t in tolerations} == {
        ("node.kubernetes.io/unreachable", "NoExecute", 20),
        ("node.kubernetes.io/not-ready", "NoExecute", 20),
    }


def test_priority() -> None:
    assert "priorityClassName" not in applied(placement.priority, context())["spec"]
    for name in ("low", "high"):
        assert applied(placement.priority, context(priorityClassName=name))["spec"]["priorityClassName"] == name


def node_terms(pod: dict[str, Any]) -> list[dict[str, Any]]:
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    found: list[dict[str, Any]] = required["nodeSelectorTerms"]
    return found


def test_device_has_the_runtime_class_of_its_vendor() -> None:
    settings = Settings(runtime_class_names={"nvidia": "nvidia", "amd": "amd-ctr"})
    for given, name in ((plan(), "nvidia"), (amd_plan(), "amd-ctr"), (cpu_plan(), None)):
        assert applied(placement.device, context(given, settings))["spec"].get("runtimeClassName") == name
    assert "runtimeClassName" not in applied(placement.device, context())["spec"]


def test_other_nodes() -> None:
    """Every term says it: one that does not would be enough to land there."""
    assert applied(placement.other_nodes, context()) == {"spec": {"containers": [{"name": "job"}]}}
    given = context(amd_plan(), avoid=["gpu-a", "gpu-b"])
    pod = applied(placement.device, given)
    kept = [term["matchExpressions"] for term in node_terms(pod)]
    placement.other_nodes(pod, given)
    assert [term["matchExpressions"] for term in node_terms(pod)] == kept
    assert len(kept) == 2
    for term in node_terms(pod):
        assert [(one["key"], one["operator"], one["values"]) for one in term["matchFields"]] == [
            ("metadata.name", "NotIn", ["gpu-a"]), ("metadata.name", "NotIn", ["gpu-b"]),
        ]  # fmt: skip
    (alone,) = node_terms(applied(placement.other_nodes, context(cpu_plan(), avoid=["old"])))
    assert alone == {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["old"]}]}


def test_apart() -> None:
    """The pods of one attempt shun each other, not those of another attempt or run."""
    assert applied(placement.apart, context()) == {"spec": {"containers": [{"name": "job"}]}}
    for attempt in (1, 4):
        given = context(plan(nodes=2), attempt=attempt, nodes=2, avoid=["gpu-a"])
        pod = applied(placement.apart, given)
        (term,) = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"] == {
            "ltx2.dev/uid": "0a1b-2c3d", "ltx2.dev/stage": "train", "ltx2.dev/attempt": str(attempt),
        }  # fmt: skip
        placement.other_nodes(pod, given)
        placement.device(pod, given)
        assert set(pod["spec"]["affinity"]) == {"nodeAffinity", "podAntiAffinity"}


def test_undisturbed() -> None:
    given = context()
    pod = applied(pods.metadata, given)
    placement.undisturbed(pod, given)
    assert pod["metadata"]["annotations"] == {
        "ltx2.dev/spec-hash": "d" * 64, "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true", "kubectl.kubernetes.io/default-container": "job",
    }  # fmt: skip


def test_near_gpus() -> None:
    """A look takes no GPU and no image for one, but prefers the nodes of the class that training will run on."""
    for given in (plan(), plan(stage="cache")):
        assert applied(placement.near_gpus, context(given)) == {"spec": {"containers": [{"name": "job"}]}}
    for given, resource in ((plan(stage="cache"), "nvidia.com/gpu"), (amd_plan(), "amd.com/gpu")):
        pod = template.template(context(look_plan(given), flavour="cuda"))
        assert resource not in container(pod)["resources"]["limits"]
        assert container(pod)["image"].startswith("ltx2/job-cpu:")
        assert container(pod)["args"][0] == "look"
        (one,) = pod["spec"]["affinity"].values()
        assert list(one) == ["preferredDuringSchedulingIgnoredDuringExecution"]
        required = find(given.gpu_class).affinity_terms()
        assert [entry["preference"] for entry in next(iter(one.values()))] == required
        assert resource in [entry["key"] for entry in pod["spec"]["tolerations"]]
    assert "affinity" not in template.template(context(look_plan(cpu_plan())))["spec"]
    assert container(template.template(context(look_plan(plan()), images={"cache": "own:1"})))["image"] == "own:1"
