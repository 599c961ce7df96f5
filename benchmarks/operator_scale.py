"""What thousands of trainings cost the operator: `python benchmarks/operator_scale.py` (as root, about an hour).

A control plane with simulated nodes (tests/cluster/harness/simulated.py), the chart's objects, 5,000 LTX2Trainings of
which 2,000 have a running Job whose pod answers with a progress page, 500 wait for GPUs that no node has, the others
have finished. The operator is a process of its own with one processor and 512 MiB (a control group), under the chart's
service account and settings.

- first pass, three times: from the start of the process until it has looked at every training; those that wait for
  pods as before may follow in their own pace
- reaction, while all runs make steps: from a Job's end to the write of the training's status; requests per change, from
  the API server's audit log. Half of the pods succeed, half fail and get another attempt
- idle: all runs stand still; what is written then, and what it costs

`--trainings 200 --running 80 --waiting 20 --idle 30` is a quick look. Writes operator_scale.json, .log and .md into
--results.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import scale_parts as parts
from scale_parts import Limits, Operator, World

from ltx2_operator.runtime.client import ApiError

ROOT = Path(__file__).resolve().parents[1]
GOAL_SECONDS, GOAL_MIB = 5.0, 200.0
LOOKED = "has looked at all"
LATER = "they are looked at within"
ANSWER = 8.0  # seconds from a Job's end in which its training's status must be written
SETTLE = 240.0  # seconds from the last step of a run until its last numbers are written
FASTER = {"workers": 16, "api": {"requestsPerSecond": 1000.0, "burst": 1000, "timeoutSeconds": 60}}


class Log:
    """What is printed, and kept until the results are written: a run that is stopped changes no file."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self._began:7.1f} s  load {os.getloadavg()[0]:5.2f}  {text}")
        print(self.lines[-1], flush=True)


def fill(world: World, arguments: argparse.Namespace, log: Log) -> None:
    """Create the trainings and let an operator without limits bring them to where they shall be."""
    share = parts.Share(arguments.trainings, arguments.running, arguments.waiting)
    world.create(share)
    log(f"{arguments.trainings} trainings are created")
    operator = Operator(world, "filling", None, **FASTER)
    while (states := _states(world, log)) != share.states:
        log(f"filling: {dict(states)}")
        if operator.process.poll() is not None or states["Rejected"] or states["Failed"]:
            sys.exit(f"the operator has ended, or refuses trainings: {operator.log.read_text()[-2000:]}")
        time.sleep(15 if arguments.trainings > 500 else 1)  # to list thousands keeps the server from its work
    operator.end()
    log(f"filled: {dict(states)}")


def _states(world: World, log: Log) -> Counter[str]:
    """The trainings' states; an API server that is too busy to answer is asked again."""
    while True:
        try:
            return world.states()
        except ApiError as error:
            log(f"filling: {error}")
            time.sleep(5)


def first_pass(world: World, label: str, limits: Limits, waiting: bool, log: Log) -> tuple[dict[str, Any], Operator]:
    """Start an operator and see how long it takes until it has looked at everything."""
    operator = Operator(world, label, limits)
    seconds = operator.seconds_until(LOOKED, 300)
    told = [operator.said(words, 1)["message"] for words in (LOOKED, *([LATER] if waiting else []))]
    figures = {
        "seconds": seconds, "said": told, "leads_after": operator.seconds_until("leads, with", 1),
        "processor": operator.processor(), "mib": operator.memory(),
    }  # fmt: skip
    log(f"{label}: first pass {json.dumps(figures)}")
    return figures, operator


def react(world: World, arguments: argparse.Namespace, operator: Operator, log: Log) -> dict[str, Any]:
    """Let pods end, one after the other, while every run makes steps."""
    world.tell_pages("move")
    time.sleep(arguments.warm)
    audit, numbers = world.plane.audit_log, parts.chosen(arguments.running, arguments.changes)
    since, computed, begun = audit.stat().st_size, operator.processor(), time.monotonic()
    for place, number in enumerate(numbers):
        world.end_pod(number, 0 if place % 2 == 0 else 75)
        time.sleep(arguments.pause)
    time.sleep(arguments.after)
    busy = (operator.processor() - computed) / (time.monotonic() - begun)
    found = parts.requests(audit, since)
    result: dict[str, Any] = {"processors": round(busy, 3), "mib": operator.memory()}
    for name, first in (("succeeds", 0), ("fails and is tried again", 1)):
        seen = [parts.reaction(found, number, ANSWER) for number in numbers[first::2]]
        known = [one for one in seen if one is not None]
        result[name] = {
            "changes": len(seen), "unanswered": len(seen) - len(known),
            **{key: parts.spread([one[key] for one in known]) for key in ("seconds", "stored", "requests") if known},
        }  # fmt: skip
        log(f"reaction, {name}: {json.dumps(result[name])}")
    log(f"while all runs make steps: {result['processors']} of a processor, {json.dumps(parts.writes(found))}")
    return result


def idle(world: World, arguments: argparse.Namespace, operator: Operator, log: Log) -> dict[str, Any]:
    """Let every run stand still and see what is written."""
    world.tell_pages("rest")
    time.sleep(arguments.settle)
    since, computed, begun = world.plane.audit_log.stat().st_size, operator.processor(), time.monotonic()
    time.sleep(arguments.idle)
    busy = (operator.processor() - computed) / (time.monotonic() - begun)
    found = [one for one in parts.requests(world.plane.audit_log, since) if one.user == parts.ACCOUNT]
    result = {
        "seconds": arguments.idle, "writes": dict(parts.writes(found)), "processors": round(busy, 3),
        "lease_renewals": sum(one.what == "leases" and one.verb == "update" for one in found),
        "reads": dict(parts.Counter(f"{one.verb} {one.what}" for one in found if one.verb in ("get", "list", "watch"))),
        "asked_about": len({one.uri for one in found if one.what == "events" and one.verb == "list"}),
        "mib": operator.memory(),
    }  # fmt: skip
    log(f"idle: {json.dumps(result)}")
    return result


def measure(arguments: argparse.Namespace, log: Log) -> dict[str, Any]:
    """All of it; returns the figures."""
    result: dict[str, Any] = {
        "trainings": arguments.trainings, "running": arguments.running, "waiting": arguments.waiting,
        "cores": os.cpu_count(), "python": platform.python_version(), "load": [round(os.getloadavg()[0], 2)],
        "first_pass": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="operator-scale-") as folder:
        limits = Limits()
        try:
            with World.open(Path(folder), arguments.running) as world:
                log("the control plane is up")
                fill(world, arguments, log)
                operator: Operator | None = None
                for run in range(arguments.runs):
                    if operator is not None:
                        operator.end()
                    result["load"].append(round(os.getloadavg()[0], 2))
                    figures, operator = first_pass(world, f"run-{run + 1}", limits, arguments.waiting > 0, log)
                    result["first_pass"].append(figures)
                assert operator is not None, "--runs must be 1 or more"
                result["reaction"] = react(world, arguments, operator, log)
                result["load"].append(round(os.getloadavg()[0], 2))
                result["idle"] = idle(world, arguments, operator, log)
                operator.end()
        finally:
            limits.remove()
    return result


def _ends(reaction: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How each kind of end was answered."""
    return {name: found for name, found in reaction.items() if isinstance(found, dict) and "unanswered" in found}


def table(result: dict[str, Any], command: str) -> str:
    """The figures for people."""
    passes, reaction, rest = result["first_pass"], result["reaction"], result["idle"]
    seconds, memory = [one["seconds"] for one in passes], [one["mib"]["most"] for one in passes]
    rows = [
        ("what it said", "; ".join(passes[-1]["said"]), "-"),
        (
            "first pass, s from the start of the process",
            f"{min(seconds)} ({', '.join(map(str, seconds))})",
            GOAL_SECONDS,
        ),
        (
            "of that, until the caches are full and it leads, s",
            ", ".join(str(one["leads_after"]) for one in passes),
            "-",
        ),
        ("processor time of it, s", ", ".join(str(one["processor"]) for one in passes), "-"),
        ("resident at the most, MiB", f"{min(memory)} ({', '.join(map(str, memory))})", GOAL_MIB),
    ]
    for name, found in _ends(reaction).items():
        late = f"{found['unanswered']} of {found['changes']}"
        rows.append((f"a pod {name}: not answered within {ANSWER:.0f} s", late, "none"))
        if "seconds" in found:
            for key, text in (("seconds", "Job's end to status write, s"), ("requests", "requests")):
                figures = found[key]
                words = f"median {figures['median']}, p95 {figures['p95']} ({found['changes']} changes)"
                rows.append((f"a pod {name}: {text}", words, "-"))
    rows += [
        ("processor while all runs make steps", f"{reaction['processors']:.0%} of one", "-"),
        (f"writes in {rest['seconds']} s in which nothing changes", json.dumps(rest["writes"]), "none"),
        ("Jobs and pods that wait, asked about meanwhile", f"{rest['asked_about']} of {2 * result['waiting']}", "all"),
        ("reads meanwhile", json.dumps(rest["reads"]), "-"),
        ("processor meanwhile", f"{rest['processors']:.0%} of one", "-"),
        ("resident at the end, MiB", str(rest["mib"]["now"]), "-"),
    ]
    loads = f"load average {min(result['load'])} to {max(result['load'])}"
    head = (
        f"# What {result['trainings']:,} trainings cost the operator\n\n`{command}`: {result['running']:,} of them "
        f"run, {result['waiting']:,} wait for GPUs; "
        f"the operator has one processor and 512 MiB. {result['cores']} cores for it, the control plane and the "
        f"simulated nodes, Python {result['python']}, {loads}. Of several runs the best one comes first.\n\n"
    )
    lines = ["| figure | measured | goal |", "|---|---|---|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
    return head + "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trainings", type=int, default=5000)
    parser.add_argument("--running", type=int, default=2000, help="of them, with a running Job")
    parser.add_argument("--waiting", type=int, default=500, help="of them, with a pod that fits on no node")
    parser.add_argument("--runs", type=int, default=3, help="how often the first pass is measured")
    parser.add_argument("--changes", type=int, default=100, help="pods that are made to end")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two of them")
    parser.add_argument("--warm", type=float, default=120.0, help="seconds of steps before the first of them")
    parser.add_argument("--after", type=float, default=20.0, help="seconds after the last of them")
    parser.add_argument("--settle", type=float, default=SETTLE, help="seconds from the last step to the idle time")
    parser.add_argument("--idle", type=float, default=600.0, help="seconds in which nothing changes")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("operator_scale: needs root for the control group that limits the operator")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing is left behind then, either
    arguments.changes = min(arguments.changes, arguments.running)
    arguments.results.mkdir(parents=True, exist_ok=True)
    log = Log()
    result = measure(arguments, log)
    (arguments.results / "operator_scale.log").write_text("".join(f"{line}\n" for line in log.lines))
    (arguments.results / "operator_scale.json").write_text(json.dumps(result, indent=1) + "\n")
    asked = [f"--{key} {value:g}" for key, value in vars(arguments).items() if key != "results"]
    text = table(result, " ".join(["python benchmarks/operator_scale.py", *asked]))
    (arguments.results / "operator_scale.md").write_text(text)
    print(text)
    fast = statistics.median(one["seconds"] for one in result["first_pass"]) <= GOAL_SECONDS
    small = statistics.median(one["mib"]["most"] for one in result["first_pass"]) <= GOAL_MIB
    answered = not any(one["unanswered"] for one in _ends(result["reaction"]).values())
    return 0 if fast and small and answered and not result["idle"]["writes"] else 1


if __name__ == "__main__":
    sys.exit(main())
