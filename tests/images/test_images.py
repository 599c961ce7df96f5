"""What the built images hold and how they run: as a restricted pod does, without network, on a read-only root."""

import os
import re
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.harness.base_image import NAME as BASE_IMAGE
from cluster.harness.build_images import ROOT, build
from cluster.harness.podman import inspect, mounted, podman, run
from ltx2_operator import __version__

# With those on nodes, which run these images: some are built here with a change.
pytestmark = [pytest.mark.cluster, pytest.mark.nodes, pytest.mark.slow]

UID = 65532
LTX2 = str(Path(sys.executable).parent / "ltx2")
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def size(text: str) -> float:
    """MB of podman's own words: 3.34 MB."""
    number, unit = text.split()
    return float(number) * {"B": 1e-6, "kB": 1e-3, "MB": 1, "GB": 1e3}[unit]


def packages(folder: Path) -> Path:
    return folder / "opt" / "ltx2" / "lib" / "python3.12" / "site-packages"


def test_it_runs_as_nobody_who_may_write(image: str) -> None:
    probe = """
import os, pathlib, pwd
print(os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_name, os.environ["HOME"])
for folder in ("/", "/opt/ltx2", "/usr/local/lib", "/workspace", "/var/tmp", "/etc", "/tmp"):
    try:
        (pathlib.Path(folder) / "probe").write_text("x")
        print("wrote", folder)
    except OSError:
        pass
"""
    done = run(image, "python", "-c", probe)
    assert done.stdout.splitlines() == [f"{UID} {UID} nonroot /tmp", "wrote /tmp"], done.stderr


def test_nothing_in_it_belongs_to_its_user(image: str) -> None:
    """Nor may everybody write to it: a read-only root is a second lock, not the only one."""
    loose = []
    with mounted(image) as root:
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = Path(folder) / name
                known = path.lstat()
                if not stat.S_ISREG(known.st_mode) and not stat.S_ISDIR(known.st_mode):
                    continue
                writable = known.st_mode & stat.S_IWOTH and not known.st_mode & stat.S_ISVTX
                if known.st_uid == UID or writable:
                    loose.append(str(path.relative_to(root)))
    assert loose == ["workspace"], loose[:20]


@pytest.mark.parametrize("command", [("ltx2", "--help"), ("ltx2", "gpus"), ("ltx2-job", "--help")])
def test_its_commands_are_on_the_path(image: str, command: tuple[str, ...]) -> None:
    done = run(image, *command)
    assert done.returncode == 0, done.stderr
    assert ("h100" if "gpus" in command else "usage:") in done.stdout


def test_the_operator_reads_a_manifest_and_holds_no_torch(operator_image: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "my-style.yaml", tmp_path / "training.yaml")
    tmp_path.chmod(0o755)
    done = run(
        operator_image, "ltx2", "render", "/workspace/training.yaml", options=(f"--volume={tmp_path}:/workspace:ro",)
    )
    assert done.returncode == 0, done.stderr
    assert {each["kind"] for each in yaml.safe_load_all(done.stdout)} >= {"Job", "ConfigMap"}
    for name in ("torch", "diffusers", "transformers", "av", "numpy"):
        done = run(operator_image, "python", "-c", f"import {name}")
        assert f"No module named '{name}'" in done.stderr


def test_the_job_has_every_library_and_its_codecs(cpu_image: str) -> None:
    names = "torch, diffusers, transformers, peft, accelerate, safetensors, av, numpy, sentencepiece, matplotlib"
    done = run(cpu_image, "python", "-c", f"import {names}; print(torch.ones(3).sum().item())")
    assert done.stdout.strip() == "3.0", done.stderr
    assert '"av"' in run(cpu_image, "ltx2-job", "facts").stdout


def test_labels(image: str) -> None:
    labels = inspect(image)["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"]


def test_its_user_is_a_number(image: str) -> None:
    """runAsNonRoot cannot be checked for a name."""
    assert inspect(image)["Config"]["User"] == f"{UID}:{UID}"


def test_the_code_is_the_last_small_layer(image: str) -> None:
    layers = [size(line) for line in podman("history", "--format", "{{.Size}}", image).splitlines()]
    last = next(layer for layer in layers if layer > 0)
    assert 0.5 < last < 5, layers
    assert max(layers) > 50


def test_every_module_is_compiled(image: str) -> None:
    """A stale or missing file would be compiled by every pod at every start: half a minute for a job."""
    missing = []
    with mounted(image) as root:
        for source in packages(root).rglob("*.py"):
            known = source.stat()
            compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-312.pyc"
            wanted = struct.pack("<III", 0, int(known.st_mtime) & 0xFFFFFFFF, known.st_size)
            if not compiled.exists() or compiled.read_bytes()[4:16] != wanted:
                missing.append(source)
        real = [source for source in missing if _compiles(source)]
    assert not real, (len(real), real[:5])


def _compiles(source: Path) -> bool:
    """Whether it is a module at all: some packages ship templates under that suffix."""
    try:
        compile(source.read_bytes(), source, "exec")
    except SyntaxError:
        return False
    return True


def test_no_cache_no_secret_and_no_checkout_is_left_in_it(image: str) -> None:
    with mounted(image) as root:
        assert not list((root / "root").glob(".cache")) and not list((root / "tmp").iterdir())
        assert not (root / "build").exists() and not (root / "wheels").exists()
        assert not list((root / "run").rglob("*.*")) and not (root / "run" / "secrets" / "ca").exists()
        names = {path.name for path in packages(root).glob("ltx2*")}
        assert names == {"ltx2_operator", "ltx2_job", f"ltx2_operator-{__version__}.dist-info"}
        bundle = (root / "etc" / "ssl" / "certs" / "ca-certificates.crt").read_bytes()
    if not os.environ.get("TEST_BASE_IMAGE"):
        with mounted(BASE_IMAGE) as base:
            assert bundle == (base / "etc" / "ssl" / "certs" / "ca-certificates.crt").read_bytes()
    environment = {entry.partition("=")[0] for entry in inspect(image)["Config"]["Env"]}
    assert not [name for name in environment if re.search(r"(?i)token|secret|proxy|cert|index", name)], environment


def copy_of_the_context(folder: Path) -> Path:
    for name in (".dockerignore", "Dockerfile", "pyproject.toml", "uv.lock", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    for name in ("images", "operator", "job"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def layers(image: str) -> list[str]:
    found: list[str] = inspect(image)["RootFS"]["Layers"]
    return found


@pytest.mark.parametrize("target", ["operator", "job-cpu"])
def test_a_change_of_the_code_or_of_tools_changes_the_last_layer_only(
    target: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    before = layers(request.getfixturevalue("operator_image" if target == "operator" else "cpu_image"))
    context = copy_of_the_context(tmp_path)
    code = context / "operator" / "ltx2_operator" / "__init__.py"
    code.write_text(code.read_text() + "# changed\n")
    project = context / "pyproject.toml"
    project.write_text(project.read_text() + "\n# another setting of a tool\n")
    changed = build(target, tag="changed", context=context)
    try:
        after = layers(changed)
        assert after[:-1] == before[:-1] and after[-1] != before[-1]
        where = "/opt/ltx2/lib/python3.12/site-packages/ltx2_operator/__init__.py"
        assert run(changed, "tail", "-n", "1", where).stdout == "# changed\n"
    finally:
        podman("rmi", "--force", changed)


@pytest.fixture
def workspace(tmp_path: Path, real_clips: Path, tiny20: Path) -> Path:
    """What a volume of a cluster holds before the quick start: clips and a tiny model, owned by the images' user."""
    folder = tmp_path / "workspace"
    shutil.copytree(real_clips, folder / "datasets" / "videos")
    shutil.copytree(tiny20.parent, folder / "models")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID)
    return folder


def rendered(workspace: Path) -> list[dict[str, Any]]:
    """The quick start's objects as a cluster would get them, with two steps and no validation."""
    manifest = yaml.safe_load(QUICKSTART.read_text())
    manifest["spec"]["config"].update(max_train_steps=2, lr_warmup_steps=0, validation_disable=True)
    file = workspace.parent / "training.yaml"
    file.write_text(yaml.safe_dump(manifest))
    command = [LTX2, "render", str(file), "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def as_a_container(pod: dict[str, Any], workspace: Path, files: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A rendered pod as options of podman and a command line."""
    (container,) = pod["containers"]
    user = pod["securityContext"]
    options = [f"--user={user['runAsUser']}:{user['runAsGroup']}", "--shm-size=256m"]
    options += [f"--volume={workspace}:/workspace", f"--volume={files}:/etc/ltx2:ro"]
    values = {entry["name"]: entry.get("value", "pod") for entry in container["env"]}
    values["LTX2JOB_TERMINATION_LOG"] = "/tmp/termination-log"  # a kubelet mounts the file of the template
    options += [f"--env={name}={value}" for name, value in values.items()]
    return tuple(options), (*container["command"], *container["args"])


@pytest.mark.full
def test_the_pods_of_the_quick_start_train_in_it(cpu_image: str, workspace: Path) -> None:
    objects = rendered(workspace)
    config = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
    jobs = [each for each in objects if each["kind"] == "Job"]
    assert len(jobs) == 2
    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        (named,) = (each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each)
        files = workspace.parent / named
        files.mkdir()
        for name, text in config[named].items():
            (files / name).write_text(text)
        options, command = as_a_container(pod, workspace, files)
        done = run(cpu_image, *command, options=options)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    lora = workspace / "runs" / "quickstart" / "lora.safetensors"
    assert lora.stat().st_uid == UID
    alone = workspace.parent / "alone"
    shutil.copytree(workspace / "datasets", alone / "datasets")
    shutil.copytree(workspace / "models", alone / "models")
    command = [LTX2, "run", str(workspace.parent / "training.yaml"), "--workspace", str(alone)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert lora.read_bytes() == (alone / "runs" / "quickstart" / "lora.safetensors").read_bytes()
