"""ConfigMaps of spec.configFrom: the user's own, and the one that its attempts were given."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ltx2_operator.acceptance import NODES_AGAIN
from ltx2_operator.runtime.client import Api, NotFound
from ltx2_operator.runtime.kinds import CONFIG_MAPS
from ltx2_operator.runtime.queue import Key

Body = dict[str, Any]
KEPT_MOST: Final = 32768  # characters of one that is kept: a run's files are a tenth of that, 2,000 runs 64 MiB


@dataclass(frozen=True)
class _Kept:
    body: Body | None  # None: there is none
    read: float


class ConfigMaps:
    """Asks for them, but for those of a run under way not at each of its looks, which come as often as its steps."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._clock = api, clock
        self._kept: dict[Key, dict[str, _Kept]] = {}
        self._lock = threading.Lock()

    def now(self, key: Key, names: Iterable[str]) -> list[Body]:
        """Those of these names that exist at this moment. Raises ApiError."""
        return [body for name in names if (body := self._ask(key, name)) is not None]

    def lately(self, key: Key, names: Iterable[str], own: str) -> list[Body]:
        """Those that existed within the last minute; `own`, which never changes, ever since it was read.

        Raises ApiError.
        """
        found = []
        for name in names:
            with self._lock:
                kept = self._kept.get(key, {}).get(name)
            if kept is not None and (self._clock() - kept.read < NODES_AGAIN or (name == own and kept.body)):
                found.append(kept.body)
            else:
                found.append(self._ask(key, name))
        return [body for body in found if body is not None]

    def forget(self, key: Key) -> None:
        """The training has ended or is gone."""
        with self._lock:
            self._kept.pop(key, None)

    def _ask(self, key: Key, name: str) -> Body | None:
        body: Body | None = None
        try:
            found = self._api.get(CONFIG_MAPS.path(key[0], name))
            body = {part: found[part] for part in ("kind", "data") if part in found}
            body["metadata"] = {"name": name}
        except NotFound:
            pass
        if body is None or sum(map(len, (body.get("data") or {}).values())) <= KEPT_MOST:
            with self._lock:
                self._kept.setdefault(key, {})[name] = _Kept(body, self._clock())
        return body
