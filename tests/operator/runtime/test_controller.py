"""One look from the copies to what is told, stored and made, with the process killed in between."""

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ltx2_operator.draft import CreateJob, DryRunJob
from ltx2_operator.metrics import Metrics
from ltx2_operator.observed import Observed
from ltx2_operator.runtime.controller import Controller
from ltx2_operator.runtime.pacing import BUSY_AGAIN
from ltx2_operator.runtime.queue import KeyedQueue
from ltx2_operator.runtime.reflector import Store
from ltx2_operator.runtime.telling import event_name
from ltx2_operator.runtime.writer import NotNow
from ltx2_operator.settings import Settings
from trainings import manifest

KEY = ("team", "fox")
START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
CLIPS = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}
CONFIG = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "max_train_steps": 1000, "validation_disable": True}


class Killed(BaseException):
    """The process is no more."""


class Place:
    """A controller whose every step is written down, and that dies at one of them."""

    def __init__(self, requests_per_second=50.0):
        self.steps, self.dies_at = [], ""
        self.now, self.seen, self.refusal, self.refused = START, Observed(), "", []
        self.trainings, self.waiting, self.room = Store(), False, True
        self.obj = manifest("fox", gpu={"class": "h100-80g"}, config=CONFIG, datasets=[CLIPS])
        self.trainings.put(self.obj)
        self.pages = self
        queue = KeyedQueue()
        self.controller = Controller(
            self.trainings, self, self, self, queue, Settings(), Metrics(), requests_per_second,
            roomy=lambda: self.room, now=lambda: self.now,
        )  # fmt: skip

    def observe(self, obj, dry_run, refused=""):
        self.refused.append(refused)
        return replace(self.seen, refused=refused)

    def _step(self, what):
        if what == self.dies_at:
            raise Killed
        self.steps.append(what)

    def tell(self, obj, event):
        self._step(f"{event.reason} {event_name(obj, event)}")

    def status(self, obj, status):
        self._step("status")
        version = str(int(obj["metadata"].get("resourceVersion") or 0) + 1)
        metadata = {**obj["metadata"], "resourceVersion": version}
        changed, self.obj = status != obj.get("status"), {**obj, "metadata": metadata, "status": copy.deepcopy(status)}
        self.trainings.put(self.obj)
        return self.obj if changed else None

    def act(self, obj, action):
        self._step(type(action).__name__)
        if self.refusal and isinstance(action, CreateJob):
            raise NotNow(self.refusal, "FailedCreate")
        if self.refusal and isinstance(action, DryRunJob):
            raise NotNow(self.refusal)

    def held_back(self, uid):
        return None

    def waits(self, obj):
        return self.waiting


def test_what_happened_is_told_before_it_is_stored_and_after_a_kill_in_the_same_words():
    place = Place()
    place.dies_at = "status"
    with pytest.raises(Killed):
        place.controller.look(KEY)
    before = place.steps
    assert [one.split()[0] for one in before] == ["Accepted"]
    place.dies_at, place.steps = "", []
    place.controller.look(KEY)
    assert place.steps == [*before, "status"]


def test_whoever_waits_for_pods_as_before_leaves_the_requests_to_those_that_have_news():
    place = Place()
    place.waiting, place.room = True, False
    assert 0.9 * BUSY_AGAIN <= place.controller.look(KEY) <= 1.1 * BUSY_AGAIN
    assert (place.refused, place.steps) == ([], [])
    place.room = True
    place.controller.look(KEY)
    assert place.steps
    place.waiting, place.room, place.steps = False, False, []
    place.controller.look(KEY)
    assert len(place.refused) == 2, "news are looked at, room or not"


def opened():
    """A place whose training wants its first Job."""
    place = Place()
    for _ in range(5):
        if "CreateJob" not in place.steps:
            place.controller.look(KEY)
    assert place.steps.pop() == "CreateJob"
    place.steps.clear()
    return place


def test_a_refused_job_is_tried_less_and_less_often_and_the_same_words_are_told_once():
    """Its first tries are quick; what wakes it in between is a try that counts as none."""
    place = opened()
    place.refusal = "Job fox-look-1 was refused: exceeded quota: few"
    waits = []
    for _ in range(8):
        waits.append(place.controller.look(KEY))
        place.now += timedelta(seconds=1)
        assert place.controller.look(KEY) == waits[-1] - 1
        place.now += timedelta(seconds=waits[-1] - 1)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    assert [step.split()[0] for step in place.steps].count("FailedCreate") == 1
    place.refusal = "Job fox-look-1 was refused: exceeded quota: fewer"
    place.controller.look(KEY)
    assert [step.split()[0] for step in place.steps].count("FailedCreate") == 2
    assert place.refused[-1].endswith("few")
    place.refusal = ""
    place.controller.look(KEY)  # it is made: all is forgotten
    assert place.refused[-1].endswith("fewer")
    place.refusal = "Job fox-look-1 was refused: exceeded quota: fewer"
    assert place.controller.look(KEY) == 10
    assert place.refused[-1] == ""


def test_a_trial_that_cannot_be_made_yet_is_tried_less_and_less_often():
    """An API server's admission may not know a new definition for half a minute."""
    place = Place()
    place.obj["spec"]["podTemplate"] = {"metadata": {"annotations": {"team": "foxes"}}}
    place.refusal = "LTX2Training has only just been defined"
    waits = []
    for _ in range(4):
        waits.append(place.controller.look(KEY))
        if waits[-1]:
            place.now += timedelta(seconds=waits[-1])
    assert waits == [0, 10, 20, 40]
    place.refusal = ""
    place.controller.look(KEY)
    assert place.steps.count("DryRunJob") == 5


@pytest.mark.parametrize(("rate", "wait"), [(50.0, 60), (0.05, 320)])
def test_what_an_object_lacks_is_asked_for_in_its_share_of_the_requests(rate, wait):
    """Four of a quarter of one request in 20 seconds are 320."""
    place = Place(rate)
    place.obj["spec"]["secrets"] = {"hubToken": {"name": "nowhere"}}
    place.seen = Observed(secrets=frozenset())
    again = [place.controller.look(KEY) for _ in range(3)][-1]
    assert place.obj["status"]["reason"] == "SecretNotFound"
    assert 0.9 * wait <= again <= 1.1 * wait


def test_after_a_pause_the_same_words_are_told_again():
    place = opened()
    place.refusal = "Job fox-look-1 was refused: exceeded quota: few"
    for paused in (False, True, False):
        place.obj["spec"]["suspend"] = paused
        for _ in range(3):
            place.controller.look(KEY)
    assert [step.split()[0] for step in place.steps].count("FailedCreate") == 2


def test_a_refused_job_does_not_hold_up_the_end_of_its_deadline():
    place = opened()
    place.obj["spec"]["startDeadlineSeconds"] = 100
    place.refusal = "refused"
    waits = []
    for _ in range(4):
        waits.append(place.controller.look(KEY))
        place.now += timedelta(seconds=waits[-1])
    assert waits == [10, 20, 40, 30]
    place.controller.look(KEY)
    assert place.obj["status"]["reason"] == "StartDeadlineExceeded"


def job(name, created, **status):
    labels = {"ltx2.dev/training": "fox", "ltx2.dev/stage": "look", "ltx2.dev/attempt": "1", "ltx2.dev/uid": "u"}
    metadata = {"name": name, "uid": name, "namespace": "team", "labels": labels, "creationTimestamp": created}
    return {"kind": "Job", "metadata": metadata, "spec": {"suspend": True}, "status": status}


def test_a_job_that_has_only_begun_to_wait_is_looked_at_often_whatever_lies_finished_beside_it():
    place = opened()
    young, old = "2026-11-22T09:59:00Z", "2026-11-20T10:00:00Z"
    done = {"conditions": [{"type": "Failed", "status": "True"}]}
    place.seen = Observed(jobs=[job("fox-look-0", old, **done), job("fox-look-1", young)])
    assert 9 <= place.controller.look(KEY) <= 11
    place.seen = Observed(jobs=[job("fox-look-1", old)])
    assert place.controller.look(KEY) > 27  # PODS_AGAIN, or its own
