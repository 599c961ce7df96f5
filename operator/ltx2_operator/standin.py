"""The Job controller and the kubelet of one machine: Jobs whose pods are processes.

Takes the very Job dicts that a cluster would get, and writes the very status a cluster writes (reasons, messages,
exit codes),
so that classify reads both alike. It has no thread: `poll` looks at the processes and draws the conclusions.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ltx2_operator.classify import MESSAGE_LIMIT
from ltx2_operator.conditions import stamp
from ltx2_operator.processes import Machine, check_job, translate

NAMESPACE: Final = "local"
NAME_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes makes pod names of


@dataclass
class _Pod:
    body: dict[str, Any]
    job: str
    process: subprocess.Popen[bytes]
    folder: Path
    log: Path
    grace: float
    kill_at: datetime | None = None
    ended: bool = False


@dataclass
class LocalJobs:
    """Jobs and their processes. `secret`: (Secret, key, variable) -> value or None. `now`: the clock, replaced in
    tests.

    output: file descriptor for the processes' output, None for the caller's own terminal.
    """

    workspace: Path
    machine: Machine
    secret: Callable[[str, str, str], str | None]
    now: Callable[[], datetime]
    output: int | None = None
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _pods: dict[str, _Pod] = field(default_factory=dict)
    _failing: dict[str, tuple[str, str]] = field(default_factory=dict)
    changed: bool = False

    @property
    def pods(self) -> list[dict[str, Any]]:
        """The pods as an API server shows them."""
        return [pod.body for pod in self._pods.values()]

    @property
    def processes(self) -> list[tuple[int, str]]:
        """(pid, pod name) of what runs."""
        return [(pod.process.pid, pod.body["metadata"]["name"]) for pod in self._pods.values() if not pod.ended]

    def folder(self, pod: str) -> Path:
        """The folder of a pod's own in which its process runs."""
        return self._pods[pod].folder

    def put(self, body: Mapping[str, Any]) -> None:
        """Store an object that is no Job: a ConfigMap is mounted later, a claim stands for the workspace."""
        self.objects.setdefault((body["kind"], body["metadata"]["name"]), dict(body))

    def create(self, body: Mapping[str, Any]) -> None:
        """Create a Job and start its pods.

        Raises CannotHonourError, SecretMissingError, GpusMissingError, UnavailableError; nothing is started then.
        """
        name = body["metadata"]["name"]
        if name in self.jobs:
            return
        check_job(body)
        with contextlib.ExitStack() as undo:  # where one pod cannot be had, none of them leaves anything
            planned = []
            for index in range(int(body["spec"].get("parallelism", 1))):
                planned.append(self._plan(body, index))
                undo.callback(shutil.rmtree, planned[-1][1])
            self.jobs[name] = {**body, "status": {"startTime": stamp(self.now()), "active": len(planned)}}
            for pod, folder, process in planned:
                self._start(name, pod, folder, process)
            undo.pop_all()
        self.changed = True

    def delete_job(self, name: str) -> None:
        """Delete a Job in the Background: it is gone at once, its pods end within their grace period."""
        if self.jobs.pop(name, None) is None:
            return
        for pod in list(self._pods.values()):
            if pod.job == name:
                self._stop(pod)
        self._collect()
        self.changed = True

    def delete_pod(self, name: str) -> None:
        """Force a pod away."""
        pod = self._pods.get(name)
        if pod is not None:
            pod.kill_at = self.now()

    def stop(self, name: str) -> None:
        """SIGTERM to the pods of a Job, which stays."""
        for pod in self._pods.values():
            if pod.job == name:
                self._stop(pod)

    def pods_of(self, name: str) -> list[dict[str, Any]]:
        """The pods of one Job."""
        return [pod.body for pod in self._pods.values() if pod.job == name]

    def kill(self) -> None:
        """SIGKILL to everything, now."""
        for pod in self._pods.values():
            if not pod.ended:
                self._signal_group(pod, signal.SIGKILL)

    def poll(self) -> bool:
        """Look at every process; say whether anything changed since the last look.

        An ended pod whose Job is gone stays for one look, so that its last word is heard.
        """
        self._collect()
        for pod in self._pods.values():
            if pod.ended:
                continue
            code = pod.process.poll()
            if code is not None:
                self._ended(pod, code)
            elif pod.kill_at is not None and pod.kill_at <= self.now():
                self._signal_group(pod, signal.SIGKILL)
        for name in list(self.jobs):
            self._control(name)
        changed, self.changed = self.changed, False
        return changed

    def close(self) -> None:
        """End what runs and remove every temporary folder."""
        self.kill()
        for pod in self._pods.values():
            pod.process.wait()
            shutil.rmtree(pod.folder, ignore_errors=True)
        self._pods.clear()

    # ------------------------------------------------------------------------------------------------------ the kubelet

    def _plan(self, job: Mapping[str, Any], index: int) -> tuple[dict[str, Any], Path, Any]:
        name = job["metadata"]["name"]
        middle = f"-{index}" if job["spec"].get("completionMode") == "Indexed" else ""
        pod_name = f"{name}{middle}-{''.join(secrets.choice(NAME_ALPHABET) for _ in range(5))}"
        template = job["spec"]["template"].get("metadata") or {}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod_name,
                "namespace": NAMESPACE,
                "uid": str(uuid.uuid4()),
                "labels": dict(template.get("labels") or {}),
                "annotations": dict(template.get("annotations") or {}),
            },
            "status": {"phase": "Running", "podIP": "127.0.0.1"},
        }
        folder = Path(tempfile.mkdtemp(prefix=f"{pod_name}-"))
        try:
            configmaps = {key[1]: value for key, value in self.objects.items() if key[0] == "ConfigMap"}
            process = translate(job, index, body, folder, self.workspace, configmaps, self.secret, self.machine)
        except BaseException:
            shutil.rmtree(folder)
            raise
        return body, folder, process

    def _start(self, job: str, body: dict[str, Any], folder: Path, process: Any) -> None:
        for path in (*process.folders, process.cwd):
            path.mkdir(parents=True, exist_ok=True)
        for path, text in process.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o444)
        # A session of its own: Ctrl-C in the terminal reaches the operator alone, which passes it on as a cluster
        # would.
        started = subprocess.Popen(
            process.argv,
            env=dict(process.env),
            cwd=process.cwd,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            start_new_session=True,
        )
        body["status"]["containerStatuses"] = [
            {"name": self._container(job), "state": {"running": {"startedAt": stamp(self.now())}}}
        ]
        self._pods[body["metadata"]["name"]] = _Pod(body, job, started, folder, process.termination_log, process.grace)

    def _container(self, job: str) -> str:
        return str(self.jobs[job]["spec"]["template"]["spec"]["containers"][0].get("name", "job"))

    def _stop(self, pod: _Pod) -> None:
        """SIGTERM to pid 1 of the pod, SIGKILL to all of it after the grace period."""
        if pod.ended or pod.kill_at is not None:
            return
        pod.kill_at = self.now() + timedelta(seconds=pod.grace)
        pod.body["metadata"]["deletionTimestamp"] = stamp(pod.kill_at)
        with contextlib.suppress(ProcessLookupError):
            pod.process.send_signal(signal.SIGTERM)

    def _ended(self, pod: _Pod, code: int) -> None:
        pod.ended = self.changed = True
        # With pid 1 everything in a container is gone.
        self._signal_group(pod, signal.SIGKILL)
        code = 128 - code if code < 0 else code
        terminated: dict[str, Any] = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": pod.body["status"]["containerStatuses"][0]["state"]["running"]["startedAt"],
            "finishedAt": stamp(self.now()),
        }
        with contextlib.suppress(OSError):
            terminated["message"] = pod.log.read_bytes()[:MESSAGE_LIMIT].decode(errors="replace")
        name = pod.body["status"]["containerStatuses"][0]["name"]
        pod.body["status"] |= {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": name, "state": {"terminated": terminated}}],
        }
        shutil.rmtree(pod.folder, ignore_errors=True)

    @staticmethod
    def _signal_group(pod: _Pod, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pod.process.pid, number)

    # ------------------------------------------------------------------------------------------------ the Job
    # controller

    def _control(self, name: str) -> None:
        job = self.jobs[name]
        conditions = job["status"].setdefault("conditions", [])
        if any(condition["type"] in ("Failed", "Complete") for condition in conditions):
            return
        own = [pod for pod in self._pods.values() if pod.job == name]
        if name not in self._failing:
            self._find_failure(name, job, own)
        alive = [pod for pod in own if not pod.ended]
        if name in self._failing:
            reason, message = self._failing[name]
            if not any(condition["type"] == "FailureTarget" for condition in conditions):
                conditions.append(self._condition("FailureTarget", reason, message))
            for pod in alive:
                self._stop(pod)
            if not alive:
                conditions.append(self._condition("Failed", reason, message))
                del self._failing[name]
                self.changed = True
        elif not alive:
            reached = ("CompletionsReached", "Reached expected number of succeeded pods")
            conditions += [self._condition("SuccessCriteriaMet", *reached), self._condition("Complete", *reached)]
            self.changed = True
        job["status"] |= {
            "active": 0 if name in self._failing else len(alive),
            "succeeded": sum(pod.body["status"]["phase"] == "Succeeded" for pod in own),
            "failed": sum(pod.body["status"]["phase"] == "Failed" for pod in own),
        }

    def _find_failure(self, name: str, job: Mapping[str, Any], own: list[_Pod]) -> None:
        limit = job["spec"].get("activeDeadlineSeconds")
        started = datetime.fromisoformat(job["status"]["startTime"].replace("Z", "+00:00"))
        failed = next((pod for pod in own if pod.body["status"]["phase"] == "Failed"), None)
        if failed is not None:
            self._failing[name] = self._failure(job, failed)
        elif (
            limit is not None and self.now() >= started + timedelta(seconds=limit) and any(not pod.ended for pod in own)
        ):
            self._failing[name] = ("DeadlineExceeded", "Job was active longer than specified deadline")

    def _failure(self, job: Mapping[str, Any], pod: _Pod) -> tuple[str, str]:
        """Reason and message of the Failed condition, in the words of the real controller."""
        status = pod.body["status"]["containerStatuses"][0]
        code = status["state"]["terminated"]["exitCode"]
        for index, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
            codes = rule.get("onExitCodes")
            if codes is None or codes.get("containerName") not in (None, status["name"]):
                continue
            if (code in codes["values"]) == (codes["operator"] == "In"):
                where = f"{pod.body['metadata']['namespace']}/{pod.body['metadata']['name']}"
                what = f"failed with exit code {code} matching {rule['action']} rule at index {index}"
                return "PodFailurePolicy", f"Container {status['name']} for pod {where} {what}"
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"

    def _condition(self, kind: str, reason: str, message: str) -> dict[str, Any]:
        moment = stamp(self.now())
        return {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastProbeTime": moment,
            "lastTransitionTime": moment,
        }

    def _collect(self) -> None:
        """Pods whose Job is gone go with it, once they have ended."""
        for name, pod in list(self._pods.items()):
            if pod.ended and pod.job not in self.jobs:
                del self._pods[name]
                self.changed = True
