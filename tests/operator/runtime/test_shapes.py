"""What is kept of objects: all that a look reads, and nothing else."""

import json
import subprocess
import sys

import pytest

from ltx2_operator.runtime import shapes
from ltx2_operator.runtime.kinds import JOBS, NODES, PODS, TRAININGS

LABELS = {"ltx2.dev/training": "fox", "ltx2.dev/uid": "u", "batch.kubernetes.io/controller-uid": "j"}
ASKED = {"name": "job", "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}}}
ENDED = {"name": "job", "image": "i", "state": {"terminated": {"exitCode": 65, "message": "{}"}}}


def metadata(**more):
    """As a server sends it."""
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "ltx2.dev/data-uploaded": "now"}
    return {
        "name": "fox", "uid": "u", "resourceVersion": "5", "managedFields": [1], "ownerReferences": [1],
        "annotations": annotations, **more,
    }  # fmt: skip


KEPT = {"name": "fox", "uid": "u", "resourceVersion": "5"}


@pytest.mark.parametrize(
    ("kind", "sent", "kept"),
    [
        (
            TRAININGS,
            {
                "metadata": metadata(generation=3), "spec": {"config": {"a": [1, 2.5, None]}}, "status": {"attempt": 1},
                "specs": 1,
            },
            {
                "specs": 1,  # beside spec: the operator names it where no policy has refused it
                "metadata": {**KEPT, "generation": 3, "annotations": {"ltx2.dev/data-uploaded": "now"}},
                "spec": {"config": {"a": [1, 2.5, None]}}, "status": {"attempt": 1},
            },
        ),
        (
            JOBS,
            {
                "metadata": metadata(labels={**LABELS, "other": "x"}), "status": {"conditions": [{"type": "Failed"}]},
                "spec": {"template": {}, "podFailurePolicy": {}, "suspend": True, "parallelism": 2},
            },
            {
                "metadata": {**KEPT, "labels": LABELS}, "status": {"conditions": [{"type": "Failed"}]},
                "spec": {"suspend": True, "parallelism": 2},
            },
        ),
        (
            PODS,
            {
                "metadata": metadata(labels=LABELS, deletionTimestamp="t", deletionGracePeriodSeconds=30),
                "spec": {"nodeName": "n", "volumes": [1], "containers": [{**ASKED, "image": "i", "env": [1]}]},
                "status": {
                    "phase": "Failed", "podIP": "1", "qosClass": "Burstable",
                    "conditions": [{"type": "DisruptionTarget", "status": "True", "lastProbeTime": None}],
                    "containerStatuses": [{**ENDED, "imageID": "sha256:1"}],
                },
            },
            {
                "metadata": {**KEPT, "labels": LABELS, "deletionTimestamp": "t", "deletionGracePeriodSeconds": 30},
                "spec": {"nodeName": "n", "containers": [ASKED]},
                "status": {
                    "phase": "Failed", "podIP": "1", "containerStatuses": [ENDED],
                    "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            },
        ),
        (
            NODES,
            {
                "metadata": metadata(labels={"gpu": "x"}), "spec": {"taints": [1]},
                "status": {"images": [1], "allocatable": {"nvidia.com/gpu": "8"}, "nodeInfo": {}},
            },
            {
                "metadata": {**KEPT, "labels": {"gpu": "x"}}, "spec": {"taints": [1]},
                "status": {"allocatable": {"nvidia.com/gpu": "8"}},
            },
        ),
    ],
    ids=["training", "job", "pod", "node"],
)  # fmt: skip
def test_a_list_a_watch_and_an_answer_keep_the_same(kind, sent, kept):
    listed, about = shapes.read_list(
        json.dumps({"kind": "List", "metadata": {"continue": "c"}, "items": [sent, sent]}).encode(), kind.shape
    )
    assert (listed, about) == ([kept, kept], {"continue": "c"})
    line = json.dumps({"type": "MODIFIED", "object": sent}).encode()
    assert shapes.read_event(line, kind.shape) == ("MODIFIED", kept)
    assert kind.kept(sent) == {**kept, "kind": kind.kind, "apiVersion": kind.api_version}


def test_what_is_missing_or_null_stays_so():
    bare = {"metadata": {"name": "p", "labels": None}, "status": {"containerStatuses": None}}
    assert shapes.read_list(json.dumps({"items": [bare]}).encode(), PODS.shape) == ([bare], {})
    assert shapes.read_list(b'{"items": null, "metadata": {}}', PODS.shape) == ([], {})


def test_an_error_in_a_watch_is_whole_and_nonsense_is_an_error():
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    line = json.dumps({"type": "ERROR", "object": status}).encode()
    assert shapes.read_event(line, PODS.shape) == ("ERROR", status)
    for wrong in (b"<html>", b"[]", b'{"items": 5}'):
        with pytest.raises(ValueError):
            shapes.read_list(wrong, PODS.shape)


def test_equal_texts_of_different_objects_are_one():
    """Thousands of trainings say the same in most places."""
    sent = {"metadata": {"name": "a"}, "spec": {"config": {"keys": [["a longer text", {"deep": "of its own"}]]}}}
    text = json.dumps({"items": [sent, sent]}).encode()
    (one, other), _ = shapes.read_list(text, TRAININGS.shape)
    _, third = shapes.read_event(json.dumps({"type": "ADDED", "object": sent}).encode(), TRAININGS.shape)
    fourth = TRAININGS.kept(json.loads(json.dumps(sent)))
    for found in (one, other, third, fourth):
        assert found["spec"] == sent["spec"]
        words, deep = found["spec"]["config"]["keys"][0]
        assert words is one["spec"]["config"]["keys"][0][0]
        assert deep["deep"] is one["spec"]["config"]["keys"][0][1]["deep"]


@pytest.mark.parametrize("kind", [TRAININGS, JOBS, PODS, NODES])
def test_a_bookmark_of_the_server_is_read(kind):
    """Its object is empty, and what a pod must have is null in it: a watch must not break off at each of them."""
    body = {"kind": kind.kind, "metadata": {"resourceVersion": "7", "creationTimestamp": None},
            "spec": {"containers": None, "template": {"spec": {"containers": None}}}, "status": {}}  # fmt: skip
    what, found = shapes.read_event(json.dumps({"type": "BOOKMARK", "object": body}).encode(), kind.shape)
    assert what == "BOOKMARK" and found["metadata"]["resourceVersion"] == "7"


def test_texts_that_nobody_says_any_more_are_let_go():
    """An operator reads new ones for months, and a text that was interned stays for ever in some versions of Python."""
    first = PODS.kept({"metadata": {"name": "gone-0"}})["metadata"]["name"]
    alone = "-".join(["gone", "0"])
    assert sys.intern(alone) is alone is not first  # no equal text has been interned before
    for number in range(2**16 + 500):
        PODS.kept({"metadata": {"name": f"gone-{number}"}})
    assert shapes._the_one.cache_info().currsize <= 2**16


def test_a_long_text_is_not_held():
    before = shapes._the_one.cache_info()
    PODS.kept({"metadata": {"name": "x" * (shapes.SHARED_MOST + 1)}})
    assert shapes._the_one.cache_info() == before
    PODS.kept({"metadata": {"name": "x" * shapes.SHARED_MOST}})
    assert shapes._the_one.cache_info() != before


READS_ALL = """
import json
from ltx2_operator.runtime import kinds, shapes

def built(*_):
    raise SystemExit("a decoder was built")

shapes.msgspec.json.Decoder = built
body = {"kind": "Any", "metadata": {"name": "fox"}}
every = [one for one in vars(kinds).values() if isinstance(one, kinds.Kind)]
for kind in every:
    assert shapes.read_list(json.dumps({"items": [body]}).encode(), kind.shape)[0] == [body]
    for what in ("ADDED", "ERROR"):
        assert shapes.read_event(json.dumps({"type": what, "object": body}).encode(), kind.shape) == (what, body)
print(len(every))
"""


def test_threads_that_read_build_no_decoders():
    """Catches: decoders that share a part, built by several watches at once: one process in 300 ended (SIGSEGV)."""
    done = subprocess.run([sys.executable, "-c", READS_ALL], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert int(done.stdout) > 10
