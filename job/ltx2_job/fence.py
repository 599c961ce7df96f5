"""Who owns a run folder: exactly one attempt at a time.

A node that is cut off goes on writing to the volume until its kubelet comes back, although its pod is long gone from
the API. So the newest attempt writes its name into `runs/<name>/attempt`, and everybody looks there before changing
anything. The order of the writes on the volume decides, not the clocks of two nodes: whoever claimed last owns the run.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ltx2_job.errors import StorageError, Superseded
from ltx2_job.workspace import RunFolder, write_json


@dataclass(frozen=True)
class Owner:
    """One start of one attempt: the training's uid, the attempt's number, the pod of rank 0 and when it began."""

    uid: str
    attempt: int
    pod_uid: str
    start_time: str

    @staticmethod
    def now(uid: str, attempt: int, pod_uid: str = "") -> "Owner":
        """A new owner starting at this moment; outside Kubernetes a random identity takes the place of a pod's."""
        return Owner(uid, attempt, pod_uid or str(uuid.uuid4()), datetime.now(UTC).isoformat(timespec="microseconds"))

    @staticmethod
    def read(path: Path) -> "Owner | None":
        """The owner that the file names; None if there is no file. Raises StorageError for a file that is not ours."""
        try:
            page = json.loads(path.read_bytes())
            return Owner(str(page["uid"]), int(page["attempt"]), str(page["podUid"]), str(page["startTime"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{path}: not an attempt's fence ({error}); remove this file if no training runs"
            ) from None

    def write(self, path: Path) -> None:
        """Name this owner in the file, whole or not at all."""
        page = {"uid": self.uid, "attempt": self.attempt, "podUid": self.pod_uid, "startTime": self.start_time}
        write_json(path, page)

    def __str__(self) -> str:
        return f"attempt {self.attempt} (training {self.uid or 'local'}, pod {self.pod_uid}, started {self.start_time})"


@dataclass(frozen=True)
class Fence:
    """Guards the run folder for one owner. Without a path it guards nothing: ranks above 0 write nothing."""

    path: Path | None = None
    owner: Owner | None = None

    @staticmethod
    def claim(run: RunFolder, owner: Owner) -> "Fence":
        """Take the run folder for this owner.

        Raises Superseded if a later attempt of the same training holds it already: a pod that was slow to start must
        not take the run back from its successor.
        """
        holder = Owner.read(run.attempt)
        if holder and holder.uid == owner.uid and holder.attempt > owner.attempt:
            raise Superseded(f"{run.attempt}: {holder} owns this run; attempt {owner.attempt} leaves it alone")
        owner.write(run.attempt)
        return Fence(run.attempt, owner)

    def check(self) -> None:
        """Return if this owner still holds the run folder: one read, since a network volume revalidates on open.

        Raises Superseded if another owner holds it, StorageError if the file has gone.
        """
        if self.path is None:
            return
        holder = Owner.read(self.path)
        if holder is None:
            raise StorageError(f"{self.path}: gone while the training ran; was the run folder deleted?")
        if holder != self.owner:
            raise Superseded(f"{self.path}: {holder} owns this run now; {self.owner} leaves it alone")
