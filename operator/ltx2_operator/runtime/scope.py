"""What of the cluster can be seen: all of it, or the namespaces that were named, each by itself.

A namespace of the list may be deleted, and the operator's rights go with it. It is left alone until it can be read;
the trainings of all others go on.
"""

from collections.abc import Sequence

from ltx2_operator.runtime.reflector import Reflector


class Scope:
    """The operator's local copies, asked as one."""

    def __init__(self, reflectors: Sequence[Reflector]) -> None:
        self._all = reflectors

    def closed(self, namespace: str) -> bool:
        """Whether a namespace of the list cannot be decided about now: nothing is decided on half a view."""
        return any(one.refused or not one.synced for one in self._all if one.namespace == namespace)

    def complete(self) -> bool:
        """Whether all is there that may be read."""
        return all(one.synced for one in self._asked())

    def unwell(self, limit: float) -> list[str]:
        """Copies that have heard nothing for more than `limit` seconds; a right that is missing comes by no restart."""
        return [f"{one.what}: nothing heard for {one.age:.0f} s" for one in self._asked() if one.age > limit]

    def unready(self) -> list[str]:
        """Copies that are not filled yet, or cannot be read now."""
        troubled = [one for one in self._asked() if one.trouble or not one.synced]
        return [one.trouble or f"{one.what}: not listed yet" for one in troubled]

    def oldest(self) -> float:
        """Seconds since the copy that was silent longest was last heard."""
        return max(one.age for one in self._all)

    def _asked(self) -> list[Reflector]:
        """Copies of what may be read; all of them where not one of the listed namespaces may be."""
        listed = {one.namespace for one in self._all if one.namespace}
        refused = {one.namespace for one in self._all if one.namespace and one.refused}
        return [one for one in self._all if one.namespace not in refused] if refused != listed else list(self._all)
