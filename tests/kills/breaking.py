"""One broken run, from the unbroken one's inputs over the break to its end, as a record of what was seen."""

from __future__ import annotations

import re
import shutil
import signal
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from forks import Child
from kills import witness
from kills.moments import ALL, KILL, Case, Moment, Timetable
from kills.trial import INTERVAL, STEPS, Heard, Place, copied, phases, prepare, start
from ltx2_job import exitcodes
from ltx2_job.exitcodes import Action
from ltx2_job.workspace import read_json

PATIENCE: Final = 120.0  # seconds until a process that should end counts as hung
PEER_PATIENCE: Final = 30.0  # and until one that lost its peer does
TRIES: Final = 16


@dataclass(frozen=True)
class Whole:
    """The unbroken run: its place, what it left, and how long it stayed in each phase."""

    place: Place
    contents: witness.Contents
    timetable: Timetable


@dataclass
class Record:
    """What was seen of one broken run. No problems: it ended as the unbroken one did, and lost no more than it may."""

    case: str
    signal: str
    processes: int
    target: str
    phase: str
    moment: dict[str, Any] = field(default_factory=dict)
    tries: int = 0
    codes: list[int] = field(default_factory=list)
    peer_seconds: float | None = None  # how long a rank took to end after its peer was killed
    step: int = 0  # the newest step known when it was broken
    resumed: int = 0  # the step it went on from
    lost: int = 0
    killed_again: bool = False
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def unbroken(base: Path, model: Path, processes: int) -> Whole:
    """A run that nobody disturbs."""
    place = Place(base, processes)
    prepare(place, model)
    timetable: Timetable = {}
    for stage in ("cache", "train"):
        children = start(place, stage, 1)
        heard = list(phases(children[0]))
        heard.append(Heard("end", time.monotonic()))
        if any(codes := [child.wait(PATIENCE) for child in children]):
            raise RuntimeError(f"the unbroken run ended with {codes}: {said(place, stage, 1)}")
        if stage == "cache":
            shutil.copytree(place.root, place.cached)
        for before, after in pairwise(heard):
            if before.phase != "loading" or stage == "train":
                timetable.setdefault(before.phase, []).append(after.at - before.at)
    return Whole(place, witness.contents(place), timetable)


def broken(base: Path, whole: Whole, case: Case) -> Record:
    """Break a run at the first planned moment that hits the phase it should, and see it through to its end.

    `base` must not exist and does not afterwards, unless something was wrong.
    """
    began = time.monotonic()
    record = Record(case.name, case.signal, case.processes, case.target, case.phase)
    for moment in case.moments(whole.timetable):
        record.tries += 1
        place = copied(whole.place, base, with_cache=case.stage == "train")
        if _strike(place, whole, case, moment, record) or record.problems:
            break
        if record.tries == TRIES:
            record.problems.append(f"was not hit in {TRIES} tries")
            break
        shutil.rmtree(base)
    if not record.problems:
        record.moment = asdict(moment)
        _see_through(place, whole, case, record)
    record.seconds = round(time.monotonic() - began, 2)
    if not record.problems:
        shutil.rmtree(base)
    return record


def _strike(place: Place, whole: Whole, case: Case, moment: Moment, record: Record) -> bool:
    """Start attempt 1, send the signal at the moment, wait until all have ended; whether it was hit in that phase."""
    children = start(place, case.stage, 1)
    faults: list[str] = []
    phase = _wait(children[0], place, moment, whole.timetable, faults)
    hit = children if case.target == ALL else [children[int(case.target)]]
    for child in hit:
        child.send(signal.SIGKILL if case.signal == KILL else signal.SIGTERM)
    at = time.monotonic()
    record.codes = []
    for child in (*hit, *(other for other in children if other not in hit)):
        spared = case.signal == KILL and child not in hit
        try:
            child.wait(PEER_PATIENCE if spared else PATIENCE)
        except TimeoutError as error:
            record.problems.append(str(error))
        if spared:
            record.peer_seconds = round(time.monotonic() - at, 2)
    record.codes = [child.code() or 0 for child in children]
    if case.signal == KILL and children[0] in hit:
        phase = ([phase] + [heard.phase for heard in phases(children[0])])[-1]  # where it was when it died
    record.problems += faults
    struck = -signal.SIGKILL if case.signal == KILL else exitcodes.STOPPED
    return phase == moment.phase and any(child.code() == struck for child in hit)


def _wait(child: Child, place: Place, moment: Moment, timetable: Timetable, faults: list[str]) -> str:
    """Until the moment has come; the phase that the run is in then. Pages are read all the while."""

    def look() -> None:
        faults.extend(fault for fault in witness.unreadable(place) if fault not in faults)

    phase, entered = "", 0
    for heard in phases(child, look):
        phase = heard.phase
        entered += phase == moment.phase
        if entered > moment.entry:
            break
    until = time.monotonic() + moment.share * timetable[moment.phase][moment.entry]
    while (left := until - time.monotonic()) > 0 and phase:
        if child.pipe.poll(left):
            phase = child.word()
    return phase


def _see_through(place: Place, whole: Whole, case: Case, record: Record) -> None:
    """Look at what the break left, go on to the end, look again."""
    record.step, complete = witness.last_step(place), witness.newest(place)
    kept = witness.items(place)
    record.problems += _codes(place, case, record.codes, complete)
    record.problems += witness.after_break(place, whole.contents)
    record.problems += witness.orphans(place)
    if case.signal != KILL:
        record.problems += _last_word(place, case, record.step, complete)
    attempt, read = 2, place.run.log.stat().st_size if place.run.log.exists() else 0
    stages = ["cache", "train"] if case.stage == "cache" else ["train"]
    if case.again is not None:
        record.killed_again = _kill_while_loading(place, stages[0], whole, case.again)
        attempt = 3
        record.problems += witness.after_break(place, whole.contents)
    for stage in stages:
        if any(codes := [child.wait(PATIENCE) for child in start(place, stage, attempt)]):
            record.problems.append(f"{stage} ended with {codes} when it went on: {said(place, stage, attempt)}")
            return
    story = place.run.log.read_text(errors="replace")[read:]
    record.resumed = int((re.findall(r"resuming from step (\d+)", story) or [0])[-1])
    record.lost = max(0, record.step - record.resumed)
    if record.resumed != complete:
        record.problems.append(f"went on from step {record.resumed}, the newest complete checkpoint was {complete}")
    allowed = INTERVAL if case.signal == KILL else 0
    if record.lost > allowed:
        record.problems.append(f"lost {record.lost} steps, {allowed} at most may be")
    now = witness.items(place)
    record.problems += [f"{path} was computed twice" for path, seen in kept.items() if now.get(path) != seen]
    record.problems += witness.at_end(place, whole.contents, stopped=case.signal != KILL)


def _codes(place: Place, case: Case, codes: list[int], complete: int) -> list[str]:
    """What is wrong with how the processes left: killed, told to stop, or for a lost peer that is tried again."""
    if case.signal != KILL:
        return [] if set(codes) == {exitcodes.STOPPED} else [f"left with {codes}, told to stop"]
    for rank, code in enumerate(codes):
        retried = code == exitcodes.TEMPORARY and exitcodes.lookup(code).action == Action.RETRY
        done = code == 0 and (complete == STEPS if rank else place.run.result.exists())  # rank 0 alone writes the end
        if code != -signal.SIGKILL and not retried and not done:
            return [f"left with {codes}, a peer was killed"]
    return []


def _last_word(place: Place, case: Case, step: int, complete: int) -> list[str]:
    """After a stop: the last word names the code and the checkpoint of the very step that was reached."""
    words = [read_json(place.termination_log), read_json(place.run.attempts / "1.json")]
    problems = [f"the last word has code {word['exitCode']}" for word in words if word["exitCode"] != 85]
    if case.stage == "train" and not step == complete == words[0]["step"]:
        problems.append(f"stopped at step {step}, said {words[0]['step']}, checkpoint of step {complete}")
    return problems


def _kill_while_loading(place: Place, stage: str, whole: Whole, share: float) -> bool:
    """SIGKILL to the resumed attempt, all of it, while it reads what the break left; whether it was still alive."""
    children = start(place, stage, 2)
    children[0].word()
    time.sleep(share * whole.timetable["loading"][0])
    for child in children:
        child.send(signal.SIGKILL)
    return min([child.wait(PATIENCE) for child in children]) < 0


def said(place: Place, stage: str, attempt: int) -> str:
    """The last lines that the processes of a stage printed."""
    outputs = sorted(place.base.glob(f"{stage}-{attempt}-*.out"))
    return " | ".join(line for path in outputs for line in path.read_text(errors="replace").splitlines()[-3:])
