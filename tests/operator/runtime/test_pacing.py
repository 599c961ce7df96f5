"""How often is asked again what may stay as it is for hours."""

from datetime import UTC, datetime, timedelta

from ltx2_operator.runtime.pacing import OLD_AFTER, Refusals, Waiting

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def test_refusals_are_of_each_training_alone_and_begin_anew_once_forgotten():
    refusals, now = Refusals(), NOW
    for wait in (10, 20, 40):
        assert refusals.refused("a", "no", now) == wait
        now += timedelta(seconds=wait)
    assert (refusals.words("a"), refusals.words("b")) == ("no", "")
    assert refusals.refused("b", "", now) == 10
    assert refusals.refused("a", "", now) == 80
    assert refusals.words("a") == "no"
    refusals.forget("a")
    assert (refusals.words("a"), refusals.refused("a", "no", now)) == ("", 10)


def about(seconds):
    return lambda wait: 0.9 * seconds <= wait <= 1.1 * seconds


def test_runs_that_wait_are_looked_at_more_rarely_the_more_there_are():
    """50 requests a second: 12.5 for those that have waited for long, four each."""
    waiting = Waiting(50)
    waits = [waiting.again(("ml", str(number)), OLD_AFTER) for number in range(1000)]
    assert about(60)(waits[0]) and about(60)(waits[180]) and about(320)(waits[-1])
    assert len(set(waits[-100:])) > 50  # not all at the same moment
    assert about(10)(waiting.again(("ml", "new"), 0))  # those that have only begun are not held up by them
    for number in range(1, 1000):
        waiting.over(("ml", str(number)))
    assert about(60)(waiting.again(("ml", "0"), OLD_AFTER))
    assert about(10)(waiting.again(("ml", "0"), OLD_AFTER - 1))


def test_many_that_have_only_begun_to_wait_share_the_requests_too():
    waiting = Waiting(50)
    waits = [waiting.again(("ml", str(number)), 0) for number in range(500)]
    assert about(10)(waits[30]) and about(160)(waits[-1])


def test_those_that_waited_before_a_leader_came_count_from_its_first_look_on():
    waiting = Waiting(50)
    waiting.expect(("ml", str(number)) for number in range(500))
    assert about(160)(waiting.again(("ml", "0"), OLD_AFTER))
    for number in range(500):
        waiting.over(("ml", str(number)))
    assert about(60)(waiting.again(("ml", "0"), OLD_AFTER))


def test_a_run_that_waits_is_one_however_often_it_is_looked_at():
    waiting = Waiting(50)
    assert all(about(60)(waiting.again(("ml", "fox"), OLD_AFTER)) for _ in range(1000))
