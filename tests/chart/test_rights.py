"""Every right that the chart grants the operator was used in the recorded session on a cluster, or has its reason."""

from typing import Any

import pytest

from chart_cases import CASES, NAMESPACES
from clients import rendered
from cluster import rights

JOBS = {("batch", "jobs", "create"), ("batch", "jobs", "delete")}


def test_every_right_is_used_or_explained() -> None:
    """Mutation caught: a verb more in the chart's rules; a reason for what is used, or granted no more."""
    assert rights.problems(rights.of_the_chart(), rights.recorded(), rights.UNUSED) == []


def test_the_table_is_up_to_date() -> None:
    assert rights.TABLE.read_text() == rights.table(), "run: cd tests && ../.venv/bin/python -m cluster.rights"


@pytest.mark.parametrize("name", CASES)
def test_no_values_grant_more_than_the_defaults(name: str) -> None:
    assert rights.granted(rendered(4, {**CASES[name], "rbac": {}, "serviceAccount": {}})) <= rights.of_the_chart()


def test_rights_are_read_from_roles_of_namespaces_as_well() -> None:
    assert rights.granted(rendered(4, NAMESPACES)) == {
        right for right in rights.of_the_chart() if right[1] not in ("nodes", "secrets")
    }


@pytest.mark.parametrize(
    ("granted", "used", "unused", "said"),
    [
        (JOBS, JOBS, {}, ""),
        (JOBS | {("", "pods", "create")}, JOBS, {}, "pods create is granted, was never used and has no reason"),
        (JOBS, [("batch", "jobs", "create")], {("batch", "jobs", "delete"): "why"}, ""),
        (JOBS, JOBS, {("batch", "jobs", "delete"): "why"}, "batch jobs delete has a reason and was used"),
        (JOBS, JOBS, {("", "pods", "get"): "why"}, "pods get has a reason and is not granted"),
        (JOBS, {*JOBS, ("", "pods", "get")}, {}, "pods get was used and is not granted any more"),
    ],
)
def test_what_does_not_fit_is_named(granted: Any, used: Any, unused: Any, said: str) -> None:
    found = rights.problems(granted, used, unused)
    assert len(found) == bool(said) and "".join(found).startswith(said)


def test_only_requests_that_were_let_through_count() -> None:
    asked = {"group": "", "resource": "pods", "verb": "list", "code": 200}
    refused = {**asked, "verb": "delete", "code": 403}
    assert rights.used([asked, asked, refused, {**asked, "resource": ""}]) == {("", "pods", "list"): 2}
