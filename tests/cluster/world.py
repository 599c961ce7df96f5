"""One namespace in which many trainings end side by side, each as its test wants: manifests, behaviours, hands."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltx2_operator.pods import UID

from .containers import first_process, is_of
from .harness.client import KubectlFailed
from .harness.cluster import Cluster
from .installed import Installed
from .recording import Recorder
from .volumes import Volume

LTX2 = str(Path(sys.executable).with_name("ltx2"))
STEPS = 6
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}  # a job that only pretends
CONFIG = {
    "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors",
    "seed": 7,
    "resolution": 64,
    "max_train_steps": STEPS,
    "checkpoint_step_interval": 3,
    "lora_rank": 4,
    "validation_disable": True,
}


def pod_template(resources: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    """A patch that lets dozens of pods fit on a small machine."""
    merged = {part: {**SMALL[part], **(resources or {}).get(part, {})} for part in SMALL}
    return {"spec": {"containers": [{"name": "job", "resources": merged, **container}]}}


def training(name: str, image: str, **spec: Any) -> dict[str, Any]:
    """A training of the class cpu on the claim `data`, whose jobs run `image`."""
    clips = {
        "id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos",
        "caption_strategy": "textfile", "video": {"num_frames": 17, "min_frames": 17},
    }  # fmt: skip
    base = {
        "gpu": {"class": "cpu"}, "storage": {"claimName": "data"}, "images": {"cache": image, "train": image},
        "podTemplate": pod_template(), "config": CONFIG, "datasets": [clips], "retries": 3,
    }  # fmt: skip
    folder = spec.pop("clips", None)
    if folder:
        base["datasets"] = [{**clips, "instance_data_dir": folder}]
    return {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": name}, "spec": {**base, **spec},
    }  # fmt: skip


def ends(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The conditions with which a training has ended for good: none, or one."""
    found = status.get("conditions") or []
    return [one for one in found if one["type"] in ("Succeeded", "Failed") and one["status"] == "True"]


@dataclass
class World:
    """The namespace, its volumes, and what was seen in it."""

    cluster: Cluster
    operator: Installed
    namespace: str
    volumes: dict[str, Volume]  # by claim
    recorder: Recorder
    image: str
    manifests: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # by training, for those that are made one by one

    @property
    def volume(self) -> Volume:
        """The claim that nearly all share."""
        return self.volumes["data"]

    def behave(self, name: str, steps: dict[str, Any], claim: str = "data") -> None:
        """Say what the stages of a run do (stand_in/stages.py)."""
        file = self.volumes[claim].folder / "behaviour" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(steps))
        for path in (file.parent, file):
            os.chown(path, UID, UID)

    def starts(self, name: str, stage: str = "train", claim: str = "data") -> list[dict[str, Any]]:
        """Every start of a run's stage, as the volume has it."""
        file = self.volumes[claim].folder / "runs" / name / "starts.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [start for start in map(json.loads, lines) if start["stage"] == stage]

    def started(self, name: str, attempt: int = 1, stage: str = "train") -> dict[str, Any]:
        """Wait until an attempt has begun a stage, and its operator has seen it run."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(
                next((start for start in reversed(self.starts(name, stage)) if start["attempt"] == attempt), {})
            )
            running = {"cache": "Caching", "train": "Training"}[stage]
            return bool(found) and running in self.recorder.reasons(name, "Running")

        self.wait(name, there, f"{stage} of attempt {attempt}")
        return found

    def wait(self, name: str, holds: Any, what: str) -> None:
        """Ask until it holds. Raises AssertionError with the training's status."""
        self.operator.wait_for(holds, f"{name}: {what}", lambda: json.dumps(self.status(name)), 400)

    def status(self, name: str, uid: str = "") -> dict[str, Any]:
        """The newest status that was seen of a training; uid: of this very object."""
        return next(iter(self.recorder.statuses(name, uid)[-1:]), {})

    def over(self, name: str, uid: str = "") -> None:
        """Wait until a training has ended for good; uid: this very object."""
        self.wait(name, lambda: ends(self.status(name, uid)), "the end")

    def row(self, name: str, cause: str, stage: str = "train", claim: str = "data") -> dict[str, Any]:
        """What was seen of one training that has ended: its first attempt's stage, and what followed."""
        recorder, status = self.recorder, self.status(name)
        pods = recorder.pod_ends(name, stage, 1)
        first = recorder.verdict(name, 1, stage)
        starts = [start["step"] for start in self.starts(name, claim=claim) if start["node"] == 0]
        plans = [start["memory"] for start in self.starts(name, stage, claim) if start["node"] == 0]
        final = ends(status)[0]
        return {
            "cause": cause,
            "job": recorder.job_end(name, stage, 1),
            "pods": pods,
            "pod": ", ".join(reason for reason, _ in pods),
            "exitCode": ", ".join(str(code) for _, code in pods if code is not None),
            "verdict": [first.get("action"), first.get("reason")],
            "condition": f"{final['type']}: {final['reason']}",
            "message": first.get("message", ""),
            "events": ", ".join(dict.fromkeys(self.operator.events(name, self.namespace))),
            "counted": bool(status.get("failures")),
            "starts": starts,
            "memory": plans,
            "next": f"step {starts[1]}" if len(starts) > 1 else "",
        }  # fmt: skip

    def pod(self, name: str, stage: str = "train", attempt: int = 1) -> dict[str, Any]:
        """The newest pod of an attempt."""
        return self.recorder.of("Pod", name, stage=stage, attempt=str(attempt))[-1]

    def kubectl(self, *arguments: str, manifest: Any = None) -> str:
        """kubectl in this namespace."""
        return self.cluster.kubectl(arguments[0], "-n", self.namespace, *arguments[1:], manifest=manifest)

    def claim_of(self, name: str) -> str:
        """The claim of a training that was made here."""
        return str(self.manifests[name]["spec"]["storage"].get("claimName", f"{name}-data"))

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """A user edits the training."""
        self.kubectl("patch", "ltx2training", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def types(self, verb: str, *words: str) -> None:
        """A command of `ltx2` about this namespace. Raises AssertionError with what it said if it fails."""
        where = ["--kubeconfig", str(self.cluster.kubeconfig), "-n", self.namespace]
        done = subprocess.run([LTX2, verb, *where, *words], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"ltx2 {verb}: {done.returncode}: {done.stdout}{done.stderr}"

    def retry(self, name: str) -> None:
        """`ltx2 retry`, and wait until the operator has seen it."""
        self.types("retry", name)
        self.wait(name, lambda: "Restarting" in self.recorder.reasons(name, "Failed"), "another attempt")

    def refused(self, name: str, spec: dict[str, Any], said: str) -> None:
        """A user tries to edit the training, and the API server says why not."""
        try:
            self.patch(name, spec)
        except KubectlFailed as refusal:
            assert said in refusal.said, refusal.said
        else:
            raise AssertionError(f"{spec} was taken")

    def make(self, name: str) -> None:
        """Send a training's manifest."""
        self.kubectl("create", "-f", "-", manifest=self.manifests[name])

    def uid(self, name: str) -> str:
        """The uid of the training that has this name now."""
        return self.kubectl("get", "ltx2training", name, "-o", "jsonpath={.metadata.uid}")

    def reason(self, name: str, kind: str) -> str:
        """The reason of a condition now, empty without one."""
        found = self.status(name).get("conditions") or []
        return next((str(one["reason"]) for one in found if one["type"] == kind), "")

    def jobs(self, name: str) -> list[dict[str, Any]]:
        """The Jobs of a training that exist now."""
        return self.operator.objects("jobs", self.namespace, f"ltx2.dev/training={name}")

    def adopt(self, claim: str) -> Path:
        """Put the inputs on a claim that the operator has made; returns where this machine sees it."""
        volume = Volume(claim, self.cluster.claim_folder(self.namespace, claim), self.volume.inputs)
        volume.fill()
        self.volumes[claim] = volume
        return volume.folder

    def first_process(self, name: str, stage: str = "train") -> int:
        """The pid, on this machine, of the first process of a run's container."""
        return first_process(self.cluster, name, stage)

    def namespace_of(self, pid: int) -> bool:
        """Whether a process is one of this cluster's."""
        return is_of(self.cluster, pid)

    def put_clips(self, folder: str) -> None:
        """What `ltx2 upload` does: clips appear in a folder of the workspace."""
        target = self.volume.folder / folder
        unfinished = target.with_name(f".{target.name}")
        shutil.copytree(self.volume.inputs / "datasets" / "videos", unfinished)
        for path in (unfinished, *unfinished.rglob("*")):
            os.chown(path, UID, UID)
        unfinished.rename(target)

    def grow(self, claim: str, size: str) -> None:
        """An administrator gives a claim more room."""
        self.kubectl("patch", "pvc", claim, "-p", json.dumps({"spec": {"resources": {"requests": {"storage": size}}}}))
        self.kubectl("wait", f"pvc/{claim}", f"--for=jsonpath={{.status.capacity.storage}}={size}", "--timeout=60s")
