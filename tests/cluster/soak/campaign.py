"""Two trainings at a time through a cluster that is disturbed all the time, and the verdict over each."""

import hashlib
import json
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..harness.client import RequestFailed
from ..harness.processes import StartFailed
from ..volumes import Volume
from ..world import World, ends
from .faults import FAULTS, OPERATOR, QUEUED, Fault, Missed, targets
from .runs import Run

AT_ONCE = 2
STAGES_BETWEEN = 3  # median stage times from one fault to the next
FIRST_STAGE_SECONDS = 10.0  # taken for the median until stages have ended
QUIET_SHARE = 0.8  # of the runs; afterwards the operator is left alone, so that its growth can be seen
MOST_SECONDS = 1200.0  # of one run; more is a run that hangs


@dataclass
class Soak:
    """The runs of one soak, their verdicts, and what was done to them; all of it in `log`, a JSON object a line."""

    world: World
    runs: list[Run]
    reference: Path  # a workspace in which nobody has disturbed the runs that the variants are named after
    chance: random.Random
    log: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    _excused: dict[str, set[str]] = field(default_factory=dict)  # reasons of failures that a fault has brought about
    # The same of whatever uses a claim while a fault is under way, those that begin meanwhile too.
    _broken: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _ended: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _breaking: threading.Lock = field(default_factory=threading.Lock)  # held while something is being broken

    def go(self) -> None:
        """All runs, and faults until the last has ended."""
        over = threading.Event()
        breaker = threading.Thread(target=self._break, args=(over,), daemon=True)
        breaker.start()
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._one, self.runs))
        finally:
            over.set()
            breaker.join()

    def tell(self, quietly: bool = False, **record: Any) -> None:
        """Keep a record, write it down, and show it."""
        with self._lock:
            self.records.append(record)
            with self.log.open("a") as lines:
                lines.write(json.dumps({"at": datetime.now().isoformat(timespec="seconds"), **record}) + "\n")
        if quietly:
            return
        words = {key: value for key, value in record.items() if value not in ("", [], None)}
        print(datetime.now().strftime("%H:%M:%S"), json.dumps(words, ensure_ascii=False), flush=True)

    # --------------------------------------------------------------------------------------------------------- the runs

    def _one(self, run: Run) -> None:
        began = time.monotonic()
        try:
            problems = self._see_through(run)
        except Exception as error:  # one defect must not hide the others
            problems = [f"{type(error).__name__}: {error}"]
        status = self.world.status(run.name)
        self._ended += 1
        self.tell(
            run=run.name, seconds=round(time.monotonic() - began), attempts=status.get("attempt"),
            counted=status.get("failures"), ended=_final(status), wanted=run.reason, problems=problems,
        )  # fmt: skip

    def _see_through(self, run: Run) -> list[str]:
        world = self.world
        world.manifests[run.name] = run.manifest(world.image)
        _insist(lambda: world.make(run.name))
        if run.upload:
            self._upload(run.name)
        end = time.monotonic() + MOST_SECONDS
        while True:
            kind, reason, message = self._wait_for_end(run, end)
            if reason in self._excuses(run.name) and reason != run.reason:
                self._retry(run.name, f"{kind}: {reason}", end)
                continue
            return self._problems(run, reason, message)

    def _excuses(self, name: str) -> set[str]:
        """Reasons of a failure of this run that faults have brought about, or may while one is under way."""
        shared = self._broken.get(self.world.claim_of(name), ())
        return self._excused.get(name, set()).union(shared)

    def _retry(self, name: str, failed: str, end: float) -> None:
        """`ltx2 retry`, once what has brought the failure about is gone."""
        with self._breaking:
            _insist(lambda: self.world.types("retry", name))
        self._wait(lambda: _final(self.world.status(name)) != failed, name, "the retry", end)

    def _wait_for_end(self, run: Run, end: float) -> tuple[str, str, str]:
        """(type, reason, message) of the condition that ends a run of today's object of this name."""
        found: list[tuple[str, str, str]] = []

        def ended() -> bool:
            uid = self._uid(run.name)
            found[:] = _ends(self.world.status(run.name, uid)) if uid else []
            return bool(found)

        self._wait(ended, run.name, "the end", end)
        return found[0]

    def _wait(self, holds: Callable[[], bool], name: str, what: str, end: float) -> None:
        left = max(1.0, end - time.monotonic())
        self.world.operator.wait_for(holds, f"{name}: {what}", lambda: json.dumps(self.world.status(name)), left)

    def _uid(self, name: str) -> str:
        """Of the object that was made last."""
        seen = [one for one in self.world.recorder.versions["LTX2Training"] if one["metadata"]["name"] == name]
        newest = max(seen, key=lambda one: str(one["metadata"]["creationTimestamp"]), default=None)
        return str(newest["metadata"]["uid"]) if newest else ""

    def _upload(self, name: str) -> None:
        """What a user types whose claim is empty, again and again where the cluster is disturbed."""
        world = self.world
        bound = ("wait", f"pvc/{name}-data", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
        _insist(lambda: world.kubectl(*bound))
        _insist(lambda: world.volumes.update({f"{name}-data": self._claim(name)}))
        for folder in ("models", "datasets/videos"):
            words = (str(world.volume.inputs / folder), name, "--to", folder)
            _insist(lambda words=words: world.types("upload", *words))  # type: ignore[misc]

    def _claim(self, name: str) -> Volume:
        return Volume(f"{name}-data", self.world.cluster.claim_folder(self.world.namespace, f"{name}-data"),
                      self.world.volume.inputs)  # fmt: skip

    def _problems(self, run: Run, reason: str, message: str) -> list[str]:
        """What is not as it must be at the end of a run."""
        if reason != run.reason or run.says not in message:
            return [f"{reason}: {message}; wanted {run.reason}: {run.says}"]
        found = []
        uid = self._uid(run.name)
        again = {key: jobs for key, jobs in self.world.recorder.attempts(run.name).items() if len(jobs) > 1}
        again = {key: jobs for key, jobs in again.items() if key[1] != "look"}
        if again:
            found.append(f"more than one Job of one attempt: {again}")
        if run.reason == "Completed":
            status = self.world.status(run.name, uid)
            if status.get("state") != "Succeeded":
                found.append(f"state {status.get('state')}")
            found += self._results(run)
        return found

    def _results(self, run: Run) -> list[str]:
        """What lies on the volume, compared with the run that nobody disturbed."""
        claim = f"{run.name}-data" if run.upload else "data"
        made = self.world.volumes[claim].folder / "runs" / run.name
        wanted = self.reference / "runs" / run.variant
        digests = [hashlib.sha256((one / "lora.safetensors").read_bytes()).hexdigest() for one in (made, wanted)]
        found = [] if digests[0] == digests[1] else ["another LoRA than undisturbed: {} for {}".format(*digests)]
        lines = _numbers(made), _numbers(wanted)
        if lines[0] != lines[1]:
            other = next((pair for pair in zip(*lines, strict=False) if pair[0] != pair[1]), tuple(map(len, lines)))
            found.append(f"metrics.jsonl: {other[0]} for {other[1]}")
        return found

    # ------------------------------------------------------------------------------------------------------- the faults

    def _break(self, over: threading.Event) -> None:
        bag: list[Fault] = []
        while not over.wait(STAGES_BETWEEN * self._stage_seconds()):
            if not bag:
                bag = list(FAULTS)  # each kind once before any comes twice
                self.chance.shuffle(bag)
                bag.sort(key=lambda fault: fault.needs != QUEUED)  # few runs have a queue
            quiet = self._ended >= QUIET_SHARE * len(self.runs)
            for fault in [one for one in bag if not (quiet and one.needs == OPERATOR)]:
                if self._try(fault):
                    bag.remove(fault)
                    break

    def _try(self, fault: Fault) -> bool:
        """Break something of the fault's kind, if there is anything of it now."""
        began, missed, problems = time.monotonic(), "", []
        with self._breaking:
            found = _answer(lambda: targets(self.world, fault.needs))
            if not found:
                return False
            target = self.chance.choice(found)
            self._excused.setdefault(target.training, set()).update(fault.excuses)
            shared = "StorageError" in fault.excuses
            if shared:
                self._broken[target.claim] = fault.excuses
            try:
                fault.act(self.world, target, self.chance)
            except (Missed, StartFailed, AssertionError, OSError, subprocess.TimeoutExpired) as why:
                missed = str(why)[:300]
            except Exception as error:  # a fault that is no fault makes the soak worthless, and must not end the others
                problems = [f"{type(error).__name__}: {error}"]
            if shared:
                for name in [one for one in list(self.world.manifests) if self.world.claim_of(one) == target.claim]:
                    self._excused.setdefault(name, set()).update(fault.excuses)
                del self._broken[target.claim]
        self.tell(
            fault=fault.name, target=str(target), seconds=round(time.monotonic() - began, 1), missed=missed,
            problems=problems,
        )  # fmt: skip
        return not missed

    def _stage_seconds(self) -> float:
        """The median of the stages that have ended well."""
        taken = {}
        for job in list(self.world.recorder.versions["Job"]):
            status = job.get("status") or {}
            if "completionTime" in status and job["metadata"]["labels"].get("ltx2.dev/stage") != "look":
                taken[job["metadata"]["uid"]] = _moment(status["completionTime"]) - _moment(status["startTime"])
        return statistics.median(taken.values()) if len(taken) > AT_ONCE else FIRST_STAGE_SECONDS


def _ends(status: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The condition that ends a run, if it has ended: done, failed, or refused for what it asks."""
    refused = [
        one
        for one in status.get("conditions") or []
        if (one["type"], one["status"], one["reason"]) == ("Accepted", "False", "InvalidConfig")
    ]
    return [(one["type"], one["reason"], one["message"]) for one in [*ends(status), *refused]]


def _numbers(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without what depends on the machine's pace."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key != "time" and "seconds" not in key} for line in lines]


def _final(status: dict[str, Any]) -> str:
    return next((f"{kind}: {reason}" for kind, reason, _ in _ends(status)), "")


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _insist(act: Callable[[], Any], seconds: float = 240) -> None:
    """Again and again while the cluster is out of order."""
    end = time.monotonic() + seconds
    while True:
        try:
            act()
            return
        except (AssertionError, subprocess.TimeoutExpired) as error:
            if "already exists" in str(error):  # only the answer was lost
                return
            if time.monotonic() > end:
                raise
            time.sleep(2)


def _answer(ask: Callable[[], list[Any]]) -> list[Any]:
    """What the cluster says, nothing while it is out of order."""
    try:
        return ask()
    except (RequestFailed, subprocess.TimeoutExpired):
        return []


def summary(records: Sequence[dict[str, Any]]) -> str:
    """What was broken how often, and how the runs ended, as Markdown."""
    faults = [one for one in records if "fault" in one]
    lines = ["| what was done | times | came too late |", "| --- | --- | --- |"]
    for fault in FAULTS:
        mine = [one for one in faults if one["fault"] == fault.name]
        late = sum(bool(one["missed"]) for one in mine)
        lines.append(f"| {fault.name} | {len(mine) - late} | {late} |")
    runs = [one for one in records if "run" in one]
    lines += ["", "| run | ended | attempts | counted | seconds | wrong |", "| --- | --- | --- | --- | --- | --- |"]
    for one in runs:
        wrong = "; ".join(one["problems"]).replace("|", "\\|")
        cells = (one["run"], one["ended"], one["attempts"], one["counted"] or 0, one["seconds"], wrong)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    good = sum(not one["problems"] for one in runs)
    return "\n".join([*lines, "", f"{good} of {len(runs)} ended as they must."])
