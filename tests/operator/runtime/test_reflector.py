"""The local copy: order of versions, lists, and what a reflector says of trouble. No server."""

import json

import pytest

from ltx2_operator.runtime.client import ApiError, Gone, NotFound
from ltx2_operator.runtime.departed import Departed
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
    reflector._watch(version, 300)
    assert reflector.age == 0.0
    assert [(one["metadata"]["name"], one.get("mark")) for one in store.all()] == [("a", 2)]
    query = api.queries[-1][1]
    assert (query["resourceVersion"], query["allowWatchBookmarks"]) == ("9000", "true")
    assert query["timeoutSeconds"] == 300


class Done(BaseException):
    """The script is over."""


class Script:
    """An API server whose watches go as a test says: each (seconds that it lives, its events, its end)."""

    def __init__(self, *watches, unlisted=0):
        self.watches, self.unlisted, self.time = list(watches), unlisted, 0.0
        self.asked, self.rests = [], []
        self.trouble = {"open": [], "rest": []}  # what was said of it at such a moment
        self.reflector = None

    def list(self, path, query, shape):
        self.asked.append("list")
        if self.unlisted:
            self.unlisted -= 1
            raise ApiError(0, "Unreachable", "refused")
        return [], {"resourceVersion": "100"}

    def watch(self, path, query, silence, shape):
        if not self.watches:
            raise Done
        self.asked.append((query["resourceVersion"], query["timeoutSeconds"]))
        lives, events, end = self.watches.pop(0)
        if isinstance(end, Refused):
            raise end.error
        return self._events(lives, events, end)

    def _events(self, lives, events, end):
        self.trouble["open"].append(self.reflector.trouble)
        yield from events
        self.time += lives
        if end is not None:
            raise end

    def rest(self, seconds):
        self.rests.append(seconds)
        self.trouble["rest"].append(self.reflector.trouble)
        self.time += seconds


class Refused:
    """The watch is not opened at all."""

    def __init__(self, code):
        self.error = ApiError(code, "x", "refused")


CUT = ApiError(0, "Unreachable", "IncompleteRead")


def followed(script, store=None, kind=JOBS):
    """Let a reflector live through a script."""
    ended = []
    script.reflector = Reflector(
        script, kind, store if store is not None else Store(), "ml", 300, ended.append, clock=lambda: script.time,
        rest=script.rest,
    )  # fmt: skip
    with pytest.raises(Done):
        script.reflector._forever()
    return script, len(ended)


@pytest.fixture
def even(monkeypatch):
    """Chance takes its highest value always: a lifetime is 360 s, a rest is as long as the wait."""
    monkeypatch.setattr("ltx2_operator.runtime.reflector.random.uniform", lambda low, high: high)


def bookmark(version):
    return "BOOKMARK", {"metadata": {"resourceVersion": str(version)}}


def test_a_watch_that_is_cut_goes_on_where_it_was_until_its_lifetime_is_over(even):
    script, ended = followed(
        Script((60, [("ADDED", job("a", 105)), bookmark(107)], CUT), (60, [("MODIFIED", job("a", 110))], None),
               (60, [], CUT), (177, [("DELETED", job("a", 120))], None), (360, [], None))
    )  # fmt: skip
    watches = [("100", 360), ("107", 299), ("110", 238), ("110", 177)]
    assert script.asked == ["list", *watches, "list", ("100", 360), "list"]
    assert script.rests == [1, 1, 1]
    assert ended == 6  # five watches, and the list before the end of the script
    assert script.trouble["rest"] == [""] * 3  # nobody is alarmed by that


def test_what_happened_while_a_watch_was_cut_is_heard_a_pods_last_word_too(even):
    """Catches: a list in its place, which knows nothing of a pod that ended and went in the gap."""
    departed = Departed()

    def pod(version, phase):
        labels = {"ltx2.dev/training": "fox", "batch.kubernetes.io/controller-uid": "j1"}
        metadata = {"name": "p", "namespace": "ml", "labels": labels, "resourceVersion": str(version)}
        return {"metadata": metadata, "status": {"phase": phase}}

    gap = [("MODIFIED", pod(111, "Failed")), ("DELETED", pod(112, "Failed"))]
    store = Store(gone=departed.note)
    script, _ = followed(
        Script((40, [("ADDED", pod(110, "Running"))], CUT), (320, gap, None), (360, [], None)), store, PODS
    )
    assert [one["status"]["phase"] for one in departed.of({"j1"}, [])] == ["Failed"]
    assert script.asked[:3] == ["list", ("100", 360), ("110", 319)]


def test_the_wait_doubles_while_watches_die_at_once_and_is_short_again_after_one_that_lived(even):
    dead = (0, [], CUT)
    script, _ = followed(Script(*[dead] * 6, (31, [], CUT), dead, dead, (400, [], None)))
    assert script.rests == [1, 2, 4, 8, 16, 30, 1, 2, 4]
    assert script.asked.count("list") == 2
    assert [bool(trouble) for trouble in script.trouble["rest"]] == [True] * 6 + [False] + [True] * 2


def test_streams_that_are_all_cut_early_are_opened_again_at_once(even):
    """A load balancer between: the copy is as good as one of watches that live, and says so."""
    script, _ = followed(Script(*[(20, [], CUT)] * 17, (3, [], None)))
    assert script.rests == [1] * 17
    assert script.asked.count("list") == 2
    assert script.trouble["rest"] == [""] * 17


def test_a_list_that_fails_is_tried_ever_more_rarely(even):
    script, _ = followed(Script((360, [], None), unlisted=4))
    assert script.rests == [1, 2, 4, 8]


def test_trouble_ends_when_a_watch_is_open_again_not_when_something_happens(even):
    """The next event may be a minute away."""
    script, _ = followed(Script((0, [], Refused(503)), (30, [], CUT), (329, [], None), (360, [], None)))
    assert script.asked[:3] == ["list", ("100", 360), ("100", 359)]
    assert script.rests == [1, 1]
    assert script.trouble["rest"] == ["jobs in ml: refused", ""]
    assert script.trouble["open"] == [""] * 3


@pytest.mark.parametrize(("code", "rests"), [(403, [1]), (404, [1]), (400, [1])])
def test_a_server_that_refuses_a_watch_is_asked_for_a_list(even, code, rests):
    """It says what is wrong; and a namespace that was closed is decided about only after a whole look at it."""
    script, _ = followed(Script((0, [], Refused(code)), (360, [], None)))
    assert script.asked[:3] == ["list", ("100", 360), "list"]
    assert script.rests == rests


def test_a_place_that_is_gone_is_listed_anew_after_a_moment(even):
    """Catches: lists without a pause where no place is kept for as long as a list takes."""
    gone = Gone(410, "Expired", "too old")
    script, _ = followed(Script(*[(0, [], gone)] * 5, (360, [], None)))
    assert script.rests == [1] * 5
    assert script.asked == ["list", ("100", 360)] * 6 + ["list"]


def test_a_lost_place_in_history_is_told_apart(store):
    api = Pages(0, [Gone(410, "Expired", "too old")])
    with pytest.raises(Gone):
        reflect(api, store)._watch("1", 300)


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
