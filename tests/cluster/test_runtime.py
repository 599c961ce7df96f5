"""The operator's process against a real API server: what it writes, what it does not, and how it comes through trouble.

It runs under a service account that may do exactly what docs/architecture.md lists.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.harness.client import established
from cluster.operators import ROOT, Operator, Road, account, rights
from ltx2_operator.accept import plan_stage, resolve_spec
from ltx2_operator.api import parse
from ltx2_operator.draft import DryRunJob
from ltx2_operator.runtime.bucket import TokenBucket
from ltx2_operator.runtime.client import Api, configuration
from ltx2_operator.runtime.lease import Lease
from ltx2_operator.runtime.reflector import Store
from ltx2_operator.runtime.writer import Stale, Writer
from ltx2_operator.settings import LeaderElection
from patience import until

pytestmark = pytest.mark.cluster

Start = Callable[..., Operator]


def training(name: str, **spec: Any) -> dict[str, Any]:
    """An LTX2Training on the class cpu."""
    quick = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    return {**quick, "metadata": {"name": name}, "spec": {**quick["spec"], **spec}}


@pytest.fixture(scope="module")
def defined(control_plane: Any) -> Any:
    """The control plane with LTX2Training defined."""
    control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "configs/crd/ltx2trainings.ltx2.dev.yaml"))
    established(control_plane.kubectl, "ltx2trainings.ltx2.dev")
    return control_plane


@pytest.fixture
def kubeconfig(defined: Any, namespace: str, tmp_path: Path) -> Path:
    """Of a service account with the rights that the page lists."""
    return account(defined, namespace, rights(), tmp_path)


@pytest.fixture
def start(kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Start operators; they end with the test."""
    made: list[Operator] = []

    def begin(config: Path = kubeconfig, **settings: Any) -> Operator:
        made.append(Operator(config, namespace, tmp_path, **settings))
        return made[-1]

    yield begin
    for one in made:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def see(defined: Any, namespace: str) -> Callable[..., Any]:
    """What the API server holds in this test's namespace: one object, or all of a kind with such labels."""
    server = defined.kubectl.server

    def look(kind: str, name: str = "", selector: str = "") -> Any:
        return server.get(kind, name, namespace) if name else server.list(kind, namespace, selector)

    return look


@pytest.fixture
def apply(defined: Any, namespace: str) -> Callable[..., Any]:
    """kubectl apply, in this test's namespace."""
    return lambda obj: defined.kubectl("apply", "-n", namespace, "-f", "-", manifest=obj)


def job_of(see: Any, name: str) -> dict[str, Any]:
    """The first Job of a training, as soon as there is one."""
    return until(lambda: see("jobs", selector=f"ltx2.dev/training={name}"), f"a Job of {name}")[0]


def requests(plane: Any, who: str, *verbs: str) -> list[dict[str, Any]]:
    """What the audit log knows of one operator."""
    entries = [json.loads(line) for line in plane.audit_log.read_text().splitlines() if who in line]
    return [one for one in entries if who in one.get("userAgent", "") and (not verbs or one["verb"] in verbs)]


WRITES = ("create", "update", "patch", "delete")


def test_an_applied_training_gets_status_children_and_events_and_then_rest(
    defined: Any, namespace: str, start: Start, see: Any, apply: Any
) -> None:
    operator = start()
    apply(training("fox"))
    job = job_of(see, "fox")
    owner = see("ltx2trainings", "fox")
    assert job["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
    assert see("persistentvolumeclaims", "fox-data")["metadata"].get("ownerReferences") is None
    assert len(see("configmaps", selector="ltx2.dev/training=fox")) == 1
    until(lambda: see("ltx2trainings", "fox")["status"].get("job") == job["metadata"]["name"], "the Job in status")
    described = defined.kubectl("describe", "ltx2training", "fox", "-n", namespace)
    assert "Normal  Accepted" in described
    fields = see("ltx2trainings", "fox")["metadata"]["managedFields"]
    owned = {one["manager"]: one["fieldsV1"]["f:status"] for one in fields if one.get("subresource") == "status"}
    assert set(owned) == {"ltx2-operator", "ltx2-progress"}
    assert "f:attempt" in owned["ltx2-operator"]
    assert list(owned["ltx2-progress"]["f:conditions"]) == ['k:{"type":"Progressing"}']

    # There are no nodes: once that is in the status, nothing is written any more, by a new process either.
    until(lambda: "the pods are being started" in json.dumps(see("ltx2trainings", "fox")["status"]), "rest")
    before = see("ltx2trainings", "fox")
    assert operator.end() == 0
    second = start()
    until(second.leads, "another leader at once, since the first gave its lease back", 10)
    until(lambda: 'reconcile_total{result="success"}' in second.ask("/metrics")[1], "a look")
    assert see("ltx2trainings", "fox") == before
    children = [one for one in requests(defined, second.identity, *WRITES) if one["objectRef"]["resource"] != "leases"]
    assert children == []
    assert [one for one in requests(defined, f"({operator.identity})") if one["responseStatus"]["code"] == 403] == []


def test_a_status_for_an_object_that_has_changed_is_not_written(
    defined: Any, namespace: str, see: Any, apply: Any
) -> None:
    apply(training("fox"))
    found, _ = configuration(str(defined.kubeconfig))
    api = Api(found, TokenBucket(100, 100), timeout=10, connections=2)
    lease = Lease(api, namespace, "test", LeaderElection())
    lease.own()
    writer = Writer(api, lease, Store(), Store())
    old = writer.fresh((namespace, "fox"))
    assert old is not None
    assert writer.status(old, {"attempt": 1, "state": "Starting"})
    with pytest.raises(Stale):
        writer.status(old, {"attempt": 2, "state": "Late"})
    now = writer.fresh((namespace, "fox"))
    assert now is not None
    assert (now["status"]["attempt"], now["status"]["state"]) == (1, "Starting")
    assert not writer.status(now, now["status"])  # nothing differs: nothing is sent
    assert see("ltx2trainings", "fox")["metadata"]["resourceVersion"] == now["metadata"]["resourceVersion"]


def test_a_plan_without_terms_takes_the_place_of_one_with_them(defined: Any, namespace: str, apply: Any) -> None:
    """Server-side apply leaves null where a map was emptied key by key, and then refuses every later status."""
    apply(training("fox", gpu={"class": "h100-80g"}))
    found, _ = configuration(str(defined.kubeconfig))
    api = Api(found, TokenBucket(100, 100), timeout=10, connections=2)
    lease = Lease(api, namespace, "test", LeaderElection())
    lease.own()
    writer = Writer(api, lease, Store(), Store())
    for rung, place in enumerate(("device", "cpu")):
        obj = writer.fresh((namespace, "fox"))
        assert obj is not None
        parsed = parse(obj)
        plan = plan_stage(parsed, resolve_spec(parsed), "cache", rung, [], "h100-80g").dump()
        assert (plan["cacheMemory"], bool(plan["terms"])) == (place, rung == 0)
        assert writer.status(obj, {"cachePlan": plan})
        now = writer.fresh((namespace, "fox"))
        assert now is not None
        assert now["status"]["cachePlan"]["terms"] == plan["terms"]


def test_when_the_leader_is_killed_the_other_takes_over(start: Start, see: Any, apply: Any) -> None:
    one = start()
    until(one.leads, "the first to lead")
    other = start()
    until(lambda: other.ask("/readyz")[0] == 200, "the other to be ready")
    assert not other.leads()
    one.process.kill()
    until(other.leads, "the other to lead")
    apply(training("fox"))
    job_of(see, "fox")


def test_a_leader_that_stood_still_past_its_lease_writes_nothing_and_ends(
    defined: Any, start: Start, see: Any, apply: Any
) -> None:
    one = start()
    until(one.leads, "the first to lead")
    apply(training("fox"))
    job_of(see, "fox")
    one.process.send_signal(signal.SIGSTOP)
    other = start()
    until(other.leads, "the other to lead")
    apply(training("bear"))  # it lies in the first one's queue when that wakes up
    job_of(see, "bear")
    before = len(requests(defined, one.identity, *WRITES))
    one.process.send_signal(signal.SIGCONT)
    assert one.process.wait(20) == 1
    assert one.said("was not renewed in time; the process ends")
    assert len(requests(defined, one.identity, *WRITES)) == before
    assert other.process.poll() is None


def test_a_job_of_somebody_else_under_that_name_is_waited_for_and_told(
    defined: Any, namespace: str, start: Start, see: Any, apply: Any
) -> None:
    container = {"name": "c", "image": "none"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    names = [f"fox-{stage}-1" for stage in ("look", "cache", "train")]
    for name in names:
        apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}})
    start()
    apply(training("fox"))
    told = until(lambda: [one for one in see("events") if one["reason"] == "NameTaken"], "an event about the name")[0]
    assert "exists and is not of this training; delete or rename it" in told["note"]
    assert see("jobs", selector="ltx2.dev/training=fox") == []
    defined.kubectl("delete", "jobs", "-n", namespace, *names)
    job_of(see, "fox")


def test_the_api_server_goes_away_and_comes_back(
    defined: Any, kubeconfig: Path, start: Start, see: Any, apply: Any
) -> None:
    config = json.loads(kubeconfig.read_text())
    server = config["clusters"][0]["cluster"]
    road = Road(int(server["server"].rpartition(":")[2]))
    server["server"] = f"https://127.0.0.1:{road.port}"
    kubeconfig.write_text(json.dumps(config))
    try:
        operator = start(leaderElection={"enabled": False})
        until(operator.leads, "the operator to lead")
        road.cut()
        until(lambda: operator.ask("/readyz")[0] == 503, "not ready without a server")
        assert operator.ask("/healthz")[0] == 200  # that passes by itself
        apply(training("fox"))
        road.mend()
        job_of(see, "fox")
        until(lambda: operator.ask("/readyz")[0] == 200, "ready again", 60)
        assert 'watch_restarts_total{resource="jobs"}' in operator.ask("/metrics")[1]
    finally:
        road.close()


def test_a_right_that_is_missing_is_one_line_and_shows_in_readyz(
    defined: Any, namespace: str, tmp_path: Path, start: Start
) -> None:
    rules = [rule for rule in rights() if rule["resources"] != ["pods"]]
    operator = start(account(defined, namespace, rules, tmp_path))
    words = f"the operator may not list and watch pods in namespace {namespace}"
    until(lambda: words in operator.ask("/readyz")[1], "the missing right")
    assert operator.ask("/readyz")[0] == 503
    assert not operator.leads()
    assert sum(words in line["message"] for line in operator.lines()) == 1


def test_a_watch_that_lives_for_seconds_only_is_listed_anew(start: Start, see: Any, apply: Any) -> None:
    operator = start(resyncSeconds=10)
    until(operator.leads, "the operator to lead")
    begun = time.monotonic()
    until(lambda: 'watch_restarts_total{resource="pods"}' in operator.ask("/metrics")[1], "a watch that ended")
    assert time.monotonic() - begun > 5
    apply(training("fox"))
    job_of(see, "fox")


def test_a_dry_run_makes_nothing_and_brings_the_servers_warnings_and_refusals(
    defined: Any, namespace: str, see: Any, apply: Any
) -> None:
    defined.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    apply(training("fox"))
    found, _ = configuration(str(defined.kubeconfig))
    api = Api(found, TokenBucket(100, 100), timeout=10, connections=2)
    lease = Lease(api, namespace, "test", LeaderElection())
    lease.own()
    writer = Writer(api, lease, Store(), Store())
    obj = writer.fresh((namespace, "fox"))
    assert obj is not None
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "dry", "namespace": namespace}}
    answer = writer.act(obj, DryRunJob({**job, "spec": {"template": {"spec": spec}}}))
    assert answer is not None
    assert (answer.generation, answer.ok) == (1, True)
    assert "would violate PodSecurity" in answer.warnings[0]
    refused = writer.act(obj, DryRunJob({**job, "spec": {"template": {"spec": {**spec, "restartPolicy": "Always"}}}}))
    assert refused is not None
    assert not refused.ok
    assert "restartPolicy" in refused.message
    assert see("jobs") == []


def acceptance(see: Any, name: str, status: str) -> dict[str, Any]:
    """The condition Accepted of a training, as soon as it has this status."""

    def found() -> Any:
        conditions = see("ltx2trainings", name).get("status", {}).get("conditions", [])
        return [one for one in conditions if (one["type"], one["status"]) == ("Accepted", status)]

    accepted: dict[str, Any] = until(found, f"Accepted={status} of {name}")[0]
    return accepted


def test_a_pod_template_is_in_the_job_or_its_refusal_has_the_servers_words(
    defined: Any, namespace: str, start: Start, see: Any, apply: Any
) -> None:
    """An unknown field, a value that no pod may have, a pod that the namespace forbids, and one that is taken."""
    defined.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    start(jobs={"podTemplate": {"allowPrivileged": True}})
    refused = {
        "typo": ({"spec": {"nodeSelectr": {"a": "b"}}}, 'unknown field "spec.template.spec.nodeSelectr"'),
        "value": ({"spec": {"tolerations": [{"key": "a", "operator": "Perhaps"}]}}, "Perhaps"),
        "rights": ({"spec": {"hostNetwork": True}}, "would violate PodSecurity"),
    }
    for name, (patch, words) in refused.items():
        apply(training(name, podTemplate=patch))
        accepted = acceptance(see, name, "False")
        assert accepted["reason"] == "InvalidConfig"
        assert accepted["message"].startswith("spec.podTemplate: ") and words in accepted["message"]
    apply(training("fox", podTemplate={"spec": {"nodeSelector": {"zone": "a"}}}))
    assert job_of(see, "fox")["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "a"}
    assert {one["metadata"]["labels"]["ltx2.dev/training"] for one in see("jobs")} == {"fox"}


def test_files_of_a_configmap_are_awaited_and_then_kept(start: Start, see: Any, apply: Any) -> None:
    obj = training("fox")
    files = {key: json.dumps(obj["spec"].pop(key)) for key in ("config", "datasets")}
    obj["spec"]["configFrom"] = {"name": "files", "key": "config", "datasetsKey": "datasets"}
    start()
    apply(obj)
    assert acceptance(see, "fox", "False")["reason"] == "ConfigMapNotFound"
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": files})
    apply({**obj, "spec": {**obj["spec"], "retries": 5}})  # sooner than the minute after which it is looked at again
    job = job_of(see, "fox")
    kept = until(lambda: see("ltx2trainings", "fox")["status"].get("configMap"), "the ConfigMap in status")
    volumes = {one["name"]: one for one in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == kept
    steps = json.loads(files["config"])["max_train_steps"]
    assert json.loads(see("configmaps", kept)["data"]["config.json"])["max_train_steps"] == steps
