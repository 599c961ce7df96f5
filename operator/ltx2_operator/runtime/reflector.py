"""A local copy of one kind of objects, kept by list and watch.

A watch that is cut goes on where it was, so that nothing between two of them is missed: the last word of a pod is there
for less than a second. After a time everything is listed anew; a watch that died silently can hide changes for that
long and no longer. `age` says how long ago the server was last heard.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from ltx2_operator.pods import TRAINING_LABEL
from ltx2_operator.runtime.client import Api, ApiError, Gone
from ltx2_operator.runtime.kinds import Kind
from ltx2_operator.runtime.queue import Key

Body = dict[str, Any]
PAGE: Final = 250  # objects in one answer of a list: each is in memory as text and as objects for a moment
SILENCE: Final = 150.0  # seconds: the server sends a bookmark about every minute
RETRY_FIRST: Final = 1.0  # seconds; doubled after each watch that did not live that long
RETRY_MOST: Final = 30.0
GONE_AGAIN: Final = 1.0
BUSY: Final = 429
SAY_AGAIN: Final = 300.0  # seconds until the same trouble is logged again

log = logging.getLogger(__name__)


def version_of(body: Body) -> int:
    """The place of an object in the server's history; these are numbers that only grow."""
    text = str(body["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


def key_of(body: Body) -> Key:
    """Namespace and name of the training that an object is, or belongs to by its label."""
    metadata = body["metadata"]
    name = (metadata.get("labels") or {}).get(TRAINING_LABEL) if body.get("kind") != "LTX2Training" else None
    return metadata.get("namespace") or "", name or metadata["name"]


class Store:
    """Objects of one kind by training. Older versions never replace newer ones, whoever brings them."""

    def __init__(
        self, changed: Callable[[Key], None] = lambda key: None, gone: Callable[[Body], None] = lambda body: None
    ) -> None:
        """changed: called with a key after each change. gone: called with an object's last version before it goes."""
        self._by_key: dict[Key, dict[str, Body]] = {}
        self._changed, self._gone = changed, gone
        self._lock = threading.Lock()

    def of(self, key: Key) -> list[Body]:
        """The objects of one training."""
        with self._lock:
            return list(self._by_key.get(key, {}).values())

    def one(self, key: Key) -> Body | None:
        """The training itself."""
        return next(iter(self.of(key)), None)

    def all(self) -> list[Body]:
        """Every object."""
        with self._lock:
            return [body for group in self._by_key.values() for body in group.values()]

    def names(self) -> list[Key]:
        """Every training of which there is something."""
        with self._lock:
            return list(self._by_key)

    def __len__(self) -> int:
        with self._lock:
            return sum(len(group) for group in self._by_key.values())

    def put(self, body: Body) -> None:
        """Take an object over unless it is known, or a newer one is."""
        key = key_of(body)
        with self._lock:
            group = self._by_key.setdefault(key, {})
            old = group.get(body["metadata"]["name"])
            if old is not None and version_of(body) <= version_of(old):
                return
            group[body["metadata"]["name"]] = body
        self._changed(key)

    def remove(self, body: Body) -> None:
        """Forget an object that is gone, unless a newer namesake is known."""
        key, name = key_of(body), body["metadata"]["name"]
        with self._lock:
            group = self._by_key.get(key, {})
            old = group.get(name)
            if old is None or version_of(old) > version_of(body):
                return
            self._gone(body)
            del group[name]
            if not group:
                del self._by_key[key]
        self._changed(key)

    def replace(self, listed: Iterable[Body], version: int, namespace: str | None) -> None:
        """What a list said: the objects of a namespace (None: of all) at a place in history."""
        found = {(key_of(body)[0], body["metadata"]["name"]) for body in listed}
        for body in listed:
            self.put(body)
        for body in self.all():
            own = body["metadata"].get("namespace") or ""
            place = (own, body["metadata"]["name"])
            if (namespace is None or own == namespace) and place not in found and version_of(body) <= version:
                self.remove(body)


class Reflector:
    """Keeps a store up to date, for ever, in a thread of its own."""

    def __init__(
        self,
        api: Api,
        kind: Kind,
        store: Store,
        namespace: str | None,
        lifetime: float,
        restarted: Callable[[str], None] = lambda plural: None,
        clock: Callable[[], float] = time.monotonic,
        filled: Callable[[], None] = lambda: None,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        """restarted: told of each list or watch that ended; filled: called after each list; rest: between two tries."""
        self._filled = filled
        self._api, self._kind, self._store, self.namespace = api, kind, store, namespace
        self._lifetime, self._restarted, self._clock = lifetime, restarted, clock
        self._rest, self._wait = rest, RETRY_FIRST
        self._place = ""  # in the server's history: all until there is in the store
        self._heard = clock()
        self._said: tuple[str, float] = ("", 0.0)
        self.synced = self.refused = False  # refused: for lack of a right, by the last answer
        self.trouble = ""

    @property
    def what(self) -> str:
        """Its name for people: `jobs in ml`."""
        return f"{self._kind.plural} in {self.namespace}" if self.namespace else self._kind.plural

    @property
    def age(self) -> float:
        """Seconds since a list or a watch last succeeded (or since the start)."""
        return self._clock() - self._heard

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._forever, name=self.what, daemon=True).start()

    def _forever(self) -> None:
        while True:
            try:
                self._follow(self.list())
            except Gone:
                self._rest(GONE_AGAIN)  # that place in history is not kept any more
            except ApiError as error:
                self._say(error)
                self._back_off()
            except Exception:
                log.exception("the watch of %s failed; it begins anew", self.what)
                self._rest(RETRY_MOST)
            finally:
                self._restarted(self._kind.plural)

    def _follow(self, version: str) -> None:
        """Watch from a place in history until all is to be listed anew, however often the watch is cut.

        Raises ApiError where the server refuses: it says what is wrong, or that the place is gone.
        """
        until, place = self._clock() + self._lifetime * random.uniform(0.8, 1.2), version
        while True:
            begun, cut = self._clock(), None
            try:
                self._watch(place, until - begun)
            except ApiError as error:
                if 400 <= error.code < 500 and error.code != BUSY:
                    raise
                cut = error
            now, place = self._clock(), self._place
            if now - begun >= self._wait:
                self._wait = RETRY_FIRST
                log.debug("%s: the watch has ended after %.0f s: %s", self.what, now - begun, cut)
            elif cut is not None:
                self._say(cut)
            if until - now < 1:
                return
            self._restarted(self._kind.plural)
            self._back_off()

    def _back_off(self) -> None:
        self._rest(self._wait * random.uniform(0.5, 1.0))
        self._wait = min(RETRY_MOST, self._wait * 2)

    def list(self) -> str:
        """Fill the store; returns the place in history from which to watch. Raises ApiError."""
        query: dict[str, Any] = {"limit": PAGE}
        if self._kind.selector:
            query["labelSelector"] = self._kind.selector
        found: list[Body] = []
        while True:
            items, metadata = self._api.list(self._kind.path(self.namespace), query, self._kind.shape)
            for body in items:
                self._take(body)
            found += items
            more = metadata.get("continue")
            if not more:
                break
            query["continue"] = more
        version = str(metadata.get("resourceVersion") or "0")
        self._store.replace(found, int(version) if version.isdigit() else 0, self.namespace)
        self._hear()
        self.synced = True
        self._filled()
        return version

    def _watch(self, place: str, seconds: float) -> None:
        self._place = place
        query: dict[str, Any] = {
            "resourceVersion": place,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": int(seconds) or 1,
        }
        if self._kind.selector:
            query["labelSelector"] = self._kind.selector
        events = self._api.watch(self._kind.path(self.namespace), query, SILENCE, self._kind.shape)
        self._hear()
        for what, body in events:
            self._hear()
            if what != "BOOKMARK":
                self._take(body)
                (self._store.remove if what == "DELETED" else self._store.put)(body)
            self._place = str(body["metadata"].get("resourceVersion") or self._place)
        self._hear()

    def _take(self, body: Body) -> None:
        """Items of a list carry no kind."""
        body["kind"], body["apiVersion"] = self._kind.kind, self._kind.api_version

    def _hear(self) -> None:
        self._heard = self._clock()
        if self.trouble:
            log.info("%s can be read again", self.what)
        self.trouble, self.refused = "", False

    def _say(self, error: ApiError) -> None:
        """One line per trouble, not one per try."""
        self.trouble, self.refused = self._in_words(error), error.code == 403
        text, at = self._said
        if text != self.trouble or self._clock() - at > SAY_AGAIN:
            self._said = (self.trouble, self._clock())
            log.warning("%s", self.trouble)

    def _in_words(self, error: ApiError) -> str:
        if error.code == 404:
            return f"{self._kind.plural}.{self._kind.api_version} is not defined: install the chart with crds.enabled"
        if error.code in (401, 403):
            where = f"namespace {self.namespace}" if self.namespace else "the cluster"
            return f"the operator may not list and watch {self._kind.plural} in {where}: {error}"
        return f"{self.what}: {error}"
