"""docs/cluster.md on a real cluster: its manifest and its commands, in its order."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from cluster.installed import Installed
from docpages import ROOT, commands

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("job_image")]

PAGE = ROOT / "docs" / "cluster.md"
MANIFEST = ROOT / "configs" / "cluster-quickstart.yaml"


def shown(words: str) -> str:
    """The one command of the page that begins with these words; another page is another test."""
    (found,) = (one.text for one in commands(PAGE) if one.text.startswith(words))
    return found


def typed(text: str, folder: Path, kubeconfig: Path, namespace: str) -> str:
    """What a command of `ltx2` prints. Raises AssertionError if it fails."""
    program, *words = text.split()
    command = [str(Path(sys.executable).with_name(program)), *words, "-n", namespace, "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_an_empty_claim_to_the_lora(operator: Installed, restricted: str, inputs: Path, tmp_path: Path) -> None:
    kubectl, there = operator.kubectl, ("-n", restricted)
    assert shown("kubectl apply -f configs/").endswith(str(MANIFEST.relative_to(ROOT)))
    kubectl("apply", *there, "-f", str(MANIFEST))
    operator.wait_for(lambda: operator.status("fox", restricted).get("reason") == "WaitingForData", "WaitingForData")

    ltx2 = partial(typed, folder=tmp_path, kubeconfig=operator.kubeconfig, namespace=restricted)
    (tmp_path / "demo").symlink_to(inputs)
    ltx2(shown("ltx2 upload demo/datasets/videos"))
    ltx2(shown("ltx2 upload demo/models"))
    # Both stages in full, beside whatever else two cores do.
    operator.wait_for(lambda: operator.status("fox", restricted).get("state") == "Succeeded", "Succeeded", most=300)

    assert "LoRA: fox/lora.safetensors" in ltx2(shown("ltx2 fetch fox"))
    steps = yaml.safe_load(MANIFEST.read_text())["spec"]["config"]["max_train_steps"]
    assert json.loads((tmp_path / "fox" / "result.json").read_text())["steps"] == steps
    assert any(value.abs().max() > 0 for value in load_file(tmp_path / "fox" / "lora.safetensors").values())

    kubectl("delete", *there, "ltx2", "fox")
    assert operator.names("persistentvolumeclaims", restricted) == ["fox-data"]
    (row,) = [line.split() for line in ltx2(shown("ltx2 ls --claim fox-data")).splitlines()[1:]]
    assert row[:3] == ["fox", "Succeeded", f"{steps}/{steps}"]
    assert f"Completed at step {steps}: done (exit code 0)" in ltx2(shown("ltx2 ls fox --claim fox-data"))
    kubectl("apply", *there, "-f", str(MANIFEST))
    said = operator.condition("fox", restricted, "Succeeded")["message"]
    assert "finished before" in said
    assert not any("train" in name for name in operator.names("jobs", restricted))
