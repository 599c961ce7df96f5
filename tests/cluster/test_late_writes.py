"""What a leader that stood still past its lease writes when it goes on: the server refuses it.

Each write had left the leader, which had asked its lease before, and is on its way while the leader is stopped and
another one goes on.
"""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from patience import until

from .harness.client import established
from .operators import ROOT, Operator, account, rights
from .proxy import Broken, Proxy, Request
from .test_runtime import training

pytestmark = pytest.mark.cluster


@dataclass
class Scene:
    """One namespace, a leader behind a proxy, and whoever comes after it."""

    plane: Any
    namespace: str
    folder: Path
    kubeconfig: Path
    proxy: Proxy
    operators: list[Operator] = field(default_factory=list)
    held: list[Request] = field(default_factory=list)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def start(self, kubeconfig: Path) -> Operator:
        self.operators.append(Operator(kubeconfig, self.namespace, self.folder))
        return self.operators[-1]

    def hold(self, words: str) -> None:
        """The first leader's first such request waits on its way."""

        def before(request: Request) -> None:
            if request.words == words and not self.held:
                self.held.append(request)
                assert self.goes_on.wait(120)
            elif self.held:
                raise Broken  # it is stopped: nothing else of it is on its way

        self.proxy.before = before

    def training(self) -> dict[str, Any]:
        found: dict[str, Any] = self.plane.kubectl.server.get("ltx2trainings", "fox", self.namespace)
        return found

    def jobs(self) -> list[Any]:
        return list(self.plane.kubectl.server.list("jobs", self.namespace))

    def kubectl(self, *what: str, **more: Any) -> str:
        return str(self.plane.kubectl(*what, "-n", self.namespace, **more))

    def state(self) -> list[Any]:
        """Everything that the operator writes."""
        return [self.training(), self.jobs()]


@pytest.fixture
def scene(control_plane: Any, namespace: str, tmp_path: Path) -> Iterator[Scene]:
    control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "configs/crd/ltx2trainings.ltx2.dev.yaml"))
    established(control_plane.kubectl, "ltx2trainings.ltx2.dev")
    kubeconfig = account(control_plane, namespace, rights(), tmp_path)
    made = Scene(control_plane, namespace, tmp_path, kubeconfig, Proxy(kubeconfig, namespace))
    yield made
    made.goes_on.set()
    for one in made.operators:
        one.process.kill()
        one.process.wait()
    made.proxy.close()


def _job(scene: Scene) -> bool:
    """The Job is there and in the status, and nothing more happens: there are no nodes."""
    status = scene.training().get("status") or {}
    return "the pods are being started" in json.dumps(status)


def _suspend(scene: Scene) -> None:
    until(lambda: _job(scene), "the Job")
    scene.kubectl("patch", "ltx2training", "fox", "--type=merge", "-p", '{"spec": {"suspend": true}}')


def _namesake(scene: Scene) -> bool:
    """The other leader has deleted the Job, and somebody has made another of that name."""
    if scene.training()["status"].get("state") != "Suspended" or scene.jobs():
        return False
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "fox-look-1"}, "spec": {"template": template}}
    scene.kubectl("create", "-f", "-", manifest=job)
    return True


@pytest.mark.parametrize(
    ("words", "bring_on", "settled"),
    [
        ("PATCH ltx2trainings/fox/status ltx2-operator", lambda scene: None, _job),
        ("PATCH ltx2trainings/fox/status ltx2-progress", lambda scene: None, _job),
        ("POST jobs fox-look-1", lambda scene: None, _job),
        ("DELETE jobs/fox-look-1", _suspend, _namesake),
    ],
    ids=["status", "progress", "job", "delete"],
)
def test_a_late_write_of_a_leader_that_stood_still_is_refused(
    scene: Scene, words: str, bring_on: Callable[[Scene], None], settled: Callable[[Scene], bool]
) -> None:
    scene.hold(words)
    one = scene.start(scene.proxy.kubeconfig(scene.folder))
    until(one.leads, "the first to lead")
    scene.kubectl("apply", "-f", "-", manifest=training("fox"))
    bring_on(scene)
    until(lambda: scene.held, f"{words} on its way", 60)
    one.process.send_signal(signal.SIGSTOP)
    other = scene.start(scene.kubeconfig)
    until(other.leads, "the other to lead")
    until(lambda: settled(scene), "what the other one does", 60)
    before = scene.state()
    scene.goes_on.set()
    until(lambda: scene.held[0].code, "the server's answer to the late write")
    assert scene.held[0].code == 409
    assert scene.state() == before
    one.process.send_signal(signal.SIGCONT)
    assert one.process.wait(30) == 1
    assert one.said("was not renewed in time; the process ends")
    assert other.process.poll() is None
    assert scene.state() == before
