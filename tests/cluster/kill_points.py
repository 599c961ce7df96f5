"""The operator killed at each request of a run, before the server hears it and before the operator hears the answer.

A reference run numbers the requests. Each point is then a run of its own: a namespace, an operator that looks at it
alone, a proxy between the two that kills at the point, and a second operator that goes on. `python -m
cluster.kill_points FOLDER` in the folder tests does them all and writes kill-points.jsonl and kill-points.md there.
"""

import argparse
import itertools
import json
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import kubernetes
import urllib3

from patience import until

from .harness import simulated
from .harness.client import api_client, established
from .harness.devices import NVIDIA
from .harness.simulated import Simulated
from .operators import ROOT, Operator, account, rights
from .proxy import Broken, Proxy, Request

NAME = "fox"
FORMS = ("before", "after")
LANES = 10  # runs side by side
LEASE = {"leaseSeconds": 6, "renewSeconds": 5, "retrySeconds": 1}  # short, and long enough for so many on two cores
PATIENCE = 240.0  # seconds for one run
REPEATS = 3  # of a run that did not come to its point
LEASE_REQUESTS = 2  # of each kind are points: later renewals are the same again, as many as there are seconds
TIMES = re.compile(r"(Time|Since|Seconds)$|^time$")
HOURS = re.compile(r"[\d.]+ hours")  # in the last sentence
# What a kill may change: when something was, how long it took, and which object it was.
UNLIKE = ("jobUid", "gpuSeconds")


@dataclass(frozen=True)
class Point:
    """A request of the reference run."""

    number: int
    words: str
    occurrence: int


@dataclass
class Told:
    """What is left of a run. jobs: (stage, attempt) of every Job that ever was; events: sentence -> times told."""

    status: dict[str, Any] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    killed: bool = False
    requests: list[Request] = field(default_factory=list)


def training(**asked: str) -> dict[str, Any]:
    """A look, a cache stage, a train stage that fails once and counts, and one that succeeds; each for as long as
    asked, or a second.
    """
    clips = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}
    config = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "max_train_steps": 1000, "validation_disable": True}
    annotations = {f"simulated.test/{key}": value for key, value in {"exit-code-train-1": "70", **asked}.items()}
    spec: dict[str, Any] = {
        "gpu": {"class": "h100-80g"}, "storage": {"claimName": "data"}, "config": config, "datasets": [clips],
        "podTemplate": {"metadata": {"annotations": annotations}},
    }  # fmt: skip
    return {"apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": NAME}, "spec": spec}


class Jobs:
    """Every Job that ever was, by namespace, as a watch of all of them saw it."""

    def __init__(self, kubeconfig: Path) -> None:
        self._batch = kubernetes.client.BatchV1Api(api_client(kubeconfig))
        self._seen: dict[str, dict[str, str]] = {}
        self._version = "0"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def of(self, namespace: str) -> list[str]:
        """Their stages and attempts, one entry a Job."""
        return sorted(self._seen.get(namespace, {}).values())

    def end(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                self._hear()
            except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError):
                self._version = "0"  # the server is away
                self._over.wait(1)

    def _hear(self) -> None:
        stream = kubernetes.watch.Watch().stream(
            self._batch.list_job_for_all_namespaces, resource_version=self._version, timeout_seconds=20
        )
        for event in stream:
            meta = event["raw_object"]["metadata"]
            labels = meta["labels"]
            self._version = meta["resourceVersion"]
            words = f"{labels['ltx2.dev/stage']}-{labels['ltx2.dev/attempt']}"
            self._seen.setdefault(meta["namespace"], {})[meta["uid"]] = words


class Campaign:
    """One control plane in which runs are made side by side."""

    def __init__(self, plane: Simulated, folder: Path) -> None:
        self.plane, self._folder = plane, folder
        plane.kubectl("apply", "--server-side", "-f", str(ROOT / "configs/crd/ltx2trainings.ltx2.dev.yaml"))
        established(plane.kubectl, "ltx2trainings.ltx2.dev")
        self.kubeconfig = account(plane, "default", rights(), folder)
        user = json.loads(self.kubeconfig.read_text())["users"][0]["name"]
        _await_owners(plane, f"system:serviceaccount:default:{user}")
        client = api_client(plane.kubeconfig)
        self._core, self._custom = kubernetes.client.CoreV1Api(client), kubernetes.client.CustomObjectsApi(client)
        self.jobs = Jobs(plane.kubeconfig)
        self.numbers = itertools.count(1)  # runs of the same point are namespaces of their own

    def end(self) -> None:
        """The control plane is its owner's to end."""
        self.jobs.end()

    def make(self, namespace: str) -> None:
        """A namespace with a claim that pods can mount."""
        self._core.create_namespace({"metadata": {"name": namespace}})
        volume, claim = simulated.claim(namespace, "data")
        self._core.create_persistent_volume(volume)
        self._core.create_namespaced_persistent_volume_claim(namespace, claim)

    def reference(self) -> Told:
        """A run that nobody disturbs."""
        return self.run("reference")

    def run(
        self,
        namespace: str,
        point: Point | None = None,
        form: str = "",
        meanwhile: Callable[[dict[str, Any]], None] = lambda status: None,
        **asked: str,
    ) -> Told:
        """One run, whose operator is killed at a point. meanwhile: called with its status again and again."""
        self.make(namespace)
        folder = self._folder / namespace
        folder.mkdir()
        proxy = Proxy(self.kubeconfig, namespace)
        died = threading.Event()
        operators = [self._start(proxy, namespace, folder)]

        def kill(request: Request) -> None:
            if died.is_set():
                raise Broken  # it asked this beside what it was killed at
            if point is not None and request.point == (point.words, point.occurrence):
                died.set()
                operators[-1].process.kill()
                operators[-1].process.wait()
                raise Broken

        if form:
            setattr(proxy, form, kill)

        def over() -> bool:
            if operators[-1].process.poll() is not None:  # killed, or it could not renew its lease on a busy machine
                if died.is_set():
                    setattr(proxy, form, lambda request: None)
                operators.append(self._start(proxy, namespace, folder))
            status = self.status(namespace)
            meanwhile(status)
            return status.get("state") in ("Succeeded", "Failed", "Rejected")

        try:
            self._apply(namespace, training(**asked))
            until(over, f"{namespace}: the end", PATIENCE)
            until(lambda: any(one.startswith("Succeeded") for one in self._told(namespace)), "the last event", 30)
            return Told(self.status(namespace), self.jobs.of(namespace), self._told(namespace), died.is_set(),
                        list(proxy.requests))  # fmt: skip
        finally:
            for one in operators:
                one.process.kill()
                one.process.wait()
            proxy.close()

    def _start(self, proxy: Proxy, namespace: str, folder: Path) -> Operator:
        return Operator(proxy.kubeconfig(folder), namespace, folder, leaderElection=LEASE)

    def _apply(self, namespace: str, obj: dict[str, Any]) -> None:
        self._custom.create_namespaced_custom_object("ltx2.dev", "v1alpha1", namespace, "ltx2trainings", obj)

    def status(self, namespace: str) -> dict[str, Any]:
        """Of the run in a namespace."""
        found = self._custom.get_namespaced_custom_object("ltx2.dev", "v1alpha1", namespace, "ltx2trainings", NAME)
        return dict(found.get("status") or {})

    def _told(self, namespace: str) -> dict[str, int]:
        listed = self._custom.list_namespaced_custom_object("events.k8s.io", "v1", namespace, "events")["items"]
        found = [one for one in listed if one["regarding"].get("name") == NAME]
        counts = [(one.get("series") or {}).get("count", 1) for one in found]
        said = [HOURS.sub("some hours", f"{one['reason']}: {one['note']}") for one in found]
        return dict(zip(said, counts, strict=True))


def _await_owners(plane: Simulated, account: str) -> None:
    """Wait until the server knows LTX2Training as an owner: before, an operator asks again, and the points differ."""
    owner = {"apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "name": NAME, "uid": "1"}
    reference = {**owner, "controller": True, "blockOwnerDeletion": True}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "try", "ownerReferences": [reference]}}
    ask = ("create", "-n", "default", "--dry-run=server", f"--as={account}", "-f", "-")
    until(lambda: plane.kubectl.run(*ask, manifest=child).returncode == 0, "a known owner", 60)


def creations(audit_log: Path) -> dict[str, int]:
    """How many Jobs the server made, by namespace, as its audit log has it."""
    made: Counter[str] = Counter()
    for line in audit_log.read_text().splitlines():
        if '"jobs"' in line and '"create"' in line:
            entry = json.loads(line)
            about = entry.get("objectRef") or {}
            real = "dryRun" not in entry["requestURI"] and "subresource" not in about
            if (entry["verb"], about["resource"], entry["responseStatus"]["code"], real) == (
                "create",
                "jobs",
                201,
                True,
            ):
                made[about["namespace"]] += 1
    return dict(made)


def points(reference: Told) -> list[Point]:
    """The requests of a run, numbered in their order, without the lease's later renewals."""
    found: list[Point] = []
    for request in reference.requests:
        if " leases" in request.words and request.occurrence > LEASE_REQUESTS:
            continue
        found.append(Point(len(found) + 1, *request.point))
    return found


def alike(value: Any) -> Any:
    """A status without what a kill may change."""
    if isinstance(value, dict):
        return {key: alike(one) for key, one in value.items() if not TIMES.search(key) and key not in UNLIKE}
    return [alike(one) for one in value] if isinstance(value, list) else value


def differences(told: Told, reference: Told) -> list[str]:
    """What is not as in the reference run; empty: all is."""
    found = []
    ours, theirs = alike(told.status), alike(reference.status)
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            found.append(f"status.{key}: {json.dumps(ours.get(key))} instead of {json.dumps(theirs.get(key))}")
    if told.jobs != reference.jobs:
        found.append(f"Jobs {told.jobs} instead of {reference.jobs}")
    found += [f"event lost: {one}" for one in sorted({*reference.events} - {*told.events})]
    found += [f"event that the reference lacks: {one}" for one in sorted({*told.events} - {*reference.events})]
    found += [f"told {count} times: {one}" for one, count in told.events.items() if count > 2]
    return found


def attempt(campaign: Campaign, reference: Told, point: Point, form: str) -> dict[str, Any]:
    """A row of the table: the run of one point in one form, made again if it did not come to the point."""
    told, repeat = Told(), 0
    while not told.killed and repeat < REPEATS:
        repeat += 1
        try:
            told = campaign.run(f"p{point.number:03}-{form}-{next(campaign.numbers)}", point, form)
        except Exception as error:
            return {**asdict(point), "form": form, "killed": True, "runs": repeat, "differences": [str(error)]}
        wrong = differences(told, reference)
        if wrong:
            break
    twice = sorted(one for one, count in told.events.items() if count > 1)
    return {
        **asdict(point), "form": form, "killed": told.killed, "runs": repeat, "differences": wrong,
        "jobs": told.jobs, "state": told.status.get("state"), "told twice": twice,
    }  # fmt: skip


def rows(campaign: Campaign, reference: Told, chosen: Iterable[Point]) -> Iterator[dict[str, Any]]:
    """The rows of these points, both forms, as they come."""
    asked = [(point, form) for point in chosen for form in FORMS]
    with ThreadPoolExecutor(LANES) as lanes:
        for done in as_completed([lanes.submit(attempt, campaign, reference, *one) for one in asked]):
            yield done.result()


def table(found: list[dict[str, Any]], jobs: list[str], made: dict[str, int]) -> str:
    """The campaign in Markdown. jobs: of the reference run; made: as `creations` counts."""
    named: dict[tuple[int, str, int], dict[str, str]] = {}
    for row in found:
        words = "as the reference" if not row["differences"] else "; ".join(row["differences"]).replace("|", "\\|")
        end = words if row["killed"] else "never asked again"
        named.setdefault((row["number"], row["words"], row["occurrence"]), {})[row["form"]] = end
    counted = Counter((row["killed"], not row["differences"]) for row in found)
    lines = [
        "# The operator killed at each request of a run",
        "",
        "`python -m cluster.kill_points FOLDER` in the folder tests. A run of four Jobs (look, cache, train that leaves"
        " with 70 and counts, train that succeeds) on simulated nodes. *Before*: SIGKILL when the request has come and"
        " the server has not heard it. *After*: SIGKILL when the server has answered and the operator has not heard."
        " Then a second operator goes on.",
        "",
        f"- points: {len(named)}, runs: {len(found)}; killed at the point: {sum(row['killed'] for row in found)}",
        f"- as the reference: {counted[True, True]}; unlike it: {counted[True, False] + counted[False, False]}",
        f"- requests that did not come again in {REPEATS} runs (reads that depend on what a watch brings"
        f" first): {counted[False, True]}",
        f"- Jobs of every run, one of each, as a watch of all Jobs saw them: {', '.join(jobs)}; the server's audit log"
        f" has {sum(made.values())} creations in {len(made)} namespaces, {sorted(set(made.values()))} in each",
        f"- runs in which a sentence was told a second time (counted in the same Event):"
        f" {sum(bool(row.get('told twice')) for row in found)}",
        "",
        "Compared: the whole final status without times and durations (`*Time`, `*Since`, `*Seconds`, `time`),"
        " `jobUid` and `gpuSeconds`; the Jobs that ever were; the sentences of all Events.",
        "",
        "| # | request | killed before | killed after |",
        "| --- | --- | --- | --- |",
    ]
    for (number, words, occurrence), ends in sorted(named.items()):
        lines.append(f"| {number} | {words} ({occurrence}) | {ends.get('before', '')} | {ends.get('after', '')} |")
    return "\n".join(lines) + "\n"


def main(out: Path, every: int, since: int) -> int:
    """All points from a number on, or every n-th of them; returns 1 if one of them broke something."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "plane").mkdir()
        plane = simulated.bring_up(folder / "plane")
        try:
            plane.add_nodes(["gpu-1"], *NVIDIA)
            campaign = Campaign(plane, folder)
            reference = campaign.reference()
            chosen = points(reference)[since - 1 :: every]
            print(f"{len(chosen)} points", flush=True)
            found = []
            with (out / "kill-points.jsonl").open("w") as log:
                for row in rows(campaign, reference, chosen):
                    found.append(row)
                    log.write(json.dumps(row) + "\n")
                    log.flush()
                    print(row["number"], row["form"], row["words"], row["killed"], row["differences"], flush=True)
            campaign.end()
            made = creations(plane.audit_log)
        finally:
            plane.end()
    (out / "kill-points.md").write_text(table(found, reference.jobs, made))
    return int(any(row["differences"] for row in found) or set(made.values()) != {len(reference.jobs)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every n-th point")
    parser.add_argument("--since", type=int, default=1, help="only from this point on")
    asked = parser.parse_args()
    sys.exit(main(asked.folder, asked.every, asked.since))
