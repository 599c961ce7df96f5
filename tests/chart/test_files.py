"""What is generated in the chart is up to date, and its values are read by the operator as they were meant."""

from types import ModuleType
from typing import Any

import pytest
import yaml

from chart_cases import CASES, FULL, NAMESPACES
from clients import CHART, ROOT, rendered, run_helm
from ltx2_operator import __version__, admission, crd
from ltx2_operator.settings import Installation, Settings, read_installation


def settings(major: int, values: dict[str, Any]) -> dict[str, Any]:
    (found,) = (o for o in rendered(major, values) if o["metadata"]["name"].endswith("-settings"))
    document = yaml.safe_load(found["data"]["settings.yaml"])
    assert isinstance(document, dict)
    return document


def test_generated_files_are_up_to_date(chart_files: ModuleType) -> None:
    """Mutation caught: a setting, a key or a rule that the chart does not know yet."""
    stale = [
        path.relative_to(ROOT).as_posix() for path, text in chart_files.files().items() if path.read_text() != text
    ]
    assert stale == [], "run: make generate"


def test_the_version_is_that_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_every_value_has_a_meaning(chart_files: ModuleType) -> None:
    """Every key of values.yaml stands under a comment, and the comment says something."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    for value in chart_files.leaves(chart_files.all_values()):
        assert len(value.description) > 5, value.place
    text = "\n".join(lines)
    for name in yaml.safe_load(text):
        index = next(i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
        assert lines[index - 1].startswith("# "), name


def test_the_definition_arrives_as_it_is(major: int) -> None:
    """Mutation caught: text of the definition that the template language would read as its own."""
    (found,) = (o for o in rendered(major) if o["kind"] == "CustomResourceDefinition")
    assert found["spec"] == crd.definition()["spec"]
    assert found["metadata"]["name"] == crd.definition()["metadata"]["name"]
    assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (loose,) = (o for o in rendered(major, {"crds": {"keep": False}}) if o["kind"] == "CustomResourceDefinition")
    assert "annotations" not in loose["metadata"]


def test_the_policy_arrives_as_it_is(major: int) -> None:
    made = [o for o in rendered(major) if o["kind"].startswith("ValidatingAdmissionPolicy")]
    assert [o["spec"] for o in made] == [admission.policy()["spec"], admission.binding()["spec"]]
    assert {o["metadata"]["name"] for o in made} == {admission.NAME}
    off = rendered(major, {"admissionPolicy": {"enabled": False}})
    assert not [o for o in off if o["kind"].startswith("ValidatingAdmissionPolicy")]


def test_braces_are_protected(chart_files: ModuleType) -> None:
    assert chart_files.protected("a {{ .Values.x }} b") == 'a {{ "{{" }} .Values.x }} b'


# ----------------------------------------------------------------------------------------------------------- settings


def test_default_values_are_the_operators_defaults(major: int) -> None:
    """Mutation caught: a default of the chart that drifts from the operator's own."""
    found = read_installation(settings(major, {}))
    leader = found.leader_election.model_copy(update={"lease_name": Installation().leader_election.lease_name})
    assert found.leader_election.lease_name == "ltx2-ltx2-operator"
    assert found.model_copy(update={"leader_election": leader}) == Installation()


def test_full_values_all_arrive(major: int) -> None:
    found = read_installation(settings(major, FULL))
    jobs = found.jobs
    registry = "registry.example.org:5000"
    assert jobs.images == {
        "cuda": f"{registry}/ltx2/job-cuda:{__version__}",
        "rocm": f"{registry}/ltx2/job-rocm:{__version__}",
        "cpu": "mirror/job:1",
    }
    assert (jobs.image_pull_policy, jobs.image_pull_secrets) == ("Never", ("jobs-registry",))
    assert (jobs.metrics_port, jobs.grace_seconds, jobs.grace_margin_seconds) == (9999, 60, 30)
    assert jobs.amd_device_groups == (), "an empty list is an answer, not a gap"
    assert jobs.runtime_class_names == {"nvidia": "nvidia"}
    assert (jobs.hub_endpoint, jobs.hub_offline) == ("https://hub.example.org", True)
    assert (jobs.proxy.http, jobs.proxy.https, jobs.proxy.no) == (None, "http://proxy:3128", "10.0.0.0/8,.svc")
    assert jobs.ca is not None and (jobs.ca.config_map, jobs.ca.key) == ("corporate-ca", "ca.crt")
    assert jobs.pod_template.allow_host_path and not jobs.pod_template.allow_privileged
    leader = found.leader_election
    assert (leader.enabled, leader.lease_name, leader.lease_seconds, leader.renew_seconds) == (True, "one", 30, 10)
    assert (found.api.requests_per_second, found.api.burst) == (7.5, 100)
    assert (found.workers, found.resync_seconds, found.stale_seconds) == (8, 60, 1000)
    assert (found.port, found.log_level, found.watch_namespaces) == (9090, "debug", ())


def test_rights_that_are_not_given_are_told_to_the_operator(major: int) -> None:
    found = read_installation(settings(major, NAMESPACES))
    assert (found.node_reader, found.secret_reader, found.watch_namespaces) == (False, False, ("art", "ml"))


def test_every_setting_is_a_value(chart_files: ModuleType) -> None:
    """Mutation caught: a setting of the operator that no value of the chart reaches."""
    places = {value.place for value in chart_files.leaves(chart_files.all_values())}
    for model, prefix in ((Installation, ""), (Settings, "jobs.")):
        for name, info in model.model_fields.items():
            place = f"{prefix}{info.alias or name}"
            known = any(one == place or one.startswith(f"{place}.") for one in places)
            assert known or name in chart_files.DERIVED, place


# ------------------------------------------------------------------------------------------------------------- schema

WRONG = {
    "unknown value": ({"replicas": 2}, "replicas"),
    "unknown value, deeper": ({"metrics": {"podMonitor": {"enable": True}}}, "enable"),
    "unknown setting of jobs": ({"jobs": {"graceSecond": 5}}, "graceSecond"),
    "text for a number": ({"replicaCount": "two"}, "replicaCount"),
    "text for a boolean": ({"crds": {"enabled": "yes"}}, "enabled"),
    "number out of range": ({"workers": 0}, "workers"),
    "port out of range": ({"port": 99999}, "port"),
    "no such policy": ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "no digest": ({"image": {"digest": "latest"}}, "digest"),
    "unknown flavour": ({"jobs": {"images": {"tpu": "x"}}}, "tpu"),
    "a ConfigMap without a name": ({"jobs": {"ca": {"key": "ca.crt"}}}, "configMap"),
    "no CIDR": ({"networkPolicy": {"apiServerCidrs": ["api.example.org"]}}, "apiServerCidrs"),
    "no namespace": ({"watchNamespaces": ["Art"]}, "watchNamespaces"),
    "text for a list": ({"watchNamespaces": "art"}, "watchNamespaces"),
    "no duration": ({"metrics": {"podMonitor": {"interval": "often"}}}, "interval"),
    "a log level of others": ({"logLevel": "trace"}, "logLevel"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named(major: int, name: str) -> None:
    values, field = WRONG[name]
    done = run_helm(major, "template", "ltx2", str(CHART), values=values, check=False)
    assert done.returncode != 0 and field in done.stderr, done.stderr


@pytest.mark.parametrize("name", CASES)
def test_right_values_pass_the_lint(major: int, name: str) -> None:
    run_helm(major, "lint", "--strict", str(CHART), values=CASES[name])


def test_replicas_without_a_lease_are_refused(major: int) -> None:
    values = {"replicaCount": 2, "leaderElection": {"enabled": False}}
    done = run_helm(major, "template", "ltx2", str(CHART), values=values, check=False)
    assert done.returncode != 0 and "leaderElection.enabled: true" in done.stderr


def test_the_chart_may_be_part_of_another(major: int) -> None:
    """`global` comes with every parent chart; a strict schema that refuses it makes the chart useless there."""
    assert rendered(major, {"global": {"imageRegistry": "x"}})
