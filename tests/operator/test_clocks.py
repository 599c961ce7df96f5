"""Clocks through queues, waits and failures; what a run costs; nodes on which it crashes."""

from datetime import timedelta

import pytest

from ltx2_operator.api import parse
from ltx2_operator.clocks import start_missed
from ltx2_operator.draft import CreateJob, Draft
from simulated_cluster import START, Cluster, stamp, training, use_fakes


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)


def training_runs(cluster):
    """Past the cache stage, with a running train pod."""
    cluster.run_stage(0)
    cluster.settle()
    cluster.start()
    cluster.settle()
    return cluster


def hold(cluster):
    cluster.hold()
    cluster.settle()


def admit(cluster, phase):
    cluster.admit()
    cluster.start(phase)
    cluster.settle()


def test_a_queue_stops_every_clock_and_both_are_armed_again():
    cluster = Cluster(training(queueName="team", startDeadlineSeconds=100, activeDeadlineSeconds=1000))
    training_runs(cluster)
    cluster.wait(300)
    hold(cluster)
    assert (cluster.status["state"], cluster.status["runningSeconds"]) == ("Queued", 300)
    assert cluster.condition("Admitted")["reason"] == "Preempted"
    cluster.wait(10**6)  # neither deadline runs here
    cluster.settle()
    assert cluster.status["state"] == "Queued"
    admit(cluster, "Pending")
    cluster.wait(99)
    cluster.settle()
    assert cluster.status["state"] == "Starting"
    cluster.start()
    cluster.settle()
    assert (cluster.status["attempt"], cluster.status["execution"], cluster.status["failures"]) == (1, 3, 0)
    cluster.wait(699)
    cluster.settle()
    assert cluster.status["state"] == "Running"
    cluster.wait(1)
    cluster.settle()
    assert (cluster.status["state"], cluster.status["reason"]) == ("Failed", "DeadlineExceeded")
    told = [event.reason for event in cluster.events]
    assert (told.count("Preempted"), told.count("Resumed")) == (1, 1)


def test_a_queue_that_has_not_admitted_the_train_stage_yet_has_preempted_nothing():
    # Catches: "preempted" told from executions of the cache stage.
    cluster = Cluster(training(queueName="team"))
    cluster.run_stage(0)
    hold(cluster)
    assert (cluster.condition("Admitted")["reason"], cluster.status["execution"]) == ("WaitingForQuota", 1)
    assert "Preempted" not in [event.reason for event in cluster.events]


def test_the_queues_own_words_are_copied():
    cluster = Cluster(training(queueName="team"))
    cluster.settle()
    hold(cluster)
    assert cluster.condition("Admitted")["message"] == "the queue holds this run"
    about = {"involvedObject": {"name": "fox-cache-1"}, "reason": "Suspended", "message": "Kueue managed job suspended"}
    cluster.job_events = [about]
    cluster.settle()
    assert cluster.condition("Admitted")["message"] == "Suspended: Kueue managed job suspended"
    words = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu, 1 more needed"
    entry = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": words}
    other = {
        "metadata": {"ownerReferences": [{"uid": "another"}]},
        "status": {"conditions": [{**entry, "message": "x"}]},
    }
    mine = {
        "metadata": {"ownerReferences": [{"uid": cluster.jobs["fox-cache-1"]["metadata"]["uid"]}]},
        "status": {"conditions": [entry]},
    }
    cluster.workloads = [other, mine]
    cluster.settle()
    assert cluster.condition("Admitted")["message"] == f"Pending: {words}"


def test_suspend_while_a_queue_holds_the_run():
    cluster = Cluster(training(queueName="team"))
    cluster.settle()
    hold(cluster)
    cluster.spec(suspend=True)
    cluster.settle()
    assert (cluster.status["state"], cluster.jobs) == ("Suspended", {})
    cluster.wait(10**6)
    cluster.spec(suspend=False)
    cluster.settle()
    assert [a.body["metadata"]["name"] for a in cluster.log if isinstance(a, CreateJob)][-1] == "fox-cache-2"
    assert cluster.condition("Admitted")["reason"] == "QuotaReserved"  # of the new Job, which nobody holds
    assert (cluster.status["failures"], cluster.status["uncounted"]) == (0, 0)


def test_gpu_seconds_used_lost_and_queued():
    cluster = Cluster(training(gpu={"count": 2}, nodes=3, queueName="team"))
    cluster.settle()
    cluster.wait(100)  # six GPUs wait for their pods
    cluster.start()
    cluster.settle()
    cluster.wait(10)
    for index in (0, 0, 0):
        cluster.end(0, index=index)
    cluster.settle()
    assert cluster.status["gpuSeconds"] == {"used": 60, "lost": 0, "queued": 600}
    cluster.start()
    cluster.settle()
    cluster.wait(1000)
    labels = cluster.alive()[0]["metadata"]["labels"]
    checkpoint = {"step": 700, "path": "p", "time": stamp(cluster.now)}
    cluster.wait(50)
    cluster.end(70, word=cluster.word(70, labels, checkpoint=checkpoint))
    cluster.settle()
    assert cluster.status["gpuSeconds"] == {"used": 60 + 6 * 1050, "lost": 300, "queued": 600}
    stored = cluster.status
    cluster.wait(5)  # between two attempts nothing is counted
    cluster.settle()
    assert cluster.status["gpuSeconds"] == stored["gpuSeconds"]


def test_an_attempt_without_a_checkpoint_is_lost_and_one_that_finishes_is_not():
    cluster = training_runs(Cluster())
    cluster.wait(80)
    cluster.end(70)
    cluster.settle()
    assert cluster.status["gpuSeconds"] == {"used": 80, "lost": 80, "queued": 0}
    cluster.wait(10)
    cluster.settle()
    cluster.start()
    cluster.settle()
    cluster.wait(40)
    cluster.end(0)
    cluster.settle()
    assert cluster.status["gpuSeconds"] == {"used": 120, "lost": 80, "queued": 0}


def test_a_rank_that_is_done_first_stops_no_clock():
    cluster = Cluster(training(nodes=2))
    cluster.run_stage(0)
    cluster.end(0)
    cluster.settle()
    cluster.start()
    cluster.settle()
    cluster.end(0)
    assert len(cluster.alive()) == 1
    cluster.wait(10)
    cluster.settle()
    assert (cluster.status["state"], cluster.status["runningSince"]) == ("Running", stamp(START))


@pytest.mark.parametrize("end", [{"code": 139}, {"code": 137, "pod_reason": "Evicted", "pod_message": "memory"}])
def test_a_node_on_which_the_run_has_crashed_twice_is_avoided(end):
    cluster = Cluster()
    cluster.nodes = None  # may not be read
    cluster.run_stage(0)
    seen = []
    for node in ("n1", "n2", "n2"):
        cluster.node = node
        cluster.run_stage(**end)
        cluster.wait(600)
        seen.append(cluster.status["avoidNodes"])
    assert seen == [[], [], ["n2"]]
    (event,) = [event for event in cluster.events if event.reason == "NodeAvoided"]
    assert event.message.startswith("n2: 2 attempts")


@pytest.mark.parametrize("code", [66, 69, 75, 80, 85])
def test_ends_that_say_nothing_about_a_node_avoid_none(code):
    cluster = Cluster()
    cluster.nodes = None
    cluster.run_stage(0)
    for _ in range(3):
        cluster.run_stage(code)
        cluster.wait(600)
    assert cluster.status["avoidNodes"] == []


def test_a_lost_node_counts_against_itself():
    cluster = Cluster()
    cluster.nodes = None
    cluster.run_stage(0)
    for _ in range(2):
        cluster.settle()
        cluster.start()
        cluster.settle()
        cluster.lose_node()
        cluster.wait(300)
        cluster.settle()
        cluster.wait(600)
    assert (cluster.status["avoidNodes"], cluster.status["failures"]) == (["n1"], 0)


def test_the_only_node_is_never_avoided():
    cluster = Cluster()
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    cluster.nodes = [
        {"metadata": {"name": "n1", "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}},
        {"metadata": {"name": "cpu-only"}, "status": {}},
    ]
    cluster.run_stage(0)
    for _ in range(2):
        cluster.run_stage(139)
        cluster.wait(600)
    assert cluster.status["avoidNodes"] == []
    cluster.nodes.append({**cluster.nodes[0], "metadata": {"name": "n2", "labels": labels}})
    cluster.run_stage(139)
    assert cluster.status["avoidNodes"] == ["n1"]


def test_a_stage_that_began_and_ended_while_no_operator_looked_counts_as_one_that_was_seen():
    runs = []
    for seen in (True, False):
        cluster = Cluster(training())
        cluster.run_stage(0)
        cluster.settle()
        cluster.wait(20)
        cluster.start()
        if seen:
            cluster.settle()
        cluster.wait(100)
        cluster.end(0)
        cluster.settle()
        runs.append({key: cluster.status[key] for key in ("execution", "runningSeconds", "gpuSeconds", "state")})
        runs[-1]["admitted"] = cluster.condition("Admitted")["reason"]
    assert runs[0] == runs[1]
    assert (runs[0]["execution"], runs[0]["runningSeconds"]) == (2, 100)


def test_containers_that_began_before_the_wait_are_not_counted_again_at_their_end():
    """A rank of two that runs on when the other has failed: the clock was stopped, and the wait is newer than both."""
    counted = []
    for waited in (START + timedelta(seconds=1), START - timedelta(seconds=1)):
        status = {"stage": "Train", "attempt": 1, "execution": 1, "pendingSince": stamp(waited)}
        obj = {**training(), "status": status}
        draft = Draft.begin(obj, parse(obj), START + timedelta(seconds=60))
        ended = {"terminated": {"exitCode": 70, "startedAt": stamp(START)}}
        start_missed(draft, [{"status": {"containerStatuses": [{"state": ended}]}}])
        counted.append((draft.status["execution"], draft.status.get("runningSince")))
    assert counted == [(1, None), (2, stamp(START))]
