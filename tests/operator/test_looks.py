"""The look before a GPU is held: data that is not there yet, a run that lies finished, a proof that nobody heard."""

import pytest

from ltx2_job import history
from ltx2_operator.draft import CreateJob
from simulated_cluster import UID, Cluster, training, use_fakes

RESULT = {"lora": "runs/fox/lora.safetensors", "finalLoss": 0.5, "steps": 2000}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)


def created(cluster):
    return [action.body["metadata"]["name"] for action in cluster.log if isinstance(action, CreateJob)]


def gpus_of(job):
    return job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")


def upload(cluster, time):
    cluster.obj["metadata"]["annotations"] = {"ltx2.dev/data-uploaded": time}


def test_an_attempt_without_a_cache_begins_with_a_look_that_holds_no_gpu():
    cluster = Cluster(seen=False)
    cluster.settle()
    assert list(cluster.jobs) == ["fox-look-1"]
    assert gpus_of(cluster.jobs["fox-look-1"]) is None
    cluster.start()
    cluster.settle()
    assert (cluster.status["state"], cluster.condition("Running")["reason"]) == ("Waiting", "Looking")
    cluster.end(0)
    cluster.settle()
    assert list(cluster.jobs) == ["fox-cache-1"]  # the look's Job has gone: the next one would have its name
    assert gpus_of(cluster.jobs["fox-cache-1"]) == "1"
    cluster.run_stage(0)
    cluster.run_stage(70)
    cluster.wait(10)
    cluster.settle()
    assert created(cluster) == ["fox-look-1", "fox-cache-1", "fox-train-1", "fox-train-2"]


def test_waiting_for_data_stays_in_one_attempt_and_looks_more_rarely_without_a_gpu():
    cluster = Cluster(training(startDeadlineSeconds=60, activeDeadlineSeconds=30), seen=False)
    waits = []
    for _ in range(8):
        cluster.settle()
        assert not any(gpus_of(job) for job in cluster.jobs.values())
        cluster.run_stage(66)
        assert (cluster.status["state"], cluster.status["stage"]) == ("Waiting", "Look")
        assert "`ltx2 upload DIR fox`" in cluster.condition("Running")["message"]
        waits.append(cluster.requeue)
        cluster.wait(cluster.requeue)
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]
    assert (cluster.status["attempt"], cluster.status["failures"], cluster.status["runningSeconds"]) == (1, 0, 0)
    assert [event.reason for event in cluster.events].count("WaitingForData") == 1
    cluster.run_stage(0)
    cluster.run_stage(0)
    assert (cluster.status["stage"], cluster.status["attempt"], cluster.status["waits"]) == ("Train", 1, 0)


def test_an_upload_is_looked_at_once_and_only_once():
    cluster = Cluster(seen=False)
    cluster.run_stage(66)
    upload(cluster, "2026-11-22T10:00:00Z")
    cluster.settle()
    assert created(cluster) == ["fox-look-1", "fox-look-1"]
    cluster.start()
    cluster.settle()
    cluster.end(66)
    cluster.settle()
    assert (len(created(cluster)), cluster.requeue, cluster.status["waits"]) == (2, 10, 1)  # the back-off begins anew
    upload(cluster, "2026-11-22T10:00:09Z")
    cluster.settle()
    assert len(created(cluster)) == 3
    # While a look is under way, more comes: what it could not see is looked for once it has ended.
    cluster.start()
    cluster.settle()
    upload(cluster, "2026-11-22T10:00:20Z")
    cluster.settle()
    cluster.end(66)
    cluster.settle()
    assert len(created(cluster)) == 4


def test_the_second_look_waits_until_the_first_ones_job_has_gone():
    # Catches: a create under a name that is still taken, and the old Job's end judged once more.
    cluster = Cluster(seen=False)
    cluster.run_stage(66)
    old = cluster.observe()
    assert not cluster.jobs
    cluster.jobs["fox-look-1"] = {
        **created_body(cluster), "status": {"conditions": [{"type": "Failed", "status": "True", "message": ""}]}
    }  # fmt: skip
    cluster.jobs["fox-look-1"]["metadata"]["uid"] = "first"
    cluster.wait(10)
    cluster.look(lose_actions=True)
    assert cluster.status["lastVerdict"]["action"] == "WaitForData"
    cluster.settle()
    assert len(created(cluster)) == 2
    assert old.jobs == []


def created_body(cluster):
    import copy

    return copy.deepcopy(next(action.body for action in cluster.log if isinstance(action, CreateJob)))


def test_data_that_vanishes_from_under_the_cache_stage_is_looked_for_before_it_is_tried_again():
    cluster = Cluster(seen=False)
    cluster.run_stage(0)
    cluster.run_stage(66)
    cluster.wait(10)
    cluster.settle()
    assert created(cluster) == ["fox-look-1", "fox-cache-1", "fox-look-2"]


def test_a_run_that_lies_finished_on_the_volume_succeeds_without_a_gpu():
    cluster = Cluster(seen=False)
    cluster.settle()
    cluster.start()
    cluster.settle()
    labels = cluster.alive()[0]["metadata"]["labels"]
    cluster.end(0, word=cluster.word(0, labels, step=2000, maxSteps=2000, result=RESULT))
    cluster.settle()
    status = cluster.status
    assert (status["state"], status["stage"], status["result"]) == ("Succeeded", "Train", RESULT)
    assert (status["progressText"], status["gpuSeconds"]["used"]) == ("2000/2000", 0)
    assert cluster.condition("Cached")["reason"] == "CacheReused"
    assert created(cluster) == ["fox-look-1"]
    assert "the volume holds its result" in cluster.events[-1].message


def test_a_complete_job_without_a_proof_is_asked_of_the_volume_by_a_look():
    cluster = Cluster(seen=False)
    for _ in range(2):
        cluster.run_stage(0)
    cluster.settle()
    cluster.start()
    cluster.settle()
    cluster.end(0, word={})
    cluster.settle()
    cluster.wait(10)
    cluster.settle()
    assert created(cluster)[-1] == "fox-look-2"
    cluster.run_stage(0)  # nothing lies there: training goes on, the cache is as ready as it was
    assert created(cluster)[-1] == "fox-train-2"


def test_a_look_that_claims_to_lack_gpu_memory_is_an_ordinary_failure():
    cluster = Cluster(seen=False)
    cluster.run_stage(80)
    assert (cluster.status["failures"], cluster.status["rung"]) == (1, {"train": 0, "cache": 0})


def test_suspend_while_looking_and_while_waiting_for_data():
    cluster = Cluster(seen=False)
    cluster.settle()
    cluster.start()
    cluster.settle()
    cluster.spec(suspend=True)
    cluster.settle()
    cluster.end(85)
    cluster.settle()
    assert (cluster.status["state"], cluster.alive()) == ("Suspended", [])
    cluster.spec(suspend=False)
    cluster.run_stage(66)
    assert created(cluster) == ["fox-look-1", "fox-look-2"]
    cluster.spec(suspend=True)
    cluster.wait(10**5)
    cluster.settle()
    assert (cluster.status["state"], len(created(cluster))) == ("Suspended", 2)
    cluster.spec(suspend=False)
    cluster.settle()
    assert created(cluster)[-1] == "fox-look-3"


def verdicts_of(cluster):
    """What each Job was told of the attempts before it: (stage, action, reason)."""
    told = {}
    for body in (action.body for action in cluster.log if isinstance(action, CreateJob)):
        variables = {one["name"]: one.get("value") for one in body["spec"]["template"]["spec"]["containers"][0]["env"]}
        found = history.handed(variables.get("LTX2JOB_VERDICTS", ""), UID)
        told[body["metadata"]["name"]] = [(one["stage"], one["action"], one["reason"]) for one in found]
    return told


@pytest.mark.parametrize(
    ("code", "how", "verdict"),
    [
        (137, {"reason": "Error", "word": {}}, ("train", "Retry", "Killed")),
        (80, {}, ("train", "LowerMemoryPlan", "GPUOutOfMemory")),
        (85, {"disrupted": "EvictionByEvictionAPI", "word": {}}, ("train", "RetryUncounted", "Preempted")),
    ],
)
def test_the_next_job_is_told_how_the_attempt_before_it_ended(code, how, verdict):
    """It alone can write it on the volume. Catches: a verdict that no Job carries, and one of a stage that went on."""
    cluster = Cluster(seen=False)
    cluster.run_stage(66)  # no data yet: told as well
    cluster.wait(10)
    cluster.run_stage(0)
    cluster.run_stage(0)
    cluster.settle()
    cluster.start()
    cluster.settle()
    cluster.end(code, **how)
    cluster.settle()
    cluster.wait(10)
    cluster.settle()
    assert verdicts_of(cluster) == {
        "fox-look-1": [],
        "fox-cache-1": [("look", "WaitForData", "WaitingForData")],
        "fox-train-1": [("look", "WaitForData", "WaitingForData")],
        "fox-train-2": [verdict],
    }


def test_one_machine_needs_no_look():
    cluster = Cluster(seen=True)
    cluster.settle()
    assert created(cluster) == ["fox-cache-1"]
