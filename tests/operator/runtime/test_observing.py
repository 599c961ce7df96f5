"""What a look is given: children by their owner, and what is asked for only when it can matter."""

import pytest

from ltx2_operator.runtime.client import METADATA_ONLY, NotFound
from ltx2_operator.runtime.configmaps import KEPT_MOST, ConfigMaps
from ltx2_operator.runtime.departed import INDEX_LABEL, JOB_UID_LABEL, Departed
from ltx2_operator.runtime.observing import Watcher, is_pending, secret_names
from ltx2_operator.runtime.pages import Pages
from ltx2_operator.runtime.reflector import Store

OBJ = {
    "metadata": {"name": "fox", "namespace": "ml", "uid": "u1"},
    "spec": {"storage": {"claimName": "films"}, "secrets": {"hubToken": {"name": "hub"}, "trackerKey": {"name": "no"}}},
    "status": {"attempt": 1},
}


class Server:
    def __init__(self, **answers):
        self.asked, self.answers = [], {"events": {}, "films": {"metadata": {"name": "films"}}, "hub": {}, **answers}

    def get(self, path, query=None, accept="json"):
        name = path.rpartition("/")[2]
        self.asked.append((name, query, accept))
        if name not in self.answers:
            raise NotFound(404, "NotFound", path)
        return self.answers[name]


def child(kind, name, *, uid="u1", spec=None, **status):
    labels = {"ltx2.dev/training": "fox", "ltx2.dev/attempt": "1", "ltx2.dev/uid": uid}
    metadata = {"name": name, "namespace": "ml", "uid": f"of-{name}", "labels": labels, "resourceVersion": "1"}
    return {"kind": kind, "metadata": metadata, "spec": spec or {}, "status": status}


def look(server, *children, secret_reader=True, obj=OBJ, gone=()):
    departed = Departed()
    jobs, pods = Store(), Store(gone=departed.note)
    for one in children:
        (jobs if one["kind"] == "Job" else pods).put(one)
    for one in gone:
        pods.put(one)
        pods.remove(one)
    wanted = []
    pages = Pages(1, lambda key: None)
    pages.want = lambda key, host: wanted.append(host)
    watcher = Watcher(server, jobs, pods, departed, None, pages, secret_reader, ConfigMaps(server))
    return watcher.observe(obj, None), wanted[0]


def test_before_any_pod_the_named_claim_and_secrets_are_asked_for_without_their_contents():
    server = Server()
    found, host = look(server)
    assert [one["metadata"]["name"] for one in found.claims] == ["films"]
    assert found.secrets == {"hub"}
    assert {accept for name, _, accept in server.asked if name in ("hub", "no")} == {METADATA_ONLY}
    assert (found.nodes, host) == (None, None)


def test_an_operator_that_may_not_read_secrets_asks_for_none():
    server = Server()
    assert look(server, secret_reader=False)[0].secrets is None
    assert [name for name, *_ in server.asked] == ["films"]


def test_nothing_is_asked_for_while_its_own_pod_runs():
    server = Server()
    found, host = look(server, child("Job", "j"), child("Pod", "p", phase="Running", podIP="10.0.0.7"))
    assert server.asked == []
    assert host == "10.0.0.7"
    assert len(found.pods) == 1


def test_a_namesakes_pod_that_still_runs_hides_nothing_and_has_no_page():
    server = Server()
    found, host = look(server, child("Pod", "p", uid="u0", phase="Running", podIP="10.0.0.7"))
    assert found.secrets == {"hub"}
    assert host is None
    assert len(found.pods) == 1  # it still stands in the way


def test_events_of_a_job_and_its_pods_that_wait_come_oldest_first():
    late, early = (
        {"metadata": {}, "lastTimestamp": f"2026-11-22T10:0{minute}:00Z", "reason": str(minute)} for minute in (5, 1)
    )
    server = Server(events={"items": [late, early]})
    found, _ = look(server, child("Job", "j"), child("Pod", "p", phase="Pending"))
    assert [one["reason"] for one in found.events] == ["1", "1", "5", "5"]
    selectors = [query["fieldSelector"] for name, query, _ in server.asked if name == "events"]
    assert selectors == ["involvedObject.uid=of-j", "involvedObject.uid=of-p"]


@pytest.mark.parametrize("answers", [{}, {"workloads": {"items": [{"metadata": {"name": "w"}}]}}])
def test_kueue_is_asked_about_a_job_that_it_holds_and_need_not_be_there(answers):
    server = Server(**answers)
    found, _ = look(server, child("Job", "j", spec={"suspend": True}))
    assert [one["metadata"]["name"] for one in found.workloads] == (["w"] if answers else [])
    queries = [query["labelSelector"] for name, query, _ in server.asked if name == "workloads"]
    assert set(queries) == {"kueue.x-k8s.io/job-uid=of-j"}
    assert len(queries) == (1 if answers else 2)


def test_what_waits_is_looked_at_again():
    done = child("Job", "j", conditions=[{"type": "Failed", "status": "True"}])
    assert is_pending([child("Job", "j")], [])
    assert is_pending([child("Job", "j", spec={"suspend": True})], [])
    assert not is_pending([done], [])
    assert not is_pending([child("Job", "j")], [child("Pod", "p", phase="Running")])


def test_the_secrets_and_configmaps_that_a_spec_names():
    secrets = {"hubToken": {"name": "hub", "key": "t"}, "objectStore": "store"}
    assert secret_names({"spec": {"secrets": secrets}}) == {"hub", "store"}


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_configmaps_are_asked_for_where_a_spec_names_them(phase):
    """Of a running one, too; those that are missing are left out."""
    server = Server(files={"metadata": {"name": "files"}})
    status = {"attempt": 1, "configMap": "fox-12345678"}
    obj = {**OBJ, "spec": {"configFrom": {"name": "files"}}, "status": status}
    seen, _ = look(server, child("Pod", "p", phase=phase), obj=obj)
    assert [one["metadata"]["name"] for one in seen.configmaps] == ["files"]
    assert {name for name, *_ in server.asked} >= {"files", "fox-12345678"}
    assert look(server, obj={**OBJ, "status": status})[0].configmaps == []


class Files:
    """A run with spec.configFrom, on a clock of its own."""

    def __init__(self, **data):
        self.time = 0.0
        self.server = Server(files={"metadata": {"name": "files"}, "data": data}, own={"metadata": {}, "data": {}})
        self.pods, pages = Store(), Pages(1, lambda key: None)
        files = ConfigMaps(self.server, clock=lambda: self.time)
        self.watcher = Watcher(self.server, Store(), self.pods, Departed(), None, pages, True, files)
        self.obj = {**OBJ, "spec": {"configFrom": {"name": "files"}}, "status": {"attempt": 1, "configMap": "own"}}
        self.pod = child("Pod", "p", phase="Running")

    def look(self, after=0):
        self.time += after
        self.server.asked.clear()
        found = {one["metadata"]["name"]: one.get("data") for one in self.watcher.observe(self.obj, None).configmaps}
        return found, [name for name, *_ in self.server.asked if name in ("files", "own")]


def test_while_its_pod_runs_its_own_configmap_is_asked_for_once_and_the_users_every_minute():
    run = Files(a="1")
    run.pods.put(run.pod)
    assert run.look() == ({"files": {"a": "1"}, "own": {}}, ["files", "own"])
    run.server.answers["files"] = {"metadata": {"name": "files"}, "data": {"a": "2"}}
    assert run.look(after=59) == ({"files": {"a": "1"}, "own": {}}, [])
    assert run.look(after=1) == ({"files": {"a": "2"}, "own": {}}, ["files"])
    del run.server.answers["files"]
    assert run.look(after=60) == ({"own": {}}, ["files"])
    assert run.look(after=59) == ({"own": {}}, [])


def test_while_no_pod_runs_configmaps_are_asked_for_at_each_look():
    """The next attempt must not begin with a copy, or without the ConfigMap that somebody has deleted."""
    run = Files()
    run.pods.put(run.pod)
    run.look()
    run.pods.remove(run.pod)
    assert run.look()[1] == ["files", "own"]
    del run.server.answers["own"]
    assert run.look() == ({"files": {}}, ["files", "own"])


def test_a_great_configmap_and_those_of_a_run_that_is_over_are_not_kept():
    run = Files(a="x" * (KEPT_MOST + 1))
    run.pods.put(run.pod)
    run.look()
    assert run.look()[1] == ["files"]
    run.watcher.forget(("ml", "fox"))
    assert run.look()[1] == ["files", "own"]
    run.pods.remove(run.pod)
    run.watcher.observe({**run.obj, "status": {"conditions": [{"type": "Succeeded", "status": "True"}]}}, None)
    run.pods.put(run.pod)
    assert run.look()[1] == ["files", "own"]


@pytest.mark.parametrize("spec", [None, "text", {"secrets": 5}, {"secrets": {"hubToken": "x"}}, {"secrets": {"a": {}}}])
def test_a_spec_of_any_shape_names_no_secret(spec):
    assert secret_names({"spec": spec}) == set()


def of_job(name, job, index=None, **status):
    pod = child("Pod", name, **status)
    pod["metadata"]["labels"] |= {JOB_UID_LABEL: job} | ({INDEX_LABEL: index} if index else {})
    return pod


@pytest.mark.parametrize(
    ("there", "gone", "seen"),
    [
        ([child("Job", "j")], [of_job("p", "of-j", phase="Failed")], ["p"]),
        ([child("Job", "j")], [of_job("p", "of-j", phase="Running")], []),  # it never told how it ended
        ([child("Job", "k")], [of_job("p", "of-j", phase="Failed")], []),  # an earlier Job's
        ([], [of_job("p", "of-j", phase="Failed")], []),
        ([child("Job", "j")], [child("Pod", "p", phase="Failed")], []),  # nobody's
        ([child("Job", "j")], [of_job("p", "of-j", phase="Failed"), of_job("q", "of-j", phase="Failed")], ["q"]),
        ([child("Job", "j"), of_job("q", "of-j", phase="Running")], [of_job("p", "of-j", phase="Failed")], ["q"]),
        (
            [child("Job", "j"), of_job("q", "of-j", "1", phase="Running")],
            [of_job("p", "of-j", phase="Failed")],
            ["q", "p"],
        ),
    ],
)
def test_how_a_pod_ended_is_known_while_its_job_exists_and_nothing_took_its_place(there, gone, seen):
    found, _ = look(Server(), *there, gone=gone)
    assert [one["metadata"]["name"] for one in found.pods] == seen


def test_of_those_that_left_the_oldest_are_forgotten_first():
    departed = Departed(most=2)
    for name in ("a", "b", "a", "c"):
        departed.note(of_job(name, f"of-{name}", phase="Failed"))
    assert {one["metadata"]["name"] for one in departed.of({"of-a", "of-b", "of-c"}, [])} == {"a", "c"}


def test_how_the_pod_of_a_deleted_job_ended_is_known_until_its_attempt_has_a_verdict():
    gone = [of_job("p", "of-j", phase="Failed")]
    waits = {**OBJ, "status": {"attempt": 1, "jobUid": "of-j"}}
    assert [one["metadata"]["name"] for one in look(Server(), gone=gone, obj=waits)[0].pods] == ["p"]
    assert look(Server(), gone=gone)[0].pods == []
