"""The local copy: order of versions, lists, and what a reflector says of trouble. No server."""

import json

import pytest

from ltx2_operator.runtime.client import ApiError, Gone, NotFound
from ltx2_operator.runtime.kinds import JOBS, PODS, TRAININGS
from ltx2_operator.runtime.reflector import PAGE, Reflector, Store


def job(name, version, training="fox", namespace="ml", **more):
    labels = {"ltx2.dev/training": training}
    metadata = {"name": name, "namespace": namespace, "labels": labels, "resourceVersion": str(version)}
    return {"kind": "Job", "metadata": metadata, "spec": {}, **more}


@pytest.fixture
def told():
    return []


@pytest.fixture
def store(told):
    return Store(told.append)


def test_children_are_found_by_the_label_of_their_training(store, told):
    store.put(job("fox-cache-1", 5))
    store.put(job("fox-train-1", 6))
    store.put(job("bear-train-1", 7, "bear"))
    assert [one["metadata"]["name"] for one in store.of(("ml", "fox"))] == ["fox-cache-1", "fox-train-1"]
    assert store.of(("other", "fox")) == []
    assert told == [("ml", "fox"), ("ml", "fox"), ("ml", "bear")]
    assert len(store) == 3


@pytest.mark.parametrize(("version", "kept", "calls"), [(4, "old", 1), (5, "old", 1), (6, "new", 2), (10, "new", 2)])
def test_an_older_version_never_replaces_a_newer_one(store, told, version, kept, calls):
    store.put(job("a", 5, mark="old"))
    store.put(job("a", version, mark="new"))
    assert store.of(("ml", "fox"))[0]["mark"] == kept
    assert len(told) == calls


def test_what_was_made_after_a_list_survives_it_and_what_is_gone_goes(store):
    store.put(job("gone", 5))
    store.put(job("made-later", 12))
    store.put(job("elsewhere", 5, namespace="other"))
    store.replace([job("kept", 8)], 10, "ml")
    assert {one["metadata"]["name"] for one in store.all()} == {"made-later", "kept", "elsewhere"}


def test_a_deletion_of_an_older_namesake_removes_nothing(store):
    store.put(job("a", 9))
    store.remove(job("a", 7))
    assert len(store) == 1
    store.remove(job("a", 11))
    assert len(store) == 0
    assert store.names() == []


class Pages:
    """An API server that answers lists page by page."""

    def __init__(self, count, watch=()):
        self.items = [job(f"j{number}", number + 1) for number in range(count)]
        self.queries, self.events = [], watch

    def list(self, path, query, shape):
        self.queries.append((path, dict(query)))
        start = int(query.get("continue") or 0)
        items = json.loads(json.dumps(self.items[start : start + query["limit"]]))
        for item in items:
            del item["kind"]  # as in real lists
        more = str(start + PAGE) if start + PAGE < len(self.items) else ""
        return items, {"resourceVersion": "9000", "continue": more}

    def watch(self, path, query, silence, shape):
        self.queries.append((path, dict(query)))
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event["type"], event["object"]


def reflect(api, store, clock=lambda: 0.0, namespace="ml", kind=JOBS):
    return Reflector(api, kind, store, namespace, 300, clock=clock)


def test_a_long_list_comes_in_pages(store):
    api = Pages(2 * PAGE + 10)
    reflector = reflect(api, store)
    assert not reflector.synced
    assert reflector.list() == "9000"
    assert reflector.synced
    assert len(store) == 2 * PAGE + 10
    assert [query.get("continue") for _, query in api.queries] == [None, str(PAGE), str(2 * PAGE)]
    assert all(query["labelSelector"] == "ltx2.dev/training" for _, query in api.queries)


def test_a_watch_brings_changes_and_bookmarks_bring_life(store):
    moment = [0.0]
    events = [
        {"type": "ADDED", "object": job("a", 9001)},
        {"type": "MODIFIED", "object": job("a", 9002, mark=2)},
        {"type": "ADDED", "object": job("b", 9003)},
        {"type": "DELETED", "object": job("b", 9004)},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9010"}}},
    ]
    api = Pages(0, events)
    reflector = reflect(api, store, clock=lambda: moment[0])
    version = reflector.list()
    moment[0] = 400.0
    assert reflector.age == 400.0
    reflector._watch(version)
    assert reflector.age == 0.0
    assert [(one["metadata"]["name"], one.get("mark")) for one in store.all()] == [("a", 2)]
    query = api.queries[-1][1]
    assert (query["resourceVersion"], query["allowWatchBookmarks"]) == ("9000", "true")
    assert 240 <= query["timeoutSeconds"] <= 360


def test_a_lost_place_in_history_is_told_apart(store):
    api = Pages(0, [Gone(410, "Expired", "too old")])
    with pytest.raises(Gone):
        reflect(api, store)._watch("1")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotFound(404, "NotFound", "x"), "is not defined: install the chart with crds.enabled"),
        (ApiError(403, "Forbidden", "jobs is forbidden"), "may not list and watch jobs in namespace ml: jobs is forb"),
        (ApiError(0, "Unreachable", "refused"), "jobs in ml: refused"),
    ],
)
def test_trouble_is_said_once_with_what_to_do_and_ends_with_the_next_answer(store, caplog, error, words):
    reflector = reflect(Pages(0), store)
    for _ in range(3):
        reflector._say(error)
    assert words in reflector.trouble
    assert reflector.refused == (error.code == 403)
    assert [words in message for message in caplog.messages] == [True]
    reflector.list()
    assert reflector.trouble == "" and not reflector.refused


@pytest.mark.parametrize(
    ("kind", "arguments", "path"),
    [
        (TRAININGS, ("ml", "fox", "status"), "/apis/ltx2.dev/v1alpha1/namespaces/ml/ltx2trainings/fox/status"),
        (PODS, (None,), "/api/v1/pods"),
        (JOBS, ("ml",), "/apis/batch/v1/namespaces/ml/jobs"),
    ],
)
def test_paths(kind, arguments, path):
    assert kind.path(*arguments) == path
