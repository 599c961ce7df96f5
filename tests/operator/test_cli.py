"""`ltx2` as a user types it: words, exit codes, files; a stand-in plays the job."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stand_in_job
from ltx2_job import history
from ltx2_job.workspace import RunFolder, Workspace
from ltx2_operator import machine
from ltx2_operator.cli import PASSED_THROUGH, VERBS, main, preflight
from ltx2_operator.cli.words import quoted
from ltx2_operator.machine import LocalGpu, detect, parse_nvidia
from ltx2_operator.manifest import parse

CONFIG = {
    "pretrained_model_name_or_path": "Lightricks/LTX-2", "model_flavour": "dev", "model_type": "lora",
    "max_train_steps": 5,
    "num_train_epochs": 0, "learning_rate": 1e-4,
}  # fmt: skip
DATASETS = [
    {
        "id": "clips",
        "type": "local",
        "dataset_type": "video",
        "instance_data_dir": "datasets/videos",
        "caption_strategy": "textfile",
    }
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A workspace without GPU, with the stand-in on PATH."""
    stand_in_job.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(machine, "KFD", tmp_path / "none")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "none")
    (tmp_path / "meminfo").write_text(f"MemTotal: {512 * 2**20} kB\nMemFree: 1 kB\n")
    monkeypatch.setattr(machine, "_nvidia", lambda environ: [])
    monkeypatch.setattr(preflight, "_checkpoint", lambda order: None)  # a name of the hub stands for one of any size
    workspace = tmp_path / "w"
    (workspace / "datasets/videos").mkdir(parents=True)
    (workspace / "datasets/videos/a.mp4").touch()
    monkeypatch.chdir(workspace)
    return workspace


def write(here, config=None, name="training.yaml", **spec):
    body = {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": "fox"},
        "spec": {"gpu": {"class": "cpu"}, "config": CONFIG | (config or {}), "datasets": DATASETS, **spec},
    }  # fmt: skip
    (here / name).write_text(json.dumps(body))
    return name


def calls(here):
    path = here / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def behave(here, **behaviour):
    (here / "behaviour.json").write_text(json.dumps(behaviour))


def test_help_is_there_at_once_and_names_every_verb():
    # Catches: an import of the models or of a client for --help.
    begun = time.process_time()
    code = "import sys; from ltx2_operator.cli import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False)
    assert time.process_time() - begun < 5
    assert all(verb in done.stdout for verb in (*VERBS, *PASSED_THROUGH))
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {
        "pydantic",
        "yaml",
        "rich",
        "kubernetes",
        "torch",
        "numpy",
        "ltx2_operator.api",
        "ltx2_job.config",
    }


@pytest.mark.parametrize("verb", ["upload", "fetch", "retry"])
def test_verbs_of_a_cluster_are_listed(verb, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert re.search(rf"^\s+{verb}\b", listed, re.MULTILINE)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rnu", "x"], "rnu: no such verb; did you mean run?"),
        (["generat"], "did you mean generate?"),
        (["qqq"], "qqq: no such verb; see `ltx2 --help`"),
        ([], "see `ltx2 --help`"),
        (["run"], "FILE; see `ltx2 run --help`"),
        (["run", "a.yaml", "--stpes=3"], "--stpes=3: not known to `ltx2 run`"),
    ],
)
def test_usage_mistakes_are_64_and_name_the_way(argv, words, capsys):
    assert main(argv) == 64
    assert words in capsys.readouterr().err


def test_run_says_plan_and_summary_and_a_second_run_is_done_at_once(here, capfd, monkeypatch):
    file = write(here, {"validation_num_video_frames": 62})
    assert main(["run", file]) == 0
    out = capfd.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "fox: cpu of this machine"
    assert [line.split()[0] for line in lines[1:7]] == [
        "memory", "predicted", "datasets", "corrected", "download", "look",
    ]  # fmt: skip
    assert "validation_num_video_frames 62 → 57" in out
    assert "held-out 0.5000 → 0.4000, final 0.2500" in out
    assert "ltx2 generate --model Lightricks/LTX-2 --lora runs/fox/lora.safetensors" in out
    assert "kubectl apply -f training.yaml" in out
    assert len(calls(here)) == 2
    state = json.loads((here / "runs/fox/training.json").read_text())
    digest = state["status"]["configHash"]
    (here / "runs/fox/result.json").write_text(
        json.dumps({"configDigest": digest, "steps": 5, "seconds": 10.0, "finalLoss": 0.25})
    )
    for name in ("lora.safetensors", "lora.diffusers.safetensors"):
        (here / "runs/fox" / name).write_bytes(b"")
    assert main(["run", file]) == 0
    assert "fox is finished already" in capfd.readouterr().out
    assert len(calls(here)) == 2
    assert main(["ls"]) == 0
    assert re.search(r"fox\s+Succeeded\s+5/5\s+0.2500", capfd.readouterr().out)


@pytest.mark.parametrize("prompt", ["a red fox, it's snowing", 'she says "hello"', "costs $5 `now`", "wow! a \\ b"])
def test_a_prompt_comes_out_of_the_shell_as_it_was(prompt):
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(prompt)}"], capture_output=True, text=True, check=True)
    assert done.stdout == prompt


def test_ls_lists_runs_elsewhere_and_none_that_are_gone(here, capfd):
    place = Workspace(here)
    for name in ("output/examples/fox", "runs/hen", "output/cow"):
        (here / name).mkdir(parents=True)
        (here / name / "result.json").write_text(json.dumps({"steps": 7, "finalLoss": 0.125}))
        place.note_run(Path(name).name, RunFolder(here / name))
    (here / "runs" / "notes.json").write_text("[]")
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["cow.json", "fox.json", "hen", "notes.json"]
    shutil.rmtree(here / "output/cow")
    assert main(["ls"]) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [row[:4] for row in rows[1:]] == [[name, "Succeeded", "7/7", "0.1250"] for name in ("fox", "hen")]


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ({"progressText": "12/40"}, "12/40"),
        ({"progress": {"step": 7, "maxSteps": 0}}, "7/40"),  # stopped again before its first step
        ({"progressText": "3/6", "progress": {"step": 7}}, "3/6"),
        ({}, "-"),
    ],
)
def test_ls_says_how_far_a_paused_run_is(here, capfd, status, shown):
    run = here / "runs/fox"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"max_train_steps": 40}))
    (run / "training.json").write_text(json.dumps({"status": {"state": "Suspended", **status}}))
    assert main(["ls"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split()[:3] == ["fox", "Suspended", shown]


BROKEN = {"attempt": 1, "stage": "Train", "action": "Retry", "reason": "Killed", "exitCode": 137}


def test_ls_tells_what_happened_to_a_run(here, capfd):
    """Catches: an order of its own, a verdict of the object that is told twice or not, a run of another name."""
    run = RunFolder(here / "runs/fox")
    run.root.mkdir(parents=True)
    (here / "runs/hen").mkdir()
    first = {"uid": "u", "attempt": 1, "stage": "train", "time": "2026-11-22T10:00:00Z"}
    plan = {"gpuClass": "l40s", "nodes": 2, "processes": 4, "memory": "bf16/resident/keep:24"}
    verdict = BROKEN | {"message": "exit code 137, killed (SIGKILL)", "nodes": ["n1"], "time": "2026-11-22T10:00:09Z"}
    later = {**first, "attempt": 2, "time": "2026-11-22T10:01:00Z"}
    history.append(run, [first | plan | {"event": "TrainingStarted"}, history.verdict(verdict, "u")])
    history.append(run, [later | plan | {"event": "TrainingStarted", "nodes": 1, "processes": 1}])
    history.append(run, [later | {"event": "Resumed", "step": 500}])
    last = BROKEN | {"attempt": 2, "message": "another", "reason": "Preempted", "time": "2026-11-22T10:02:00Z"}
    state = {"metadata": {"uid": "u"}, "status": {"state": "Restarting", "attempts": [verdict, last]}}
    (run.root / "training.json").write_text(json.dumps(state))
    assert main(["ls", "fox"]) == 0
    out = capfd.readouterr().out
    assert "hen" not in out
    rows = [line.split(maxsplit=3) for line in out.splitlines()]
    assert rows[1][:2] == ["fox", "Restarting"] and rows[3] == ["TIME", "ATTEMPT", "STAGE", "WHAT"]
    assert rows[4:] == [
        ["2026-11-22T10:00:00Z", "1", "train",
         "TrainingStarted: l40s, bf16/resident/keep:24, 2 nodes, 4 processes each"],
        ["2026-11-22T10:00:09Z", "1", "train",
         "operator: Retry, Killed: exit code 137, killed (SIGKILL) (on n1)"],
        ["2026-11-22T10:01:00Z", "2", "train", "TrainingStarted: l40s, bf16/resident/keep:24"],
        ["2026-11-22T10:01:00Z", "2", "train", "Resumed: goes on from step 500"],
        ["2026-11-22T10:02:00Z", "2", "train", "operator: Retry, Preempted: another"],
    ]  # fmt: skip
    (run.root / "training.json").unlink()
    history.append(run, [later | {"event": "Ended", "exitCode": 85, "reason": "Stopped", "message": "told", "step": 7}])
    assert main(["ls", "fox"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"^fox +Stopped ", out, re.MULTILINE)
    assert out.splitlines()[-1].endswith("train  Stopped at step 7: told (exit code 85)")


def test_ls_of_a_run_that_says_nothing_yet(here, capfd):
    (here / "runs/hen").mkdir(parents=True)
    assert main(["ls", "hen"]) == 0
    assert "nothing is told of it yet" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["ls", "cow"], 66, "cow: no such run in runs; there: fox, hen; for one on a cluster name its claim, as in"),
        (
            ["ls", "fox", "-n", "film"],
            64,
            "--namespace: says which cluster, but not what to list there; name the claim",
        ),
        (["ls", "--image", "x"], 64, "--image: says which"),
        (["ls", "--claim", "data", "--workspace", "runs"], 64, "--workspace: a folder of this machine, and --claim a"),
        (["ls", "fox", "hen"], 64, "hen: not known to `ltx2 ls`, which takes NAME"),
    ],
)
def test_what_ls_cannot_list_is_named(here, capfd, argv, code, words):
    for name in ("fox", "hen"):
        (here / "runs" / name).mkdir(parents=True)
    assert main(argv) == code
    assert words in capfd.readouterr().err


def whole_checkpoint(folder, state):
    """The files of a checkpoint, complete by its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"adapter.safetensors": b"a", "optimizer.safetensors": b"o", "state.json": json.dumps(state).encode()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    (folder / "manifest.json").write_text(json.dumps({"files": entries}))


@pytest.mark.parametrize("proof", ["result.json", "checkpoints/step-0000003/manifest.json"])
def test_a_changed_configuration_of_a_kept_run_is_refused_once_before_anything_starts(here, capfd, proof):
    # Catches: a process that is started only to refuse, the refusal said by the job and again by the command.
    main(["run", write(here, {"lora_rank": 4})])
    run = here / "runs/fox"
    (run / "config.json").write_text(calls(here)[0]["files"]["config.json"])
    (run / "datasets.json").write_text(calls(here)[0]["files"]["datasets.json"])
    (run / proof).parent.mkdir(parents=True, exist_ok=True)
    (run / proof).write_text("{}")
    started, before = len(calls(here)), (run / "training.json").read_bytes()
    capfd.readouterr()
    other = {"lora_rank": 8, "learning_rate": 2e-4}
    assert main(["run", write(here, other)]) == 78
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        f"{start}config.{key}: is {new}, but {run} was made with {old}; use another name or output_dir, the old value, "
        "or name a checkpoint to go on from in resume_from_checkpoint"
        for start, key, new, old in (("ltx2: ", "learning_rate", 0.0002, 0.0001), ("", "lora_rank", 8, 4))
    ]
    assert len(calls(here)) == started and (run / "training.json").read_bytes() == before
    # The same again, and a named checkpoint to go on from, are no mistakes.
    whole_checkpoint(run / "checkpoints/step-0000003", {"step": 3, "rank": 8, "alpha": 8.0, "optimizer": "adamw"})
    assert main(["run", write(here, {"lora_rank": 4})]) == 0
    assert main(["run", write(here, {**other, "resume_from_checkpoint": "step-0000003"})]) == 0


def test_a_changed_configuration_is_another_run(here):
    main(["run", write(here)])
    (here / "runs/fox/result.json").write_text(json.dumps({"configDigest": "of something else"}))
    assert main(["run", write(here, {"max_train_steps": 6})]) == 0
    first, *_, last = calls(here)
    assert first["env"]["LTX2JOB_UID"] != last["env"]["LTX2JOB_UID"]
    assert json.loads(last["files"]["config.json"])["max_train_steps"] == 6


def test_two_runs_get_two_ports(here):
    main(["run", write(here)])
    main(["run", write(here, {"max_train_steps": 6})])
    ports = {call["env"]["LTX2JOB_PORT"] for call in calls(here)}
    assert len(ports) == 2
    assert "9464" not in ports


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ({"cache": {"exit": 66}}, 66, "fox waits for data"),
        (
            {"train": {"exit": 77}},
            77,
            "fox has failed (attempt 1): exit code 77, gated model or bad token\n",
        ),
        ({"train": {"exit": 80}}, 80, "no smaller memory plan is left"),
    ],
)
def test_an_end_is_one_line_and_its_class(here, behaviour, code, words, capfd):
    (here / "behaviour.json").write_text(json.dumps(behaviour))
    assert main(["run", write(here)]) == code
    assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    ("config", "spec", "code", "words"),
    [
        ({"max_train_stpes": 5}, {}, 78, "max_train_stpes"),
        ({"num_train_epochs": 2}, {}, 78, "max_train_steps"),
        ({}, {"gpu": {"class": "h10"}}, 78, "h10 is no GPU class; did you mean"),
        (
            {},
            {"gpu": {"class": "auto"}},
            78,
            "no GPU on this machine, and the transformer is not known to be below 1 GB",
        ),
        (
            {"pretrained_model_name_or_path": "models/x.safetensors"},
            {},
            66,
            "models/x.safetensors: the checkpoint is not there",
        ),
        ({}, {"resumeFrom": "runs/old"}, 78, "'runs/old' is no checkpoint"),
        ({}, {"resumeFrom": "../old"}, 78, "spec.resumeFrom: '../old' has another form"),
        ({}, {"resumeFrom": "fox"}, 78, "spec.resumeFrom: 'fox' is this very run"),
        ({}, {"retrys": 3}, 78, "spec.retrys: unknown key; did you mean retries?"),
    ],
)
def test_what_cannot_run_is_said_before_anything_starts(here, config, spec, code, words, capfd):
    assert main(["run", write(here, config, **spec)]) == code
    assert words in capfd.readouterr().err
    assert calls(here) == []


def test_rendered_yaml_runs_to_the_same_lora_as_the_manifest(here, capfd):
    file = write(here)
    assert main(["run", file]) == 0
    lora = (here / "runs/fox/lora.safetensors").read_bytes()
    (here / "runs/fox/lora.safetensors").unlink()
    capfd.readouterr()
    assert main(["render", file]) == 0
    rendered = capfd.readouterr().out
    (here / "rendered.yaml").write_text(rendered)
    assert main(["run", "rendered.yaml"]) == 0
    assert (here / "runs/fox/lora.safetensors").read_bytes() == lora
    assert [call["argv"][0] for call in calls(here)] == ["cache", "train"] * 2
    changed = rendered.replace('"max_train_steps": 5', '"max_train_steps": 6')
    assert changed != rendered
    (here / "rendered.yaml").write_text(changed)
    assert main(["run", "rendered.yaml"]) == 0
    assert (here / "runs/fox/lora.safetensors").read_bytes() != lora


def test_files_of_a_configmap_in_the_same_file_are_used(here, capfd):
    """Mutation caught: `render` that prints a Job for other files than the ConfigMap holds."""
    file = here / write(here, gpu={"class": "cpu"})
    document = json.loads(file.read_text())
    del document["spec"]["config"], document["spec"]["datasets"]
    document["spec"]["configFrom"] = {"name": "files", "datasetsKey": "data.json"}
    rates = []
    for rate in (1e-4, 3e-4):
        data = {"config.json": json.dumps(CONFIG | {"learning_rate": rate}), "data.json": json.dumps(DATASETS)}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": data}
        file.write_text("---\n".join(json.dumps(one) + "\n" for one in (document, body)))
        assert main(["render", str(file)]) == 0, capfd.readouterr().err
        maps = [one.body for one in parse(capfd.readouterr().out, file) if one.kind == "ConfigMap"]
        rates.append({json.loads(one["data"]["config.json"])["learning_rate"] for one in maps})
    assert rates == [{1e-4}, {3e-4}]
    file.write_text(json.dumps(document))
    assert main(["check", str(file)]) == 78
    assert "spec.configFrom.name: there is no ConfigMap files; put it as a document" in capfd.readouterr().err


def test_what_only_a_cluster_can_do_of_a_pod_template_is_refused_here_in_one_line(here, capfd):
    """Nothing is written: the same file is fine for a cluster, and `render` prints it."""
    patch = {"spec": {"containers": [{"name": "side", "image": "x"}]}}
    file = write(here, gpu={"class": "cpu"}, podTemplate=patch)
    assert main(["run", file]) == 64
    (line,) = capfd.readouterr().err.splitlines()
    assert "spec.template.spec.containers: 2 of them; one process is one container" in line
    assert not (here / "runs").exists() and calls(here) == []
    assert main(["render", file]) == 0
    jobs = [one.body for one in parse(capfd.readouterr().out, here) if one.kind == "Job"]
    assert [[box["name"] for box in one["spec"]["template"]["spec"]["containers"]] for one in jobs] == [
        ["side", "job"], ["side", "job"],
    ]  # fmt: skip


def test_check_says_what_only_some_installations_take_of_a_pod_template(here, capfd):
    patch = {"spec": {"volumes": [{"name": "d", "hostPath": {"path": "/d"}}]}}
    main(["check", write(here, gpu={"class": "cpu"}, podTemplate=patch)])
    assert "not everywhere: spec.podTemplate.spec.volumes[name=d].hostPath" in capfd.readouterr().out
    assert main(["check", write(here, gpu={"class": "cpu"}, podTemplate={"spec": {"restartPolicy": "Always"}})]) == 78
    assert "spec.podTemplate.spec.restartPolicy" in capfd.readouterr().err


def test_render_makes_what_a_cluster_gets_without_an_owner(here, capfd):
    assert main(["render", write(here, gpu={"class": "h200"}, nodes=2)]) == 0
    found = parse(capfd.readouterr().out, Path("rendered"))
    assert sorted(document.kind for document in found) == [
        "ConfigMap",
        "ConfigMap",
        "Job",
        "Job",
        "PersistentVolumeClaim",
        "Service",
    ]
    assert not any("ownerReferences" in document.body["metadata"] for document in found)


def test_train_takes_the_guides_files_variables_and_flags(here, monkeypatch, capfd):
    (here / "config").mkdir()
    (here / "config/multi.json").write_text(json.dumps(DATASETS))
    config = CONFIG | {"data_backend_config": "config/multi.json", "output_dir": "output/examples/Ltx_2.Lora"}
    (here / "config/config.json").write_text(json.dumps(config))
    monkeypatch.setenv("LTX2_LORA_RANK", "8")
    monkeypatch.setattr("ltx2_operator.sizing.SMALL_TRANSFORMER", 10**18)
    monkeypatch.setattr(
        "ltx2_operator.cli.inputs.read_model",
        lambda resolved, place: __import__("ltx2_job.estimate").estimate.known_model("small"),
    )
    assert main(["train", "--max_train_steps=7"]) == 0
    assert "ltx-2-lora: cpu of this machine" in capfd.readouterr().out
    used = json.loads(calls(here)[-1]["files"]["config.json"])
    assert (used["max_train_steps"], used["lora_rank"], used["output_dir"]) == (7, 8, "output/examples/Ltx_2.Lora")
    assert (here / "output/examples/Ltx_2.Lora/training.json").exists()


def test_train_does_not_try_a_failure_again_by_itself(here, monkeypatch, capfd):
    (here / "config.json").write_text(json.dumps(CONFIG | {"data_backend_config": DATASETS}))
    monkeypatch.setattr(
        "ltx2_operator.cli.inputs.read_model",
        lambda resolved, place: __import__("ltx2_job.estimate").estimate.known_model("small"),
    )
    behave(here, train={"exit": 70})
    assert main(["train", "--config", "config.json"]) == 70
    assert len(calls(here)) == 2


def test_a_run_that_this_machine_has_no_memory_for_is_refused_before_it_starts(here, capfd):
    (here.parent / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\n")
    file = write(here, {"pretrained_model_name_or_path": "Lightricks/LTX-2"})
    assert main(["run", file]) == 78
    assert re.search(
        r"train with fp32\S+ on cpu needs \d+ GiB of host memory, this machine has 64\.0 GiB; what would fit: "
        r"gpu\.class: a40, or a machine with \d+ GiB",
        capfd.readouterr().err,
    )
    assert calls(here) == []


def test_host_memory_is_read_from_the_kernel(tmp_path):
    page = tmp_path / "meminfo"
    assert machine.host_memory(page) is None
    page.write_text("MemFree:  3 kB\nMemTotal:       24576000 kB\n")
    assert machine.host_memory(page) == 24576000 * 1024


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"gpu": {"class": "h100-8g"}}, "spec.gpu.class: h100-8g is no GPU class; did you mean h100-80g?"),
        ({"cache": {"gpu": {"class": "t4"}}}, "spec.cache.gpu.class: t4 does not compute in bf16"),
        ({"gpu": {"class": "auto"}, "memory": "int8/resident/keep:0"}, "spec.memory: int8/resident/keep:0 is not supp"),
        ({"memory": "bf16/resident/keep:0"}, "spec.memory: bf16/resident/keep:0 does not go with this run"),
    ],
)
def test_check_refuses_what_no_machine_would_run(here, capfd, spec, words):
    # Catches a mistake that is called a lack of this machine: a cluster would refuse it, too.
    assert main(["check", write(here, **spec)]) == 78
    out, err = capfd.readouterr()
    assert err.startswith(f"ltx2: {words}") and "is valid" not in out


def test_check_names_corrections_and_what_is_not_supported(here, capfd):
    assert main(["check", write(here, {"validation_num_video_frames": 62})]) == 0
    said = capfd.readouterr().out
    assert "corrected: validation_num_video_frames 62 → 57" in said
    assert "this machine: cpu, fp32/resident/keep:48" in said and "the stand-in looked at the clips" in said
    assert main(["check", write(here, gpu={"class": "h200"})]) == 0
    assert "not on this machine: spec.gpu.class: h200 needs 1 x nvidia.com/gpu, this" in capfd.readouterr().out
    assert main(["check", write(here, {"enable_group_offload": True})]) == 78
    assert "not supported yet: enable_group_offload" in capfd.readouterr().out
    assert main(["run", write(here, {"enable_group_offload": True})]) == 78
    assert calls(here) == []
    (here / "config.json").write_text(json.dumps(CONFIG | {"data_backend_config": DATASETS}))
    assert main(["check", "config.json"]) == 0
    assert "not in this workspace" not in capfd.readouterr().out
    (here / "datasets").rename(here / "elsewhere")
    assert main(["check", "config.json"]) == 0
    assert (
        "not in this workspace: datasets[clips].instance_data_dir: datasets/videos: there is no such folder"
        in capfd.readouterr().out
    )


def test_gpus_lists_the_table_and_this_machine(here, capfd):
    assert main(["gpus"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"h200 +nvidia +140.4 GiB +yes +yes +989 +55.2 +cuda +NVIDIA-H200\n", out)
    assert re.search(r"rtx-3090 +nvidia +24.0 GiB +yes +no +71.2 +25 ", out)
    assert re.search(r"t4 +nvidia +15.0 GiB +no +no +- ", out)
    assert "this machine: no GPU" in out


@pytest.mark.parametrize(("typed", "passed"), [("inspect", "inspect"), ("cache", "store")])
def test_tools_of_the_job_are_passed_through_with_their_exit_code(here, typed, passed):
    program = here.parent / "bin" / "ltx2-job"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\nsys.exit(7)\n")
    done = subprocess.run(
        [sys.executable, "-m", "ltx2_operator.cli", typed, "a b", "--x"], capture_output=True, text=True,
        check=False, cwd=here,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, f"['{passed}', 'a b', '--x']\n")


def test_gpus_of_a_machine_without_torch(tmp_path, monkeypatch):
    text = "0, NVIDIA H200, 143771\n1, NVIDIA H200, 143771\n2, NVIDIA RTX 9999, 49140\n"
    found = parse_nvidia(text)
    assert [(gpu.index, gpu.memory_mib, gpu.gpu_class and gpu.gpu_class.name) for gpu in found] == [
        ("0", 143771, "h200"), ("1", 143771, "h200"), ("2", 49140, None),
    ]  # fmt: skip
    monkeypatch.setattr(machine, "_nvidia", lambda environ: found)
    assert [gpu.index for gpu in detect({"CUDA_VISIBLE_DEVICES": "2,0"}, tmp_path)] == ["2", "0"]
    assert detect({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    named = parse_nvidia("0, NVIDIA H200, 143771, GPU-5a1f\n1, NVIDIA H200, 143771, GPU-5b02\n")
    monkeypatch.setattr(machine, "_nvidia", lambda environ: named)
    for mask, seen in (
        ("GPU-5b02", ["1"]),
        ("GPU-5b", ["1"]),
        ("GPU-6,5b02", []),
        ("GPU-6,GPU-5b02", []),
        ("1,7,0", ["1"]),
        ("-1", []),
    ):
        assert [gpu.index for gpu in detect({"CUDA_VISIBLE_DEVICES": mask}, tmp_path)] == seen
    assert [entry.name for entry in machine.classes(found, 2)] == ["h200"]
    with pytest.raises(
        Exception, match=r"spec\.gpu\.count: 3, but this machine has at most 2 of one class .*; set it to 2"
    ):
        machine.classes(found, 3)
    assert machine.classes([], 1) == []
    with pytest.raises(
        Exception, match=r"RTX 9999 \(49140 MiB\) is in no class; name the nearest that is not larger: rtx-6000-ada"
    ):
        machine.classes(found[2:], 1)
    graphics = LocalGpu("0", "amd", "AMD 164e", 512, None)  # of the processor, beside the card
    with pytest.raises(Exception, match=r"RTX 9999 \(49140 MiB\) is in no class; name .*: rtx-6000-ada"):
        machine.classes([found[2], graphics], 1)
    with pytest.raises(Exception, match="t4 does not compute in bf16"):
        machine.classes(parse_nvidia("0, Tesla T4, 15360\n"), 1)
    assert [entry.name for entry in machine.classes(parse_nvidia("0, Tesla T4, 15360\n1, NVIDIA L4, 23034"), 1)] == [
        "l4"
    ]
    for number, (simd, device, size) in enumerate(
        ((0, 0, 0), (1216, 0x74A1, 206141652992), (384, 0x744C, 25753026560))
    ):
        folder = tmp_path / str(number) / "mem_banks" / "0"
        folder.mkdir(parents=True)
        (folder / "properties").write_text(f"heap_type 1\nsize_in_bytes {size}\n")
        (tmp_path / str(number) / "properties").write_text(
            f"cpu_cores_count 0\nsimd_count {simd}\ndevice_id {device}\n"
        )
    amd = detect({"CUDA_VISIBLE_DEVICES": ""}, tmp_path)
    assert [(gpu.index, gpu.gpu_class.name, gpu.memory_mib) for gpu in amd] == [
        ("0", "mi300x", 196592),
        ("1", "rx-7900-xtx", 24560),
    ]
    seen = machine.as_machine([LocalGpu("3", "amd", "x", 1, None)], {"PYTHONPATH": "a"})
    assert seen.gpus == {"nvidia.com/gpu": (), "amd.com/gpu": ("3",)}
    assert machine.as_machine(found, {}).of_class == {"h200": ("0", "1")}
    assert Path(seen.env["PYTHONPATH"]).is_absolute()
