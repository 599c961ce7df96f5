"""What the scheduler lacks: its words, as a 1.36 writes them, and what must be said with them."""

import pytest

from ltx2_operator.pods import quantity_value
from ltx2_operator.runtime.kinds import NODES, PODS
from ltx2_operator.scheduling import Unplaced, short_of_gpus, why_unplaced

H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
PLAN = {"gpuClass": "h100-80g", "resourceName": "nvidia.com/gpu", "gpuCount": 2, "nodes": 1}
NO_GPU = {"gpuClass": "cpu", "resourceName": None, "gpuCount": 0, "nodes": 1}
TAIL = " no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."


def node(gpus=8, labels=None, **allocatable):
    """As much of a node as the operator keeps."""
    offered = {"nvidia.com/gpu": str(gpus), "memory": "65970024Ki", "cpu": "15500m", **allocatable}
    body = {"metadata": {"labels": H100 if labels is None else labels}, "status": {"allocatable": offered}}
    return NODES.kept(body)


def pod(**requests):
    named = {key.replace("_", "-"): value for key, value in requests.items()}
    return PODS.kept({"spec": {"containers": [{"name": "other"}, {"name": "job", "resources": {"requests": named}}]}})


def said(text, nodes=None, plan=PLAN, **requests):
    return why_unplaced(Unplaced(pod(**requests), f"0/2 nodes are available: {text}.{TAIL}", nodes, plan))


def test_gpus_that_others_hold_are_waited_for():
    words = said("2 Insufficient nvidia.com/gpu", [node(), node()])
    assert words == (
        "2 nodes offer nvidia.com/gpu but none has 2 free; or make a new LTX2Training with gpu.count: 1; "
        "the scheduler: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    )
    one = said("2 Insufficient nvidia.com/gpu", [node(), node(labels={})], {**PLAN, "gpuCount": 1})
    assert one.startswith("1 node offers nvidia.com/gpu but none has 1 free; the scheduler: ")
    assert said("2 Insufficient nvidia.com/gpu").startswith("no node has 2 x nvidia.com/gpu free; or ")


@pytest.mark.parametrize(
    ("plan", "nodes", "words"),
    [
        ({"gpuCount": 16}, [node(8), node(4)], "no node of this cluster has 16 x nvidia.com/gpu of"),
        ({"gpuCount": 16}, [node(8), node(4)], "at most 8 each: it waits for one to be added; or make a new"),
        ({"gpuCount": 16}, [node(8), node(4)], "LTX2Training with gpu.count: 8"),
        ({"nodes": 3}, [node(8), node(2), node(1)], "2 of the 3 nodes that spec.nodes asks for exist with 2 x"),
        ({}, [node(labels={})], "no node offers nvidia.com/gpu of class h100-80g now; a pool that grows from zero may"),
        ({}, [], "no node offers nvidia.com/gpu"),
    ],
)  # fmt: skip
def test_gpus_that_the_cluster_does_not_have_are_told_before_and_while_waiting(plan, nodes, words):
    """Mutations caught: counting GPUs of another class, or of nodes that are too small."""
    assert words in short_of_gpus(PLAN | plan, nodes)
    assert words in said("2 Insufficient nvidia.com/gpu", nodes, PLAN | plan)


def test_nothing_is_lacking_where_the_cluster_has_it_or_is_not_known():
    assert short_of_gpus(PLAN, [node(2)]) == short_of_gpus(PLAN, None) == short_of_gpus(NO_GPU, []) == ""
    assert short_of_gpus({**PLAN, "nodes": 2}, [node(2), node(8)]) == ""


@pytest.mark.parametrize(
    ("resource", "asked", "words"),
    [
        ("memory", "48Gi", "no node that would do has 48Gi of memory free: wait until other pods have ended, or"),
        (
            "memory",
            "80Gi",
            "no node that would do has 80Gi of memory, at most 62.9Gi for all its pods: add a",
        ),
        ("cpu", "16000m", "no node that would do has 16000m CPU, at most 15.5 for all its pods: add a larger node, or"),
        ("cpu", "8", "no node that would do has 8 CPU free: wait until"),
        ("ephemeral-storage", "3Gi", "has 3Gi of scratch disk (ephemeral-storage), at most 2.0Gi for all its pods"),
        ("example.com/nic", "1", "no node that would do has 1 of example.com/nic, at most 0 for all its pods"),
    ],
)
def test_a_lack_of_anything_else_is_never_called_one_of_gpus(resource, asked, words):
    """The defect that this module replaced: two free GPUs, too little memory, and "none has 2 free"."""
    nodes = [node(**{"ephemeral-storage": "2Gi"}), node(labels={}, memory="999Gi", cpu="99")]
    found = said(f"1 Insufficient {resource}, 1 node(s) didn't match Pod's node affinity/selector", nodes,
                 **{resource: asked})  # fmt: skip
    assert words in found
    assert "GPU" not in found and "nvidia.com/gpu" not in found and "labels" not in found
    key = f"spec.podTemplate.spec.containers[name=job].resources.requests.{resource}"
    assert f"ask for less with {key} (it may change while spec.suspend is true)" in found
    assert "the scheduler: 0/2 nodes are available: 1 Insufficient" in found and "preemption" not in found


def asking(name, memory=None, **more):
    """A container that asks for this much memory."""
    return {"name": name, "resources": {"requests": {"memory": memory} if memory else {}}, **more}


def sidecar(name, memory):
    return asking(name, memory, restartPolicy="Always")


@pytest.mark.parametrize(
    ("containers", "init", "overhead", "words", "where"),
    [
        ([asking("job", "48Gi"), asking("proxy", "2Gi")], [], None, "50.0Gi of memory for", "containers[name=job]"),
        ([asking("job", "1Gi"), asking("proxy", "50Gi")], [], None, "51.0Gi of memory for", "containers[name=proxy]"),
        ([asking("job"), asking("proxy", "50Gi")], [], None, "50Gi of memory free", "containers[name=proxy]"),
        ([asking("job", "40Gi")], [sidecar("mesh", "8Gi")], None, "48.0Gi of memory for", "containers[name=job]"),
        ([asking("job", "4Gi")], [sidecar("mesh", "8Gi")], None, "12.0Gi of memory for", "initContainers[name=mesh]"),
        ([asking("job", "40Gi")], [asking("copy", "8Gi")], None, "40Gi of memory free", "containers[name=job]"),
        ([asking("job", "20Gi"), asking("b", "20Gi")], [asking("copy", "30Gi")], None, "40.0Gi of memory for",
         "containers[name=job]"),
        ([asking("job", "4Gi")], [asking("copy", "8Gi")], None, "8Gi of memory free", "initContainers[name=copy]"),
        ([asking("job", "4Gi")], [sidecar("mesh", "1Gi"), asking("copy", "8Gi"), sidecar("late", "2Gi")], None,
         "9.0Gi of memory for the pod's containers together", "initContainers[name=copy]"),
        ([asking("job", "40Gi")], [], {"memory": "512Mi"}, "40.5Gi of memory for the pod's", "containers[name=job]"),
    ],
)  # fmt: skip
def test_a_pod_asks_for_what_the_scheduler_adds_up(containers, init, overhead, words, where):
    """Catches: 48Gi told where 50Gi were lacking, and the wrong container to make smaller."""
    body = PODS.kept({"spec": {"containers": containers, "initContainers": init, "overhead": overhead}})
    found = why_unplaced(Unplaced(body, "0/1 nodes are available: 1 Insufficient memory.", [node()], PLAN))
    assert f"no node that would do has {words}" in found
    assert f"ask for less with spec.podTemplate.spec.{where}.resources.requests.memory (" in found


def test_what_fits_no_node_only_with_its_sidecar_is_told_as_such():
    body = PODS.kept({"spec": {"containers": [asking("job", "60Gi"), asking("proxy", "10Gi")]}})
    found = why_unplaced(Unplaced(body, "0/1 nodes are available: 1 Insufficient memory.", [node()], PLAN))
    assert "70.0Gi of memory for the pod's containers together, at most 62.9Gi for all its pods: add a larger" in found


def test_a_resource_that_nobody_is_known_to_ask_for_is_no_gap_in_the_sentence():
    assert said("1 Insufficient memory", [node()]).startswith("no node that would do has enough memory free: wait")


def test_two_things_that_are_lacking_are_both_named():
    found = said("1 Insufficient cpu, 1 Insufficient memory, 2 Insufficient nvidia.com/gpu", [node(), node()],
                 cpu="8", memory="48Gi")  # fmt: skip
    assert "8 CPU free" in found and "48Gi of memory free" in found and "none has 2 free" in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2 node(s) had untolerated taint(s)", "spec.podTemplate.spec.tolerations"),
        ("2 node(s) had untolerated taint {team: video}", "spec.podTemplate.spec.tolerations"),
        ("2 node(s) were unschedulable", "kubectl uncordon"),
        ("1 node(s) had volume node affinity conflict, 1 Insufficient memory", "the volume lies where none"),
        ("2 node(s) exceed max volume count", "as many volumes as they may"),
        ("2 node(s) didn't match pod anti-affinity rules", "a node of its own"),
        ("2 Too many pods", "as many pods as they may"),
        ("2 node(s) didn't match Pod's node affinity/selector", "nodeSelector and affinity of spec.podTemplate"),
    ],
)
def test_what_else_keeps_a_pod_from_a_node_has_its_remedy(text, words):
    found = said(text, [node(), node()], memory="1Gi")
    assert words in found and text in found


def tainted(name, *taints, **labels):
    body = node(**labels)
    body["metadata"]["name"] = name
    body["spec"] = {"taints": [dict(zip(("key", "value", "effect"), one, strict=True)) for one in taints]}
    return body


def kept_away(nodes, *tolerations):
    body = PODS.kept({"spec": {"containers": [{"name": "job"}], "tolerations": list(tolerations)}})
    text = "0/3 nodes are available: 3 node(s) had untolerated taint(s)."
    return why_unplaced(Unplaced(body, text, nodes, PLAN)).removesuffix(f"; the scheduler: {text}")


def test_taints_that_keep_a_pod_away_are_named_with_what_tolerates_them():
    team, spot = ("team", "video", "NoSchedule"), ("spot", "", "NoExecute")
    nodes = [tainted("a", team), tainted("b", spot, team), tainted("other", ("arm", "", "NoSchedule"), labels={})]
    said = "nodes that would do have a taint that the pod does not tolerate"
    remedy = "spec.podTemplate.spec.tolerations, or take the taint away"
    video = "team=video:NoSchedule on a and 1 more: add {key: team, operator: Equal, value: video, effect: NoSchedule}"
    alone = "spot:NoExecute on b: add {key: spot, operator: Exists, effect: NoExecute}"
    assert kept_away(nodes) == f"{said}; {alone} to {remedy}; {video} to {remedy}"
    assert kept_away(nodes, {"key": "team", "value": "video"}) == f"{said}; {alone} to {remedy}"
    assert kept_away(nodes, {"key": "spot", "operator": "Exists"}) == f"{said}; {video} to {remedy}"
    assert kept_away(nodes, {"operator": "Exists"}) == kept_away([]) == f"{said}: add a toleration to {remedy}"


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": "team", "value": "audio"},
        {"key": "team", "operator": "Exists", "effect": "NoExecute"},
        {"key": "crew", "operator": "Exists"},
        {"key": "team", "value": "video", "effect": "PreferNoSchedule"},
    ],
)
def test_a_toleration_of_something_else_does_not_help(toleration):
    assert "team=video:NoSchedule on a" in kept_away([tainted("a", ("team", "video", "NoSchedule"))], toleration)


def test_a_taint_that_the_cluster_set_is_about_the_node_and_not_to_be_tolerated():
    pressure = ("node.kubernetes.io/disk-pressure", "", "NoSchedule")
    cordoned = ("node.kubernetes.io/unschedulable", "", "NoSchedule")
    rather = ("team", "video", "PreferNoSchedule")
    found = kept_away([tainted("a", pressure, rather), tainted("b", cordoned)])
    assert found.endswith(
        "does not tolerate; node.kubernetes.io/disk-pressure:NoSchedule on a, which says what is wrong with the node: "
        "see `kubectl describe node a`"
    )


def test_a_class_that_no_node_is_of_is_told_where_affinity_is_all_that_is_wrong():
    text = "2 node(s) didn't match Pod's node affinity/selector"
    assert "no node offers nvidia.com/gpu of class h100-80g now" in said(text, [node(labels={})])
    assert "spec.podTemplate ask for" in said(text, [node(labels={})], NO_GPU)


def test_words_that_nobody_knows_stand_alone():
    assert why_unplaced(Unplaced({}, "gated by example.com/gate", None, None)) == "gated by example.com/gate"


@pytest.mark.parametrize(
    ("text", "value"), [("250m", 0.25), ("8", 8), ("1Ki", 1024), ("1.5Gi", 1.5 * 2**30), ("2G", 2e9), ("x", 0), ("", 0)]
)
def test_quantities_are_read(text, value):
    assert quantity_value(text) == value
