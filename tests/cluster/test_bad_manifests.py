"""48 manifests with one mistake each, sent by five clients: each hears what to change, and no pod ever exists.

Who speaks first depends on the mistake, not on the client: the definition, the admission policy or the operator.
"""

import copy
import json
from typing import Any

import pytest
import yaml

from clients import run_helm
from cluster.bad_manifests import MISTAKES, Mistake, good
from cluster.installed import Installed

pytestmark = pytest.mark.cluster

CLIENTS = ("apply", "create", "helm3", "helm4", "post")
# The everyday run asks two of the five; `make test-cluster-full` asks all.
EVERYDAY = ("apply", "post")
THE_OTHERS = tuple(client for client in CLIENTS if client not in EVERYDAY)
GROUPS = [pytest.param(EVERYDAY, id="apply-post"), pytest.param(THE_OTHERS, id="others", marks=pytest.mark.full)]
REFUSED = [mistake for mistake in MISTAKES if mistake.by != "operator"]
STORED = [mistake for mistake in MISTAKES if mistake.by == "operator"]


class Sender:
    """Sends a manifest by one of the five clients; what was said if it was refused, empty if it was taken."""

    def __init__(self, installed: Installed, namespace: str, folder: Any) -> None:
        self.installed, self.namespace, self.folder = installed, namespace, folder

    def send(self, client: str, obj: dict[str, Any], *, update: bool = False) -> str:
        """One request. update: the object exists; a write that the operator's own overtook goes again."""
        said = self._send(client, obj, update)
        while "the object has been modified" in said:
            said = self._send(client, obj, update)
        return said

    def _send(self, client: str, obj: dict[str, Any], update: bool) -> str:
        if client == "apply":
            return self._kubectl("apply", obj)
        if client == "create":
            return self._kubectl("replace" if update else "create", obj, "--validate=false")
        if client == "post":
            return self._post(obj, update)
        return self._helm(int(client[-1]), obj, update)

    def _kubectl(self, verb: str, obj: dict[str, Any], *flags: str) -> str:
        done = self.installed.kubectl.run(verb, "-n", self.namespace, "-f", "-", *flags, manifest=obj)
        return "" if done.returncode == 0 else done.stderr

    def _post(self, obj: dict[str, Any], update: bool) -> str:
        """A plain POST or PUT: no client looks at the object before."""
        place = f"/apis/ltx2.dev/v1alpha1/namespaces/{self.namespace}/ltx2trainings"
        if not update:
            return self._raw("create", place, obj)
        stored = self.installed.get("ltx2trainings", obj["metadata"]["name"], self.namespace)
        version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
        newer = {**obj, "metadata": {**obj["metadata"], **version}}
        return self._raw("replace", f"{place}/{obj['metadata']['name']}", newer)

    def _raw(self, verb: str, place: str, obj: dict[str, Any]) -> str:
        done = self.installed.kubectl.run(verb, "--raw", place, "-f", "-", manifest=obj)
        return "" if done.returncode == 0 else done.stderr

    def _helm(self, major: int, obj: dict[str, Any], update: bool) -> str:
        chart = self.folder / f"chart-{obj['metadata']['name'][:30]}"
        (chart / "templates").mkdir(parents=True, exist_ok=True)
        about = {"apiVersion": "v2", "name": "training", "version": "1.0.0"}
        (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
        (chart / "templates" / "training.yaml").write_text(json.dumps(obj))
        release = f"r{major}-{obj['metadata']['name'][:30]}".rstrip("-").lower().replace(".", "-")
        verb = ["upgrade"] if update else ["install"]
        done = run_helm(
            major, *verb, release, str(chart), "--namespace", self.namespace,
            "--kubeconfig", str(self.installed.kubeconfig), check=False,
        )  # fmt: skip
        return "" if done.returncode == 0 else done.stderr


@pytest.fixture
def one_node(operator: Installed, restricted: str) -> None:
    """The claim one-node, which one node at a time may write."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "one-node"}, "spec": claim}
    operator.kubectl("create", "-n", restricted, "-f", "-", manifest=body)


@pytest.fixture
def sender(operator: Installed, restricted: str, tmp_path: Any) -> Sender:
    return Sender(operator, restricted, tmp_path)


@pytest.fixture
def in_force(operator: Installed, restricted: str) -> None:
    """The admission policy refuses: after an install that takes a few seconds."""
    obj = good("probe")
    obj["specs"] = 1
    send = ("create", "--dry-run=server", "-n", restricted, "-f", "-")
    operator.wait_for(lambda: operator.kubectl.run(*send, manifest=obj).returncode != 0, "the policy")


def heard(said: str, parts: tuple[str, ...], who: str) -> None:
    flat = " ".join(said.replace("\\", "").split())
    if who == "helm4" and "failed to create typed patch object" in flat:
        # Helm 4 applies on the server, which finds a wrong type before the definition's rules, in words of its own.
        parts = (parts[0], "expected")
    for part in parts:
        assert part in flat, f"{who} did not hear {part!r}: {said}"


@pytest.mark.parametrize("clients", GROUPS)
@pytest.mark.parametrize("mistake", [m for m in REFUSED if not m.after], ids=lambda m: m.name)
def test_it_is_refused_for_every_client(
    mistake: Mistake, clients: tuple[str, ...], in_force: None, sender: Sender, operator: Installed
) -> None:
    for client in clients:
        said = sender.send(client, mistake.manifest(f"bad-{client}"))
        assert said, f"{client} was not refused"
        heard(said, mistake.says, client)
    assert operator.names("ltx2trainings", sender.namespace) == []
    assert operator.names("pods", sender.namespace) == []


@pytest.mark.parametrize("clients", GROUPS)
@pytest.mark.parametrize("mistake", STORED, ids=lambda m: m.name)
def test_the_operator_says_it_whoever_sent_it(
    mistake: Mistake, clients: tuple[str, ...], one_node: None, sender: Sender, operator: Installed
) -> None:
    for client in clients:
        assert sender.send(client, mistake.manifest(f"bad-{client}")) == ""
    for client in clients:
        condition = operator.condition(f"bad-{client}", sender.namespace, "Accepted", status="False")
        heard(condition["message"], mistake.says, client)
        described = operator.kubectl("describe", "ltx2", f"bad-{client}", "-n", sender.namespace)
        heard(described, mistake.says[:1], f"describe ({client})")
        assert operator.get("ltx2trainings", f"bad-{client}", sender.namespace)["status"]["state"] == "Rejected"
    assert operator.names("pods", sender.namespace) == []
    assert operator.names("jobs", sender.namespace) == []


@pytest.fixture
def without_policy(operator: Installed, sender: Sender) -> Any:
    """The chart with admissionPolicy.enabled: false, put back afterwards. The server takes seconds to forget it."""
    wrong = next(mistake for mistake in MISTAKES if mistake.by == "policy").manifest("try")
    ask = ("create", "--dry-run=server", "-n", sender.namespace, "-f", "-")
    with operator.upgraded({"admissionPolicy": {"enabled": False}}):
        operator.wait_for(
            lambda: operator.kubectl.run(*ask, manifest=wrong).returncode == 0, "a server without the policy"
        )
        yield


def test_without_the_policy_the_operator_names_the_nearest_key(
    without_policy: None, sender: Sender, operator: Installed
) -> None:
    by_policy = [mistake for mistake in MISTAKES if mistake.by == "policy"]
    for number, mistake in enumerate(by_policy):
        client = CLIENTS[number % len(CLIENTS)]
        assert sender.send(client, mistake.manifest(f"typo-{number}")) == "", mistake.name
    for number, mistake in enumerate(by_policy):
        condition = operator.condition(f"typo-{number}", sender.namespace, "Accepted", status="False")
        heard(condition["message"], mistake.then, mistake.name)
    assert operator.names("pods", sender.namespace) == []


@pytest.mark.parametrize(
    "client", [*EVERYDAY, *(pytest.param(client, marks=pytest.mark.full) for client in THE_OTHERS)]
)
def test_what_the_first_attempt_has_fixed_stays(client: str, sender: Sender, operator: Installed) -> None:
    """The objects wait for clips, so that an attempt exists and no GPU is held."""
    begun = good(f"begun-{client}")
    assert sender.send(client, begun) == ""
    operator.wait_for(
        lambda: operator.status(begun["metadata"]["name"], sender.namespace).get("attempt", 0) >= 1,
        "an attempt",
    )
    for mistake in (mistake for mistake in MISTAKES if mistake.after):
        changed = copy.deepcopy(begun)
        mistake.change(changed)
        said = sender.send(client, changed, update=True)
        assert said, f"{mistake.name}: {client} was not refused"
        heard(said, mistake.says, f"{client}: {mistake.name}")
    for free in ({"retries": 7}, {"suspend": True}):
        changed = copy.deepcopy(begun)
        changed["spec"] |= free
        assert sender.send(client, changed, update=True) == ""
        begun = changed


def test_there_are_at_least_forty_and_three_of_each_kind() -> None:
    groups = [mistake.group for mistake in MISTAKES]
    assert len(MISTAKES) >= 40
    assert all(groups.count(group) >= 3 for group in groups)
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)
