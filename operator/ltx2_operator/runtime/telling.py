"""Events about trainings, as `kubectl describe` shows them; the same sentence again is counted, not repeated."""

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ltx2_operator.draft import Event
from ltx2_operator.fields import API_VERSION, GROUP, KIND
from ltx2_operator.runtime.client import MERGE, Api, ApiError, Conflict
from ltx2_operator.runtime.kinds import EVENTS
from ltx2_operator.runtime.lease import Lease

CONTROLLER: Final = f"{GROUP}/operator"
NOTE_MOST: Final = 1024

log = logging.getLogger(__name__)


def event_name(obj: Mapping[str, Any], event: Event) -> str:
    """A name that the same sentence about the same object always gets: so it is found again, after a restart too."""
    seed = "\0".join((str(obj["metadata"]["uid"]), event.kind, event.reason, event.message))
    return f"{obj['metadata']['name']}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}"


def event_body(obj: Mapping[str, Any], event: Event, identity: str, now: datetime) -> dict[str, Any]:
    """The event as events.k8s.io/v1 takes it."""
    metadata = obj["metadata"]
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": event_name(obj, event), "namespace": metadata["namespace"]},
        "eventTime": micro(now),
        "reportingController": CONTROLLER,
        "reportingInstance": identity[:128],
        "action": "Reconcile",
        "reason": event.reason,
        "note": event.message if len(event.message.encode()) <= NOTE_MOST else _cut(event.message),
        "type": event.kind,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }


def micro(now: datetime) -> str:
    """RFC 3339 with microseconds, as events and leases have it."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(text: str) -> str:
    return text.encode()[: NOTE_MOST - 3].decode(errors="ignore") + "…"


class Teller:
    """Publishes events. One that cannot be published is logged and no reason to fail: the status holds the facts."""

    def __init__(self, api: Api, lease: Lease, identity: str) -> None:
        self._api, self._lease, self._identity = api, lease, identity

    def tell(self, obj: Mapping[str, Any], event: Event) -> None:
        """Publish one event. Raises LeaseLost."""
        self._lease.require()
        now = datetime.now(UTC)
        body = event_body(obj, event, self._identity, now)
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        try:
            try:
                self._api.request("POST", EVENTS.path(namespace), body=body)
            except Conflict:
                known = self._api.get(EVENTS.path(namespace, name))
                count = int((known.get("series") or {}).get("count") or 1) + 1
                series = {"series": {"count": count, "lastObservedTime": micro(now)}}
                self._api.request("PATCH", EVENTS.path(namespace, name), body=series, content=MERGE)
        except ApiError as error:
            log.warning("%s/%s: the event %s was not published: %s", namespace, name, event.reason, error)
