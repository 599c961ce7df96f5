"""The keyed queue, on a clock of its own."""

import threading

from ltx2_operator.runtime.queue import BACKOFF_MOST, VOID_MOST, KeyedQueue

A, B = ("ml", "a"), ("ml", "b")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_many_reasons_to_look_are_one_look_in_order_of_arrival():
    queue = KeyedQueue(Clock())
    for key in (A, B, A, A):
        queue.add(key)
    assert queue.depth == 2
    assert [queue.get(0), queue.get(0), queue.get(0)] == [A, B, None]


def test_a_key_is_with_one_worker_at_a_time_and_comes_back_if_it_was_added_meanwhile():
    queue = KeyedQueue(Clock())
    queue.add(A)
    assert queue.get(0) == A
    queue.add(A)
    assert queue.get(0) is None  # the first look goes on
    queue.done(A)
    assert queue.get(0) == A
    queue.done(A)
    assert queue.get(0) is None


def test_of_several_delays_the_earliest_holds_and_it_comes_once():
    clock = Clock()
    queue = KeyedQueue(clock)
    queue.add_after(A, 60)
    queue.add_after(A, 5)
    queue.add_after(A, 30)
    clock.now += 4.9
    assert queue.get(0) is None
    clock.now += 0.1
    assert queue.get(0) == A
    queue.done(A)
    clock.now += 100
    assert queue.get(0) is None


def test_timers_that_hold_no_more_do_not_pile_up():
    """A run whose page changes every 15 s has a timer of its own each time, of which some are due in days."""
    clock = Clock()
    queue = KeyedQueue(clock)
    queue.add_after(B, 90_000)
    queue.add_after(("ml", "c"), 85_000)
    for _ in range(10 * VOID_MOST):
        queue.add_after(A, 86_400)
        queue.add(A)
        assert queue.get(0) == A
        queue.done(A)
    assert len(queue._timers) <= VOID_MOST + 6
    queue.add_after(A, 80_000)
    clock.now += 90_000
    assert [queue.get(0) for _ in range(4)] == [A, ("ml", "c"), B, None]


def test_a_look_at_once_replaces_the_timer():
    clock = Clock()
    queue = KeyedQueue(clock)
    queue.add_after(A, 5)
    queue.add(A)
    assert queue.get(0) == A
    queue.done(A)
    clock.now += 10
    assert queue.get(0) is None


def test_errors_come_back_later_and_later_until_one_look_succeeds():
    queue = KeyedQueue(Clock())
    assert [queue.failed(A) for _ in range(4)] == [1, 2, 4, 8]
    assert queue.failed(B) == 1
    assert max(queue.failed(A) for _ in range(50)) == BACKOFF_MOST
    queue.succeeded(A)
    assert queue.failed(A) == 1


def test_closing_sends_waiting_workers_home():
    queue = KeyedQueue()
    got = []
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.close()
    worker.join(10)
    assert got == [None]


def test_a_waiting_worker_is_woken_by_an_earlier_timer():
    queue = KeyedQueue()
    got = []
    queue.add_after(A, 3600)
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.add_after(B, 0.01)
    worker.join(10)
    assert got == [B]
