"""Which replica works: the holder of one Lease.

The holder renews it; whoever sees it unrenewed for its whole length takes it. Lengths are measured on the own clock of
each process from when it saw a change, so clocks of machines need not agree. A holder that could not renew in time must
end its process: it may have been replaced, even if it does not know (a suspended machine, a stopped process).
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ltx2_operator.runtime.client import Api, ApiError, Conflict, NotFound
from ltx2_operator.runtime.kinds import LEASES
from ltx2_operator.settings import LeaderElection

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """This process is not, or cannot be sure to be, the one that works."""


def uptime() -> float:
    """Seconds since boot, those included in which the machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """One candidate for one Lease."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        settings: LeaderElection,
        clock: Callable[[], float] = uptime,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._namespace, self._identity = api, namespace, identity
        self._settings, self._clock, self._now = settings, clock, now
        self._renewed: float | None = None  # when the newest renewal that succeeded was begun; None: not the holder
        self._seen: tuple[str, str, float] = ("", "", 0.0)  # holder, renewTime, when this was first seen

    @property
    def held(self) -> bool:
        """Whether this process may write now: the newest renewal is young enough that nobody can have taken over."""
        return self._renewed is not None and self._clock() - self._renewed < self._settings.renew_seconds

    def require(self) -> None:
        """Raise LeaseLost unless it is held: asked before every write."""
        if not self.held:
            raise LeaseLost(f"the lease {self._settings.lease_name} was not renewed in time")

    def own(self) -> None:
        """Count as the holder for ever: where there is one replica and no election."""
        self._renewed = float("inf")

    def step(self) -> None:
        """Try once to take or renew it.

        Raises LeaseLost where it was held and is no more: another holder was read, or for renew_seconds it could not be
        renewed.
        """
        begun, was = self._clock(), self._renewed
        if was is not None:
            self.require()
        try:
            taken = self._try(begun)
        except Conflict as error:
            # No answer to who holds it: a renewal whose own answer was lost makes the next one conflict. The next step
            # reads it again.
            log.log(logging.DEBUG if was is None else logging.WARNING, "lease %s: %s", self._settings.lease_name, error)
            if was is not None:
                self.require()
            return
        except ApiError as error:
            log.warning("lease %s: %s", self._settings.lease_name, error)
            if was is not None:
                self.require()
            return
        if was is not None and not taken:
            self._renewed = None
            raise LeaseLost(f"the lease {self._settings.lease_name} was taken by {self._seen[0]}")
        if taken:
            self._renewed = begun

    def release(self) -> None:
        """Let another replica take over at once. Errors are logged: the lease runs out by itself."""
        if not self.held:
            return
        self._renewed = None
        try:
            lease = self._read()
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"].update(holderIdentity="", leaseDurationSeconds=1)
                self._replace(lease)
        except ApiError as error:
            log.warning("lease %s could not be released: %s", self._settings.lease_name, error)

    def _try(self, begun: float) -> bool:
        """Whether it was taken or renewed; False: another one holds it. Raises ApiError, Conflict: it was changed."""
        try:
            lease = self._read()
        except NotFound:
            self._create()
            return True
        spec = lease.setdefault("spec", {})
        holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
        if (holder, renewed) != self._seen[:2]:
            self._seen = (holder, renewed, begun)
        length = float(spec.get("leaseDurationSeconds") or self._settings.lease_seconds)
        if holder not in ("", self._identity) and begun - self._seen[2] < length:
            return False
        if holder != self._identity:
            spec["acquireTime"] = self._stamp()
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec.update(
            holderIdentity=self._identity, leaseDurationSeconds=self._settings.lease_seconds, renewTime=self._stamp()
        )
        self._replace(lease)
        return True

    def _create(self) -> None:
        body: dict[str, Any] = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._settings.lease_name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._settings.lease_seconds,
                "acquireTime": self._stamp(),
                "renewTime": self._stamp(),
                "leaseTransitions": 0,
            },
        }
        self._api.request("POST", LEASES.path(self._namespace), body=body, **self._urgent())

    def _read(self) -> dict[str, Any]:
        return self._api.request("GET", LEASES.path(self._namespace, self._settings.lease_name), **self._urgent()).body

    def _replace(self, lease: dict[str, Any]) -> None:
        path = LEASES.path(self._namespace, self._settings.lease_name)
        self._api.request("PUT", path, body=lease, **self._urgent())

    def _urgent(self) -> dict[str, Any]:
        """Renewals wait for no rate limit, and not longer than until the next one."""
        return {"limited": False, "timeout": max(1.0, self._settings.renew_seconds / 2)}

    def _stamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
