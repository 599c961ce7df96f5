"""A cluster in memory for tests of reconcile: stores one LTX2Training, runs a Job controller by the facts of a real
one, and lets a test lose writes, show stale views and end pods as it likes. No clock of its own, no threads.

The planner is a fake with a ladder of three memory plans: what fits where is sizing's test, not reconcile's.
"""

import copy
import hashlib
import json
from datetime import UTC, datetime, timedelta

from ltx2_operator import accept, sizing
from ltx2_operator.classify import is_alive, job_condition
from ltx2_operator.conditions import stamp
from ltx2_operator.draft import Create, CreateJob, Delete, DeleteTraining, DryRunJob
from ltx2_operator.observed import DryRun, Observed
from ltx2_operator.reconcile import reconcile
from ltx2_operator.runtime.kinds import JOBS, NODES, PODS
from ltx2_operator.settings import Settings
from ltx2_operator.status import Plan, Status

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LADDER = ("bf16/resident/keep:48", "bf16/resident/keep:24", "bf16/resident/keep:0")
UID = "0f0c0f0c-0000-4000-8000-000000000001"
SETTINGS = Settings()


def _as_kept(kind, bodies):
    """What the operator keeps of objects: nothing decides by a field that is skipped while a list is read."""
    return [kind.kept(copy.deepcopy(body)) for body in bodies]


class FakeResolved:
    """What reconcile needs of ltx2_job.config.Resolved."""

    def __init__(self, config):
        self.config = dict(config or {})
        self.digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()
        self.corrections = ("validation_num_video_frames 62 → 57 (8k+1)",) if self.config.get("correct") else ()

    def dump(self):
        return {"config": self.config, "datasets": []}


def fake_plan(training, resolved, stage, rung, nodes, chosen=None, model=None):
    """A plan of the fake ladder."""
    ladder = LADDER if stage == "train" else ("device", "cpu")
    if rung >= len(ladder):
        raise sizing.NoFit(f"nothing below {ladder[-1]}")
    return Plan(
        stage=stage, gpu_class="h100-80g", device="cuda", vendor="nvidia", resource_name="nvidia.com/gpu",
        gpu_count=training.spec.gpu.count, nodes=training.spec.nodes, processes=1, flavour="cuda",
        memory=LADDER[rung] if stage == "train" else LADDER[0],
        cache_memory="device" if stage == "train" else ladder[rung],
        cpu_milli=8000, memory_bytes=2**36, shm_bytes=2**30, ephemeral_bytes=2**31, volume_bytes=2**37,
        predicted_peak_bytes=2**35, predicted_seconds_per_step=1.3,
    )  # fmt: skip


def use_fakes(monkeypatch):
    """Put the fake planner in place of configuration and sizing."""
    monkeypatch.setattr(accept, "resolve_spec", lambda training: FakeResolved(training.spec.config))
    monkeypatch.setattr(accept, "plan_stage", fake_plan)


def training(**spec):
    """An LTX2Training as its user wrote it."""
    return {
        "apiVersion": "ltx2.dev/v1alpha1",
        "kind": "LTX2Training",
        "metadata": {"name": "fox", "namespace": "ml", "uid": UID, "generation": 1},
        "spec": {"config": {"max_train_steps": 2000}, "datasets": [], **spec},
    }


class Cluster:
    """State of the API server as reconcile's writer sees it."""

    def __init__(self, obj=None, *, seen=True):
        """seen: as on one machine, where no pod has to look at the volume first."""
        self.obj = obj or training()
        self.seen, self.workloads, self.job_events = seen, [], []
        self.now = START
        self.jobs, self.pods, self.others = {}, {}, {}
        self.events, self.log = [], []
        self.nodes = []
        self.refuse = ""  # what the server says against every child
        self.dislike = ""  # what it says against a Job that it is only shown
        self.shown, self.dry_run = [], None  # the pod templates that it was shown, and its newest answer
        self.page, self.page_awaited, self.node = None, False, "n1"
        self.deleted = False
        self.requeue = 0.0
        self.views = [self.observe()]

    # ---- the operator's side

    def observe(self):
        kinds = {
            kind: [body for (k, _), body in self.others.items() if k == kind]
            for kind in ("ConfigMap", "PersistentVolumeClaim", "Service")
        }
        return Observed(
            jobs=_as_kept(JOBS, self.jobs.values()),
            pods=_as_kept(PODS, self.pods.values()),
            configmaps=kinds["ConfigMap"],
            claims=kinds["PersistentVolumeClaim"],
            services=kinds["Service"],
            nodes=_as_kept(NODES, self.nodes) if self.nodes is not None else None,
            progress=copy.deepcopy(self.page),
            page_awaited=self.page_awaited,
            volume_seen=self.seen,
            workloads=self.workloads,
            events=self.job_events,
            refused=self.refuse,
            dry_run=self.dry_run,
        )

    def look(self, *, lose_status=False, lose_actions=False, stale=0):
        """One reconcile; `stale` looks at the view of so many looks ago."""
        self.views.append(self.observe())
        view = self.views[max(0, len(self.views) - 1 - stale)]
        outcome = reconcile(copy.deepcopy(self.obj), view, self.now, SETTINGS)
        before = self.status
        if stale == 0 and any(isinstance(action, CreateJob) for action in outcome.actions):
            assert not [pod for pod in view.pods if is_alive(pod)], "a Job beside a live pod"
            assert all(self.finished(job) for job in view.jobs), "a Job beside an unfinished one"
        if not lose_status:
            assert outcome.status.get("attempt", 0) >= before.get("attempt", 0), "the attempt number fell"
            assert Status.model_validate(outcome.status).dump() == outcome.status, (
                "a status that its definition would change"
            )
            self.obj["status"] = outcome.status
            self.events += outcome.events
        if not lose_actions:
            for action in outcome.actions:
                if self.refuse and isinstance(action, Create):
                    break  # the writer tries nothing after it
                self.act(action)
        self.requeue = outcome.requeue_after
        return outcome

    def settle(self, most=12):
        """Look until nothing changes any more."""
        for _ in range(most):
            before = (copy.deepcopy(self.obj), copy.deepcopy(self.jobs), copy.deepcopy(self.pods))
            outcome = self.look()
            if before == (self.obj, self.jobs, self.pods) and outcome.requeue_after != 0:
                return outcome
        raise AssertionError(f"no rest after {most} looks: {self.status}")

    def act(self, action):
        """The writer: 409 is no success of itself, a Job needs a fresh read, deletes are Background."""
        self.log.append(action)
        if isinstance(action, CreateJob):
            alive = [pod for pod in self.pods.values() if is_alive(pod)]
            running = [job for job in self.jobs.values() if not self.finished(job)]
            name = action.body["metadata"]["name"]
            if alive or running or name in self.jobs:
                return
            stored = self.status
            labels = action.body["metadata"]["labels"]
            named = (int(labels["ltx2.dev/attempt"]), labels["ltx2.dev/stage"])
            assert named == (stored.get("attempt"), stored["stage"].lower()), "a Job before its number is stored"
            self.jobs[name] = {**copy.deepcopy(action.body), "status": {"startTime": stamp(self.now)}}
            self.jobs[name]["metadata"]["uid"] = f"{name}-{len(self.log)}"
        elif isinstance(action, Create):
            self.others.setdefault((action.body["kind"], action.body["metadata"]["name"]), copy.deepcopy(action.body))
        elif isinstance(action, Delete) and action.kind == "Job":
            job = self.jobs.get(action.name)
            if job is not None and action.uid in (None, job["metadata"]["uid"]):  # else 409: a namesake
                del self.jobs[action.name]
                for pod in self.pods_of(action.name):
                    if is_alive(pod):
                        pod["metadata"].setdefault("deletionTimestamp", stamp(self.now + timedelta(seconds=150)))
                    else:
                        del self.pods[pod["metadata"]["name"]]
        elif isinstance(action, Delete):
            pod = self.pods.get(action.name)
            if pod is not None and pod["metadata"]["uid"] == action.uid:
                assert action.force
                del self.pods[action.name]
        elif isinstance(action, DryRunJob):
            self.shown.append(action.body["spec"]["template"])
            self.dry_run = DryRun(self.obj["metadata"]["generation"], not self.dislike, self.dislike)
        elif isinstance(action, DeleteTraining):
            self.deleted = True

    # ---- the world's side

    @property
    def status(self):
        return self.obj.get("status") or {}

    def true(self, kind):
        return any(c["type"] == kind and c["status"] == "True" for c in self.status.get("conditions", []))

    def condition(self, kind):
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    @staticmethod
    def finished(job):
        return job_condition(job, "Failed") is not None or job_condition(job, "Complete") is not None

    def pods_of(self, job):
        return [pod for pod in list(self.pods.values()) if pod["metadata"]["ownerReferences"][0]["name"] == job]

    def alive(self):
        return [pod for pod in self.pods.values() if is_alive(pod)]

    def active_job(self):
        return next((job for job in self.jobs.values() if not self.finished(job)), None)

    def start(self, phase="Running"):
        """The Job controller makes the pods of the active Job, a kubelet runs them."""
        job = self.active_job()
        if job is None or job["spec"].get("suspend"):
            return
        name = job["metadata"]["name"]
        existing = self.pods_of(name)
        for index in range(job["spec"]["parallelism"] - len(existing)):
            pod_name = f"{name}-{index}-{len(self.log)}"
            self.pods[pod_name] = {
                "metadata": {
                    "name": pod_name, "uid": f"uid-{pod_name}", "labels": job["spec"]["template"]["metadata"]["labels"],
                    "ownerReferences": [{"name": name}],
                },
                "spec": {"nodeName": self.node}, "status": {"phase": phase},
            }  # fmt: skip
        for pod in self.pods_of(name):
            if is_alive(pod) and not pod["metadata"].get("deletionTimestamp"):
                pod["status"]["phase"] = phase
                if phase == "Running":
                    pod["status"].setdefault("startTime", stamp(self.now))

    def end(self, code, *, reason=None, pod_reason=None, pod_message="", word=None, disrupted=None, index=0):
        """One live pod leaves with a code; its Job, if it still exists, draws the conclusion a real controller
        draws.
        """
        alive = self.alive()
        if not alive:
            return
        pod = alive[min(index, len(alive) - 1)]
        labels = pod["metadata"]["labels"]
        message = word if word is not None else self.word(code, labels)
        state = {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "finishedAt": stamp(self.now),
        }
        if message:
            state["message"] = json.dumps(message)
        if began := pod["status"].get("startTime"):
            state["startedAt"] = began
        pod["status"] = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "job", "state": {"terminated": state}}],
        }
        if pod_reason:
            pod["status"] |= {"reason": pod_reason, "message": pod_message}
        if disrupted:
            pod["status"]["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": disrupted, "message": "m"}
            ]
        job = self.jobs.get(pod["metadata"]["ownerReferences"][0]["name"])
        if job is None:
            del self.pods[pod["metadata"]["name"]]  # its owner is gone: collected
        elif code:
            if disrupted:
                text = (
                    f"Pod ml/{pod['metadata']['name']} has condition DisruptionTarget matching FailJob rule at index 7"
                )
            else:
                where = f"Container job for pod ml/{pod['metadata']['name']}"
                text = f"{where} failed with exit code {code} matching FailJob rule at index 1"
            self.fail_job(job, "PodFailurePolicy", text)
        elif all(not is_alive(one) for one in self.pods_of(job["metadata"]["name"])):
            self.conclude(job, "Complete", "CompletionsReached", "")

    def word(self, code, labels, **more):
        """The launcher's last word."""
        base = {
            "version": 1, "run": "fox", "uid": UID, "attempt": int(labels["ltx2.dev/attempt"]),
            "stage": labels["ltx2.dev/stage"],
            "exitCode": code, "message": f"left with {code}",
        }  # fmt: skip
        if code == 0 and labels["ltx2.dev/stage"] == "train":
            base |= {
                "step": 2000,
                "maxSteps": 2000,
                "result": {"lora": "runs/fox/lora.safetensors", "finalLoss": 0.21, "steps": 2000},
            }
        return base | more

    def fail_job(self, job, reason, message):
        for pod in self.pods_of(job["metadata"]["name"]):
            if is_alive(pod):
                del self.pods[pod["metadata"]["name"]]
        self.conclude(job, "Failed", reason, message)

    def conclude(self, job, kind, reason, message):
        entry = {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": stamp(self.now),
        }
        if not self.finished(job):
            job["status"].setdefault("conditions", []).append(entry)

    def delete_pod(self):
        """By hand: the pod and its last status are gone, the Job has failed for good."""
        alive = self.alive()
        if alive:
            pod = alive[0]
            del self.pods[pod["metadata"]["name"]]
            job = self.jobs.get(pod["metadata"]["ownerReferences"][0]["name"])
            if job is not None:
                self.fail_job(job, "BackoffLimitExceeded", "Job has reached the specified backoff limit")

    def delete_job(self):
        """By hand, Background."""
        job = self.active_job()
        if job is not None:
            self.act(Delete("Job", job["metadata"]["name"], job["metadata"]["uid"]))

    def hold(self):
        """A queue suspends the active Job (preemption): its pods go, nothing fails."""
        job = self.active_job()
        if job is not None:
            job["spec"]["suspend"] = True
            job["status"]["conditions"] = [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]
            for pod in self.pods_of(job["metadata"]["name"]):
                del self.pods[pod["metadata"]["name"]]

    def admit(self):
        """The queue lets it go on."""
        job = self.active_job()
        if job is not None:
            job["spec"]["suspend"], job["status"]["conditions"] = False, []

    def lose_node(self):
        """The pod is marked for deletion and stays Running for ever."""
        for pod in self.alive()[:1]:
            pod["metadata"]["deletionTimestamp"] = stamp(self.now)
            pod["status"]["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
            ]

    def spec(self, **changes):
        """The user edits the spec."""
        self.obj["spec"] |= changes
        self.obj["metadata"]["generation"] += 1

    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    def run_stage(self, code=0, **end):
        """From an open attempt to the end of its stage."""
        self.settle()
        self.start()
        self.settle()
        self.end(code, **end)
        return self.settle()
