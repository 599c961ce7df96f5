"""Clips up, results down, another try: `ltx2 upload`, `fetch` and `retry` as an editor of one namespace types them."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64decode
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.containers import first_process
from cluster.harness.certificates import write_kubeconfig
from cluster.harness.cluster import Cluster
from cluster.installed import Installed
from ltx2_job import history
from ltx2_job.exitcodes import AUTH, CONFIG, DATA, NO_INPUT, STOPPED, STORAGE, USAGE
from ltx2_job.workspace import RunFolder
from stories import KILLED_ONCE, outline

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("job_image")]

LTX2 = str(Path(sys.executable).with_name("ltx2"))
STEPS = 2


def manifest(name: str, storage: dict[str, str], **config: Any) -> dict[str, Any]:
    """A tiny training on the CPU whose volume is empty at first."""
    return {
        "apiVersion": "ltx2.dev/v1alpha1",
        "kind": "LTX2Training",
        "metadata": {"name": name},
        "spec": {
            "gpu": {"class": "cpu"},
            "storage": storage,
            "retries": 0,
            "config": {
                "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors",
                "resolution": 64,
                "max_train_steps": STEPS,
                "lora_rank": 4,
                "validation_disable": True,
                **config,
            },
            "datasets": [
                {"id": "clips", "instance_data_dir": "datasets/videos", "video": {"num_frames": 17, "min_frames": 17}}
            ],
        },
    }


class Editor:
    """Somebody with the chart's role for editors in one namespace, and nothing else."""

    def __init__(self, operator: Installed, namespace: str, folder: Path) -> None:
        kubectl, self.folder, self.namespace = operator.kubectl, folder, namespace
        kubectl("create", "serviceaccount", "editor", "-n", namespace)
        kubectl(
            "create", "rolebinding", "editor", "--clusterrole=ltx2-operator-editor",
            f"--serviceaccount={namespace}:editor", "-n", namespace,
        )  # fmt: skip
        token = kubectl("create", "token", "editor", "-n", namespace).strip()
        admin = json.loads(operator.kubeconfig.read_text())["clusters"][0]["cluster"]
        (folder / "ca.crt").write_bytes(b64decode(admin["certificate-authority-data"]))
        self.kubeconfig = write_kubeconfig(folder / "editor", folder / "ca.crt", admin["server"], "editor", token)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command of `ltx2`."""
        where = ["--kubeconfig", str(self.kubeconfig), "-n", self.namespace]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([LTX2, words[0], *where, *words[1:]], cwd=self.folder, text=True, **pipes)

    def types(self, *words: str, code: int = 0) -> str:
        """Run a command of `ltx2`; what it said, both streams together. Raises AssertionError for another exit code."""
        process = self.start(*words)
        said = "".join(process.communicate(timeout=300))
        assert process.returncode == code, f"ltx2 {' '.join(words)}: {process.returncode}\n{said}"
        return said


@pytest.fixture
def editor(operator: Installed, restricted: str, tmp_path: Path) -> Editor:
    return Editor(operator, restricted, tmp_path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def no_transfer_pod(operator: Installed, namespace: str) -> None:
    """Wait until no pod of a copy is left."""
    found = "app.kubernetes.io/name=ltx2-transfer"
    operator.wait_for(lambda: not operator.objects("pods", namespace, found), "the end of the pods that copy")


def _told(operator: Installed, namespace: str) -> str:
    """When the operator was last told of an upload."""
    found = operator.get("ltx2trainings", "fox", namespace)["metadata"]["annotations"]
    return str(found["ltx2.dev/data-uploaded"])


@pytest.mark.full  # every day test_docs.py goes this way
def test_from_an_empty_claim_to_the_lora_on_this_machine(
    cluster: Cluster, operator: Installed, restricted: str, editor: Editor, inputs: Path, tmp_path: Path
) -> None:
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=manifest("fox", {"size": "1Gi"}))
    operator.wait_for(lambda: operator.status("fox", restricted).get("waits", 0) > 0, "a look that finds no clips")
    assert operator.status("fox", restricted)["state"] == "Waiting"
    said = editor.types("fetch", "fox", code=NO_INPUT)
    assert "claim fox-data: fox has written nothing yet, it is Waiting" in said

    models = editor.types("upload", str(inputs / "models"), "fox", "--to", "models")
    assert "came to models on claim fox-data" in models
    told = [_told(operator, restricted)]
    said = editor.types("upload", str(inputs / "datasets/videos"), "fox")
    count = sum(path.is_file() for path in (inputs / "datasets/videos").rglob("*"))
    assert f"{count} files (" in said and "came to datasets/videos on claim fox-data" in said
    folder = cluster.claim_folder(restricted, "fox-data")
    for path in (inputs / "datasets/videos").iterdir():
        assert sha256(folder / "datasets/videos" / path.name) == sha256(path)
    operator.condition("fox", restricted, "Succeeded")
    told.append(_told(operator, restricted))
    assert operator.status("fox", restricted)["dataUploaded"] in told  # a look after the first may find all of it
    assert f"0 files (0 B) came to datasets/videos on claim fox-data; {count} were there already" in editor.types(
        "upload", str(inputs / "datasets/videos"), "fox"
    )

    said = editor.types("fetch", "fox", "results")
    run, results = folder / "runs/fox", tmp_path / "results"
    assert "LoRA: results/lora.safetensors" in said
    assert sha256(results / "lora.safetensors") == sha256(run / "lora.safetensors")
    assert {"report.json", "metrics.jsonl", "loss.png", "result.json"} <= {path.name for path in results.iterdir()}
    assert not (results / "checkpoints").exists()
    editor.types("fetch", "fox", "results", "--checkpoints")
    kept = next((run / "checkpoints").glob("*/manifest.json")).relative_to(run)
    assert sha256(results / kept) == sha256(run / kept)

    operator.kubectl("delete", "ltx2training", "fox", "-n", restricted)
    said = editor.types("fetch", "fox", code=NO_INPUT)
    assert f"fox: no such training in namespace {restricted}; there is none in it" in said
    assert "where its claim is left: --claim fox-data" in said
    editor.types("fetch", "fox", "later", "--claim", "fox-data")
    assert sha256(tmp_path / "later/lora.safetensors") == sha256(run / "lora.safetensors")
    no_transfer_pod(operator, restricted)


@pytest.mark.full
def test_a_run_that_failed_goes_on_when_its_cause_is_gone(
    operator: Installed, restricted: str, editor: Editor, inputs: Path, tmp_path: Path
) -> None:
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=manifest("oops", {"size": "1Gi"}))
    editor.types("upload", str(inputs / "models"), "oops", "--to", "models")
    (tmp_path / "broken").mkdir()
    for path in (inputs / "datasets/videos").glob("*.mp4"):
        (tmp_path / "broken" / path.name).write_bytes(b"no video")
    editor.types("upload", "broken", "oops")
    assert "oops has not failed: it is " in editor.types("retry", "oops", code=USAGE)
    failed = operator.condition("oops", restricted, "Failed")
    attempt = operator.status("oops", restricted)["attempt"]
    assert operator.status("oops", restricted)["lastVerdict"]["exitCode"] == DATA

    editor.types("upload", str(inputs / "datasets/videos"), "oops")
    said = editor.types("retry", "oops")
    assert f"oops had failed: {failed['reason']}: " in said
    assert f"spec.retries is 1 now: attempt {attempt + 1} goes on from the beginning" in said
    operator.condition("oops", restricted, "Succeeded")
    assert operator.status("oops", restricted)["attempt"] == attempt + 1
    assert "oops has not failed: it is Succeeded" in editor.types("retry", "oops", code=USAGE)
    assert "there: oops" in editor.types("retry", "ops", code=NO_INPUT)


@pytest.mark.full
def test_a_run_that_is_gone_is_told_from_beginning_to_end(
    cluster: Cluster, operator: Installed, restricted: str, editor: Editor, inputs: Path, tmp_path: Path
) -> None:
    """Its first attempt is killed before it can say a word, it ends, its object is deleted: the claim still tells."""
    steps, every = 240, 20
    obj = manifest("gone", {"size": "1Gi"}, max_train_steps=steps, checkpoint_step_interval=every)
    obj["spec"]["retries"] = 2
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=obj)
    operator.wait_for(lambda: operator.status("gone", restricted).get("waits", 0) > 0, "a look that finds no clips")
    editor.types("upload", str(inputs / "models"), "gone", "--to", "models")
    editor.types("upload", str(inputs / "datasets/videos"), "gone")
    run = RunFolder(cluster.claim_folder(restricted, "gone-data") / "runs/gone")
    operator.wait_for(lambda: any(run.checkpoints.glob("step-*/manifest.json")), "a checkpoint")
    os.kill(first_process(cluster, "gone"), signal.SIGKILL)
    (killed,) = operator.objects("pods", restricted, "ltx2.dev/training=gone,ltx2.dev/stage=train,ltx2.dev/attempt=1")
    node = killed["spec"]["nodeName"]
    operator.condition("gone", restricted, "Succeeded")
    assert operator.status("gone", restricted)["attempt"] == 2
    told = history.read(run)
    assert outline(told) == [("Verdict", 1, "look", NO_INPUT), *KILLED_ONCE]

    operator.kubectl("delete", "ltx2training", "gone", "-n", restricted)
    operator.wait_for(lambda: not operator.names("jobs", restricted), "the end of its Jobs")
    listed = [line.split() for line in editor.types("ls", "--claim", "gone-data").splitlines()]
    assert listed[1][:3] == ["gone", "Succeeded", f"{steps}/{steps}"]
    said = editor.types("ls", "gone", "--claim", "gone-data").splitlines()
    assert said[1].split()[:3] == ["gone", "Succeeded", f"{steps}/{steps}"]
    lines = [line.split(maxsplit=3) for line in said[4:] if line.startswith("20")]
    assert [(time, attempt, stage) for time, attempt, stage, _ in lines] == [
        (one["time"], str(one["attempt"]), one["stage"]) for one in told
    ]
    words = [what for *_, what in lines]
    assert words[0].startswith("operator: WaitForData, WaitingForData: exit code 66")
    assert words[1:] == [
        "CacheStarted: cpu, VAE and text encoder on the device",
        "Completed: done (exit code 0)",
        "TrainingStarted: cpu, fp32/resident/keep:48",
        f"operator: Retry, Killed: exit code 137, killed (SIGKILL) (on {node})",
        "TrainingStarted: cpu, fp32/resident/keep:48",
        f"Resumed: goes on from step {told[6]['step']}",
        f"Completed at step {steps}: done (exit code 0)",
    ]
    assert 0 < told[6]["step"] < steps and told[6]["step"] % every == 0
    editor.types("fetch", "gone", "later", "--claim", "gone-data")
    for name in ("history.jsonl", "metrics.jsonl", "report.json", "lora.safetensors"):
        assert sha256(tmp_path / "later" / name) == sha256(run.root / name)
    missing = editor.types("ls", "went", "--claim", "gone-data", code=NO_INPUT)
    assert "claim gone-data: no run went lies on it" in missing
    assert "claim none: there is none in namespace" in editor.types("ls", "--claim", "none", code=NO_INPUT)
    no_transfer_pod(operator, restricted)


def test_a_claim_without_room_says_how_much_and_keeps_nothing(
    cluster: Cluster, operator: Installed, restricted: str, editor: Editor, tmp_path: Path
) -> None:
    storage = {"size": "16Mi", "storageClassName": "limited"}
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=manifest("full", storage))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").write_bytes(os.urandom(20 * 2**20))
    said = editor.types("upload", "clips", "full", code=STORAGE)
    assert "claim full-data: /workspace/datasets/videos: no space left (needs 20.0 MiB, 16.0 MiB free); " in said
    folder = cluster.claim_folder(restricted, "full-data")
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    no_transfer_pod(operator, restricted)


def test_ctrl_c_takes_the_pod_away_and_the_next_goes_on(
    cluster: Cluster, operator: Installed, restricted: str, editor: Editor, tmp_path: Path
) -> None:
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=manifest("fox", {"size": "1Gi"}))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").write_bytes(b"a" * 1000)
    with (tmp_path / "clips/b.mp4").open("wb") as file:
        file.truncate(600 * 2**20)
    process = editor.start("upload", "clips", "fox")
    operator.wait_for(lambda: "fox-data" in operator.names("persistentvolumeclaims", restricted), "the claim")
    claim = partial(operator.get, "persistentvolumeclaims", "fox-data", restricted)
    operator.wait_for(lambda: bool(claim()["spec"].get("volumeName")), "the claim's volume")
    folder = cluster.claim_folder(restricted, "fox-data") / "datasets/videos"
    until = time.monotonic() + 120
    # Once the first is there under its name, what is half there is the second: large, so that it stays for the look.
    while not ((folder / "a.mp4").exists() and any(part.stat().st_size for part in folder.glob(".*.part"))):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
    process.send_signal(signal.SIGINT)
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == STOPPED and "interrupted; the pod is gone" in said
    no_transfer_pod(operator, restricted)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["a.mp4"]
    assert "1 file (600.0 MiB) came to datasets/videos on claim fox-data; 1 were there already" in editor.types(
        "upload", "clips", "fox"
    )
    assert {path.name for path in folder.iterdir()} == {"a.mp4", "b.mp4"}


def test_what_stands_in_the_way_is_one_line(
    operator: Installed, restricted: str, editor: Editor, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    assert "clips: there is no file in it" in editor.types("upload", "clips", "fox", code=NO_INPUT)
    (clips / "words.txt").write_text("words")
    obj = manifest("two", {"claimName": "elsewhere"})
    obj["spec"]["datasets"].append({**obj["spec"]["datasets"][0], "id": "more", "instance_data_dir": "datasets/more"})
    obj["spec"]["suspend"] = True
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=obj)
    said = editor.types("upload", "clips", "two", code=USAGE)
    assert "--to: two has several data sets (clips: datasets/videos, more: datasets/more); name the folder" in said
    one = manifest("one", {"size": "1Gi"})
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=one)
    assert "there is no video file in it (.mp4, " in editor.types("upload", "clips", "one", code=NO_INPUT)
    (tmp_path / "runs/here").mkdir(parents=True)
    said = editor.types("upload", "clips", "here", code=NO_INPUT)
    assert "here: no such training" in said and "runs/here is a run of this machine" in said
    said = editor.types("upload", "clips", "one", "--to", "x", "--image", "localhost/none:1", code=CONFIG)
    assert "--image: image localhost/none:1 cannot be pulled" in said
    assert "no cluster can be reached" in editor.types("retry", "one", "--context", "none", code=CONFIG)
    other = editor.types("retry", "one", "-n", "kube-system", code=AUTH)
    assert "cannot get resource" in other and "ask for the role ltx2-operator-editor" in other
    no_transfer_pod(operator, restricted)
