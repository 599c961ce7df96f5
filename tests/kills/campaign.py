"""`make test-kill`: hundreds of broken runs, a line of JSON each; the same command goes on where it was cut off.

Runs that are in the log and in order are not done again. The end is a table and, if anything was wrong, exit code 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kills import disk
from kills.breaking import Record, Whole, broken, unbroken
from kills.moments import KILL, PHASES, TERM, Case, plan

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 2


def main(words: Sequence[str] | None = None) -> int:
    """Do what the log lacks, print the table."""
    options = _options(words)
    log = options.log or ROOT / ".cache" / f"kills-{options.seed}.jsonl"
    cases = [*plan(KILL, options.kills, options.seed), *plan(TERM, options.terms, options.seed)]
    kinds = disk.KINDS if options.full and disk.possible() else ()
    if options.full and not kinds:
        print("full volumes: skipped, mounting one needs root on Linux")
    names = [case.name for case in cases] + [disk.name_of(kind) for kind in kinds]
    done = {record["case"]: record for record in _read(log) if not record["problems"]}
    began = time.monotonic()
    print(f"{len(names)} runs, {sum(name in done for name in names)} of them done; log {log}", flush=True)
    with TemporaryDirectory(prefix="kills-") as folder:
        work = [case for case in cases if case.name not in done]
        full = [kind for kind in kinds if disk.name_of(kind) not in done]
        if work or full:
            _do(Path(folder), work, full, log)
    records = {record["case"]: record for record in _read(log)}
    records = {name: records[name] for name in names if name in records}
    print(summary(records.values(), time.monotonic() - began))
    return 0 if len(records) == len(names) and not any(record["problems"] for record in records.values()) else 1


def _do(folder: Path, cases: list[Case], kinds: list[disk.Kind], log: Path) -> None:
    from ltx2_job.models.tiny import write_tiny

    model = write_tiny(folder / "models")
    wholes = {processes: unbroken(folder / f"unbroken-{processes}", model, processes) for processes in (1, 2)}
    stamp = {"commit": _commit()}
    log.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool, log.open("a", buffering=1) as lines:
        if log.stat().st_size and not log.read_bytes().endswith(b"\n"):
            lines.write("\n")  # the last command was cut off in the middle of a line
        jobs = [pool.submit(_one, folder, wholes, case) for case in cases]
        jobs += [pool.submit(disk.filled, folder / disk.name_of(kind), wholes[1], kind) for kind in kinds]
        try:
            for number, job in enumerate(as_completed(jobs), 1):
                record = asdict(job.result())
                lines.write(json.dumps(record | stamp) + "\n")
                ended = "WRONG: " + "; ".join(record["problems"]) if record["problems"] else "same end"
                told = f"{record['case']} {record['phase']} {record['seconds']} s: {ended}"
                print(f"{number}/{len(jobs)} {told}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # what runs now is finished, for the volumes' sake; the rest is left
            raise


def _one(folder: Path, wholes: dict[int, Whole], case: Case) -> Record:
    """A broken run, or why it could not be seen through: one defect must not hide the others."""
    try:
        return broken(folder / case.name, wholes[case.processes], case)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return Record(case.name, case.signal, case.processes, case.target, case.phase, problems=[text])


def summary(records: Iterable[dict[str, Any]], seconds: float) -> str:
    """The table: where runs were hit, with what they left, what was lost at most, whether all ended the same."""
    records = list(records)
    rows = [f"{'signal':<8}{'processes':<11}" + "".join(f"{phase:>12}" for phase in PHASES) + f"{'all':>6}  worst loss"]
    for sign in (KILL, TERM):
        for processes in (1, 2):
            mine = [each for each in records if (each["signal"], each["processes"]) == (sign, processes)]
            hit = Counter(each["phase"] for each in mine)
            lost = max((each["lost"] for each in mine), default=0)
            counts = "".join(f"{hit[phase]:>12}" for phase in PHASES)
            rows.append(f"{sign:<8}{processes:<11}{counts}{len(mine):>6}  {lost} steps")
    full = [each for each in records if each["signal"] == disk.FULL]
    rows.append(f"{disk.FULL:<8}{len(full)} kinds of write")
    codes = Counter((each["signal"], code) for each in records for code in each["codes"])
    rows.append("codes: " + ", ".join(f"{sign} {code}: {count}" for (sign, code), count in sorted(codes.items())))
    waits = [each["peer_seconds"] for each in records if each["peer_seconds"] is not None and 75 in each["codes"]]
    rows.append(f"lost peers: {len(waits)}, gone after {max(waits, default=0.0)} s at most")
    rows.append(f"killed again while loading: {sum(each['killed_again'] for each in records)}")
    wrong = [each["case"] for each in records if each["problems"]]
    good = len(records) - len(wrong)
    rows.append(f"{good} of {len(records)} ended as the unbroken run did; wrong: {', '.join(wrong) or 'none'}")
    rows.append(f"{sum(each['seconds'] for each in records):.0f} s of runs, {seconds:.0f} s of this command")
    return "\n".join(rows)


def _read(log: Path) -> list[dict[str, Any]]:
    """The records of a log, the newest of each run last; a torn last line is none."""
    found = []
    for line in log.read_text().splitlines() if log.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kills.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="runs to end by SIGKILL (200)")
    parser.add_argument("--terms", type=int, default=100, help="runs to end by SIGTERM (100)")
    parser.add_argument("--seed", type=int, default=1, help="decides every moment (1)")
    parser.add_argument("--no-full", dest="full", action="store_false", help="leave the full volumes out")
    parser.add_argument("--log", type=Path, help="one line of JSON a run; default .cache/kills-<seed>.jsonl")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
