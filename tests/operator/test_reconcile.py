"""reconcile, case by case: the protocol of attempts, budgets, pause, deadlines, conditions and events."""

import copy
from datetime import timedelta

import pytest

from ltx2_operator.attempts import backoff
from ltx2_operator.conditions import moment, stamp
from ltx2_operator.draft import CreateJob, Delete, DeleteTraining
from ltx2_operator.reconcile import reconcile
from simulated_cluster import LADDER, SETTINGS, START, UID, Cluster, training, use_fakes


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)


def reasons(cluster):
    return [event.reason for event in cluster.events]


def created(cluster):
    return [action.body["metadata"]["name"] for action in cluster.log if isinstance(action, CreateJob)]


def test_the_way_from_a_manifest_to_success():
    cluster = Cluster()
    cluster.settle()
    assert list(cluster.jobs) == ["fox-cache-1"]
    assert {kind for kind, _ in cluster.others} == {"ConfigMap", "PersistentVolumeClaim"}
    cluster.start()
    cluster.settle()
    assert (cluster.status["state"], cluster.status["stage"], cluster.condition("Running")["reason"]) == (
        "Running",
        "Cache",
        "Caching",
    )
    cluster.end(0)
    cluster.settle()
    assert cluster.status["cacheReady"]
    assert list(cluster.jobs) == ["fox-cache-1", "fox-train-1"]
    cluster.start()
    cluster.settle()
    cluster.wait(7200)
    cluster.end(0)
    cluster.settle()
    status = cluster.status
    assert (status["state"], status["attempt"], status["failures"], status["execution"]) == ("Succeeded", 1, 0, 2)
    assert status["result"]["lora"] == "runs/fox/lora.safetensors"
    assert status["runningSeconds"] == 7200
    assert status["progress"]["step"] == 2000
    assert reasons(cluster) == ["Accepted", "CacheStarted", "CacheReady", "TrainingStarted", "Succeeded"]
    assert cluster.events[-1].message == "runs/fox/lora.safetensors, final loss 0.2100, 2.00 hours"
    assert cluster.condition("Failed")["status"] == "False"


def test_the_number_of_an_attempt_is_stored_before_its_job_is_created():
    # Catches: create and count in one look; after a lost status write the number would be used twice.
    cluster = Cluster()
    first = cluster.look(lose_actions=True)
    assert first.status["attempt"] == 1
    assert not [action for action in first.actions if isinstance(action, CreateJob)]
    assert first.requeue_after == 0
    assert [type(action).__name__ for action in cluster.look().actions] == ["Create", "Create", "CreateJob"]
    cluster.start()
    cluster.settle()
    cluster.end(0)
    second = cluster.look(lose_status=True)
    assert second.status["stage"] == "Train"
    assert not [action for action in second.actions if isinstance(action, CreateJob)]


@pytest.mark.parametrize("opened", [False, True])
def test_no_job_is_created_while_a_pod_of_this_name_lives_whatever_its_uid(opened):
    cluster = Cluster()
    if opened:
        cluster.look()
        assert cluster.status["attempt"] == 1
    cluster.pods["old"] = {
        "metadata": {
            "name": "old",
            "uid": "u",
            "labels": {"ltx2.dev/uid": "another"},
            "ownerReferences": [{"name": "x"}],
        },
        "status": {"phase": "Running"},
    }
    cluster.settle()
    assert created(cluster) == []
    assert "old" in cluster.condition("Running")["message"]
    cluster.pods["old"]["status"]["phase"] = "Failed"
    cluster.settle()
    assert created(cluster) == ["fox-cache-1"]


def test_a_failed_attempt_counts_and_backs_off_then_trains_without_caching_again():
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.run_stage(70)
    status = cluster.status
    assert (status["failures"], status["uncounted"], status["state"]) == (1, 0, "Restarting")
    assert moment(status["nextAttemptTime"]) == cluster.now + timedelta(seconds=10)
    assert cluster.requeue == 10
    assert cluster.status["lastVerdict"] | {"time": None} == {
        "attempt": 1, "stage": "Train", "action": "Retry", "reason": "AppError", "exitCode": 70,
        "message": "exit code 70, unexpected exception: left with 70", "nodes": ["n1"], "time": None,
    }  # fmt: skip
    cluster.wait(9)
    cluster.settle()
    assert cluster.status["attempt"] == 1
    cluster.wait(1)
    cluster.settle()
    assert created(cluster) == ["fox-cache-1", "fox-train-1", "fox-train-2"]


def test_backoff_doubles_from_ten_seconds_to_ten_minutes():
    assert [backoff(n) for n in (0, 1, 2, 3, 6, 7, 50)] == [10, 10, 20, 40, 320, 600, 600]


def test_retries_exhausted_is_terminal_until_retries_rises():
    cluster = Cluster(training(retries=1))
    cluster.run_stage(0)
    cluster.run_stage(70)
    cluster.wait(10)
    cluster.run_stage(139)
    assert (cluster.status["state"], cluster.condition("Failed")["reason"], cluster.status["failures"]) == (
        "Failed",
        "RetriesExhausted",
        2,
    )
    cluster.wait(10**6)
    cluster.settle()
    assert len(created(cluster)) == 3
    cluster.spec(retries=1, suspend=False)
    cluster.settle()
    assert cluster.status["state"] == "Failed"
    cluster.spec(retries=2)
    cluster.settle()
    assert created(cluster)[-1] == "fox-train-3"
    assert (cluster.condition("Failed")["status"], cluster.condition("Succeeded")["status"]) == ("False", "Unknown")
    cluster.run_stage(0)
    assert cluster.status["state"] == "Succeeded"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (64, "InvalidConfig"),
        (65, "DataError"),
        (73, "StorageError"),
        (77, "AuthError"),
        (78, "InvalidConfig"),
        (79, "HostOutOfMemory"),
        (128, "InvalidImage"),
    ],
)
def test_terminal_codes_fail_at_once_and_raising_retries_gives_another_attempt(code, reason):
    cluster = Cluster()
    cluster.run_stage(code)
    assert (cluster.status["state"], cluster.status["reason"]) == ("Failed", reason)
    assert cluster.condition("Cached")["reason"] == "CacheFailed"
    assert cluster.status["attempts"][-1]["reason"] == reason
    assert created(cluster) == ["fox-cache-1"]
    cluster.spec(retries=4)
    cluster.settle()
    assert created(cluster)[-1] == "fox-cache-2"


def test_gpu_memory_lowers_the_plan_uncounted_until_none_is_left():
    cluster = Cluster(training(retries=0))
    cluster.run_stage(0)
    plans = []
    for _ in range(3):
        cluster.settle()
        plans.append(cluster.status["plan"]["memory"])
        cluster.start()
        cluster.settle()
        cluster.end(80)
        cluster.look()
        if cluster.status["state"] != "Failed":
            assert cluster.condition("Running")["reason"] == "MemoryPlanLowered"
    assert plans == list(LADDER)
    assert (cluster.status["state"], cluster.status["reason"]) == ("Failed", "GPUOutOfMemory")
    assert cluster.status["rung"] == {"train": 2, "cache": 0}
    assert [event.message for event in cluster.events if event.reason == "GPUOutOfMemory"] == [
        "bf16/resident/keep:48 → bf16/resident/keep:24, continues from step 0",
        "bf16/resident/keep:24 → bf16/resident/keep:0, continues from step 0",
    ]


def test_the_cache_stage_has_its_own_ladder_and_another_configmap():
    cluster = Cluster()
    cluster.run_stage(80)
    cluster.settle()
    assert cluster.status["cachePlan"]["cacheMemory"] == "cpu"
    assert cluster.status["plan"]["memory"] == LADDER[0]
    maps = {job["spec"]["template"]["spec"]["volumes"][-2]["configMap"]["name"] for job in cluster.jobs.values()}
    assert len(maps) == 2 == len([kind for kind, _ in cluster.others if kind == "ConfigMap"])


def test_five_interruptions_without_a_newer_checkpoint_count_as_one_failure():
    cluster = Cluster()
    cluster.run_stage(0)
    for turn in range(5):
        cluster.run_stage(85, disrupted="PreemptionByScheduler")
        assert cluster.status["failures"] == (1 if turn == 4 else 0)
        cluster.wait(600)
    assert "5 interrupted attempts" in cluster.status["lastVerdict"]["message"]


def test_a_newer_checkpoint_begins_the_row_of_interruptions_anew():
    cluster = Cluster()
    cluster.run_stage(0)
    for turn in range(12):
        cluster.settle()
        cluster.start()
        cluster.settle()
        labels = cluster.alive()[0]["metadata"]["labels"]
        step = 100 * (turn // 3 + 1)
        cluster.end(
            85,
            word=cluster.word(
                85, labels, checkpoint={"step": step, "path": f"runs/fox/checkpoints/step-{step}", "time": "x"}
            ),
        )
        cluster.settle()
        cluster.wait(600)
    assert (cluster.status["failures"], cluster.status["checkpoint"]["step"]) == (0, 400)
    assert [event.message for event in cluster.events if event.reason == "Checkpoint"][
        -1
    ] == "step 400: runs/fox/checkpoints/step-400"


def test_waiting_for_data_is_uncounted_holds_nothing_and_looks_again_more_rarely():
    cluster = Cluster(training(startDeadlineSeconds=60))
    waits = []
    for _ in range(8):
        cluster.run_stage(66)
        assert (cluster.status["state"], cluster.condition("Cached")["reason"]) == ("Waiting", "WaitingForData")
        assert not cluster.alive()
        waits.append(cluster.requeue)
        cluster.wait(cluster.requeue)
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]
    assert (cluster.status["failures"], cluster.status["uncounted"]) == (0, 0)
    assert reasons(cluster).count("WaitingForData") == 1
    cluster.run_stage(0)
    assert (cluster.status["stage"], cluster.status["waits"]) == ("Train", 0)


def test_suspend_deletes_the_job_waits_for_the_pods_and_resume_is_the_next_attempt_uncounted():
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.start()
    cluster.settle()
    cluster.spec(suspend=True)
    cluster.settle()
    deleted = [action for action in cluster.log if isinstance(action, Delete)]
    assert [(one.kind, one.name) for one in deleted] == [("Job", "fox-train-1")]
    assert deleted[0].uid is not None  # a namesake that came after it would not be hit
    assert (cluster.status["state"], cluster.condition("Suspended")["status"]) == ("Suspending", "False")
    cluster.end(85)
    cluster.settle()
    assert (cluster.status["state"], cluster.status["failures"], cluster.status["uncounted"]) == ("Suspended", 0, 0)
    assert cluster.status["lastVerdict"]["action"] == "Suspend"
    cluster.wait(10**5)
    cluster.settle()
    assert created(cluster)[-1] == "fox-train-1"
    cluster.spec(suspend=False)
    cluster.settle()
    assert created(cluster)[-1] == "fox-train-2"
    assert cluster.condition("Suspended") | {"lastTransitionTime": 0, "message": 0} == {
        "type": "Suspended", "status": "False", "reason": "Resumed", "observedGeneration": 3, "lastTransitionTime": 0,
        "message": 0,
    }  # fmt: skip
    assert "Resumed" in reasons(cluster)


def test_suspended_from_the_start_makes_nothing():
    cluster = Cluster(training(suspend=True))
    cluster.settle()
    assert (cluster.status["state"], cluster.status["attempt"], cluster.log) == ("Suspended", 0, [])


def zone(name):
    return {"spec": {"nodeSelector": {"zone": name}}}


def test_pods_after_a_pause_are_of_the_template_of_today_and_the_server_sees_it_first():
    """Mutations caught: a changed template that is taken unseen; one that is shown again for every attempt."""
    cluster = Cluster(training(podTemplate=zone("a")))
    cluster.run_stage(0)
    cluster.start()
    cluster.settle()
    cluster.spec(suspend=True)
    cluster.settle()
    cluster.end(85)
    cluster.settle()
    assert [shown["spec"]["nodeSelector"] for shown in cluster.shown] == [{"zone": "a"}]
    cluster.spec(podTemplate=zone("b"))
    cluster.spec(suspend=False)
    cluster.settle()
    assert [shown["spec"]["nodeSelector"] for shown in cluster.shown] == [{"zone": "a"}, {"zone": "b"}]
    assert cluster.jobs["fox-train-2"]["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "b"}
    cluster.start()
    cluster.settle()
    cluster.end(1)
    cluster.settle()
    cluster.wait(10)
    cluster.settle()
    assert ("fox-train-3" in cluster.jobs, len(cluster.shown)) == (True, 2)


def test_a_changed_template_that_the_server_refuses_ends_the_run_and_can_be_mended():
    cluster = Cluster(training(podTemplate=zone("a")))
    cluster.run_stage(0)
    cluster.start()
    cluster.settle()
    cluster.end(79)
    cluster.settle()
    assert (cluster.status["state"], cluster.status["reason"]) == ("Failed", "HostOutOfMemory")
    cluster.dislike = "spec.template.spec.nodeSelector: bad"
    cluster.spec(podTemplate=zone("?"), retries=4)
    cluster.settle()
    assert (cluster.status["state"], cluster.status["reason"]) == ("Failed", "InvalidConfig")
    assert cluster.condition("Failed")["message"] == "spec.podTemplate: spec.template.spec.nodeSelector: bad"
    assert "fox-train-2" not in cluster.jobs
    cluster.dislike = ""
    cluster.spec(podTemplate=zone("b"), retries=5)
    cluster.settle()
    assert cluster.jobs["fox-train-3"]["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "b"}


def test_a_run_that_finished_before_the_pause_has_succeeded():
    # Catches: deleting a complete Job whose verdict was never stored.
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.start()
    cluster.settle()
    cluster.end(0)
    cluster.spec(suspend=True)
    cluster.settle()
    assert cluster.status["state"] == "Succeeded"


def test_an_interrupted_pause_is_taken_back():
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.start()
    cluster.settle()
    cluster.spec(suspend=True)
    cluster.look(lose_actions=True)
    cluster.spec(suspend=False)
    cluster.settle()
    assert (cluster.status["state"], cluster.condition("Suspended")["reason"]) == ("Running", "NotSuspended")


def test_the_active_deadline_counts_running_seconds_over_all_attempts():
    cluster = Cluster(training(activeDeadlineSeconds=100))
    cluster.run_stage(0)
    cluster.start()
    cluster.settle()
    cluster.wait(60)
    cluster.end(70)
    cluster.settle()
    cluster.wait(5000)  # between attempts the clock stands still
    cluster.settle()
    assert cluster.jobs["fox-train-2"]["spec"]["activeDeadlineSeconds"] == 40 + 3600
    cluster.start()
    cluster.settle()
    cluster.wait(39)
    cluster.settle()
    assert cluster.status["state"] == "Running"
    cluster.wait(1)
    cluster.look()
    assert (cluster.status["state"], cluster.status["reason"]) == ("Failed", "DeadlineExceeded")
    assert "fox-train-2" in cluster.jobs  # the end is stored before anything is deleted
    cluster.look()
    assert "fox-train-2" not in cluster.jobs
    cluster.end(85)
    cluster.settle()
    cluster.spec(retries=4)
    cluster.settle()
    assert cluster.jobs["fox-train-3"]["spec"]["activeDeadlineSeconds"] == 100 + 3600


def test_the_start_deadline_runs_while_pods_are_pending_and_stops_in_a_queue():
    cluster = Cluster(training(startDeadlineSeconds=100, queueName="team"))
    cluster.settle()
    cluster.jobs["fox-cache-1"]["spec"]["suspend"] = True
    cluster.settle()
    assert (cluster.status["state"], cluster.condition("Admitted")["reason"]) == ("Queued", "WaitingForQuota")
    cluster.wait(10**5)
    cluster.settle()
    assert cluster.status["state"] == "Queued"
    cluster.jobs["fox-cache-1"]["spec"]["suspend"] = False
    cluster.start("Pending")
    cluster.settle()
    cluster.wait(99)
    cluster.settle()
    assert cluster.status["state"] == "Starting"
    cluster.wait(1)
    cluster.settle()
    assert (cluster.status["state"], cluster.status["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert "fox-cache-1" not in cluster.jobs


def test_a_queue_that_suspends_and_resumes_is_the_same_attempt_and_another_execution():
    cluster = Cluster(training(queueName="team"))
    cluster.settle()
    cluster.start()
    cluster.settle()
    assert (cluster.status["execution"], cluster.condition("Admitted")["reason"]) == (1, "QuotaReserved")
    job = cluster.jobs["fox-cache-1"]
    job["spec"]["suspend"] = True
    job["status"]["conditions"] = [{"type": "Suspended", "status": "True"}]
    cluster.pods.clear()
    cluster.settle()
    assert (cluster.status["state"], cluster.condition("Admitted")["reason"]) == ("Queued", "Preempted")
    job["spec"]["suspend"], job["status"]["conditions"] = False, []
    cluster.start()
    cluster.settle()
    assert (cluster.status["attempt"], cluster.status["execution"]) == (1, 2)


def test_time_to_live_deletes_the_object_only_after_its_end():
    cluster = Cluster(training(ttlSecondsAfterFinished=60))
    cluster.run_stage(0)
    cluster.run_stage(0)
    assert cluster.requeue == 60
    cluster.wait(59)
    cluster.settle()
    assert not cluster.deleted
    cluster.wait(1)
    assert DeleteTraining() in cluster.look().actions


def test_an_object_that_is_being_deleted_is_left_alone():
    cluster = Cluster()
    cluster.settle()
    cluster.obj["metadata"]["deletionTimestamp"] = stamp(START)
    outcome = cluster.look()
    assert (outcome.actions, outcome.status) == ([], cluster.status)


def test_a_finished_training_makes_no_second_job_when_its_children_vanish():
    # Catches: the worst bug of another operator: the child goes by its time to live and is made again for ever.
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.run_stage(0)
    cluster.jobs.clear()
    cluster.pods.clear()
    cluster.others.clear()
    cluster.wait(10**6)
    cluster.settle()
    assert (cluster.status["state"], len(created(cluster))) == ("Succeeded", 2)


def test_budgets_survive_vanished_children_and_a_deleted_job_is_uncounted():
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.run_stage(70)
    cluster.wait(10)
    cluster.settle()
    cluster.start()
    cluster.settle()
    cluster.jobs.clear()
    cluster.pods.clear()
    cluster.settle()
    assert (cluster.status["failures"], cluster.status["lastVerdict"]["reason"], cluster.status["attempt"]) == (
        1,
        "PodDeleted",
        2,
    )


def test_a_lost_node_ends_the_attempt_and_its_pod_is_forced_after_the_verdict_is_stored():
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.start()
    cluster.settle()
    cluster.lose_node()
    cluster.settle()
    assert cluster.status["state"] == "Running"
    cluster.wait(60)
    first = cluster.look()
    assert first.status["lastVerdict"]["reason"] == "Preempted"
    assert first.actions == []
    forced = [action for action in cluster.look().actions if isinstance(action, Delete) and action.force]
    assert len(forced) == 1
    cluster.settle()
    assert not cluster.alive()
    cluster.wait(10)
    cluster.settle()
    assert created(cluster)[-1] == "fox-train-2"


def test_a_restored_object_goes_on_from_the_newest_job():
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.run_stage(70)
    cluster.wait(10)
    cluster.settle()
    del cluster.obj["status"]
    cluster.settle()
    assert cluster.status["attempt"] == 2
    assert created(cluster).count("fox-train-2") == 1


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"metadata": {"name": "f" * 41}}, "NameTooLong", "41 characters, at most 40"),
        (
            {"spec": {"config": {}, "gpu": {"clas": "auto"}}},
            "InvalidConfig",
            "spec.gpu.clas: unknown key; did you mean class?",
        ),
        ({"spec": {"config": {}, "secrets": {"hubToken": {"name": "hub"}}}}, "SecretNotFound", "no Secret hub"),
    ],
)
def test_a_wrong_object_is_rejected_in_one_sentence_once_and_can_be_repaired(change, reason, words):
    good = training()
    obj = training()
    obj["metadata"] |= change.get("metadata", {})
    obj["spec"] = change.get("spec", obj["spec"])
    cluster = Cluster(obj)
    observe = cluster.observe
    from dataclasses import replace

    cluster.observe = lambda: replace(observe(), secrets=frozenset())
    cluster.look()
    cluster.look()
    assert (cluster.status["state"], cluster.condition("Accepted")["reason"]) == ("Rejected", reason)
    assert words in cluster.condition("Accepted")["message"]
    assert reasons(cluster) == ["Rejected"]
    cluster.obj["metadata"] |= {"name": "fox", "generation": 2}
    cluster.obj["spec"] = good["spec"]
    cluster.settle()
    assert created(cluster) == ["fox-cache-1"]


def test_nodes_share_only_a_claim_that_many_can_write():
    obj = training(nodes=2, storage={"claimName": "shared"})
    cluster = Cluster(obj)
    cluster.others["PersistentVolumeClaim", "shared"] = {
        "metadata": {"name": "shared"}, "kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteOnce"]},
    }  # fmt: skip
    cluster.settle()
    assert cluster.condition("Accepted")["reason"] == "StorageNotShared"
    cluster.others["PersistentVolumeClaim", "shared"]["spec"]["accessModes"] = ["ReadWriteMany"]
    cluster.wait(60)
    cluster.settle()
    assert created(cluster) == ["fox-cache-1"]
    assert ("Service", "fox-peers") in cluster.others


def test_corrections_stand_in_warnings_and_in_the_accepted_event():
    obj = training()
    obj["spec"]["config"]["correct"] = True
    cluster = Cluster(obj)
    cluster.nodes = [H100]
    cluster.settle()
    assert cluster.status["warnings"] == ["validation_num_video_frames 62 → 57 (8k+1)"]
    assert cluster.events[0].message == (
        "1x h100-80g, bf16/resident/keep:48, predicted peak 32.0 GiB, 1.3 s/step; "
        "corrected: validation_num_video_frames 62 → 57 (8k+1)"
    )
    assert cluster.status["gpu"] == "1x h100-80g"


def test_an_edit_before_the_first_attempt_is_planned_anew_and_one_behind_the_locks_back_is_refused():
    cluster = Cluster(training(suspend=True))
    cluster.settle()
    cluster.spec(gpu={"count": 2})
    cluster.settle()
    assert cluster.status["gpu"] == "2x h100-80g"
    cluster.spec(suspend=False)
    cluster.run_stage(0)
    cluster.run_stage(70)
    cluster.spec(config={"max_train_steps": 5})
    cluster.wait(10)
    cluster.settle()
    assert (cluster.status["state"], cluster.status["reason"]) == ("Failed", "InvalidConfig")
    assert "resumeFrom" in cluster.condition("Failed")["message"]


def test_a_page_that_nobody_has_tried_to_read_yet_says_nothing():
    """Neither at the start of a run nor at that of an operator."""
    cluster = Cluster()
    cluster.page_awaited = True
    cluster.run_stage(0)
    cluster.start()
    cluster.wait(200)
    cluster.settle()
    assert cluster.status["state"] == "Running"
    assert cluster.condition("Progressing")["reason"] == "Pending"
    cluster.page_awaited = False
    cluster.settle()
    assert cluster.condition("Progressing")["reason"] == "Unknown"


def test_progress_is_taken_over_and_a_stall_is_seen():
    cluster = Cluster()
    cluster.run_stage(0)
    cluster.start()
    page = {
        "uid": UID, "attempt": 1, "stage": "train", "state": "training", "step": 1250, "maxSteps": 2000, "loss": 0.25,
        "heldOutLoss": None, "secondsPerStep": 0.5, "etaSeconds": 375.0,
        "checkpoint": {"step": 1000, "path": "p", "time": None}, "items": None,
    }  # fmt: skip
    cluster.page = page
    cluster.settle()
    status = cluster.status
    assert (status["progressText"], status["eta"], status["etaTime"]) == (
        "1250/2000",
        "6m",
        stamp(cluster.now + timedelta(seconds=375)),
    )
    assert status["progress"] == {
        "step": 1250,
        "maxSteps": 2000,
        "loss": "0.25",
        "secondsPerStep": "0.5",
        "etaSeconds": 375,
        "time": stamp(cluster.now),
    }
    assert (status["checkpoint"]["step"], cluster.condition("Progressing")["reason"]) == (1000, "Stepping")
    assert cluster.requeue == 900  # when it would count as stalled; until then a page that changes is reason enough
    cluster.wait(901)
    cluster.settle()
    assert (cluster.condition("Progressing")["status"], cluster.condition("Progressing")["reason"]) == (
        "False",
        "Stalled",
    )
    cluster.page = None
    cluster.settle()
    assert (cluster.condition("Progressing")["reason"], cluster.status["state"]) == ("Unknown", "Running")


H100 = {
    "metadata": {"labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}},
    "status": {"allocatable": {"nvidia.com/gpu": "8"}},
}
SHORT = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def test_more_gpus_than_any_node_has_are_accepted_and_told():
    cluster = Cluster(training(gpu={"class": "h100-80g", "count": 16}))
    cluster.nodes = [H100]
    cluster.settle()
    accepted = cluster.condition("Accepted")
    assert accepted["status"] == "True"
    assert "no node of this cluster has 16 x nvidia.com/gpu of class h100-80g, at most 8 each" in accepted["message"]
    assert cluster.events[0].message == accepted["message"]


def test_the_column_shows_nothing_of_a_stage_that_is_over():
    """Mutation caught: "3/3" clips of the cache stage while the training loads its model."""
    cluster = Cluster()
    cluster.settle()
    cluster.start()
    base = {"uid": UID, "attempt": 1, "state": "training", "step": 0, "maxSteps": 0, "loss": None, "heldOutLoss": None,
            "secondsPerStep": None, "etaSeconds": None, "checkpoint": None, "items": None}  # fmt: skip
    cluster.page = {**base, "stage": "cache", "items": {"done": 3, "total": 3, "skipped": 0}, "etaSeconds": 30}
    cluster.settle()
    assert (cluster.status["progressText"], cluster.status["eta"]) == ("3/3", "30s")
    cluster.end(0)
    cluster.page = None
    cluster.settle()
    cluster.start()
    cluster.settle()
    assert (cluster.status["stage"], cluster.status["state"]) == ("Train", "Running")
    assert not {"progressText", "eta", "etaTime"} & cluster.status.keys()
    assert "etaSeconds" not in cluster.status["progress"]
    cluster.page = {**base, "stage": "train", "step": 1, "maxSteps": 2000, "loss": 0.5}
    cluster.settle()
    assert cluster.status["progressText"] == "1/2000"


def test_a_child_that_the_server_refuses_is_what_a_run_waits_for():
    cluster = Cluster(training(startDeadlineSeconds=60))
    cluster.refuse = "Job fox-cache-1 was refused: exceeded quota: few, requested: count/jobs.batch=1"
    cluster.settle()
    told = cluster.condition("Running")
    assert (told["reason"], cluster.status["state"]) == ("WaitingForPods", "Waiting")
    assert cluster.refuse in told["message"] and "have it raised: it follows by itself" in told["message"]
    cluster.wait(61)
    cluster.settle()
    failed = cluster.condition("Failed")
    assert failed["reason"] == "StartDeadlineExceeded" and cluster.refuse in failed["message"]


def test_a_run_whose_child_is_taken_after_all_goes_on():
    cluster = Cluster()
    cluster.refuse = "PersistentVolumeClaim fox-data was refused: exceeded quota: few"
    cluster.settle()
    assert not cluster.jobs
    cluster.refuse = ""
    cluster.wait(10)
    cluster.settle()
    assert "quota" not in cluster.condition("Running")["message"] and "fox-cache-1" in cluster.jobs


def test_reconcile_is_pure():
    cluster = Cluster()
    cluster.settle()
    cluster.start()
    view = cluster.observe()
    obj = cluster.obj
    import copy

    kept = copy.deepcopy(obj)
    one, two = (reconcile(obj, view, cluster.now, SETTINGS) for _ in range(2))
    assert one == two
    assert obj == kept


def test_why_a_run_waits_is_said_with_a_remedy():
    obj = training(gpu={"class": "h100-80g", "count": 2})
    cluster = Cluster(obj)
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    cluster.nodes = [{"metadata": {"labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "2"}}}] * 2
    cluster.settle()
    cluster.start("Pending")
    for pod in cluster.pods.values():
        pod["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": SHORT}
        ]
    cluster.settle()
    assert cluster.status["state"] == "Waiting"
    assert (
        f"{pod['metadata']['name']}: 2 nodes offer nvidia.com/gpu but none has 2 free"
        in (cluster.condition("Running")["message"])
    )
    for pod in cluster.pods.values():
        pod["status"] = {
            "phase": "Pending",
            "containerStatuses": [
                {"image": "x/y", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}}
            ],
        }
    cluster.settle()
    assert cluster.condition("Running")["reason"] == "ImagePull"
    assert "x/y cannot be pulled" in cluster.condition("Running")["message"]


def test_a_namesakes_finished_job_is_neither_adopted_nor_judged():
    # Catches: children taken by name alone, so that a re-created training goes on from the deleted one's attempt.
    old = Cluster()
    old.settle()
    job = copy.deepcopy(old.active_job())
    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        labels |= {"ltx2.dev/uid": "of the deleted one", "ltx2.dev/attempt": "7"}
    job["metadata"]["name"] = "fox-cache-7"
    old.conclude(job, "Complete", "CompletionsReached", "")
    cluster = Cluster()
    cluster.jobs["fox-cache-7"] = job
    cluster.settle()
    assert cluster.status["attempt"] == 1
    assert cluster.status["failures"] == 0
    assert {"fox-cache-7", "fox-cache-1"} == set(cluster.jobs)


@pytest.mark.parametrize(
    ("pod", "event", "words", "remedy"),
    [
        ({"scheduled": 'persistentvolumeclaim "clips" not found'}, None, '"clips" not found', "spec.storage.claimName"),
        ({"scheduled": "pod has unbound immediate PersistentVolumeClaims"}, None, "unbound", "kubectl describe pvc"),
        ({"waiting": ("CreateContainerConfigError", 'secret "hub" not found')}, None, '"hub" not found', "create what"),
        ({"waiting": ("CreateContainerConfigError", "couldn't find key token in Secret ml/hub")}, None, "token", "add"),
        (None, ("FailedCreate", 'pods "x" is forbidden: exceeded quota: gpus'), "exceeded quota: gpus", "raised"),
        (None, ("FailedCreate", 'pods "x" is forbidden: violates PodSecurity "restricted"'), "violates", "podTemplate"),
    ],
)
def test_what_keeps_pods_from_starting_is_said_with_what_helps(pod, event, words, remedy):
    cluster = Cluster()
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    cluster.nodes = [{"metadata": {"labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "1"}}}]
    cluster.settle()
    if pod:
        cluster.start("Pending")
        status = next(iter(cluster.pods.values()))["status"]
        if "scheduled" in pod:
            entry = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": pod["scheduled"]}
            status["conditions"] = [entry]
        else:
            reason, message = pod["waiting"]
            status["containerStatuses"] = [{"state": {"waiting": {"reason": reason, "message": message}}}]
    else:
        about = {"name": "fox-cache-1"}
        cluster.job_events = [{"involvedObject": about, "reason": event[0], "message": event[1]}]
    cluster.settle()
    message = cluster.condition("Running")["message"]
    assert words in message
    assert remedy in message
