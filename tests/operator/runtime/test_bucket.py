"""The token bucket, on a clock of its own."""

import pytest

from ltx2_operator.runtime.bucket import TokenBucket


@pytest.mark.parametrize(("rate", "burst", "waits"), [(10, 3, [0, 0, 0, 0.1, 0.2]), (2, 1, [0, 0.5, 1.0, 1.5, 2.0])])
def test_a_burst_goes_at_once_and_the_rest_in_turn(rate, burst, waits):
    bucket = TokenBucket(rate, burst, clock=lambda: 7.0, sleep=lambda seconds: None)
    assert [bucket.take() for _ in waits] == pytest.approx(waits)


def test_what_can_do_without_takes_only_what_is_there():
    moment = [0.0]
    bucket = TokenBucket(2, 2, clock=lambda: moment[0], sleep=lambda seconds: None)
    assert [bucket.spare() for _ in range(3)] == [True, True, False]
    moment[0] = 0.25
    assert not bucket.spare()
    moment[0] = 0.5
    assert bucket.spare()
    assert bucket.take() == 0.5


def test_a_share_of_another_one_leaves_that_one_half_of_its_burst():
    """Catches: numbers and those that wait take every request, and what decides waits behind them for a minute."""
    moment = [0.0]
    whole = TokenBucket(2, 4, clock=lambda: moment[0], sleep=lambda seconds: None)
    share = TokenBucket(1, 9, clock=lambda: moment[0], sleep=lambda seconds: None, beside=whole)
    taken = 0
    while share.spare():
        taken += 1
        whole.take()
    assert (taken, whole.roomy()) == (3, False)
    assert whole.take() == 0
    moment[0] = 1.0
    assert whole.roomy() and share.spare()


def test_quiet_time_fills_it_up_to_the_burst_and_no_further():
    moment = [0.0]
    bucket = TokenBucket(1, 2, clock=lambda: moment[0], sleep=lambda seconds: None)
    assert [bucket.take() for _ in range(3)] == [0, 0, 1]
    moment[0] = 1000.0
    assert [bucket.take() for _ in range(3)] == [0, 0, 1]
