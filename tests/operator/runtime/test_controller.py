"""One look from the copies to what is told, stored and made, with the process killed in between."""

import copy

import pytest

from ltx2_operator.metrics import Metrics
from ltx2_operator.observed import Observed
from ltx2_operator.runtime.controller import Controller
from ltx2_operator.runtime.queue import KeyedQueue
from ltx2_operator.runtime.reflector import Store
from ltx2_operator.runtime.telling import event_name
from ltx2_operator.settings import Settings
from trainings import manifest

KEY = ("team", "fox")
CLIPS = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}
CONFIG = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "max_train_steps": 1000, "validation_disable": True}


class Killed(BaseException):
    """The process is no more."""


class Place:
    """A controller whose every step is written down, and that dies at one of them."""

    def __init__(self):
        self.steps, self.dies_at = [], ""
        self.trainings = Store()
        self.obj = manifest("fox", gpu={"class": "h100-80g"}, config=CONFIG, datasets=[CLIPS])
        self.trainings.put(self.obj)
        self.pages = self
        queue = KeyedQueue()
        self.controller = Controller(self.trainings, self, self, self, queue, Settings(), Metrics())

    def want(self, key, host):
        return None

    def observe(self, obj, dry_run, refused=""):
        return Observed()

    def _step(self, what):
        if what == self.dies_at:
            raise Killed
        self.steps.append(what)

    def tell(self, obj, event):
        self._step(f"{event.reason} {event_name(obj, event)}")

    def status(self, obj, status):
        self._step("status")
        self.obj = {**obj, "status": copy.deepcopy(status)}
        self.trainings.put(self.obj)
        return self.obj

    def act(self, obj, action):
        self._step(type(action).__name__)

    def held_back(self, uid):
        return None


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
