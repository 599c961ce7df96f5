"""The parts of benchmarks/operator_scale.py: what it makes of an audit log, and all of it on a handful of trainings."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .harness import binaries
from .installed import ACCOUNT
from .operators import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import scale_parts as parts

JOBS = "system:serviceaccount:kube-system:job-controller"
STATUS = "ltx2trainings/status"


def entry(
    user: str, verb: str, what: str, name: str, second: float, uri: str = "/x", code: int = 200
) -> dict[str, Any]:
    """One line of an audit log, answered 10 ms after it came."""
    resource, _, sub = what.partition("/")
    came, done = (f"2026-01-01T00:00:{moment:09.6f}Z" for moment in (second, second + 0.01))
    about = {"resource": resource, "name": name, **({"subresource": sub} if sub else {})}
    return {
        "user": {"username": user}, "verb": verb, "objectRef": about, "requestURI": uri,
        "responseStatus": {"code": code}, "requestReceivedTimestamp": came, "stageTimestamp": done,
    }  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Training 7's Job ends at 10.01; the operator writes at 10.06, with an event; training 8's is another story."""
    job, name, other = "style-00007-train-1", "style-00007", "style-00008"
    fenced, numbers = f"/{name}/status?fieldManager=ltx2-operator", f"/{name}/status?fieldManager=ltx2-progress"
    lines = [
        entry(ACCOUNT, "patch", STATUS, name, 1.0, numbers),
        entry(JOBS, "update", "jobs/status", job, 9.5),
        entry(ACCOUNT, "patch", STATUS, name, 9.7, numbers),
        entry(JOBS, "update", "jobs/status", job, 9.9, code=409),
        entry(JOBS, "update", "jobs/status", job, 10.0),
        entry(ACCOUNT, "patch", STATUS, other, 10.03, f"/{other}/status?fieldManager=ltx2-operator"),
        entry(ACCOUNT, "patch", STATUS, name, 10.04, fenced, 409),
        entry(ACCOUNT, "get", "ltx2trainings", name, 10.05),
        entry(ACCOUNT, "patch", STATUS, name, 10.06, fenced),
        entry(ACCOUNT, "create", "events", f"{name}.0a", 10.1),
        entry(ACCOUNT, "list", "pods", "", 10.2, f"/pods?labelSelector=ltx2.dev%2Ftraining%3D{name}"),
        entry(ACCOUNT, "update", "leases", "ltx2-operator", 10.3),
        entry(ACCOUNT, "patch", STATUS, name, 30.0, fenced),
        entry("system:kube-scheduler", "create", "events", f"{name}.1", 10.4),
    ]
    path = tmp_path / "audit.log"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"half": ')
    return path


def test_a_reaction_is_measured_from_the_jobs_last_word_to_the_write_that_was_taken(log: Path) -> None:
    found = parts.requests(log, 0)
    seen = parts.reaction(found, 7, 5.0)
    assert seen is not None
    assert (round(seen["seconds"], 3), round(seen["stored"], 3), seen["requests"]) == (0.05, 0.06, 5)
    assert parts.reaction(found, 8, 5.0) is None


def test_writes_are_counted_by_what_they_are_and_leases_are_none(log: Path) -> None:
    found = parts.requests(log, 0)
    assert parts.writes(found) == {
        f"patch {STATUS} ltx2-operator": 4, f"patch {STATUS} ltx2-progress": 2, "create events": 1,
    }  # fmt: skip
    since = len("".join(log.read_text().splitlines(keepends=True)[:-2]))
    assert parts.writes(parts.requests(log, since)) == {}


def test_a_spread_has_the_middle_and_the_tail() -> None:
    assert parts.spread([4, 1, 3, 2]) == {"median": 2.5, "p95": 4, "min": 1, "max": 4}
    assert parts.spread(range(1, 101))["p95"] == 96


@pytest.mark.full
@pytest.mark.cluster
def test_the_benchmark_on_a_handful_of_trainings(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: the benchmark limits the operator by a control group")
    try:
        binaries.kwok()
    except binaries.Missing as why:
        assert not os.environ.get("TEST_REQUIRE_CLUSTER"), why
        pytest.skip(str(why))
    few = {
        "trainings": 9, "running": 4, "waiting": 2, "runs": 1, "changes": 2, "pause": 0.5, "warm": 2, "after": 6,
        "settle": 45, "idle": 5,
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "benchmarks" / "operator_scale.py"), "--results", str(tmp_path)]
    command += [f"--{key}={value}" for key, value in few.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (tmp_path / "operator_scale.json").exists(), done.stdout + done.stderr
    result = json.loads((tmp_path / "operator_scale.json").read_text())
    (first,) = result["first_pass"]
    assert 0 < first["leads_after"] <= first["seconds"]
    assert 30 < first["mib"]["now"] <= first["mib"]["most"] < 512
    for name in ("succeeds", "fails and is tried again"):
        assert (result["reaction"][name]["changes"], result["reaction"][name]["unanswered"]) == (1, 0)
        assert result["reaction"][name]["requests"]["median"] >= 2  # a status and an event
    assert result["idle"]["writes"] == {}
    assert result["idle"]["lease_renewals"] > 0
    assert "| first pass" in (tmp_path / "operator_scale.md").read_text()
    assert "filled" in (tmp_path / "operator_scale.log").read_text()
