"""Reading progress pages: when, from where, and what a bad page does."""

import json

from ltx2_operator.progress import PageError
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
    place.go(17)
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
