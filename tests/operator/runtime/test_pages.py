"""Reading progress pages: when, from where, and what a bad page does."""

import json
import random

from ltx2_operator.progress import READ_EVERY, PageError
from ltx2_operator.runtime.pages import KEEP, Pages

KEY = ("ml", "fox")
PAGE = {"uid": "u", "attempt": 1, "stage": "train", "state": "training", "step": 3, "maxSteps": 10}


class Place:
    def __init__(self):
        self.time, self.asked, self.came, self.answer = 0.0, [], [], json.dumps(PAGE).encode()
        self.pages = Pages(9464, self.came.append, clock=lambda: self.time, get=self.get)

    def get(self, host, port):
        self.asked.append((host, port))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def go(self, seconds):
        self.time += seconds
        for key, reading in self.pages.due():
            self.pages.read(key, reading)


def test_a_wanted_page_is_read_about_every_15_seconds_and_told():
    place = Place()
    assert place.pages.want(KEY, "10.0.0.1") is None
    place.go(2)
    assert place.asked == [("10.0.0.1", 9464)]
    assert place.came == [KEY]
    assert place.pages.want(KEY, "10.0.0.1")["step"] == 3
    place.go(13)
    assert len(place.asked) == 1
    place.go(4)
    assert len(place.asked) == 2


def test_a_page_that_cannot_be_read_leaves_the_last_one_for_a_while():
    place = Place()
    place.pages.want(KEY, "10.0.0.1")
    place.go(2)
    for answer in (PageError("away"), b"no json", b'{"uid": 5}'):
        place.answer = answer
        place.go(14)
        assert place.came == [KEY]
    assert place.pages.want(KEY, "10.0.0.1")["step"] == 3
    place.time += KEEP
    assert place.pages.want(KEY, "10.0.0.1") is None


def test_another_pod_is_another_page():
    place = Place()
    place.pages.want(KEY, "10.0.0.1")
    place.go(2)
    assert place.pages.want(KEY, "10.0.0.2") is None
    place.go(2)
    assert place.asked[-1] == ("10.0.0.2", 9464)


def test_nobody_wants_it_any_more():
    place = Place()
    place.pages.want(KEY, "10.0.0.1")
    place.pages.want(KEY, None)
    place.go(60)
    assert place.asked == []


def test_a_page_that_says_the_same_again_tells_nobody_until_it_says_something_else():
    place = Place()
    place.pages.want(KEY, "10.0.0.1")
    place.go(2)
    for _ in range(5):
        place.go(17)
    assert len(place.asked) == 6
    assert place.came == [KEY]
    assert place.pages.want(KEY, "10.0.0.1")["step"] == 3
    place.answer = json.dumps({**PAGE, "step": 4}).encode()
    place.go(17)
    assert place.came == [KEY, KEY]
    assert place.pages.want(KEY, "10.0.0.1")["step"] == 4


def test_a_page_that_is_lost_for_long_is_told_once_and_so_is_its_return():
    place = Place()
    place.pages.want(KEY, "10.0.0.1")
    place.go(2)
    there, place.answer = place.answer, PageError("away")
    for _ in range(6):
        place.go(17)
    assert place.came == [KEY, KEY]
    assert place.pages.want(KEY, "10.0.0.1") is None
    place.answer = there
    place.go(8.5 * READ_EVERY)
    assert place.came == [KEY, KEY, KEY]
    assert place.pages.want(KEY, "10.0.0.1")["step"] == 3


def test_the_first_pages_of_thousands_of_runs_are_not_read_at_once():
    place = Place()
    for number in range(2000):
        place.pages.want(("ml", str(number)), "10.0.0.1")
    place.time = 2.0
    assert len(place.pages.due()) < 1000
    place.time = 15.0
    assert len(place.pages.due()) > 1000


def test_a_page_is_awaited_until_the_first_try_and_a_first_try_that_fails_is_told():
    place = Place()
    place.answer = PageError("not yet")
    assert not place.pages.awaited(KEY)
    place.pages.want(KEY, "10.0.0.1")
    assert place.pages.awaited(KEY)
    place.go(2)
    assert not place.pages.awaited(KEY)
    assert place.came == [KEY]
    place.go(17)
    assert place.came == [KEY]
    place.pages.want(KEY, "10.0.0.2")
    assert place.pages.awaited(KEY)


def test_pages_that_hang_do_not_pile_up():
    place = Place()
    keys = [("ml", str(number)) for number in range(200)]
    for key in keys:
        place.pages.want(key, "10.0.0.1")
    handed_out = []
    for _ in range(40):
        place.time += READ_EVERY
        handed_out += place.pages.due()
    assert sorted(key for key, _ in handed_out) == sorted(keys)
    place.pages.read(*handed_out[0])  # one that has been read is due again
    place.time += 2 * READ_EVERY
    assert [key for key, _ in place.pages.due()] == [handed_out[0][0]]


def test_a_page_that_is_old_counts_no_more_though_a_reader_still_has_it():
    place = Place()
    place.pages.want(KEY, "10.0.0.1")
    place.go(2)
    place.time += 17
    assert place.pages.due()
    place.time += KEEP
    assert place.pages.due() == []
    assert place.came == [KEY, KEY]


def test_a_page_that_cannot_be_read_is_tried_less_and_less_often(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    place = Place()
    place.answer = PageError("dropped")
    place.pages.want(KEY, "10.0.0.1")

    def waits(count):
        found = []
        for _ in range(count):
            before, tries = place.time, len(place.asked)
            while len(place.asked) == tries:
                place.go(0.5)
            found.append(round((place.time - before) / READ_EVERY))
        return found

    place.go(2)
    assert waits(6) == [1, 2, 4, 8, 8, 8]
    page = json.dumps(PAGE).encode()
    for answer, found in ((page, 8), (PageError("once more"), 1), (page, 1), (PageError("and again"), 1), (page, 1)):
        place.answer = answer
        assert waits(1) == [found]
    waits(1)
    assert waits(2) == [1, 1]
    place.answer = PageError("dropped again")
    assert waits(3) == [1, 1, 2]


def test_an_error_while_pages_are_handed_out_is_logged_and_ends_nothing(caplog):
    place = Place()
    place.pages.want(KEY, "10.0.0.1")
    place.time = 2.0
    place.pages._clock = lambda: 1 / 0
    place.pages.hand_out(lambda read, *what: read(*what))
    assert "could not be handed out" in caplog.text
    place.pages._clock = lambda: place.time
    place.pages.hand_out(lambda read, *what: read(*what))
    assert place.came == [KEY]
