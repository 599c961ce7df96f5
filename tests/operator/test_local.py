"""The second cluster: rendered Jobs as processes, the Job controller's words, pause and resume, secrets, GPUs,
refusals.
"""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import stand_in_job
from ltx2_operator import children, local, local_state, template
from ltx2_operator.classify import classify, job_condition
from ltx2_operator.local import Interrupts, LocalRun, run_rendered
from ltx2_operator.local_state import new_object, same_run
from ltx2_operator.processes import CannotHonourError, GpusMissingError, Machine, SecretMissingError, check_job
from ltx2_operator.settings import CertificateAuthority, Proxy, Settings
from ltx2_operator.standin import LocalJobs
from ltx2_operator.status import Plan
from trainings import context

DATA = Path(__file__).parent / "data" / "verdicts"
BASE = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
PLAN = Plan(
    stage="train", gpu_class="cpu", device="cpu", vendor="none", gpu_count=0, nodes=1, processes=1, flavour="cpu",
    memory="fp32/resident/keep:48", cache_memory="device", cpu_milli=1000, memory_bytes=2**30, shm_bytes=2**20,
    ephemeral_bytes=2**20, volume_bytes=2**30, predicted_peak_bytes=2**30,
)  # fmt: skip
CONFIG = {
    "pretrained_model_name_or_path": "Lightricks/LTX-2",
    "model_flavour": "dev",
    "model_type": "lora",
    "max_train_steps": 5,
    "num_train_epochs": 0,
}
DATASETS = [
    {
        "id": "clips",
        "type": "local",
        "dataset_type": "video",
        "instance_data_dir": "datasets/videos",
        "caption_strategy": "textfile",
    }
]


MADE: list[LocalJobs] = []  # by the test at hand
SETTINGS = Settings(grace_seconds=5, grace_margin_seconds=1)


class Resolved:
    digest = "ab" * 32

    @staticmethod
    def dump():
        return {"config": {"max_train_steps": 5}, "datasets": []}


def manifest(**spec):
    return {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": "fox"},
        "spec": {"gpu": {"class": "cpu"}, "config": CONFIG, "datasets": DATASETS, **spec},
    }  # fmt: skip


class Clock:
    """A clock that a test moves; sleeping moves it a little, real time passes as little as possible."""

    def __init__(self):
        self.moment = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)

    def now(self):
        return self.moment

    def sleep(self, seconds):
        self.moment += timedelta(seconds=max(seconds, 0.05))
        if seconds < 0.15:
            time.sleep(0.005)


@pytest.fixture(autouse=True)
def no_folder_left(tmp_path, monkeypatch):
    """The folders in which pods run are gone after a test, whatever it did to their processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    MADE.clear()
    yield
    for jobs in MADE:
        jobs.close()
    assert not list(folder.iterdir())


@pytest.fixture
def place(tmp_path):
    stand_in_job.install(tmp_path / "bin")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return workspace


def jobs_of(place, clock=None, *, gpus=None, of_class=None, secret=lambda *_: None, env=None):
    path = f"{place.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    machine = Machine(gpus or {}, {**BASE, "PATH": path, **(env or {})}, of_class or {})
    null = os.open(os.devnull, os.O_WRONLY)
    MADE.append(LocalJobs(place, machine, secret, (clock or Clock()).now, output=null))
    return MADE[-1]


def rendered(stage="train", settings=SETTINGS, attempt=1, **plan):
    obj = manifest()
    obj["metadata"] |= {"uid": "0f0c", "namespace": "local"}
    made = PLAN.model_copy(update={"stage": stage, **plan})
    return children.configmap(obj, Resolved, made), children.job(
        obj, made, stage, attempt, settings, digest=Resolved.digest
    )


def behave(place, **behaviour):
    (place / "behaviour.json").write_text(
        json.dumps({key.replace("_", "-"): value for key, value in behaviour.items()})
    )


def calls(place):
    path = place / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(jobs, clock, done, most=4000):
    for _ in range(most):
        jobs.poll()
        if done():
            return
        clock.sleep(0.02)
    raise AssertionError("it did not happen")


def run_job(place, jobs, clock, configmap, job):
    jobs.put(configmap)
    jobs.create(job)
    name = job["metadata"]["name"]
    until(jobs, clock, lambda: classify(jobs.jobs[name], jobs.pods_of(name), clock.now()) is not None)
    return classify(jobs.jobs[name], jobs.pods_of(name), clock.now())


# ------------------------------------------------------------------------------------------------ the Job stand-in's
# words


def sequences():
    for path in sorted(DATA.glob("exit-*.json")):
        data = json.loads(path.read_text())
        job = data["sequence"][-1]["job"]
        yield pytest.param(data["verdict"], job, id=path.stem)


def normal(text):
    return re.sub(r"pod \w+/[\w-]+", "pod NAMESPACE/NAME", text)


@pytest.mark.parametrize(("verdict", "recorded"), sequences())
def test_every_verdict_as_a_real_cluster_words_it(place, verdict, recorded):
    # Catches: a stand-in whose Failed condition classify reads, but no cluster writes.
    clock = Clock()
    jobs = jobs_of(place, clock)
    stage = recorded["metadata"]["labels"]["ltx2.dev/stage"]
    code = verdict["exitCode"]
    behave(place, **{stage: {"exit": code}})
    found = run_job(place, jobs, clock, *rendered(stage))
    assert (found.action, found.reason, found.exit_code) == (verdict["action"], verdict["reason"], code)
    name = f"fox-{stage}-1"
    mine, real = job_condition(jobs.jobs[name], "Failed"), job_condition(recorded, "Failed")
    assert mine["reason"] == real["reason"]
    assert normal(mine["message"]) == normal(real["message"])
    assert [one["type"] for one in jobs.jobs[name]["status"]["conditions"]] == [
        one["type"] for one in recorded["status"]["conditions"]
    ]
    jobs.close()


def test_success_needs_the_proof_that_the_process_wrote(place):
    clock = Clock()
    jobs = jobs_of(place, clock)
    assert run_job(place, jobs, clock, *rendered()).action == "Succeed"
    assert [one["type"] for one in jobs.jobs["fox-train-1"]["status"]["conditions"]] == [
        "SuccessCriteriaMet",
        "Complete",
    ]
    behave(place, train={"no_result": True})
    second = rendered(attempt=2)
    assert run_job(place, jobs, clock, *second).reason == "NoProof"
    jobs.close()


def test_death_by_a_signal_is_128_plus_its_number(place):
    clock = Clock()
    jobs = jobs_of(place, clock)
    behave(place, train={"kill": True})
    verdict = run_job(place, jobs, clock, *rendered())
    assert (verdict.reason, verdict.exit_code) == ("Killed", 137)


def test_without_a_matching_rule_the_backoff_limit_is_named(place):
    clock = Clock()
    jobs = jobs_of(place, clock)
    behave(place, train={"exit": 70})
    configmap, job = rendered()
    job["spec"]["podFailurePolicy"]["rules"] = job["spec"]["podFailurePolicy"]["rules"][:1]
    run_job(place, jobs, clock, configmap, job)
    failed = job_condition(jobs.jobs["fox-train-1"], "Failed")
    assert (failed["reason"], failed["message"]) == (
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )


def test_deadline_stops_the_process_and_is_the_jobs_reason(place):
    clock = Clock()
    jobs = jobs_of(place, clock)
    behave(place, train={"wait": 60})
    configmap, job = rendered()
    job["spec"]["activeDeadlineSeconds"] = 20
    jobs.put(configmap)
    jobs.create(job)
    until(jobs, clock, lambda: (place / "ready-train-1").exists())
    clock.moment += timedelta(seconds=20)
    until(jobs, clock, lambda: job_condition(jobs.jobs["fox-train-1"], "Failed") is not None)
    verdict = classify(jobs.jobs["fox-train-1"], jobs.pods, clock.now())
    assert (verdict.action, verdict.reason) == ("Fail", "DeadlineExceeded")
    assert jobs.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 85


def test_grace_then_kill(place):
    # Catches: a process that ignores SIGTERM keeps a run for ever; SIGKILL before the grace period has passed.
    clock = Clock()
    jobs = jobs_of(place, clock)
    behave(place, train={"wait": 60, "deaf": True})
    configmap, job = rendered()
    jobs.put(configmap)
    jobs.create(job)
    until(jobs, clock, lambda: (place / "ready-train-1").exists())
    jobs.delete_job("fox-train-1")
    assert jobs.jobs == {}
    start = clock.now()
    jobs.poll()
    assert jobs.pods[0]["metadata"]["deletionTimestamp"] == "2026-11-22T10:00:06Z" or len(jobs.processes) == 1
    until(jobs, clock, lambda: not jobs.processes)
    jobs.poll()
    assert 6.0 <= (clock.now() - start).total_seconds() < 8.0
    assert jobs.pods == []


def test_children_of_a_process_end_with_it(place):
    clock = Clock()
    jobs = jobs_of(place, clock)
    pid = place / "child"
    configmap, job = rendered()
    script = f"import subprocess,sys;p=subprocess.Popen(['sleep','60']);open({str(pid)!r},'w').write(str(p.pid))"
    job["spec"]["template"]["spec"]["containers"][0] |= {"command": [sys.executable, "-c", script], "args": []}
    run_job(place, jobs, clock, configmap, job)
    child = int(pid.read_text())
    for _ in range(200):
        if local_state._state(child) == "Z":
            break
        time.sleep(0.01)
    assert local_state._state(child) == "Z"


def test_two_nodes_are_two_indexed_processes_and_one_that_fails_ends_the_other(place):
    clock = Clock()
    jobs = jobs_of(place, clock)
    behave(place, train={"rank": {"0": {"wait": 60}, "1": {"after": 2, "exit": 70}}})
    verdict = run_job(place, jobs, clock, *rendered(nodes=2))
    assert (verdict.reason, verdict.exit_code) == ("AppError", 70)
    found = calls(place)
    assert sorted(call["env"]["JOB_COMPLETION_INDEX"] for call in found) == ["0", "1"]
    assert {call["env"]["LTX2JOB_MASTER_ADDR"] for call in found} == {"127.0.0.1"}
    assert len({call["env"]["LTX2JOB_POD_UID"] for call in found}) == 2


# --------------------------------------------------------------------------------------- everything comes from the dict


def test_argv_env_and_files_come_from_the_rendered_job_alone(place):
    clock = Clock()
    jobs = jobs_of(
        place, clock, env={"LTX2_MAX_TRAIN_STEPS": "9", "HF_TOKEN": "mine", "WANDB_API_KEY": "x", "LC_ALL": "C"}
    )
    configmap, job = rendered()
    run_job(place, jobs, clock, configmap, job)
    call = calls(place)[0]
    assert call["argv"][0] == "train"
    assert call["argv"][-4:] == ["--run", "fox", "--attempt", "1"]
    assert call["argv"][call["argv"].index("--workspace") + 1] == str(place)
    assert call["files"] == configmap["data"]
    written = {entry["name"] for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    extra = set(call["env"]) - written - {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LC_CTYPE"}
    assert extra == {"PATH", "HOME", "LC_ALL"}
    assert call["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert call["env"]["LTX2JOB_POD_UID"] == jobs.pods[0]["metadata"]["uid"]
    assert call["env"]["TMPDIR"] != "/tmp"
    assert not Path(call["env"]["TMPDIR"]).exists()  # emptyDirs go with their pod


def test_a_changed_dict_is_a_changed_run(place):
    # Catches: a second way in which a process learns what to do.
    clock = Clock()
    jobs = jobs_of(place, clock)
    configmap, job = rendered()
    run_job(place, jobs, clock, configmap, job)
    lora = (place / "runs/fox/lora.safetensors").read_bytes()
    changed, again = copy.deepcopy(configmap), copy.deepcopy(job)
    config = json.loads(changed["data"]["config.json"]) | {"max_train_steps": 7}
    changed["data"]["config.json"] = json.dumps(config)
    changed["metadata"]["name"] = "fox-other"
    again["metadata"]["name"] = "fox-train-2"
    container = again["spec"]["template"]["spec"]["containers"][0]
    container["args"] += ["--extra", "/workspace/datasets"]
    container["env"] += [
        {"name": "A", "value": "/workspace/a:$(B)/workspace"}, {"name": "B", "value": "b"},
        {"name": "C", "value": "$(B) $$(B) $(D)"},
        {"name": "E", "value": "/workspaces"}, {"name": "F", "value": "x=/workspace"},
    ]  # fmt: skip
    for volume in again["spec"]["template"]["spec"]["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = "fox-other"
    run_job(place, jobs, clock, changed, again)
    call = calls(place)[-1]
    assert call["argv"][-1] == str(place / "datasets")
    assert {key: call["env"][key] for key in "ABCEF"} == {
        "A": f"{place}/a:$(B)/workspace", "B": "b", "C": "b $(B) $(D)", "E": "/workspaces", "F": "x=/workspace",
    }  # fmt: skip
    assert (place / "runs/fox/lora.safetensors").read_bytes() != lora


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("backoffLimit",), 3, "spec.backoffLimit"),
        (("suspend",), True, "spec.suspend"),
        (("completions",), 2, "spec.completions"),
        (("parallelism",), 2, "spec.completions"),
        (("podFailurePolicy", "rules", 0, "action"), "Ignore", "rules[0].action"),
        (("template", "spec", "restartPolicy"), "OnFailure", "restartPolicy"),
        (("template", "spec", "hostNetwork"), True, "spec.template.spec.hostNetwork"),
        (("template", "spec", "initContainers"), [], "spec.template.spec.initContainers"),
        (("template", "spec", "containers", 0, "livenessProbe"), {}, "containers[0].livenessProbe"),
        (("template", "spec", "containers", 0, "envFrom"), [], "containers[0].envFrom"),
        (("template", "spec", "containers", 0, "command"), [], "containers[0].command"),
        (("template", "spec", "containers", 0, "volumeMounts", 0, "subPath"), "x", "volumeMounts[0].subPath"),
        (("template", "spec", "containers", 0, "volumeMounts", 0, "readOnly"), True, "volumeMounts[0].readOnly"),
        (("template", "spec", "containers", 0, "resources", "limits", "a.com/fpga"), 1, "resources.limits.a.com/fpga"),
        (("template", "spec", "volumes", 0, "hostPath"), {}, "volumes[0].hostPath"),
        (("template", "spec", "containers", 0, "env", 0, "valueFrom"), {"fileKeyRef": {}}, "valueFrom.fileKeyRef"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(path, value, named):
    _, job = rendered()
    target = job["spec"]
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    with pytest.raises(CannotHonourError, match=re.escape(named)):
        check_job(job)


def test_every_rendered_job_can_be_honoured():
    for stage in ("cache", "train"):
        for nodes in (1, 2):
            for vendor, resource in (("none", None), ("nvidia", "nvidia.com/gpu"), ("amd", "amd.com/gpu")):
                name = {"none": "cpu", "nvidia": "h200", "amd": "mi300x"}[vendor]
                check_job(
                    rendered(stage, nodes=nodes, vendor=vendor, resource_name=resource, gpu_class=name, gpu_count=1)[1]
                )


def test_meaningless_fields_carry_a_reason():
    from ltx2_operator import processes

    for group in (
        processes.JOB_FIELDS,
        processes.POD_FIELDS,
        processes.CONTAINER_FIELDS,
        processes.RESOURCES,
        processes.EMPTY_DIR,
    ):
        assert all(len(why.split()) >= 3 for why in group.values())


@pytest.mark.parametrize(("name", "seen"), [("l4", "0"), ("h200", "1"), ("a40", "0")])
def test_a_pod_gets_a_gpu_of_its_class_where_a_machine_has_several(place, name, seen):
    # The first of all would be the smaller card; a card of no class stands for the nearest that was named.
    gpu = {"vendor": "nvidia", "resource_name": "nvidia.com/gpu", "gpu_class": name, "gpu_count": 1}
    clock = Clock()
    jobs = jobs_of(place, clock, gpus={"nvidia.com/gpu": ("0", "1")}, of_class={"l4": ("0",), "h200": ("1",)})
    run_job(place, jobs, clock, *rendered(**gpu))
    assert calls(place)[0]["env"]["CUDA_VISIBLE_DEVICES"] == seen


def test_a_program_that_does_not_start_leaves_nothing(place):
    program = place.parent / "bin" / "ltx2-job"
    program.unlink()
    program.write_text("#!/nowhere/python\n")
    program.chmod(0o755)
    configmap, job = rendered()
    jobs = jobs_of(place)
    jobs.put(configmap)
    with pytest.raises(FileNotFoundError):
        jobs.create(job)  # the fixture of all tests here looks at the folders


def test_gpus_are_dealt_out_and_missing_ones_are_named(place):
    clock = Clock()
    gpu = {
        "vendor": "nvidia",
        "resource_name": "nvidia.com/gpu",
        "gpu_class": "h200",
        "gpu_count": 2,
        "flavour": "cuda",
    }
    jobs = jobs_of(place, clock, gpus={"nvidia.com/gpu": ("0", "1", "4")})
    run_job(place, jobs, clock, *rendered(**gpu))
    assert calls(place)[0]["env"]["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert calls(place)[0]["env"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    configmap, job = rendered(nodes=2, attempt=2, **gpu)
    jobs.put(configmap)
    with pytest.raises(
        GpusMissingError, match=r"nvidia.com/gpu: pod 1 needs 2 beside 2 of its peers, this machine shows 3"
    ):
        jobs.create(job)
    assert "fox-train-2" not in jobs.jobs


def test_secrets_come_from_documents_or_the_environment_or_are_missed_by_name(place):
    clock = Clock()
    configmap, job = rendered()
    reference = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    job["spec"]["template"]["spec"]["containers"][0]["env"].append(reference)
    for environ, documents, value in (({"HF_TOKEN": "e"}, {}, "e"), ({"HF_TOKEN": "e"}, {"hub": {"token": "d"}}, "d")):
        jobs = jobs_of(place, clock, secret=local.secret_source(environ, documents))
        run_job(place, jobs, clock, configmap, job)
        assert calls(place)[-1]["env"]["HF_TOKEN"] == value
    jobs = jobs_of(place, clock, secret=local.secret_source({}, {}))
    jobs.put(configmap)
    with pytest.raises(
        SecretMissingError, match=r"Secret hub \(key token\) does not exist on this machine; export HF_TOKEN"
    ):
        jobs.create(job)
    reference["valueFrom"]["secretKeyRef"]["optional"] = True
    run_job(place, jobs, clock, configmap, job)
    assert "HF_TOKEN" not in calls(place)[-1]["env"]


def test_a_program_that_is_nowhere_is_named(place):
    configmap, job = rendered()
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["no-such-job"]
    jobs = jobs_of(place)
    jobs.put(configmap)
    with pytest.raises(Exception, match=r"no-such-job is neither on PATH nor in .*pip install '.\[cuda\]'"):
        jobs.create(job)


# ------------------------------------------------------------------------------------------------------- the whole walk


def walk(place, obj, clock, interrupts=None, sleep=None, settings=SETTINGS):
    told = []
    folder = place / "runs" / "fox"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = jobs_of(place, clock)
    run = LocalRun(obj, folder, jobs, settings, interrupts or Interrupts(), told.append, sleep=sleep or clock.sleep)
    try:
        code = run.run()
    finally:
        jobs.close()
        run.save()
    return code, run, told


def fresh(**spec):
    return new_object(manifest(**spec), None, datetime(2026, 11, 22, tzinfo=UTC))


def test_a_pod_template_reaches_the_process(place):
    """Every part of it that a process has: its variables; a node selector has no meaning here."""
    job = {"name": "job", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}], "resources": {"limits": {"memory": "9Gi"}}}
    code, _, _ = walk(place, fresh(podTemplate={"spec": {"nodeSelector": {"a": "b"}, "containers": [job]}}), Clock())
    assert code == 0
    assert [call["env"]["NCCL_DEBUG"] for call in calls(place)] == ["WARN", "WARN"]


@pytest.mark.parametrize(
    ("pod_template", "words"),
    [
        ({"containers": [{"name": "side", "image": "x"}]}, "spec.template.spec.containers: 2 of them"),
        ({"initContainers": [{"name": "i", "image": "x"}]}, "spec.template.spec.initContainers"),
        ({"volumes": [{"name": "n", "nfs": {"server": "s", "path": "/"}}]}, "spec.template.spec.volumes[0].nfs"),
        ({"hostNetwork": True}, "spec.podTemplate.spec.hostNetwork: True is not allowed"),
    ],
)
def test_what_a_process_cannot_honour_of_a_pod_template_is_refused_before_anything_runs(place, pod_template, words):
    code, run, told = walk(place, fresh(podTemplate={"spec": pod_template}), Clock())
    assert (code, calls(place), run.status["attempt"]) == (78, [], 0)
    assert words in local.failure_sentence(run.status)
    assert [event.reason for event in told] == ["Rejected"]


def test_the_proxy_of_an_installation_reaches_the_process_and_its_certificates_are_a_file(place):
    """Mutation caught: a path of the pod that reaches the process as it is, where no such file lies."""
    settings = SETTINGS.model_copy(
        update={"proxy": Proxy(https="http://proxy:3128"), "ca": CertificateAuthority(config_map="ca", key="pem")}
    )
    clock = Clock()
    jobs = jobs_of(place, clock)
    jobs.put({"kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"pem": "-----BEGIN"}})
    run_job(place, jobs, clock, *rendered(settings=settings))
    env = calls(place)[0]["env"]
    assert env["HTTPS_PROXY"] == env["https_proxy"] == "http://proxy:3128"
    assert env["SSL_CERT_FILE"].endswith("/ca/ca.crt") and not env["SSL_CERT_FILE"].startswith("/etc/ltx2-ca")


def test_the_keys_of_an_object_store_come_from_the_environment_and_only_two_are_needed(place):
    _, job = rendered()
    job["spec"]["template"] = template.template(context(PLAN, SETTINGS, secrets={"objectStore": "store"}))
    named = {("store", "AWS_ACCESS_KEY_ID"): "id", ("store", "AWS_SECRET_ACCESS_KEY"): "key"}
    configmap = {"kind": "ConfigMap", "metadata": {"name": "my-style-12345678"}}
    configmap["data"] = dict.fromkeys(("config.json", "datasets.json", "plan.json"), "{}")
    clock = Clock()
    run_job(place, jobs_of(place, clock, secret=lambda name, key, _: named.get((name, key))), clock, configmap, job)
    env = calls(place)[0]["env"]
    assert {key: value for key, value in env.items() if key.startswith("AWS_")} == {
        "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key",
    }  # fmt: skip
    with pytest.raises(SecretMissingError, match=r"Secret store .* export AWS_ACCESS_KEY_ID instead"):
        jobs = jobs_of(place, clock)
        jobs.put(configmap)
        jobs.create({**job, "metadata": {**job["metadata"], "name": "other"}})


def test_a_run_walks_cache_and_train_and_keeps_its_state(place):
    code, run, told = walk(place, fresh(), Clock())
    assert code == 0
    assert [call["argv"][0] for call in calls(place)] == ["cache", "train"]
    state = local_state.load_state(place / "runs" / "fox")
    assert state["status"]["state"] == "Succeeded"
    assert state["processes"] == []
    assert [event.reason for event in told][-1] == "Succeeded"
    assert run.status["result"]["finalLoss"] == 0.25


@pytest.mark.parametrize(
    ("behaviour", "spec", "code", "attempts"),
    [
        ({"cache": {"exit": 66}}, {}, 66, 1),
        ({"cache": {"exit": 78}}, {}, 78, 1),
        ({"train": {"exit": 77}}, {}, 77, 1),
        ({"train": {"exit": 73}}, {}, 73, 1),
        ({"train": {"exit": 70}}, {"retries": 0}, 70, 1),
        ({"train": {"exit": 69}}, {"retries": 2}, 69, 3),
        ({"train": {"exit": 80}}, {}, 80, 3),
        ({"train-1": {"exit": 75}}, {}, 0, 2),
        ({"train": {"exit": 85}}, {"retries": 0}, 85, 5),
    ],
)
def test_the_exit_code_is_the_class_of_the_verdict(place, behaviour, spec, code, attempts):
    (place / "behaviour.json").write_text(json.dumps(behaviour))
    found, run, _ = walk(place, fresh(**spec), Clock())
    assert (found, run.status["attempt"]) == (code, attempts)
    assert [call["argv"][0] for call in calls(place)].count("cache") == 1


def test_memory_plans_are_lowered_in_plan_json(place):
    behave(place, train_1={"exit": 80}, train_2={"exit": 80})
    code, _, told = walk(place, fresh(), Clock())
    plans = [json.loads(call["files"]["plan.json"])["memory"] for call in calls(place) if call["argv"][0] == "train"]
    assert (code, plans) == (0, ["fp32/resident/keep:48", "fp32/resident/keep:24", "fp32/resident/keep:0"])
    assert [event.reason for event in told].count("GPUOutOfMemory") == 2


def interrupt_when(place, interrupts, clock, stage="train-1", times=1):
    """A sleep that plays the user: Ctrl-C once the process is ready, and again later if asked for."""

    def sleep(seconds):
        if (place / f"ready-{stage}").exists() and interrupts.count < times:
            interrupts.count += 1
        clock.sleep(seconds)

    return sleep


def test_ctrl_c_pauses_with_a_checkpoint_and_the_same_command_goes_on(place):
    clock, interrupts = Clock(), Interrupts()
    behave(place, train_1={"wait": 60})
    code, run, _ = walk(place, fresh(), clock, interrupts, interrupt_when(place, interrupts, clock))
    assert code == 85
    assert (run.status["state"], run.status["failures"], run.status["uncounted"]) == ("Suspended", 0, 0)
    assert run.status["checkpoint"]["step"] == 812
    state = local_state.load_state(place / "runs" / "fox")
    old = same_run(state, state["status"]["configHash"])
    assert same_run(state, "another") is None
    code, run, told = walk(place, new_object(manifest(), old, clock.now()), clock)
    assert (code, run.status["attempt"], run.obj["metadata"]["uid"]) == (0, 2, state["metadata"]["uid"])
    assert [call["argv"][0] + call["argv"][-1] for call in calls(place)] == ["cache1", "train1", "train2"]
    assert "attempt 2 continues from step 812" in [event.message for event in told]


def test_a_second_ctrl_c_stops_at_once(place):
    clock, interrupts = Clock(), Interrupts()
    behave(place, train_1={"wait": 60, "deaf": True})
    begun = time.monotonic()
    code, run, _ = walk(
        place,
        fresh(),
        clock,
        interrupts,
        interrupt_when(place, interrupts, clock, times=2),
        Settings(grace_seconds=3600),
    )
    assert (code, run.status["state"]) == (86, "Suspended")
    assert time.monotonic() - begun < 20


def test_a_second_ctrl_c_after_the_checkpoint_is_a_stop_like_any_other(place):
    """The process has said that all is on disk and takes its time to end. Catches calling its work lost."""
    clock, interrupts = Clock(), Interrupts()
    behave(place, train_1={"wait": 60, "lingers": True})

    def sleep(seconds):
        ready = ("ready-train-1", "said")[interrupts.count :][:1]
        interrupts.count += any((place / name).exists() for name in ready)
        clock.sleep(seconds)

    code, run, _ = walk(place, fresh(), clock, interrupts, sleep, Settings(grace_seconds=3600))
    assert (code, run.status["state"], run.status["checkpoint"]["step"]) == (85, "Suspended", 812)


def test_a_failed_run_gets_another_attempt_when_the_command_is_typed_again(place):
    clock = Clock()
    behave(place, train_1={"exit": 73})
    code, run, _ = walk(place, fresh(), clock)
    assert code == 73
    state = local_state.load_state(place / "runs" / "fox")
    code, run, _ = walk(
        place, new_object(manifest(), same_run(state, state["status"]["configHash"]), clock.now()), clock
    )
    assert (code, run.status["attempt"]) == (0, 2)


def test_a_command_that_was_killed_is_a_pause_and_its_process_is_ended(place):
    clock = Clock()
    folder = place / "runs" / "fox"
    folder.mkdir(parents=True)
    behave(place, train_1={"wait": 60})
    obj = fresh()
    jobs = jobs_of(place, clock)

    class KilledError(Exception):
        pass

    def sleep(seconds):
        if (place / "ready-train-1").exists():
            raise KilledError
        clock.sleep(seconds)

    run = LocalRun(obj, folder, jobs, Settings(), Interrupts(), lambda event: None, sleep=sleep)
    with pytest.raises(KilledError):
        run.run()
    state = local_state.load_state(folder)
    pid = state["processes"][0]["pid"]
    assert local_state._state(pid) != "Z"
    told = []
    local_state.end_orphans(state, 5.0, told.append)
    assert local_state._state(pid) == "Z"
    assert f"process {pid}" in told[0]
    jobs.close()
    clock.moment += timedelta(seconds=1)
    code, run, _ = walk(
        place, new_object(manifest(), same_run(state, state["status"]["configHash"]), clock.now()), clock
    )
    assert (code, run.status["attempt"], run.status["uncounted"]) == (0, 2, 0)
    assert run.status["attempts"][0]["action"] == "Suspend"


def test_a_pid_that_belongs_to_somebody_else_is_left_alone():
    with subprocess.Popen(["sleep", "60"]) as process:
        local_state.end_orphans(
            {"processes": [{"pid": process.pid, "start": "1", "pod": "x"}]}, 1.0, lambda line: pytest.fail(line)
        )
        assert process.poll() is None
        process.kill()


def test_one_command_per_run_folder(tmp_path):
    with (
        local_state.locked(tmp_path / "fox"),
        pytest.raises(local_state.AlreadyRunningError, match=f"process {os.getpid()}"),
        local_state.locked(tmp_path / "fox"),
    ):
        pass
    with local_state.locked(tmp_path / "fox"):
        pass


def test_rendered_documents_run_as_they_stand(place):
    clock = Clock()
    documents = [*rendered("cache"), *rendered("train")]
    assert run_rendered(documents, jobs_of(place, clock), Interrupts(), clock.sleep) == 0
    assert [call["argv"][0] for call in calls(place)] == ["cache", "train"]
    behave(place, cache={"exit": 77})
    assert run_rendered(documents, jobs_of(place, clock), Interrupts(), clock.sleep) == 77
    assert len(calls(place)) == 3
    behave(place, train={"wait": 60})
    interrupts = Interrupts()
    sleep = interrupt_when(place, interrupts, clock)
    assert run_rendered(documents, jobs_of(place, clock), interrupts, sleep) == 85


def test_signals_are_counted_and_handlers_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts().listen() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.count == 2
    assert signal.getsignal(signal.SIGTERM) is before
