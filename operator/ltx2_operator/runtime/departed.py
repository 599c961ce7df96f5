"""The last words of pods that are gone.

A deleted, evicted or drained pod shows how it ended for less than a second, and its Job says that it has failed only
when the pod is no more. So the last versions of the newest thousand that had ended are kept; a look asks for its own
until its attempt has its verdict. A restart of the operator loses them: the Job's own condition then has to do.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

from ltx2_operator.classify import is_alive

Body = dict[str, Any]
JOB_UID_LABEL: Final = "batch.kubernetes.io/controller-uid"
INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
MOST: Final = 1000  # pods; the oldest are forgotten first


class Departed:
    """Pods that ended and are gone: the newest of each Job and index."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._pods: OrderedDict[tuple[str, str], Body] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, pod: Body) -> None:
        """Keep a pod that is being forgotten, if it belongs to a Job and has ended."""
        job, index = _place(pod)
        if not job or is_alive(pod):
            return
        with self._lock:
            self._pods[job, index] = pod
            self._pods.move_to_end((job, index))
            while len(self._pods) > self._most:
                self._pods.popitem(last=False)

    def of(self, jobs: Set[str], there: Sequence[Mapping[str, Any]]) -> list[Body]:
        """Those of the Jobs with these uids, but for places that a pod which is still there has taken."""
        taken = {_place(pod) for pod in there}
        with self._lock:
            return [pod for place, pod in self._pods.items() if place[0] in jobs and place not in taken]


def _place(pod: Mapping[str, Any]) -> tuple[str, str]:
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get(JOB_UID_LABEL) or ""), str(labels.get(INDEX_LABEL) or "0")
