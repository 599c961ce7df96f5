"""reconcile under random histories: lost writes, stale views, pods that end in every way, users who change their minds.

Invariants that the simulated cluster checks at every look: the attempt number never falls, no Job is created before
its number is stored, every status is one that its definition takes. Here: never two live attempts, what has ended
stays ended, budgets hold, and every history ends once the world behaves.
"""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltx2_operator.classify import is_alive
from ltx2_operator.reconcile import reconcile
from simulated_cluster import SETTINGS, Cluster, training, use_fakes

PROFILE = settings(derandomize=True, deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
CODES = (0, 1, 64, 65, 66, 69, 70, 73, 75, 77, 78, 79, 80, 85, 86, 87, 128, 134, 137, 139, 143)

LOOK_ONCE = ("look", False, False, 0)
LOOK = st.tuples(st.just("look"), st.booleans(), st.booleans(), st.integers(0, 2))
WORLD = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(["Pending", "Running"])),
    st.tuples(
        st.just("end"),
        st.sampled_from(CODES),
        st.sampled_from([None, "PreemptionByScheduler"]),
        st.sampled_from([None, "OOMKilled"]),
    ),
    st.tuples(st.just("checkpoint_end"), st.integers(1, 2000)),
    st.tuples(st.just("wait"), st.sampled_from([1, 10, 61, 600, 4000])),
    st.sampled_from([("delete_pod",), ("delete_job",), ("lose_node",), ("lose_proof",)]),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("queue"), st.booleans()),
    st.tuples(st.just("upload"), st.integers(0, 3)),
    st.tuples(st.just("found_finished"), st.booleans()),
    st.tuples(st.just("node"), st.sampled_from(["n1", "n2"])),
    st.tuples(st.just("retries"), st.integers(0, 6)),
)
# A stage, from its Job to its end, or (None) until it runs: single events alone seldom get as far as a second attempt.
STAGE = st.tuples(
    st.just("stage"),
    st.sampled_from([None, None, 0, 0, 0, *CODES]),
    st.sampled_from([None, "PreemptionByScheduler"]),
    st.integers(0, 700),
)
HISTORY = st.lists(st.one_of(LOOK, LOOK, WORLD, STAGE, STAGE), max_size=40)


@pytest.fixture(autouse=True, scope="module")
def _fakes():
    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        yield


def apply(cluster, event):
    match event:
        case ("look", lose_status, lose_actions, stale):
            cluster.look(lose_status=lose_status, lose_actions=lose_actions, stale=stale)
        case ("start", phase):
            cluster.start(phase)
        case ("end", code, disrupted, reason):
            cluster.end(code, disrupted=disrupted if code else None, reason=reason if code == 137 else None)
        case ("stage", code, disrupted, seconds):
            way = [("wait", 601), LOOK_ONCE, LOOK_ONCE, ("start", "Running"), LOOK_ONCE, ("wait", seconds)]
            for one in way if code is None else [*way, ("end", code, disrupted, None), LOOK_ONCE, LOOK_ONCE]:
                before = copy.deepcopy(cluster.status)
                apply(cluster, one)
                check(cluster, before)
        case ("checkpoint_end", step):
            if cluster.alive():
                labels = cluster.alive()[0]["metadata"]["labels"]
                cluster.end(85, word=cluster.word(85, labels, checkpoint={"step": step, "path": "p", "time": None}))
        case ("lose_proof",):
            cluster.end(0, word={})
        case ("queue", hold):
            cluster.hold() if hold else cluster.admit()
        case ("upload", time):
            cluster.obj["metadata"]["annotations"] = {"ltx2.dev/data-uploaded": str(time)}
        case ("found_finished", alone):
            if cluster.alive() and (not alone or cluster.status.get("stage") == "Look"):
                labels = cluster.alive()[0]["metadata"]["labels"]
                cluster.end(0, word=cluster.word(0, labels, step=9, maxSteps=9, result={"lora": "l"}))
        case ("node", name):
            cluster.node = name
        case ("wait", seconds):
            cluster.wait(seconds)
        case ("suspend", value):
            cluster.spec(suspend=value)
        case ("retries", value):
            cluster.spec(retries=value)
        case (name,):
            getattr(cluster, name)()


def step_of(status):
    return (status.get("checkpoint") or {}).get("step", 0)


def check(cluster, before):
    """What must hold after every single event."""
    live = {
        (pod["metadata"]["labels"]["ltx2.dev/stage"], pod["metadata"]["labels"]["ltx2.dev/attempt"])
        for pod in cluster.pods.values()
        if is_alive(pod)
    }
    assert len(live) <= 1, f"two live attempts: {live}"
    unfinished = [name for name, job in cluster.jobs.items() if not cluster.finished(job)]
    assert len(unfinished) <= 1, f"two unfinished Jobs: {unfinished}"
    after = cluster.status
    # Catches: a budget that a finished cache stage, a pause or a new attempt gives back.
    for key in ("attempt", "execution", "failures"):
        assert after.get(key, 0) >= before.get(key, 0), f"{key} fell"
    for stage in ("train", "cache"):
        assert after.get("rung", {}).get(stage, 0) >= before.get("rung", {}).get(stage, 0), f"rung of {stage} fell"
    assert step_of(after) >= step_of(before), "the newest checkpoint went back"
    if "DeadlineExceeded" not in {c["reason"] for c in before.get("conditions", []) if c["type"] == "Failed"}:
        assert after.get("runningSeconds", 0) >= before.get("runningSeconds", 0), "seconds of running fell"
    for kind in ("used", "lost", "queued"):
        assert after.get("gpuSeconds", {}).get(kind, 0) >= before.get("gpuSeconds", {}).get(kind, 0), f"{kind} fell"
    spent = after.get("gpuSeconds", {})
    assert spent.get("lost", 0) <= spent.get("used", 0), "more lost than used"
    assert len(after.get("avoidNodes", [])) <= 8
    was = {c["type"] for c in before.get("conditions", []) if c["status"] == "True"}
    if "Succeeded" in was:
        assert cluster.true("Succeeded")
    if "Failed" in was and not cluster.true("Failed"):
        assert cluster.obj["spec"].get("retries", 3) > before["failedRetries"]
    assert not (cluster.true("Succeeded") and cluster.true("Failed"))
    if cluster.true("Suspended"):
        assert after["state"] in ("Suspended", "Failed", "Succeeded")
    known = cluster.obj["spec"].get("retries", 3)
    if after.get("failures", 0) > max(known, before.get("failures", 0)):
        assert cluster.true("Failed"), "the budget is spent and the run goes on"


def play(history, seen=True, **spec):
    cluster = Cluster(training(**spec), seen=seen)
    for event in history:
        before = copy.deepcopy(cluster.status)
        apply(cluster, event)
        check(cluster, before)
    return cluster


def drive(cluster, code=0, most=400):
    """Let the world behave: every stage that starts ends with `code`; time passes as asked for."""
    cluster.admit()
    for turn in range(most):
        before = copy.deepcopy(cluster.status)
        outcome = cluster.look()
        check(cluster, before)
        if (
            (cluster.true("Succeeded") or cluster.true("Failed"))
            and not outcome.actions
            and outcome.requeue_after is None
        ):
            assert cluster.active_job() is None, "an ended run still holds its GPU"
            return turn
        if cluster.active_job() is not None and not cluster.alive():
            cluster.start()
        elif cluster.alive() and not outcome.actions:
            deleted = any(pod["metadata"].get("deletionTimestamp") for pod in cluster.alive())
            cluster.end(85 if deleted else code)
        elif outcome.requeue_after:
            cluster.wait(outcome.requeue_after)
    raise AssertionError(f"no end after {most} looks: {cluster.status}")


@given(HISTORY, st.integers(0, 4), st.booleans())
@PROFILE
def test_never_two_live_attempts_terminal_sticks_and_budgets_hold(history, retries, seen):
    play(history, seen, retries=retries)


@given(HISTORY, st.integers(0, 4), st.booleans())
@PROFILE
def test_every_history_ends_once_the_world_behaves(history, retries, seen):
    cluster = play(history, seen, retries=retries)
    cluster.spec(suspend=False)
    drive(cluster)


@given(HISTORY, st.integers(0, 4), st.sampled_from([code for code in CODES if code not in (0, 66)]), st.booleans())
@PROFILE
def test_every_history_ends_even_if_every_attempt_ends_the_same_way(history, retries, code, seen):
    # Catches: an uncounted end without a bound, a ladder without an end.
    cluster = play(history, seen, retries=retries)
    cluster.spec(suspend=False)
    attempt = cluster.status.get("attempt", 0)
    drive(cluster, code)
    assert cluster.true("Failed") or cluster.true("Succeeded")
    assert cluster.status["attempt"] - attempt <= 5 * (retries + 8) + 5


@given(HISTORY)
@PROFILE
def test_the_same_look_twice_decides_the_same_and_a_repeated_one_does_no_harm(history):
    cluster = play(history)
    view, obj = cluster.observe(), copy.deepcopy(cluster.obj)
    first = reconcile(obj, view, cluster.now, SETTINGS)
    assert reconcile(obj, view, cluster.now, SETTINGS) == first
    assert obj == cluster.obj
    # Acting twice on one decision, then looking again at the same stale view, then writing the status.
    for action in [*first.actions, *first.actions]:
        before = copy.deepcopy(cluster.status)
        try:
            cluster.act(action)
        finally:
            check(cluster, before)
    cluster.look(stale=1)
    cluster.spec(suspend=False)
    drive(cluster)


@given(HISTORY, st.booleans())
@PROFILE
def test_a_world_at_rest_is_left_at_rest(history, seen):
    # Catches: heartbeats in the status, events told again and again.
    cluster = play(history, seen)
    cluster.settle(20)
    told = len(cluster.events)
    for _ in range(3):
        stored = copy.deepcopy(cluster.status)
        cluster.look()
        assert cluster.status == stored
    assert len(cluster.events) == told


@given(HISTORY, st.sampled_from(["jobs", "pods", "others"]))
@PROFILE
def test_no_budget_comes_back_when_children_vanish(history, kind):
    cluster = play(history)
    cluster.settle(20)
    spent = {key: cluster.status[key] for key in ("failures", "attempt", "rung")}
    if kind == "jobs" or not cluster.alive():
        getattr(cluster, kind).clear()
        cluster.settle(20)
        for key in ("failures", "attempt"):
            assert cluster.status[key] >= spent[key]
        assert all(cluster.status["rung"][stage] >= spent["rung"][stage] for stage in spent["rung"])


@given(st.lists(st.sampled_from(CODES[1:]), max_size=30), st.integers(0, 5))
@PROFILE
def test_counted_failures_never_exceed_the_budget_by_more_than_the_last(codes, retries):
    cluster = Cluster(training(retries=retries))
    for code in codes:
        cluster.run_stage(code)
        cluster.wait(600)
    assert cluster.status.get("failures", 0) <= retries + 1


@given(HISTORY)
@PROFILE
def test_looks_for_data_grow_no_number_without_end(history):
    cluster = play(history, seen=False)
    cluster.spec(suspend=False)
    for _ in range(12):
        cluster.look()
    attempts = []
    for _ in range(8):
        for _ in range(40):
            outcome = cluster.look()
            if cluster.active_job() is not None and not cluster.alive():
                cluster.admit()
                cluster.start()
            elif cluster.alive() and not outcome.actions:
                deleted = any(pod["metadata"].get("deletionTimestamp") for pod in cluster.alive())
                cluster.end(85 if deleted else 66)
            elif outcome.requeue_after:
                cluster.wait(outcome.requeue_after)
                break
        attempts.append(cluster.status["attempt"])
    assert attempts[-1] == attempts[4]
