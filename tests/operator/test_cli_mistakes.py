"""Mistakes of a new user: each is one line with field, value and remedy; no process is started, no file is left."""

import json
from types import SimpleNamespace

import pytest

import stand_in_job
from ltx2_job import estimate
from ltx2_job.errors import ConfigError
from ltx2_operator import local_state, machine
from ltx2_operator.cli import inputs, main, preflight
from ltx2_operator.local_state import StateError, end_orphans, load_state
from ltx2_operator.machine import LocalGpu

MANIFEST = {
    "apiVersion": "ltx2.dev/v1alpha1",
    "kind": "LTX2Training",
    "metadata": {"name": "fox"},
    "spec": {
        "gpu": {"class": "cpu"},
        "config": {"pretrained_model_name_or_path": "models/small", "max_train_steps": 5},
        "datasets": [{"id": "clips", "type": "local", "instance_data_dir": "clips", "caption_strategy": "textfile"}],
    },
}
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "fox-train-1"},
    "spec": {
        "backoffLimit": 0,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "job", "command": ["ltx2-job"]}]}},
    },
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A workspace with a small checkpoint and clips on a machine without GPU; the job is a stand-in."""
    stand_in_job.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(machine, "KFD", tmp_path / "none")
    monkeypatch.setattr(machine, "_nvidia", lambda environ: [])
    read = inputs.read_model

    def small(resolved, place):
        named_small = resolved.training.pretrained_model_name_or_path == "models/small"
        return estimate.known_model("small") if named_small else read(resolved, place)

    monkeypatch.setattr(inputs, "read_model", small)
    monkeypatch.setattr(preflight, "_text_encoder", lambda order: None)
    workspace = tmp_path / "w"
    (workspace / "models/small").mkdir(parents=True)
    (workspace / "clips").mkdir()
    (workspace / "clips/a.mp4").touch()
    monkeypatch.chdir(workspace)
    return workspace


def changed(**parts):
    body = json.loads(json.dumps(MANIFEST))
    for path, value in parts.items():
        *way, last = path.split("__")
        place = body
        for key in way:
            place = place[key]
        place[last] = value
    return body


def refused(here, capfd, text, code, words):
    """Run a file and see that it is refused in one line, before anything exists."""
    (here / "training.yaml").write_text(text)
    before = sorted(path.relative_to(here) for path in here.rglob("*"))
    assert main(["run", "training.yaml"]) == code
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert words in shown.err
    assert sorted(path.relative_to(here) for path in here.rglob("*")) == before


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ({"metadata": "fox"}, 78, "training.yaml:1: metadata is 'fox', no mapping; write metadata: {name: NAME}"),
        ({"metadata__labels": {"a": 1}}, 78, "metadata.labels must be a mapping of texts; quote its values"),
        ({"metadata__name": "My_Fox!"}, 78, "metadata.name: 'My_Fox!' has another form; small letters, digits"),
        ({"spec": [1]}, 78, "spec: [1] is no mapping; write keys and values under it"),
        ({"spec__storage": "1Gi"}, 78, "spec.storage: '1Gi' is no mapping"),
        ({"spec__storage": {"size": "big"}}, 78, "spec.storage.size: 'big' has another form; write a quantity such as"),
        ({"spec__memory": "bf16/fast"}, 78, "spec.memory: 'bf16/fast' has another form; write auto, or a plan's name"),
        ({"spec__nodes": 0}, 78, "spec.nodes: 0: must be greater than or equal to 1"),
        ({"spec__suspend": True}, 78, "spec.suspend: true: the manifest pauses this training; write false to run it"),
        (
            {"spec__gpu": {"class": "h100-80g"}},
            78,
            "spec.gpu.class: h100-80g needs 1 x nvidia.com/gpu, this machine shows 0; run it on a cluster, or here",
        ),
        (
            {"spec__config__pretrained_model_name_or_path": "./models/none"},
            66,
            "pretrained_model_name_or_path: ./models/none: the checkpoint is not there",
        ),
        (
            {"spec__config__pretrained_model_name_or_path": "my model"},
            78,
            "pretrained_model_name_or_path: 'my model' is no path of the workspace and no repository; write a path",
        ),
        (
            {"spec__config__pretrained_gemma_model_name_or_path": "gemma"},
            78,
            "pretrained_gemma_model_name_or_path: 'gemma' is no path of the workspace and no repository",
        ),
        ({"spec__datasets": [{**MANIFEST["spec"]["datasets"][0], "instance_data_dir": "clps"}]}, 66, "no such folder"),
    ],
)
def test_a_wrong_manifest_is_one_line_and_leaves_nothing(here, capfd, monkeypatch, parts, code, words):
    # Catches: a traceback for another form, a process that is started only to say that something is missing, a run
    # folder made for nothing, a paused manifest that runs.
    monkeypatch.setattr(machine, "MEMINFO", here / "none", raising=False)
    refused(here, capfd, json.dumps(changed(**parts)), code, words)


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"apiVersion": "v1", "kind": "Secret", "stringData": {"token": "x"}}, 78, "Secret has no metadata.name"),
        ({"kind": "Secret", "metadata": {"name": "hf"}, "data": [1]}, 78, "Secret data must be a mapping of texts"),
        ({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": 1}}, 78, "ConfigMap data must be a mapping"),
        ({**JOB, "metadata": None}, 78, "Job has no metadata.name; give it one"),
        ({**JOB, "spec": None}, 64, "spec: None; it must be a mapping"),
        ({**JOB, "spec": {**JOB["spec"], "parallelism": "two"}}, 64, "spec.parallelism: 'two'; it must be a whole"),
        ({**JOB, "spec": {"backoffLimit": 0}}, 64, "spec.template: it is missing"),
        (
            {**JOB, "spec": {**JOB["spec"], "template": {"spec": {"containers": {"name": "job"}}}}},
            64,
            "spec.template.spec.containers: {'name': 'job'}; it must be a list",
        ),
    ],
)
def test_a_wrong_document_beside_or_in_place_of_it_is_one_line(here, capfd, body, code, words):
    others = "" if body["kind"] == "Job" else "---\n" + json.dumps(MANIFEST)
    refused(here, capfd, f"---\n{json.dumps(body)}\n{others}", code, words)


def test_a_mistake_in_the_second_job_is_found_before_the_first_is_run(here, capfd):
    second = {**JOB, "metadata": {"name": "fox-train-2", "labels": {"ltx2.dev/training": "fox"}}, "spec": {}}
    first = {**JOB, "metadata": {"name": "fox-train-1", "labels": {"ltx2.dev/training": "fox"}}}
    refused(here, capfd, f"---\n{json.dumps(first)}\n---\n{json.dumps(second)}\n", 64, "spec.template: it is missing")


def test_a_rendered_job_whose_program_is_not_here_leaves_nothing(here, capfd):
    job = json.loads(json.dumps(JOB))
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["no-such-program"]
    refused(here, capfd, json.dumps(job), 69, "no-such-program is neither on PATH nor in")


def test_a_folder_that_cannot_be_written_is_73_and_one_line(here, capfd):
    (here / "runs").touch()
    refused(here, capfd, json.dumps(MANIFEST), 73, "runs/fox: Not a directory; a file lies where a folder is wanted")


def test_no_config_is_said_in_the_words_of_the_verb(here, capfd):
    assert main(["train"]) == 66
    assert capfd.readouterr().err == (
        f"ltx2: {here}/config/config.json: there is no such file; put the guide's config.json there, or give "
        "--config FILE\n"
    )


@pytest.mark.parametrize("text", ["{broken", "[]", "{}", '{"metadata": {"uid": 1, "generation": 1}}'])
def test_a_stored_state_that_cannot_be_read_is_named_with_its_remedy(tmp_path, text):
    assert load_state(tmp_path) is None
    (tmp_path / local_state.STATE_FILE).write_text(text)
    with pytest.raises(StateError, match=r"training\.json: is no stored training .*; remove it: attempts are counted"):
        load_state(tmp_path)


def test_gpus_of_all_nodes_are_counted_and_the_cache_stage_has_its_own_field():
    plan = SimpleNamespace(stage="train", resource_name="nvidia.com/gpu", gpu_class="h200", gpu_count=2, nodes=2)
    cache = SimpleNamespace(stage="cache", resource_name="amd.com/gpu", gpu_class="mi300x", gpu_count=1, nodes=1)
    gpus = [LocalGpu(str(index), "nvidia", "NVIDIA H200", 143771, None) for index in range(4)]
    preflight.require_gpus([plan], gpus)
    with pytest.raises(
        ConfigError, match=r"spec\.gpu\.class: h200 needs 4 x nvidia.com/gpu, this machine shows 3; set"
    ):
        preflight.require_gpus([plan], gpus[:3])
    with pytest.raises(ConfigError, match=r"spec\.cache\.gpu\.class: mi300x needs 1 x amd\.com/gpu"):
        preflight.require_gpus([cache, plan], gpus)


def test_a_class_larger_than_the_cards_of_this_machine_is_refused_before_a_run():
    plan = SimpleNamespace(stage="train", resource_name="nvidia.com/gpu", gpu_class="h200", gpu_count=1, nodes=1)
    small, silent = LocalGpu("0", "nvidia", "NVIDIA L40S", 46068, None), LocalGpu("1", "nvidia", "NVIDIA X", 0, None)
    with pytest.raises(ConfigError, match=r"shows 1, too small for that class: NVIDIA L40S \(46068 MiB\); name the"):
        preflight.require_gpus([plan], [small])
    preflight.require_gpus([plan], [small, silent])
    plan.gpu_class = "a40"
    preflight.require_gpus([plan], [small])


def test_the_folder_of_a_process_that_a_killed_command_left_is_removed_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(local_state.tempfile, "gettempdir", lambda: str(tmp_path))
    left, other = tmp_path / "fox-train-1-abcde-x1", tmp_path / "other"
    for folder in (left, other):
        folder.mkdir()
    entries = [{"pid": 1, "start": "", "pod": "fox-train-1-abcde", "folder": str(folder)} for folder in (left, other)]
    end_orphans({"processes": entries}, 1.0, print)
    assert not left.exists()
    assert other.exists()
