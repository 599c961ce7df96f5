"""`ltx2 doctor`: each area with what it finds when it is well, broken, refused, silent or absent."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest
import yaml

from http_stand_in import serve
from ltx2_job import cgroup
from ltx2_job.facts import facts
from ltx2_operator import fields, machine
from ltx2_operator.cli import INSTALLED_WITH_IT, main
from ltx2_operator.doctor import cluster, host, installed
from ltx2_operator.doctor.cluster import ask_cluster
from ltx2_operator.doctor.finding import Finding, within
from ltx2_operator.doctor.hub import ask_hub
from ltx2_operator.doctor.installed import Facts

MODEL, WHOAMI = "HEAD /api/models/Lightricks/LTX-2", "GET /api/whoami-v2"
GEMMA = "HEAD /google/gemma-3-12b-it/resolve/main/config.json"
SECRET = "hf_a_very_secret_token"


def lines(findings):
    return [(one.status, one.area) for one in findings]


@pytest.fixture
def quick(monkeypatch):
    """Nobody is waited for longer than a moment."""
    for module in ("hub", "cluster"):
        monkeypatch.setattr(f"ltx2_operator.doctor.{module}.ANSWER_SECONDS", 0.2)


# ------------------------------------------------------------------------------------------------------------- the hub


def test_a_hub_that_answers_with_a_valid_token_is_ok_and_the_token_is_never_shown():
    with serve({MODEL: (200, {}), WHOAMI: (200, {"name": "ada"}), GEMMA: (200, {})}) as server:
        found = ask_hub({"HF_ENDPOINT": server.url + "/", "HF_TOKEN": f"{SECRET}\n"})
    assert lines(found) == [("ok", "hub"), ("ok", "token")]
    assert "of ada" in found[1].message and SECRET not in "".join(map(str, found))
    asked = {what: headers for what, headers, _ in server.asked}
    assert asked[WHOAMI]["Authorization"] == f"Bearer {SECRET}"
    assert "Authorization" not in asked[MODEL]


@pytest.mark.parametrize(
    ("whoami", "gemma", "expected", "words"),
    [
        ((401, {}), (200, {}), ("fix", "token"), "the hub refuses the token (401); make a new one at"),
        ((200, {"name": "ada"}), (403, {}), ("note", "token"), "may not download google/gemma-3-12b-it; accept"),
        ((500, {}), (200, {}), ("note", "token"), "does not say whose it is (500)"),
    ],
)
def test_a_refused_token_and_an_unaccepted_licence_are_named(whoami, gemma, expected, words):
    with serve({MODEL: (200, {}), WHOAMI: whoami, GEMMA: gemma}) as server:
        found = ask_hub({"HF_ENDPOINT": server.url, "HF_TOKEN": SECRET})
    assert lines(found)[-1] == expected and words in str(found[-1])


def test_a_token_is_found_in_the_file_of_a_login_and_its_absence_is_a_note(tmp_path):
    with serve({MODEL: (200, {}), WHOAMI: (200, {"name": "ada"}), GEMMA: (200, {})}) as server:
        environ = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path)}
        assert lines(ask_hub(environ)) == [("ok", "hub"), ("note", "token")]
        (tmp_path / "token").write_text(SECRET)
        assert lines(ask_hub(environ)) == [("ok", "hub"), ("ok", "token")]
        assert lines(ask_hub({**environ, "HF_TOKEN": "hf_ with blanks"}))[-1] == ("fix", "token")


def test_a_hub_that_hangs_refuses_or_is_another_server_is_a_note(quick):
    with serve({MODEL: "hang"}) as server:
        assert lines(ask_hub({"HF_ENDPOINT": server.url})) == [("note", "hub")]
    refused = ask_hub({"HF_ENDPOINT": server.url})
    assert lines(refused) == [("note", "hub")] and "refused" in refused[0].message
    with serve({}) as server:
        other = ask_hub({"HF_ENDPOINT": server.url})
    assert "answers 404" in other[0].message and "is HF_ENDPOINT right?" in other[0].remedy


@pytest.mark.parametrize(
    "endpoint", ["huggingface.co", "ftp://huggingface.co", "https://", "http://[::1", "http://a:b"]
)
def test_an_endpoint_that_is_no_address_is_to_be_fixed(endpoint):
    found = ask_hub({"HF_ENDPOINT": endpoint})
    assert lines(found) == [("fix", "hub")] and endpoint in found[0].message


def test_a_name_server_that_never_answers_is_not_waited_for(monkeypatch):
    # Catches a look-up without a limit: urllib's timeout begins behind it.
    asked, over = [], threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: (asked.append(args), over.wait(), [])[2])
    monkeypatch.setattr("ltx2_operator.doctor.hub.AREA_SECONDS", 0.2)
    found = ask_hub({"HF_ENDPOINT": "http://hub.example"})
    over.set()
    assert asked and lines(found) == [("note", "hub")] and "no answer within 0.2 seconds" in found[0].message


def test_a_defect_of_an_area_is_no_silence():
    with pytest.raises(ZeroDivisionError):
        within(5.0, "hub", lambda: [Finding("hub", "ok", str(1 // 0))], "")


# --------------------------------------------------------------------------------------------------------- the cluster


def kubeconfig(folder, url, namespace="video"):
    page = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
    }  # fmt: skip
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(page))
    return {"KUBECONFIG": str(file)}


def node(product, gpus):
    return {
        "metadata": {"name": product, "labels": {"nvidia.com/gpu.product": product}},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}},
    }


REVIEW = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
CRD = "GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions/ltx2trainings.ltx2.dev"


def api_server(allowed=True):
    version = {
        "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": "",
    }  # fmt: skip
    scheme = {"type": "object"}
    one = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": scheme}}
    names = {"plural": "ltx2trainings", "kind": "LTX2Training"}
    definition = {
        "metadata": {"name": "ltx2trainings.ltx2.dev"},
        "spec": {"group": "ltx2.dev", "scope": "Namespaced", "names": names, "versions": [one]},
    }
    nodes = [
        node("NVIDIA-H200", 8),
        node("NVIDIA-H200", 4),
        node("NVIDIA-L40S", 2),
        node("Tesla-V100-SXM2-32GB", 4),
        node("Quadro-P6000", 1),
    ]
    return {
        "GET /version": (200, version),
        "GET /version/": (200, version),
        REVIEW: (201, {"spec": {}, "status": {"allowed": allowed}}),
        CRD: (200, definition),
        "GET /api/v1/nodes": (200, {"items": nodes}),
    }


def test_a_cluster_that_is_ready_says_version_rights_definition_and_gpus(tmp_path):
    with serve(api_server()) as server:
        found = ask_cluster(kubeconfig(tmp_path, server.url))
    assert lines(found) == [("ok", "cluster")] * 4
    text = "\n".join(map(str, found))
    assert "v1.36.2, namespace video" in text and "v1alpha1" in text and SECRET not in text
    assert "GPUs of 5 nodes: 12 x h200, 2 x l40s; of no use here: Quadro-P6000, Tesla-V100-SXM2-32GB" in text
    asked = next(body for what, _, body in server.asked if what == REVIEW)["spec"]["resourceAttributes"]
    assert asked == {"group": "ltx2.dev", "resource": "ltx2trainings", "verb": "create", "namespace": "video"}


def test_in_a_pod_the_namespace_is_that_of_the_service_account(tmp_path, monkeypatch):
    loaded = []

    def load(client_configuration):
        loaded.append(client_configuration)
        client_configuration.host = server.url

    for name, text in (("token", SECRET), ("namespace", "video\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("ltx2_operator.doctor.cluster.ACCOUNT", tmp_path)
    monkeypatch.setattr("kubernetes.config.load_incluster_config", load)
    with serve(api_server()) as server:
        found = ask_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOME": str(tmp_path)})
    assert loaded and "namespace video" in found[0].message
    asked = next(body for what, _, body in server.asked if what == REVIEW)["spec"]["resourceAttributes"]
    assert asked["namespace"] == "video"


def test_what_a_cluster_lacks_is_named_with_its_remedy(tmp_path):
    answers = {**api_server(allowed=False), CRD: (404, {}), "GET /api/v1/nodes": (200, {"items": []})}
    with serve(answers) as server:
        found = ask_cluster(kubeconfig(tmp_path, server.url))
    assert [one.status for one in found] == ["ok", "fix", "fix", "note"]
    assert "may not create ltx2trainings.ltx2.dev in video; ask for" in str(found[1])
    assert "kubectl apply -f configs/crd/ltx2trainings.ltx2.dev.yaml" in found[2].remedy
    assert os.path.exists(found[2].remedy.rpartition(" ")[2])
    with serve({**api_server(), CRD: (403, {}), "GET /api/v1/nodes": (403, {})}) as server:
        assert [one.status for one in ask_cluster(kubeconfig(tmp_path, server.url))] == ["ok", "ok", "note", "note"]


def test_an_api_server_that_refuses_hangs_or_is_gone_is_to_be_fixed(tmp_path, quick):
    with serve({"GET /version": (401, {}), "GET /version/": (401, {})}) as server:
        found = ask_cluster(kubeconfig(tmp_path, server.url))
    assert lines(found) == [("fix", "cluster")] and "answers 401" in found[0].message and "log in" in found[0].remedy
    with serve({"GET /version": "hang", "GET /version/": "hang"}) as server:
        found = ask_cluster(kubeconfig(tmp_path, server.url))
    assert lines(found) == [("fix", "cluster")] and "timed out" in found[0].message
    found = ask_cluster(kubeconfig(tmp_path, server.url))
    assert lines(found) == [("fix", "cluster")] and "refused" in found[0].message


@pytest.mark.parametrize("text", ["{broken", "[1, 2]", "", "apiVersion: v1\nkind: Config\n", "\tx: 1"])
def test_a_kubeconfig_that_cannot_be_used_is_to_be_fixed(tmp_path, text):
    (tmp_path / "config").write_text(text)
    found = ask_cluster({"KUBECONFIG": str(tmp_path / "config")})
    assert lines(found) == [("fix", "cluster")] and "cannot be used" in found[0].message


def test_no_kubeconfig_is_a_note_but_a_named_one_that_is_missing_is_to_be_fixed(tmp_path):
    assert lines(ask_cluster({"HOME": str(tmp_path)})) == [("note", "cluster")]
    assert lines(ask_cluster({"KUBECONFIG": str(tmp_path / "none")})) == [("fix", "cluster")]


# ----------------------------------------------------------------------------------------------- installation, versions

RANGES = ["pyyaml>=6.0,<7", 'torch>=2.11; extra == "job"', 'av>=18,<20; extra == "job"', 'torch>=9; extra == "dev"']


def test_versions_are_held_against_the_ranges_of_the_package():
    found = installed.versions(Facts({"packages": {"torch": "2.12.0+cu130", "av": "18.1.0"}}), RANGES)
    assert {one.status for one in found} == {"ok"} and "torch 2.12.0+cu130" in found[-1].message
    found = installed.versions(Facts({"packages": {"torch": "2.4.1"}}), RANGES)
    wrong = [str(one) for one in found if one.status == "fix"]
    assert any("torch 2.4.1 does not fit >=2.11; pip install 'torch>=2.11'" in line for line in wrong)
    assert any("av is not installed (wanted: " in line for line in wrong) and len(wrong) == 2
    assert (
        len(installed.versions(Facts(), ["rich<1"])) == 3
        and "rich" in installed.versions(Facts(), ["rich<1"])[2].message
    )


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\n{text}\n")
    (folder / name).chmod(0o755)


def test_the_job_is_asked_for_its_facts_and_what_it_cannot_say_is_named(tmp_path, monkeypatch):
    environ = {"PATH": str(tmp_path)}
    program(tmp_path, "ltx2-job", 'import sys; print(\'{"packages": {"torch": "1"}, "a": %d}\' % len(sys.argv))')
    told, found = installed.ask_job(environ)
    assert told.page == {"packages": {"torch": "1"}, "a": 2} and lines(found) == [("ok", "job")]
    program(tmp_path, "ltx2-job", "raise SystemExit('libgomp.so.1: cannot open shared object file')")
    told, found = installed.ask_job(environ)
    assert told.page == {} and lines(found) == [("fix", "job")] and "libgomp.so.1" in found[0].message
    (tmp_path / "ltx2-job").unlink()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    told, found = installed.ask_job(environ)
    assert told.page == {} and lines(found) == [("note", "job")] and "pip install" in found[0].remedy


def test_the_facts_are_those_of_this_installation():
    page = facts()
    assert page["packages"]["torch"] == page["torch"]["version"].partition("+")[0]
    assert page["codecs"] == {name: {"decode": True, "encode": True} for name in ("h264", "aac")}
    assert installed.codecs(Facts(page))[0].status == "ok"
    lacking = installed.codecs(Facts({"codecs": {"h264": {"decode": True, "encode": False}, "aac": {}}}))
    assert lacking[0].status == "fix" and "h264 encode, aac decode, aac encode" in lacking[0].message
    json.dumps(page)


# ------------------------------------------------------------------------------------------------------------- the host

SMI = "import sys\nprint('0, NVIDIA H200, 143771' if len(sys.argv) > 1 else 'Driver Version: 550  CUDA Version: %s |')"


@pytest.mark.parametrize(
    ("torch", "driver", "status", "words"),
    [
        ({"version": "2.12", "cuda": "13.0", "devices": ["NVIDIA H200"]}, "13.1", "ok", "CUDA 13.0, sees 1 GPU"),
        (
            {"version": "2.12", "cuda": "13.0", "devices": []},
            "12.4",
            "fix",
            "wants CUDA 13.0, the driver offers CUDA 12.4",
        ),
        ({"version": "2.12+cpu", "cuda": None, "devices": []}, "12.4", "fix", "not built for NVIDIA GPUs"),
        ({"version": "2.12", "cuda": "12.8", "devices": []}, "12.8", "fix", "sees 0 of 1 GPUs"),
    ],
)
def test_torch_is_held_against_driver_and_gpus(tmp_path, monkeypatch, torch, driver, status, words):
    monkeypatch.setattr(machine, "KFD", tmp_path / "none")
    program(tmp_path, "nvidia-smi", SMI % driver)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = host.gpu(Facts({"torch": torch}), {"PATH": str(tmp_path)})
    assert str(found[0]) == "ok    gpu       1 x NVIDIA H200, 143771 MiB: class h200"
    assert found[1].status == status and words in str(found[1])
    masked = host.gpu(Facts(), {"PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "seven"})
    assert lines(masked) == [("fix", "gpu")] and "CUDA_VISIBLE_DEVICES='seven' hides every GPU" in masked[0].message


def test_the_graphics_of_an_amd_processor_are_not_missed_by_a_cuda_build_of_torch(tmp_path, monkeypatch):
    node = tmp_path / "nodes" / "1"
    (node / "mem_banks" / "0").mkdir(parents=True)
    (node / "properties").write_text(f"simd_count 4\ndevice_id {0x164E}\n")
    (node / "mem_banks" / "0" / "properties").write_text(f"size_in_bytes {512 * 2**20}\n")
    monkeypatch.setattr(machine, "KFD", tmp_path / "nodes")
    program(tmp_path, "nvidia-smi", SMI % "13.1")
    found = host.gpu(
        Facts({"torch": {"version": "2.12", "cuda": "13.0", "devices": ["NVIDIA H200"]}}), {"PATH": str(tmp_path)}
    )
    assert lines(found) == [("ok", "gpu"), ("note", "gpu"), ("ok", "torch")]
    assert "AMD 164e, 512 MiB: in no class" in found[1].message


def test_a_card_that_the_table_does_not_hold_is_a_note_that_names_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "KFD", tmp_path / "none")
    program(tmp_path, "nvidia-smi", "print('0, Quadro P6000, 24576')")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = host.gpu(Facts(), {"PATH": str(tmp_path)})
    assert lines(found) == [("note", "gpu")] and "name the nearest that is not larger: rtx-" in found[0].remedy
    program(tmp_path, "nvidia-smi", "print('0, Tesla V100-SXM2-32GB, 32768')")
    found = host.gpu(Facts(), {"PATH": str(tmp_path)})
    assert lines(found) == [("note", "gpu")] and "v100" in found[0].message


def test_the_disk_is_judged_by_what_it_is_and_what_is_free(tmp_path, monkeypatch):
    def with_free(gib, kind="ext4"):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, gib * 2**30))
        monkeypatch.setattr(host, "file_system", lambda path: kind)
        return host.disk(tmp_path / "not yet" / "there")[0]

    assert with_free(500).status == "ok" and "500.0 GiB free on ext4" in with_free(500).message
    assert with_free(20).status == "note" and "LTX-2 and Gemma take" in with_free(20).message
    assert with_free(0).status == "fix"
    assert with_free(500, "tmpfs").status == "note" and "lost" in with_free(500, "tmpfs").remedy
    assert with_free(500, "nfs4").status == "note"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert host.disk(tmp_path / "file")[0].status == "fix"


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("a / ext4 rw 0 0\nb /data nfs4 rw 0 0\nc /data/with\\040blank xfs rw 0 0\n")
    for path, kind in {"/data/x": "nfs4", "/data/with blank/y": "xfs", "/database": "ext4"}.items():
        assert host.file_system(host.Path(path), mounts) == kind
    assert host.file_system(tmp_path, tmp_path / "none") == ""


def test_shared_memory_and_temporary_folder(tmp_path, monkeypatch):
    sizes = {"total": 2**34, "free": 2**34}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(sizes["total"], 0, sizes["free"]))
    assert host.shared_memory(tmp_path)[0].status == "ok"
    sizes["total"] = sizes["free"] = 64 * 2**20
    assert host.shared_memory(tmp_path)[0].status == "note"
    sizes["free"] = 0
    assert host.shared_memory(tmp_path)[0].status == "fix"
    monkeypatch.undo()
    assert host.shared_memory(tmp_path / "none")[0].status == "note"

    def nowhere():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(host.tempfile, "gettempdir", nowhere)
    assert host.temporary()[0].status == "fix"


def test_the_limits_of_a_container_count(tmp_path, monkeypatch):
    group = tmp_path / "fs"
    group.mkdir()
    (group / "memory.max").write_text("2147483648\n")
    (group / "cpu.max").write_text("150000 100000\n")
    assert cgroup.memory_limit(group) == 2**31 and cgroup.cpu_limit(group) == 1.5
    monkeypatch.setattr(machine, "CGROUPS", group)
    page = tmp_path / "meminfo"
    page.write_text("MemTotal: 16777216 kB\n")
    assert machine.host_memory(page) == 2**31
    (group / "memory.max").write_text("max\n")
    (group / "cpu.max").write_text("max 100000\n")
    assert cgroup.memory_limit(group) is None and cgroup.cpu_limit(group) is None
    assert machine.host_memory(page) == 2**34


# ------------------------------------------------------------------------------------------------------------ the verb


def test_the_verb_says_every_finding_and_its_exit_code_whether_something_is_to_be_fixed(tmp_path, monkeypatch, capsys):
    found = [Finding("hub", "note", "far", "go"), Finding("disk", "ok", "big")]
    seen = []
    monkeypatch.setattr("ltx2_operator.cli.doctor.examine", lambda place, environ: seen.append(place) or iter(found))
    assert main(["doctor", "--workspace", str(tmp_path)]) == 0
    assert seen == [tmp_path]
    assert capsys.readouterr().out == "note  hub       far; go\nok    disk      big\nnothing to fix\n"
    found.append(Finding("shm", "fix", "small", "grow it"))
    assert main(["doctor", "--json"]) == 78
    assert json.loads(capsys.readouterr().out)[-1] == {
        "area": "shm", "status": "fix", "message": "small", "remedy": "grow it"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "code", "words"),
    [
        ("doctor", 78, "fix   ltx2      packaging is not installed; pip install . in the project's folder"),
        ("check training.yaml", 78, "is not installed; pip install . in the project's folder, then ltx2 doctor"),
    ],
)
def test_an_installation_without_its_packages_is_named_and_doctor_still_works(tmp_path, verb, code, words):
    # Catches a doctor that needs what it shall find missing.
    hide = f"import sys; sys.modules.update(dict.fromkeys({sorted(INSTALLED_WITH_IT)!r}))"
    program = f"{hide}; from ltx2_operator.cli import main; sys.exit(main({verb.split()!r}))"
    environ = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HOME": str(tmp_path), "KUBECONFIG": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == code and "Traceback" not in done.stderr
    assert words in done.stdout + done.stderr
    if verb == "doctor":
        assert "fix   cluster   yaml is not installed" in done.stdout and f"disk      {tmp_path}: " in done.stdout


def test_the_names_that_the_doctor_repeats_are_those_of_the_resource():
    assert (cluster.GROUP, cluster.PLURAL) == (fields.GROUP, fields.PLURAL)


def test_a_machine_that_has_nothing_is_told_so_and_nothing_is_left_there(tmp_path):
    """The real command, without job, GPU, network, kubeconfig or home."""
    workspace = tmp_path / "w"
    workspace.mkdir()
    environ = {
        "PATH": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HOME": str(tmp_path / "none"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    code = "import sys; sys.executable = '/none/x'; from ltx2_operator.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=workspace,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()[:-1]}
    assert set(said) == {"python", "ltx2", "job", "gpu", "cpu", "memory", "disk", "tmp", "shm", "hub", "cluster"}
    assert {said[area] for area in ("job", "gpu", "hub", "cluster")} == {"note"}
    assert list(workspace.iterdir()) == []
