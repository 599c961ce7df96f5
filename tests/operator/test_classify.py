"""classify: one recorded-style sequence of (Job, pods) per verdict, the precedence of causes, and hostile input."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2_job.exitcodes import Action, lookup
from ltx2_operator.classify import Verdict, classify, is_alive, is_stuck
from ltx2_operator.runtime.kinds import PODS

DATA = Path(__file__).parent / "data" / "verdicts"
NOW = datetime(2026, 11, 22, 10, 6, tzinfo=UTC)
SEQUENCES = sorted(DATA.glob("*.json"))


def load(path):
    data = json.loads(path.read_text())
    return data, datetime.fromisoformat(data["now"].replace("Z", "+00:00"))


@pytest.mark.parametrize("path", SEQUENCES, ids=lambda path: path.stem)
def test_each_recorded_sequence_ends_in_its_verdict_and_not_before(path):
    # Catches: a verdict from FailureTarget, from a running pod, or from the wrong one of two causes.
    data, now = load(path)
    *before, last = data["sequence"]
    for step in before:
        assert classify(step["job"], step["pods"], now) is None
    verdict = classify(last["job"], last["pods"], now)
    want = data["verdict"]
    assert (verdict.action, verdict.reason, verdict.exit_code) == (want["action"], want["reason"], want["exitCode"])


def test_the_recorded_sequences_cover_every_row_of_the_exit_code_table():
    from ltx2_job.exitcodes import TABLE

    seen = {json.loads(path.read_text())["verdict"]["exitCode"] for path in SEQUENCES}
    assert set(TABLE) <= seen


def test_order_of_pods_changes_nothing():
    for path in SEQUENCES:
        data, now = load(path)
        last = data["sequence"][-1]
        assert classify(last["job"], last["pods"], now) == classify(last["job"], last["pods"][::-1], now), path.stem


def terminated(code, reason="Error", message=None, **metadata):
    state = {"exitCode": code, "reason": reason, "finishedAt": "2026-11-22T10:05:00Z"}
    if message is not None:
        state["message"] = message
    status = {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [{"name": "job", "state": {"terminated": state}}],
    }
    return {"metadata": {"name": "p", **metadata}, "status": status}


def failed_job(reason="PodFailurePolicy", message=""):
    return {
        "metadata": {"name": "j"},
        "status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason, "message": message}]},
    }


def complete_job():
    return {"metadata": {"name": "j"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}


def code_message(code):
    return f"Container job for pod ml/p failed with exit code {code} matching FailJob rule at index 6"


@given(st.integers(1, 255))
@settings(max_examples=255, derandomize=True, deadline=None)
def test_the_job_alone_gives_every_code_the_tables_verdict(code):
    # Catches: a second table in the operator, or a code without meaning.
    verdict = classify(failed_job(message=code_message(code)), [], NOW)
    row = lookup(code)
    assert (verdict.action, verdict.reason, verdict.exit_code) == (row.action, row.reason, code)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=4), st.booleans(), st.booleans())
@settings(max_examples=150, derandomize=True, deadline=None)
def test_decisive_codes_win_over_disruption_and_other_codes(codes, disrupted, deleted):
    metadata = {"deletionTimestamp": "2026-11-22T10:07:00Z"} if deleted else {}
    pods = [terminated(code, **metadata) for code in codes]
    if disrupted:
        pods[0]["status"]["conditions"] = [
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        ]
    verdict = classify(failed_job("BackoffLimitExceeded", "Job has reached the specified backoff limit"), pods, NOW)
    decisive = [code for code in codes if code in (64, 65, 66, 73, 77, 78, 79, 80, 81)]
    if decisive:
        assert verdict.exit_code in decisive
    elif disrupted:
        assert (verdict.action, verdict.reason) == (Action.RETRY_UNCOUNTED, "Preempted")
    else:
        assert verdict.reason == "PodDeleted" or verdict.exit_code in codes


def test_deadline_of_the_job_wins_over_everything():
    pod = terminated(80, "OOMKilled")
    pod["status"]["reason"] = "Evicted"
    verdict = classify(failed_job("DeadlineExceeded", "Job was active longer than specified deadline"), [pod], NOW)
    assert (verdict.action, verdict.reason) == (Action.FAIL, "DeadlineExceeded")


def test_eviction_wins_over_oom_and_oom_wins_over_codes():
    pod = terminated(80, "OOMKilled")
    assert classify(failed_job(message=code_message(80)), [pod], NOW).reason == "HostOutOfMemory"
    pod["status"].update(reason="Evicted", message="Pod ephemeral local storage usage exceeds")
    assert classify(failed_job(message=code_message(80)), [pod], NOW).reason == "EphemeralStorageExceeded"


@pytest.mark.parametrize(
    "message",
    ["", "no json", "[1]", "null",
     '{"exitCode": 1, "result": {"steps": 9}}', '{"exitCode": 0}', '{"result": {"steps": 9}}',
     '{"exitCode": 0, "step": 3, "maxSteps": 9}', '{"exitCode": 0, "step": 0, "maxSteps": 0}',
     '{"exitCode": 0, "step": "9", "maxSteps": 9}',
     '{"exitCode": 0, "result": {"steps": 9}}' + " " * 5000],
)  # fmt: skip
def test_complete_without_proof_is_no_success(message):
    # Catches: Succeeded = Job Complete (a deleted pod may leave with 0).
    verdict = classify(complete_job(), [terminated(0, "Completed", message)], NOW)
    assert (verdict.action, verdict.reason) == (Action.RETRY_UNCOUNTED, "NoProof")


@pytest.mark.parametrize(
    "message",
    [
        '{"exitCode": 0, "stage": "train", "result": {"steps": 9}}',
        '{"exitCode": 0, "step": 9, "maxSteps": 9}',
        '{"exitCode": 0, "stage": "cache"}',
    ],
)
def test_complete_with_proof_succeeds(message):
    verdict = classify(complete_job(), [terminated(0, "Completed", message)], NOW)
    assert verdict.action is Action.SUCCEED
    assert verdict.report == json.loads(message)


def test_the_launchers_word_is_quoted_only_for_the_code_it_belongs_to():
    word = json.dumps({"exitCode": 80, "message": "out of memory at step 812"})
    assert (
        "out of memory at step 812"
        in classify(failed_job(message=code_message(80)), [terminated(80, message=word)], NOW).message
    )
    assert (
        "out of memory"
        not in classify(failed_job(message=code_message(139)), [terminated(139, message=word)], NOW).message
    )


def test_a_running_or_terminating_pod_is_alive_and_stuck_only_after_a_minute():
    pod = {"metadata": {"name": "p", "deletionTimestamp": "2026-11-22T10:05:00Z"}, "status": {"phase": "Running"}}
    assert is_alive(pod)
    assert not is_stuck(pod, NOW - timedelta(seconds=1))
    assert is_stuck(pod, NOW)
    assert classify(None, [pod], NOW - timedelta(seconds=1)) is None
    assert classify(None, [pod], NOW).reason == "PodDeleted"


def test_unfinished_jobs_have_no_verdict():
    job = {
        "metadata": {"name": "j"},
        "status": {"conditions": [{"type": "Failed", "status": "False"}, {"type": "Suspended", "status": "True"}]},
    }
    assert classify(job, [], NOW) is None
    assert classify(job, [terminated(80)], NOW) is None


def test_verdicts_of_one_input_are_equal():
    job = failed_job(message=code_message(70))
    assert (
        classify(job, [], NOW)
        == classify(job, [], NOW)
        == Verdict(Action.RETRY, "AppError", "exit code 70, unexpected exception", 70)
    )


@pytest.mark.parametrize(
    ("resource", "name"),
    [("memory", "oom-killed"), ("memory", "exit-79-host-memory"), ("ephemeral-storage", "evicted-ephemeral")],
)
def test_a_limit_that_was_reached_is_named_with_the_key_that_raises_it(resource, name):
    # Catches: a terminal end that says "killed at its limit" and leaves the user to find which, and where it is set.
    data, now = load(DATA / f"{name}.json")
    last = data["sequence"][-1]
    for pod in last["pods"]:
        boxes = [{"name": "other", "resources": {"limits": {resource: "1Gi"}}},
                 {"name": "job", "resources": {"limits": {resource: "7Gi", "cpu": "2"}}}]  # fmt: skip
        pod["spec"] = {**(pod.get("spec") or {}), "containers": boxes}
    message = classify(last["job"], last["pods"], now).message
    key = f"spec.podTemplate.spec.containers[name=job].resources.limits.{resource}"
    assert f"the limit is 7Gi: raise {key}, then `ltx2 retry fox`" in message
    other, now = load(DATA / "exit-70-software.json")
    assert "limit" not in classify(other["sequence"][-1]["job"], last["pods"][:0], now).message


def boxes(resource, **limits):
    return [{"name": name, "resources": {"limits": {resource: limit}}} for name, limit in limits.items()]


@pytest.mark.parametrize(
    ("killed", "where", "limit"),
    [("job", "containers[name=job]", "64Gi"), ("proxy", "containers[name=proxy]", "256Mi"),
     ("mesh", "initContainers[name=mesh]", "1Gi")],
)  # fmt: skip
def test_the_limit_of_the_container_that_was_killed_is_named(killed, where, limit):
    """Catches: a sidecar dies of its own limit, and the user is told to raise that of the job."""
    pod = terminated(137, "OOMKilled")
    status = {"name": killed, "state": pod["status"]["containerStatuses"][0]["state"]}
    other = {"name": "other", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    group = "initContainerStatuses" if killed == "mesh" else "containerStatuses"
    pod["status"] |= {"containerStatuses": [other], group: [other, status]}
    pod["spec"] = {
        "containers": boxes("memory", job="64Gi", proxy="256Mi"),
        "initContainers": boxes("memory", mesh="1Gi"),
    }
    verdict = classify(failed_job(message=code_message(137)), [PODS.kept(pod)], NOW)
    assert verdict.reason == "HostOutOfMemory"
    assert f"container {killed} of pod p was killed" in verdict.message
    key = f"spec.podTemplate.spec.{where}.resources.limits.memory"
    assert f"the limit is {limit}: raise {key}, then" in verdict.message


def test_a_container_without_a_limit_of_its_own_is_not_given_another_ones():
    pod = terminated(137, "OOMKilled")
    pod["status"]["containerStatuses"][0]["name"] = "proxy"
    pod["spec"] = {"containers": [*boxes("memory", job="64Gi"), {"name": "proxy"}]}
    message = classify(failed_job(message=code_message(137)), [pod], NOW).message
    assert message == "container proxy of pod p was killed at its memory limit"


@pytest.mark.parametrize(
    ("words", "where", "limit"),
    [('Container proxy exceeded its local ephemeral storage limit "1Gi". ', "containers[name=proxy]", "1Gi"),
     ('Container job exceeded its local ephemeral storage limit "2Gi". ', "containers[name=job]", "2Gi"),
     ("Pod ephemeral local storage usage exceeds the total limit of containers 3Gi. ", "containers[name=job]", "2Gi")],
)  # fmt: skip
def test_of_a_full_disk_the_container_is_named_that_the_kubelet_names(words, where, limit):
    pod = {"metadata": {"name": "p"}, "status": {"phase": "Failed", "reason": "Evicted", "message": words}}
    pod["spec"] = {"containers": boxes("ephemeral-storage", job="2Gi", proxy="1Gi")}
    message = classify(failed_job(message=code_message(137)), [pod], NOW).message
    key = f"spec.podTemplate.spec.{where}.resources.limits.ephemeral-storage"
    assert f"the limit is {limit}: raise {key}, then" in message


def test_a_complete_job_waits_for_the_last_words_of_its_pods():
    """Seen on a busy cluster: the Job's end came before its pod's, and a cache that was ready was made again."""
    job = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    pod = {"metadata": {"name": "fox-cache-1-x7k2p"}, "status": {"phase": "Running"}}
    assert classify(job, [pod], NOW) is None
    word = json.dumps({"stage": "cache", "exitCode": 0})
    ended = {"name": "job", "state": {"terminated": {"exitCode": 0, "message": word}}}
    done = {**pod, "status": {"phase": "Succeeded", "containerStatuses": [ended]}}
    assert classify(job, [done], NOW).action is Action.SUCCEED
    lost = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert classify(job, [lost], NOW).reason == "NoProof"


def test_a_full_scratch_folder_is_named_with_its_own_limit():
    data, now = load(DATA / "evicted-ephemeral.json")
    last = data["sequence"][-1]
    for pod in last["pods"]:
        pod["status"]["message"] = 'Usage of EmptyDir volume "tmp" exceeds the limit "16Mi". '
        pod["spec"] = {"containers": [{"name": "job", "resources": {"limits": {"ephemeral-storage": "7Gi"}}}]}
    verdict = classify(last["job"], last["pods"], now)
    assert verdict.reason == "EphemeralStorageExceeded"
    assert "raise spec.podTemplate.spec.volumes[name=tmp].emptyDir.sizeLimit, then `ltx2 retry " in verdict.message
    assert "7Gi" not in verdict.message


DELETED = {"deletionTimestamp": "2026-11-22T10:05:08Z", "deletionGracePeriodSeconds": 8}  # asked for at 10:05:00


@pytest.mark.parametrize(
    ("code", "deleted", "verdict"),
    [
        (137, DELETED, (Action.RETRY_UNCOUNTED, "PodDeleted")),
        (143, DELETED, (Action.RETRY_UNCOUNTED, "PodDeleted")),
        (1, DELETED, (Action.RETRY, "AppError")),
        (137, {}, (Action.RETRY, "Killed")),
        # Killed by itself, then tidied away.
        (137, {"deletionTimestamp": "2026-11-22T10:05:09Z", "deletionGracePeriodSeconds": 8}, (Action.RETRY, "Killed")),
    ],
)
def test_a_kill_that_ends_a_deletion_is_no_crash_even_where_the_job_has_its_code(code, deleted, verdict):
    said = f"Container job for pod ml/p failed with exit code {code} matching FailJob rule at index 10"
    found = classify(failed_job("PodFailurePolicy", said), [terminated(code, **deleted)], NOW)
    assert (found.action, found.reason) == verdict
    assert found.nodes == ()


@pytest.mark.parametrize(
    ("code", "word", "message"),
    [
        (1, "unexpected exit code 1", "unexpected exit code 1"),
        (64, "the command line is wrong", "exit code 64, the command line is wrong"),
        (64, "--run is missing", "exit code 64, the command line is wrong: --run is missing"),
    ],
)
def test_a_message_says_nothing_twice(code, word, message):
    pod = terminated(code, message=json.dumps({"exitCode": code, "message": word}))
    assert classify(failed_job(), [pod], NOW).message == message
