"""A look before a server that changes between two of its requests: what was decided for the old object is not done."""

import copy
from datetime import UTC, datetime

import pytest

from ltx2_operator.metrics import Metrics
from ltx2_operator.observed import Observed
from ltx2_operator.runtime.client import Answer, Conflict, NotFound
from ltx2_operator.runtime.controller import Controller
from ltx2_operator.runtime.lease import Lease
from ltx2_operator.runtime.queue import KeyedQueue
from ltx2_operator.runtime.reflector import Store
from ltx2_operator.runtime.writer import Stale, Writer
from ltx2_operator.settings import LeaderElection, Settings
from trainings import manifest

KEY = ("team", "fox")
ROOT = "/apis/ltx2.dev/v1alpha1/namespaces/team/ltx2trainings/fox"
CLIPS = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}
CONFIG = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "max_train_steps": 1000, "validation_disable": True}


class Server:
    """One training by its rules (versions, one part of the status for each manager), and what else is made."""

    def __init__(self, obj):
        self.obj, self.parts, self.made = {**copy.deepcopy(obj), "status": {}}, {}, []
        self.written = lambda: None  # what happens right after a status was written
        self.change()

    def change(self, **more):
        metadata = self.obj["metadata"]
        version = str(int(metadata.get("resourceVersion") or 0) + 1)
        self.obj = {
            **self.obj,
            **more,
            "metadata": {**metadata, **more.get("metadata", {}), "resourceVersion": version},
        }

    def request(self, method, path, query=None, body=None, **more):
        if (method, path) == ("PATCH", f"{ROOT}/status"):
            if body["metadata"]["resourceVersion"] != self.obj["metadata"]["resourceVersion"]:
                raise Conflict(409, "Conflict", "changed")
            self.parts[query["fieldManager"]] = body["status"]
            conditions = [one for part in self.parts.values() for one in part.get("conditions") or []]
            merged = {key: value for part in self.parts.values() for key, value in part.items()}
            self.change(status={**merged, "conditions": conditions})
            answer = Answer(copy.deepcopy(self.obj))
            self.written()
            return answer
        if method == "POST":
            self.made.append(body["kind"])
            return Answer({**copy.deepcopy(body), "metadata": {**body["metadata"], "uid": "x", "resourceVersion": "1"}})
        raise AssertionError((method, path))

    def get(self, path, query=None, accept=""):
        if path != ROOT:
            return {"items": []}
        if self.obj is None:
            raise NotFound(404, "NotFound", path)
        return copy.deepcopy(self.obj)


class Place:
    """A controller with the real writer."""

    def __init__(self):
        self.server = Server(manifest("fox", gpu={"class": "h100-80g"}, config=CONFIG, datasets=[CLIPS]))
        lease = Lease(self.server, "ops", "me", LeaderElection())
        lease.own()
        self.trainings, self.pages = Store(), self
        writer = Writer(self.server, lease, self.trainings, Store())
        self.controller = Controller(
            self.trainings, self, writer, self, KeyedQueue(), Settings(), Metrics(), 50.0,
            now=lambda: datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
        )  # fmt: skip
        self.seen()

    def seen(self):
        """The watch has brought the training as it is."""
        self.trainings.put(self.server.get(ROOT))

    def want(self, key, host):
        return None

    def waits(self, obj):
        return False

    def observe(self, obj, dry_run, refused=""):
        return Observed()

    def tell(self, obj, event):
        pass

    def until_a_job_is_decided(self):
        """Looks before the one whose status is followed by a Job."""
        self.controller.look(KEY)
        while self.server.obj["status"]["attempt"] == 0:
            self.controller.look(KEY)
        assert self.server.made == []


def test_a_look_writes_the_status_and_then_makes_the_job():
    place = Place()
    place.until_a_job_is_decided()
    before = place.server.obj["metadata"]["resourceVersion"]
    place.controller.look(KEY)
    assert place.server.made == ["ConfigMap", "PersistentVolumeClaim", "Job"]
    assert place.server.obj["metadata"]["resourceVersion"] != before


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: {"spec": {**obj["spec"], "suspend": True}, "metadata": {"generation": 2}},
        lambda obj: {"metadata": {"deletionTimestamp": "2026-11-22T10:00:00Z"}},
        lambda obj: {"metadata": {"uid": "of-a-namesake"}},
    ],
    ids=["suspended", "deleted", "a namesake"],
)
def test_no_job_follows_from_what_a_training_was_before_the_watch_brought_a_newer_word(change):
    """Catches: the fence before a Job compares with the store, which holds by then what reconcile never saw."""
    place = Place()
    place.until_a_job_is_decided()

    def changed():
        place.server.change(**change(place.server.obj))
        place.seen()

    place.server.written = changed
    with pytest.raises(Stale):
        place.controller.look(KEY)
    assert "Job" not in place.server.made
