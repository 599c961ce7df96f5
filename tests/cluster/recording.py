"""What a real cluster said of trainings: every version of their Jobs, pods and statuses, as it was watched.

`python -m cluster.recording FILE.jsonl` in the folder tests prints the rows that a test wrote as a Markdown table.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import kubernetes
import pytest
import urllib3

from .harness.client import api_client

TRAINING = "ltx2.dev/training"
COLUMNS = {
    "cause": "cause", "job": "Job's condition", "pod": "pod", "exitCode": "exit code", "verdict": "verdict",
    "condition": "at the end", "said": "what is said",
    "events": "events", "counted": "counted", "next": "next attempt begins at",
}  # fmt: skip


class Recorder:
    """Watches one namespace from the start on. The last status of a deleted pod lives for less than a second."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.versions: dict[str, list[dict[str, Any]]] = {"Job": [], "Pod": [], "LTX2Training": []}
        self._changes: list[tuple[str, dict[str, Any]]] = []  # what happened, and the object after it
        self._namespace, self._over = namespace, threading.Event()
        self._client = api_client(kubeconfig)
        core, batch = kubernetes.client.CoreV1Api(self._client), kubernetes.client.BatchV1Api(self._client)
        custom = kubernetes.client.CustomObjectsApi(self._client)

        def trainings(**more: Any) -> Any:
            return custom.list_namespaced_custom_object("ltx2.dev", "v1alpha1", namespace, "ltx2trainings", **more)

        self._lists: dict[str, Callable[..., Any]] = {
            "Job": lambda **more: batch.list_namespaced_job(namespace, **more),
            "Pod": lambda **more: core.list_namespaced_pod(namespace, **more),
            "LTX2Training": trainings,
        }
        for function in self._lists.values():
            function.__doc__ = ":return: object"  # the client's watch reads there what a line of it becomes
        self._threads = [threading.Thread(target=self._watch, args=(kind,), daemon=True) for kind in self._lists]

    @contextlib.contextmanager
    def running(self) -> Iterator["Recorder"]:
        """Watch for the time of the body."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()

    def _watch(self, kind: str) -> None:
        version = "0"
        while not self._over.is_set():
            try:
                stream = kubernetes.watch.Watch().stream(
                    self._lists[kind], resource_version=version, timeout_seconds=30
                )
                for event in stream:
                    found = event["raw_object"]
                    version = found["metadata"]["resourceVersion"]
                    self.versions[kind].append(found)
                    self._changes.append((event["type"], found))
            except kubernetes.client.ApiException:
                version = "0"  # too old: once more what there is
            except (urllib3.exceptions.HTTPError, OSError):
                self._over.wait(0.5)  # no server

    def of(self, kind: str, training: str, **labels: str) -> list[dict[str, Any]]:
        """Every version of a training's Jobs or pods; labels by their last part (stage, attempt)."""
        wanted = {TRAINING: training, **{f"ltx2.dev/{key}": value for key, value in labels.items()}}
        return [one for one in self.versions[kind] if wanted.items() <= (one["metadata"].get("labels") or {}).items()]

    def changes(self, training: str, stage: str = "", attempt: int = 0) -> list[tuple[str, dict[str, Any]]]:
        """(what happened, the object after it) of a training's Jobs and pods, of all or of one attempt's stage."""
        wanted = {TRAINING: training}
        if stage:
            wanted |= {"ltx2.dev/stage": stage, "ltx2.dev/attempt": str(attempt)}
        known = [(happened, one) for happened, one in list(self._changes) if one["kind"] != "LTX2Training"]
        return [each for each in known if wanted.items() <= (each[1]["metadata"].get("labels") or {}).items()]

    def most_alive(self, training: str) -> int:
        """How many pods of this name, whatever the uid of their training, were ever alive at the same time."""
        return max(map(len, self._alive(training)))

    def alive(self, training: str) -> frozenset[str]:
        """The uids of its pods that have not ended."""
        return self._alive(training)[-1]

    def _alive(self, training: str) -> list[frozenset[str]]:
        found: list[frozenset[str]] = [frozenset()]
        for happened, pod in self.changes(training):
            if pod["kind"] == "Pod":
                ended = happened == "DELETED" or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
                uid = frozenset([pod["metadata"]["uid"]])
                found.append(found[-1] - uid if ended else found[-1] | uid)
        return found

    def attempts(self, training: str) -> dict[tuple[str, str, str], set[str]]:
        """The uids of the Jobs by (uid of the training, stage, attempt)."""
        found: dict[tuple[str, str, str], set[str]] = {}
        for one in self.of("Job", training):
            labels = one["metadata"]["labels"]
            key = (labels["ltx2.dev/uid"], labels["ltx2.dev/stage"], labels["ltx2.dev/attempt"])
            found.setdefault(key, set()).add(one["metadata"]["uid"])
        return found

    def statuses(self, training: str, uid: str = "") -> list[dict[str, Any]]:
        """Every status of a training; uid: of this very object only."""
        named = [one for one in self.versions["LTX2Training"] if one["metadata"]["name"] == training]
        return [one.get("status") or {} for one in named if uid in ("", one["metadata"]["uid"])]

    def reasons(self, training: str, kind: str, uid: str = "") -> dict[str, str]:
        """Every reason that a condition has had, with its last message; uid: of this very object only."""
        found = [each for status in self.statuses(training, uid) for each in status.get("conditions") or []]
        return {each["reason"]: each["message"] for each in found if each["type"] == kind}

    def messages(self, training: str, *kinds: str) -> list[str]:
        """Every message that conditions of these types have had, in order."""
        found = [each for status in self.statuses(training) for each in status.get("conditions") or []]
        return list(dict.fromkeys(each["message"] for each in found if each["type"] in kinds))

    def verdict(self, training: str, attempt: int, stage: str) -> dict[str, Any]:
        """The first verdict over a stage of an attempt."""
        found = [status.get("lastVerdict") or {} for status in self.statuses(training)]
        wanted = {"attempt": attempt, "stage": stage.capitalize()}
        return next((each for each in found if wanted.items() <= each.items()), {})

    def job_end(self, training: str, stage: str, attempt: int) -> str:
        """How the first Job of that name ended: reason and message of its condition."""
        for one in self.of("Job", training, stage=stage, attempt=str(attempt)):
            for condition in (one.get("status") or {}).get("conditions") or []:
                if condition["type"] in ("Failed", "Complete") and condition["status"] == "True":
                    return f"{condition['reason']}: {condition.get('message', '')}"
        return ""

    def pod_ends(self, training: str, stage: str, attempt: int) -> list[tuple[str, int | None]]:
        """(reason, exit code) of each pod of an attempt: the pod's own reason, else its container's."""
        ends: dict[str, tuple[str, int | None]] = {}
        for one in self.of("Pod", training, stage=stage, attempt=str(attempt)):
            status = one.get("status") or {}
            states = [each.get("state") or {} for each in status.get("containerStatuses") or []]
            ended = [state["terminated"] for state in states if "terminated" in state]
            code = ended[0]["exitCode"] if ended else None
            reason = status.get("reason") or (ended[0].get("reason") if ended else "")
            if reason:
                ends[one["metadata"]["name"]] = (str(reason), code)
        return list(ends.values())


class Row(Protocol):
    """A cause of a table that a test causes for real."""

    @property
    def name(self) -> str: ...

    @property
    def everyday(self) -> bool: ...


def sampled(row: Row) -> Any:
    """The row as a parameter: of every day, or of `make test-cluster-full`."""
    return pytest.param(row, id=row.name, marks=() if row.everyday else pytest.mark.full)


def write_down(seen: dict[str, Any]) -> None:
    """Add a row to the file that TEST_VERDICTS_OUT names, if it does."""
    if file := os.environ.get("TEST_VERDICTS_OUT"):
        with Path(file).open("a") as log:
            log.write(json.dumps(seen) + "\n")


def table(rows: list[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    columns = {key: words for key, words in COLUMNS.items() if any(key in row for row in rows)}
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        found = [row.get(key, "") for key in columns]
        words = [": ".join(map(str, one)) if isinstance(one, list) else str(one) for one in found]
        cells = [word.replace("|", "\\|").replace("\n", " ") for word in words]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]))
