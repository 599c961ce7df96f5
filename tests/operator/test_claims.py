"""`ltx2 ls --claim`: what a pod says of a claim's runs, beside the objects that are left. The pod is a process here."""

import contextlib
import json
from pathlib import Path

import pytest

from ltx2_job import history
from ltx2_job.errors import AuthError, NoInputError
from ltx2_job.workspace import RunFolder
from ltx2_operator.cli import claims, main
from ltx2_operator.remote import pod
from ltx2_operator.runtime.client import NotFound
from peers import Peer
from trainings import manifest

OWNER = {"metadata": {"name": "fox", "uid": "uid-1"}}
JOBS = "/apis/batch/v1/namespaces/film/jobs"
TRAININGS = "/apis/ltx2.dev/v1alpha1/namespaces/film/ltx2trainings"


class FakeCluster:
    """What is asked of the API server, by path; `refused` may not be read."""

    def __init__(self, trainings=(), jobs=(), refused=()):
        self.namespace = "film"
        self.items, self.refused, self.queries = {TRAININGS: list(trainings), JOBS: list(jobs)}, refused, []

    def get(self, path, query=None):
        if path in self.refused:
            raise AuthError("you may not")
        self.queries.append((query or {}).get("labelSelector"))
        found = self.items[path]
        if path == JOBS and "=" in query["labelSelector"]:
            key, _, value = query["labelSelector"].partition("=")
            found = [one for one in found if one["metadata"]["labels"][key] == value]
        return {"items": found}


def job(name, image, created):
    labels = {"ltx2.dev/training": name}
    template = {"spec": {"containers": [{"name": "job", "image": image}], "imagePullSecrets": [{"name": f"of-{name}"}]}}
    return {"metadata": {"labels": labels, "creationTimestamp": created}, "spec": {"template": template}}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The claim `films`: a finished run, and one that was broken."""
    for name in ("fox", "hen"):
        run = RunFolder(tmp_path / "volume/runs" / name)
        run.root.mkdir(parents=True)
        run.config.write_text(json.dumps({"max_train_steps": 40}))
        begun = history.entry("TrainingStarted", "uid-1", 1, "train", gpuClass="cpu", memory="fp32/resident/keep:48")
        history.append(run, [begun])
        if name == "fox":
            run.result.write_text(json.dumps({"steps": 40, "finalLoss": 0.25, "heldOutLoss": {"end": 0.5}}))
            history.append(run, [history.ended("uid-1", 1, "train", 0, "done", 40)])
    return tmp_path / "volume"


@pytest.fixture
def ls(volume, monkeypatch, capfd):
    """`ltx2 ls` of a cluster with these objects; returns what it printed. bodies: the pods that were asked for."""

    def typed(cluster, *words, code=0):
        @contextlib.contextmanager
        def command(cluster, body, job_words, bar, claim):
            bodies.append(body)
            peer = Peer(*job_words, "--workspace", str(volume))
            yield peer
            peer.end()

        monkeypatch.setattr(claims, "cluster_of", lambda args: cluster)
        monkeypatch.setattr(claims, "command", command)
        assert main(["ls", *words]) == code
        out, err = capfd.readouterr()
        return out if code == 0 else err

    bodies: list[dict] = []
    typed.bodies = bodies
    return typed


def training(name, claim, **status):
    obj = manifest(name, status, storage={"claimName": claim})
    obj["metadata"]["uid"] = "uid-1"
    return obj


def test_runs_whose_objects_are_gone_are_listed(ls):
    rows = [line.split() for line in ls(FakeCluster(), "--claim", "films").splitlines()]
    assert rows[0] == ["NAME", "STATE", "PROGRESS", "LOSS", "HELD-OUT", "AGE"]
    assert [row[:5] for row in rows[1:]] == [
        ["fox", "Succeeded", "40/40", "0.2500", "0.5000"], ["hen", "Unfinished", "-", "-", "-"],
    ]  # fmt: skip
    (body,) = ls.bodies
    assert body["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "films"}
    assert body["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] is True
    assert body["metadata"]["name"].startswith("films-transfer-") and "ownerReferences" not in body["metadata"]


def test_an_object_that_is_left_says_the_state_of_its_own_run(ls):
    """Catches: the state of a namesake on another claim, a result that an older state hides."""
    trainings = [
        training("hen", "films", state="Running", progressText="7/40"),
        training("fox", "films", state="Running"),
        {"metadata": {"name": "odd"}, "spec": {"storage": 3}},
    ]
    out = ls(FakeCluster(trainings), "--claim", "films")
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["fox", "Succeeded", "40/40"],
        ["hen", "Running", "7/40"],
    ]
    elsewhere = [training("hen", "others", state="Running")]
    assert ls(FakeCluster(elsewhere), "--claim", "films").splitlines()[2].split()[1] == "Unfinished"
    assert "Unfinished" in ls(FakeCluster(refused=(TRAININGS, JOBS)), "--claim", "films")


@pytest.mark.parametrize("reason", ["HostOutOfMemory", "DeadlineExceeded"])
def test_the_history_of_one_run_has_the_verdicts_of_its_object(ls, reason):
    """The last one, which no pod could write any more. Without the object it is not known."""
    last = {
        "attempt": 1,
        "stage": "Train",
        "action": "Fail",
        "reason": reason,
        "message": "why",
        "time": "2026-11-22T10:00:00Z",
    }
    out = ls(FakeCluster([training("hen", "films", state="Failed", attempts=[last])]), "--claim", "films", "hen")
    assert "fox" not in out
    told = [line.split(maxsplit=3)[3] for line in out.splitlines()[4:]]
    assert told == ["TrainingStarted: cpu, fp32/resident/keep:48", f"operator: Fail, {reason}: why"]
    assert reason not in ls(FakeCluster(), "--claim", "films", "hen")


def test_a_run_that_is_not_there_and_a_claim_without_runs(ls, volume):
    said = ls(FakeCluster(), "--claim", "films", "cow", code=66)
    assert "claim films: no run cow lies on it; `ltx2 ls --claim films` lists those that do" in said
    for path in (volume / "runs").iterdir():
        path.rename(volume / path.name)
    assert ls(FakeCluster(), "--claim", "films") == "claim films: no run lies on it yet\n"


def test_the_pod_is_as_the_newest_job_of_the_run_or_else_of_any(ls):
    """Catches: an image of our name, which a private registry does not have, once a run's Jobs are gone."""
    jobs = [
        job("hen", "lan/job:1", "2026-11-22T10:00:00Z"),
        job("hen", "lan/job:2", "2026-11-22T11:00:00Z"),
        job("fox", "lan/job:3", "2026-11-22T12:00:00Z"),
    ]
    for words, image in ((("hen",), "lan/job:2"), ((), "lan/job:3"), (("--image", "mine:1"), "mine:1")):
        ls(FakeCluster(jobs=jobs), "--claim", "films", *words)
        assert ls.bodies[-1]["spec"]["containers"][0]["image"] == image
    ls(FakeCluster(jobs=jobs[:1]), "--claim", "films", "fox")
    assert ls.bodies[-1]["spec"]["containers"][0]["image"] == "lan/job:1"
    assert ls.bodies[-1]["spec"]["imagePullSecrets"] == [{"name": "of-hen"}]
    ls(FakeCluster(), "--claim", "films")
    assert ls.bodies[-1]["spec"]["containers"][0]["image"].startswith("ltx2/job-cpu:")


def test_a_claim_that_a_user_names_is_not_waited_for(monkeypatch):
    """Nobody makes it. Catches: a minute of silence for a typo; one that the operator makes is waited for."""

    class Empty(FakeCluster):
        def get(self, path, query=None):
            raise NotFound(404, "NotFound", path)

    monkeypatch.setattr(pod, "CLAIM_SECONDS", 0.0)
    said: list[str] = []
    for owner, words in ((None, "there is none in namespace film; `kubectl get pvc"), (OWNER, "the operator makes it")):
        body = pod.manifest("fox", "nope", pod.Source("x"), owner, read_only=True)
        with pytest.raises(NoInputError, match=words), pod.running(Empty(), body, said.append):
            pass


@pytest.mark.parametrize("about", ["a" * 39 + ".b", "a" * 62 + ".b", "films"])
def test_the_names_of_its_pod_are_valid(about):
    """A claim's name may be longer than a label, and may have dots where names are cut."""
    body = pod.manifest(about, about, pod.Source("x"), None, read_only=True)
    label = body["metadata"]["labels"]["ltx2.dev/transfer-for"]
    assert len(label) <= 63 and label[-1].isalnum() and ".-" not in body["metadata"]["name"]
