"""What the writer sends and when, before a server that only writes down what it is asked. The fences themselves are
shown against a real one in tests/cluster/test_runtime.py.
"""

import copy

import pytest

from ltx2_operator.draft import Create, CreateJob, Delete, DeleteTraining, DryRunJob
from ltx2_operator.observed import DryRun
from ltx2_operator.runtime.bucket import TokenBucket
from ltx2_operator.runtime.client import Answer, ApiError, Conflict, NotFound
from ltx2_operator.runtime.lease import Lease, LeaseLost
from ltx2_operator.runtime.reflector import Store
from ltx2_operator.runtime.writer import HELD_AGAIN, NotNow, Stale, Writer
from ltx2_operator.settings import LeaderElection

OBJ = {
    "apiVersion": "ltx2.dev/v1alpha1",
    "kind": "LTX2Training",
    "metadata": {"name": "fox", "namespace": "ml", "uid": "u1", "resourceVersion": "10", "generation": 3},
    "status": {"attempt": 1, "stage": "Cache"},
}
STEPPING = {"type": "Progressing", "status": "True", "reason": "Stepping"}
LABELS = {"ltx2.dev/training": "fox", "ltx2.dev/attempt": "1", "ltx2.dev/uid": "u1"}
OWNER = [{"kind": "LTX2Training", "name": "fox", "uid": "u1", "controller": True}]
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "fox-cache-1", "namespace": "ml", "labels": LABELS, "ownerReferences": OWNER},
    "spec": {"template": {}},
}


class Server:
    """Writes requests down and answers what a test has put there: (method, path) -> body or error."""

    def __init__(self):
        self.answers, self.sent = {}, []

    def request(self, method, path, query=None, body=None, **more):
        self.sent.append((method, path, dict(query or {}), copy.deepcopy(body), more.get("content")))
        answer = self.answers.get((method, path))
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            answer = {**OBJ, **(body or {}), "metadata": {**OBJ["metadata"], **(body or {}).get("metadata", {})}}
            answer["metadata"] |= {"resourceVersion": str(10 + len(self.sent)), "uid": OBJ["metadata"]["uid"]}
        return answer if isinstance(answer, Answer) else Answer(copy.deepcopy(answer))

    def get(self, path, query=None, accept=""):
        return self.request("GET", path, query).body

    def methods(self):
        return [(method, path.rpartition("/namespaces/ml/")[2]) for method, path, *_ in self.sent]


class Place:
    def __init__(self):
        self.time, self.server = 1000.0, Server()
        self.lease = Lease(self.server, "ops", "me", LeaderElection(), clock=lambda: self.time)
        self.lease.own()
        self.trainings, self.jobs = Store(), Store()
        self.trainings.put(copy.deepcopy(OBJ))
        self.writer = Writer(self.server, self.lease, self.trainings, self.jobs, clock=lambda: self.time)
        for plural in ("pods", "jobs"):
            root = "/api/v1" if plural == "pods" else "/apis/batch/v1"
            self.server.answers["GET", f"{root}/namespaces/ml/{plural}"] = {"items": []}
        self.path = "/apis/ltx2.dev/v1alpha1/namespaces/ml/ltx2trainings/fox"
        self.server.answers["GET", self.path] = OBJ


@pytest.fixture
def place():
    return Place()


def numbers(step, **more):
    return {**OBJ["status"], "progress": {"step": step}, "conditions": [STEPPING], **more}


def test_what_decides_and_what_passes_are_both_fenced_by_the_version_before(place):
    assert place.writer.status(OBJ, numbers(5, attempt=2))
    (_, _, other_query, other, _), (_, path, query, body, content) = place.server.sent  # numbers are not lost at an end
    assert (path, content) == (f"{place.path}/status", "application/apply-patch+yaml")
    assert (query["fieldManager"], other_query["fieldManager"]) == ("ltx2-operator", "ltx2-progress")
    assert other["metadata"]["resourceVersion"] == "10"
    assert body["metadata"]["resourceVersion"] == "11"  # of the answer to the first
    assert body["status"] == {"attempt": 2, "stage": "Cache", "conditions": []}
    assert other["status"] == {"progress": {"step": 5}, "conditions": [STEPPING]}


def test_the_object_is_handed_back_as_the_last_write_left_it(place):
    """Not as the watch has brought it since."""
    for status, version in ((numbers(5, attempt=2), "12"), ({**OBJ["status"], "attempt": 3}, "13")):
        written = place.writer.status(OBJ, status)
        place.trainings.put({**OBJ, "metadata": {**OBJ["metadata"], "resourceVersion": "99"}})
        assert written["metadata"]["resourceVersion"] == version
    only_numbers = place.writer.status({**OBJ, "status": numbers(6, conditions=[])}, numbers(6))
    assert only_numbers["metadata"]["resourceVersion"] == "14"


def test_nothing_is_sent_when_nothing_differs(place):
    assert place.writer.status(OBJ, copy.deepcopy(OBJ["status"])) is None
    assert place.server.sent == []


def test_numbers_are_written_at_most_every_30_seconds_and_a_flip_at_once(place):
    obj = {**OBJ, "status": {**numbers(1)}}
    sent = []
    for seconds, status in (
        (0, numbers(2)), (15, numbers(3)), (14.9, numbers(4)), (0.1, numbers(5)), (1, numbers(6)),
        (1, numbers(7, conditions=[{**STEPPING, "status": "False", "reason": "Stalled"}])),
        (1, numbers(8, attempt=2)),
    ):  # fmt: skip
        place.time += seconds
        before = len(place.server.sent)
        place.writer.status(obj, status)
        sent.append([body["status"].get("progress", {}).get("step") for _, _, _, body, _ in place.server.sent[before:]])
    assert sent == [[2], [], [], [5], [], [7], [8, None]]


def test_numbers_that_are_held_back_have_a_time_at_which_they_may_be_written(place):
    obj = {**OBJ, "status": numbers(1)}
    assert place.writer.held_back("u1") is None
    assert place.writer.status(obj, numbers(2))
    assert place.writer.held_back("u1") is None
    place.time += 12
    assert not place.writer.status(obj, numbers(3))
    assert place.writer.held_back("u1") == 18
    place.time += 18
    assert place.writer.status(obj, numbers(3))
    assert place.writer.held_back("u1") is None


def test_numbers_that_nobody_needs_any_more_are_not_waited_for(place):
    place.writer.status({**OBJ, "status": numbers(1)}, numbers(2))
    place.writer.status({**OBJ, "status": numbers(2)}, numbers(3))
    assert place.writer.held_back("u1") is not None
    place.writer.status({**OBJ, "status": numbers(3)}, numbers(3))
    assert place.writer.held_back("u1") is None


def test_numbers_of_many_runs_share_a_budget_that_decisions_do_not_wait_for(place):
    few = TokenBucket(1, 2, clock=lambda: place.time)
    writer = Writer(place.server, place.lease, place.trainings, place.jobs, clock=lambda: place.time, numbers=few)
    runs = [{**OBJ, "metadata": {**OBJ["metadata"], "uid": f"u{number}"}, "status": numbers(1)} for number in range(4)]
    assert [bool(writer.status(run, numbers(2))) for run in runs] == [True, True, False, False]
    assert writer.held_back("u2") == HELD_AGAIN
    assert writer.status(runs[2], numbers(2, attempt=2))
    stalled = numbers(2, conditions=[{**STEPPING, "status": "False", "reason": "Stalled"}])
    assert writer.status(runs[3], stalled)
    place.time += 1
    assert writer.status({**runs[0], "metadata": {**OBJ["metadata"], "uid": "u9"}}, numbers(2))


def test_runs_do_not_wait_for_each_others_numbers(place):
    place.writer.status({**OBJ, "status": numbers(1)}, numbers(2))
    other = {**OBJ, "metadata": {**OBJ["metadata"], "uid": "u2"}, "status": numbers(1)}
    assert place.writer.status(other, numbers(2))


@pytest.mark.parametrize("error", [Conflict(409, "Conflict", "changed"), NotFound(404, "NotFound", "gone")])
def test_a_status_of_an_object_that_has_changed_is_stale_and_the_newest_is_read(place, error):
    place.server.answers["PATCH", f"{place.path}/status"] = error
    newer = {**OBJ, "metadata": {**OBJ["metadata"], "resourceVersion": "99"}}
    place.server.answers["GET", place.path] = newer
    with pytest.raises(Stale):
        place.writer.status(OBJ, numbers(1))
    assert place.trainings.one(("ml", "fox"))["metadata"]["resourceVersion"] == "99"


def test_numbers_for_an_object_that_has_changed_are_not_written(place):
    """Another attempt may be open by now, of which they say nothing."""
    place.server.answers["PATCH", f"{place.path}/status"] = Conflict(409, "Conflict", "changed")
    with pytest.raises(Stale):
        place.writer.status({**OBJ, "status": numbers(1)}, numbers(2))
    ((_, _, query, body, _), _) = place.server.sent
    assert (query["fieldManager"], body["metadata"]["resourceVersion"]) == ("ltx2-progress", "10")


def test_without_the_lease_nothing_is_sent(place):
    place.lease._renewed = None
    for action in (CreateJob(JOB, "fox"), Create(JOB), Delete("Job", "j", "u"), DeleteTraining(), DryRunJob(JOB)):
        with pytest.raises(LeaseLost):
            place.writer.act(OBJ, action)
    with pytest.raises(LeaseLost):
        place.writer.status(OBJ, numbers(1, attempt=2))
    assert place.server.sent == []


@pytest.mark.parametrize("action", [CreateJob(JOB, "fox"), Create(JOB), Delete("Job", "j", "u"), DeleteTraining()])
def test_a_lease_that_runs_out_while_others_are_asked_stops_the_write(place, action):
    """A read and two lists may take a minute and a half, six times as long as the lease holds."""
    asked = []

    def require():
        asked.append([method for method, *_ in place.server.sent])
        if len(asked) == 2:
            raise LeaseLost("not renewed")

    place.lease.require = require
    with pytest.raises(LeaseLost):
        place.writer.act(OBJ, action)
    read = ["GET"] * 3 if isinstance(action, CreateJob) else []
    assert asked == [[], read]  # at the beginning, and right before the write, which does not follow
    assert [method for method, *_ in place.server.sent] == read


def test_a_job_is_made_after_a_fresh_read_and_known_at_once(place):
    place.writer.act(OBJ, CreateJob(JOB, "fox"))
    assert place.server.methods() == [
        ("GET", "ltx2trainings/fox"), ("GET", "pods"), ("GET", "jobs"), ("POST", "jobs"),
    ]  # fmt: skip
    assert [query.get("labelSelector") for _, _, query, _, _ in place.server.sent[1:3]] == ["ltx2.dev/training=fox"] * 2
    assert [one["metadata"]["name"] for one in place.jobs.of(("ml", "fox"))] == ["fox-cache-1"]


@pytest.mark.parametrize(
    "change",
    [{"status": {"attempt": 2, "stage": "Cache"}}, {"status": {"attempt": 1, "stage": "Train"}},
     {"metadata": {**OBJ["metadata"], "uid": "u2"}}, {"metadata": {**OBJ["metadata"], "generation": 4}},
     {"metadata": {**OBJ["metadata"], "deletionTimestamp": "2026-11-22T10:00:00Z"}},
     {"status": {**OBJ["status"], "lastVerdict": {"attempt": 1, "action": "retry"}}}],
)  # fmt: skip
def test_no_job_is_made_from_an_old_view_of_its_training(place, change):
    place.server.answers["GET", place.path] = {**OBJ, **change}
    with pytest.raises(Stale):
        place.writer.act(OBJ, CreateJob(JOB, "fox"))
    assert "POST" not in [method for method, _ in place.server.methods()]


@pytest.mark.parametrize(
    ("plural", "body", "made"),
    [
        ("pods", {"status": {"phase": "Running"}}, False),
        ("pods", {"status": {"phase": "Failed"}}, True),
        ("jobs", {"status": {}}, False),
        ("jobs", {"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, True),
    ],
)
def test_no_job_is_made_beside_anything_alive(place, plural, body, made):
    root = "/api/v1" if plural == "pods" else "/apis/batch/v1"
    place.server.answers["GET", f"{root}/namespaces/ml/{plural}"] = {"items": [{"metadata": {"name": "old"}, **body}]}
    if made:
        place.writer.act(OBJ, CreateJob(JOB, "fox"))
    else:
        with pytest.raises(NotNow, match="old is still there"):
            place.writer.act(OBJ, CreateJob(JOB, "fox"))
    assert ("POST" in [method for method, _ in place.server.methods()]) == made


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, ""),
        ({"deletionTimestamp": "2026-11-22T10:00:00Z"}, "is being deleted"),
        ({"ownerReferences": [{**OWNER[0], "uid": "u0"}]}, "belongs to LTX2Training fox; delete or rename"),
        ({"ownerReferences": []}, "is not of this training"),
        ({"labels": {**LABELS, "ltx2.dev/attempt": "2"}}, "belongs to LTX2Training fox"),
    ],
)
def test_a_namesake_is_success_only_if_it_is_the_very_thing(place, found, words):
    jobs = "/apis/batch/v1/namespaces/ml/jobs"
    place.server.answers["POST", jobs] = Conflict(409, "AlreadyExists", "exists")
    place.server.answers["GET", f"{jobs}/fox-cache-1"] = {**JOB, "metadata": {**JOB["metadata"], **found}}
    if words:
        with pytest.raises(NotNow, match=words):
            place.writer.act(OBJ, Create(JOB))
    else:
        place.writer.act(OBJ, Create(JOB))


def test_a_claim_that_outlived_its_training_is_taken_over_unless_it_goes(place):
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "fox-data", "namespace": "ml", "labels": {}}}
    claims = "/api/v1/namespaces/ml/persistentvolumeclaims"
    place.server.answers["POST", claims] = Conflict(409, "AlreadyExists", "exists")
    place.server.answers["GET", f"{claims}/fox-data"] = claim
    place.writer.act(OBJ, Create(claim))
    going = {**claim, "metadata": {**claim["metadata"], "deletionTimestamp": "2026-11-22T10:00:00Z"}}
    place.server.answers["GET", f"{claims}/fox-data"] = going
    with pytest.raises(NotNow, match="fox-data is being deleted"):
        place.writer.act(OBJ, Create(claim))


def test_while_a_job_is_refused_what_was_made_before_it_is_not_made_again(place):
    """A claim that is gone is made again, as the look has asked for it; once the Job is there, so is everything."""

    def again(kind):
        before = len(place.server.sent)
        place.writer.act(OBJ, Create({"kind": kind, "metadata": {"name": "x", "namespace": "ml"}}))
        return len(place.server.sent) - before

    jobs, maps = "/apis/batch/v1/namespaces/ml/jobs", "/api/v1/namespaces/ml/configmaps"
    place.server.answers["POST", maps] = ApiError(403, "Forbidden", "exceeded quota")
    with pytest.raises(NotNow):
        again("ConfigMap")
    del place.server.answers["POST", maps]
    kinds = ("ConfigMap", "PersistentVolumeClaim", "Service")
    assert [again(kind) for kind in kinds] == [1, 1, 1]
    place.server.answers["POST", jobs] = ApiError(403, "Forbidden", "exceeded quota")
    with pytest.raises(NotNow):
        place.writer.act(OBJ, CreateJob(JOB, "fox"))
    assert [again(kind) for kind in kinds] == [0, 1, 0]
    del place.server.answers["POST", jobs]
    place.writer.act(OBJ, CreateJob(JOB, "fox"))
    assert [again(kind) for kind in kinds] == [1, 1, 1]  # of the next attempt
    place.writer.forget("u1")
    assert again("Service") == 1


def test_a_refusal_is_told_and_trouble_is_an_error(place):
    place.server.answers["POST", "/apis/batch/v1/namespaces/ml/jobs"] = ApiError(403, "Forbidden", "exceeded quota")
    with pytest.raises(NotNow, match="exceeded quota") as told:
        place.writer.act(OBJ, Create(JOB))
    assert told.value.reason == "FailedCreate"
    place.server.answers["POST", "/apis/batch/v1/namespaces/ml/jobs"] = ApiError(500, "InternalError", "etcd")
    with pytest.raises(ApiError, match="etcd"):
        place.writer.act(OBJ, Create(JOB))


def test_deletes_are_in_the_background_and_name_the_uid(place):
    job = {**JOB, "metadata": {**JOB["metadata"], "uid": "j1", "resourceVersion": "3"}}
    place.jobs.put(job)
    place.writer.act(OBJ, Delete("Job", "fox-cache-1"))
    place.writer.act(OBJ, Delete("Pod", "fox-cache-1-x", "p1", force=True))
    place.writer.act(OBJ, DeleteTraining())
    bodies = [body for _, _, _, body, _ in place.server.sent]
    assert [body["preconditions"]["uid"] for body in bodies] == ["j1", "p1", "u1"]
    assert {body["propagationPolicy"] for body in bodies} == {"Background"}
    assert [body.get("gracePeriodSeconds") for body in bodies] == [None, 0, None]


def test_what_is_gone_already_or_was_replaced_is_deleted(place):
    for error in (NotFound(404, "NotFound", "x"), Conflict(409, "Conflict", "uid")):
        place.server.answers["DELETE", "/apis/batch/v1/namespaces/ml/jobs/j"] = error
        place.writer.act(OBJ, Delete("Job", "j", "u"))


def test_a_dry_run_says_what_the_server_says(place):
    jobs = "/apis/batch/v1/namespaces/ml/jobs"
    place.server.answers["POST", jobs] = Answer(JOB, ("would violate PodSecurity",))
    assert place.writer.act(OBJ, DryRunJob(JOB)) == DryRun(3, True, warnings=("would violate PodSecurity",))
    assert place.server.sent[-1][2]["dryRun"] == "All"
    place.server.answers["POST", jobs] = ApiError(422, "Invalid", "spec.template: no")
    assert place.writer.act(OBJ, DryRunJob(JOB)) == DryRun(3, False, "spec.template: no")
    place.server.answers["POST", jobs] = ApiError(403, "Forbidden", "exceeded quota: few")  # the Job itself is taken
    assert place.writer.act(OBJ, DryRunJob(JOB)).ok
    # Seconds after the definition was installed: nothing against the template, and no reason to reject it for a minute.
    unknown = (
        "jobs.batch is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for x"
    )
    place.server.answers["POST", jobs] = ApiError(403, "Forbidden", unknown)
    with pytest.raises(NotNow, match="only just been defined") as told:
        place.writer.act(OBJ, DryRunJob(JOB))
    assert told.value.reason == ""
    place.server.answers["POST", jobs] = ApiError(503, "Unavailable", "later")
    with pytest.raises(ApiError):
        place.writer.act(OBJ, DryRunJob(JOB))
    assert place.jobs.all() == []


NO_RIGHT = (
    'jobs.batch is forbidden: User "system:serviceaccount:ltx2:operator" cannot create resource "jobs" in API group '
    '"batch" in the namespace "ml"'
)
GOING = 'jobs.batch "fox" is forbidden: unable to create new content in namespace ml because it is being terminated'


@pytest.mark.parametrize("words", [NO_RIGHT, GOING])
def test_a_right_that_the_operator_lacks_or_a_namespace_that_goes_says_nothing_against_a_template(place, words):
    """It would end a run for good as InvalidConfig: spec.podTemplate."""
    place.server.answers["POST", "/apis/batch/v1/namespaces/ml/jobs"] = ApiError(403, "Forbidden", words)
    with pytest.raises(ApiError, match="is forbidden"):
        place.writer.act(OBJ, DryRunJob(JOB))


@pytest.mark.parametrize(
    "words",
    [
        "jobs.batch \"fox\" is forbidden: ValidatingAdmissionPolicy 'images' denied request: cannot create it",
        'admission webhook "guard" denied the request: User "x" cannot create resource y',
    ],
)
def test_a_policy_that_refuses_the_job_is_an_answer_about_it(place, words):
    place.server.answers["POST", "/apis/batch/v1/namespaces/ml/jobs"] = ApiError(403, "Forbidden", words)
    assert place.writer.act(OBJ, DryRunJob(JOB)) == DryRun(3, False, words)
