"""The operator's rights: those that the chart grants, those that a session on the cluster has used, and why the rest.

TEST_RIGHTS_OUT=benchmarks/results/rights-used.json makes a session write down what the operator asked of the API
server; `python -m cluster.rights` in the folder tests then writes the table beside it.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clients import ROOT, rendered

Right = tuple[str, str, str]  # API group, resource (with /subresource), verb

RECORD = ROOT / "benchmarks" / "results" / "rights-used.json"
TABLE = RECORD.with_suffix(".md")
ROLES = ("Role", "ClusterRole")

# Why a right is granted that the session has not used. A right that is used, or granted no more, has no place here.
UNUSED: dict[Right, str] = {
    (
        "ltx2.dev",
        "ltx2trainings/finalizers",
        "update",
    ): "no request: where OwnerReferencesPermissionEnforcement is on, as "
    "here and on OpenShift, the server asks for it when a child is made that holds up its owner's deletion; "
    "`tests/cluster/test_chart.py` takes it away and is refused",
}


def granted(objects: Iterable[Mapping[str, Any]]) -> set[Right]:
    """What the roles that are bound to the operator's service account allow, in whichever namespace."""
    objects = list(objects)
    (account,) = {
        one["spec"]["template"]["spec"]["serviceAccountName"] for one in objects if one["kind"] == "Deployment"
    }
    bound = {
        (one["roleRef"]["kind"], one["roleRef"]["name"], one["metadata"].get("namespace"))
        for one in objects
        if one["kind"].endswith("RoleBinding") and [each["name"] for each in one["subjects"]] == [account]
    }
    found = set()
    for one in objects:
        if one["kind"] in ROLES and (one["kind"], one["metadata"]["name"], one["metadata"].get("namespace")) in bound:
            for rule in one["rules"]:
                found |= {(g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    return found


def of_the_chart() -> set[Right]:
    """What the chart grants with its defaults, which is the most that it ever grants."""
    return granted(rendered(4))


def used(requests: Iterable[Mapping[str, Any]]) -> Counter[Right]:
    """Right -> requests that were let through, of what cluster.installed.requests_of has found."""
    found: Counter[Right] = Counter()
    for one in requests:
        if one["resource"] and one["code"] != 403:
            found[one["group"], one["resource"], one["verb"]] += 1
    return found


def write_down(requests: Iterable[Mapping[str, Any]], version: str, tests: int) -> None:
    """Write the record to the file that TEST_RIGHTS_OUT names, if it does."""
    if file := os.environ.get("TEST_RIGHTS_OUT"):
        seen = [{"right": list(right), "requests": count} for right, count in sorted(used(requests).items())]
        record = {"kubernetes": version, "tests": tests, "used": seen}
        Path(file).write_text(json.dumps(record, indent=1) + "\n")


def recorded() -> dict[Right, int]:
    """Right -> requests in the recorded session."""
    return {tuple(one["right"]): one["requests"] for one in json.loads(RECORD.read_text())["used"]}


def problems(granted: set[Right], used: Iterable[Right], unused: Mapping[Right, str]) -> list[str]:
    """What does not fit together; empty where every right is either used or has its reason, and no reason is idle."""
    used = set(used)
    idle = granted - used - {*unused}
    says = {
        "is granted, was never used and has no reason: drop it, use it in a test, or say why": idle,
        "has a reason and is not granted": {*unused} - granted,
        "has a reason and was used": {*unused} & used,
        "was used and is not granted any more: record a session again": used - granted,
    }
    return [f"{' '.join(filter(None, right))} {what}" for what, rights in says.items() for right in sorted(rights)]


def table() -> str:
    """The page: each right with the requests of the recorded session, and the reasons of those without any."""
    record, asked = json.loads(RECORD.read_text()), recorded()
    lines = [
        "# What the operator may do, and what it was seen to do",
        "",
        f"Kubernetes {record['kubernetes']}, the operator as the chart's Deployment under its own service account, a",
        f"session of {record['tests']} tests in `tests/cluster`. Requests are counted from the API server's audit log;",
        "one that is refused for lack of a right fails the session. Written by such a session with",
        "`TEST_RIGHTS_OUT=benchmarks/results/rights-used.json`, the table by `python -m cluster.rights` in the folder",
        "`tests`. `tests/chart/test_rights.py` fails for a right that is neither used nor explained.",
        "",
        "| group | resource | verb | requests | if none: why it is granted |",
        "|---|---|---|---|---|",
    ]
    for group, resource, verb in sorted(of_the_chart()):
        right = (group, resource, verb)
        lines.append(f"| {group} | {resource} | {verb} | {asked.get(right, 0)} | {UNUSED.get(right, '')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table())
