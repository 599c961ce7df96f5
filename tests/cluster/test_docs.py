"""docs/cluster.md on a real cluster: its manifest, its pod that fills the claim, its commands, in its order."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from cluster.installed import Installed
from docpages import ROOT, blocks, commands

pytestmark = pytest.mark.cluster

PAGE = ROOT / "docs" / "cluster.md"
MANIFEST = ROOT / "configs" / "cluster-quickstart.yaml"


def loader() -> dict[str, Any]:
    """The pod that the page writes down."""
    (found,) = (
        dict(body)
        for block in blocks(PAGE)
        if block.language == "yaml"
        for body in yaml.safe_load_all("\n".join(block.lines))
        if body.get("kind") == "Pod"
    )
    return found


def shown(words: str) -> str:
    """The one command of the page that begins with these words; another page is another test."""
    (found,) = (one.text for one in commands(PAGE) if one.text.startswith(words))
    return found


def test_from_an_empty_claim_to_the_lora(operator: Installed, restricted: str, inputs: Path, tmp_path: Path) -> None:
    kubectl, there = operator.kubectl, ("-n", restricted)
    assert shown("kubectl apply -f configs/").endswith(str(MANIFEST.relative_to(ROOT)))
    kubectl("apply", *there, "-f", str(MANIFEST))
    operator.wait_for(lambda: operator.status("fox", restricted).get("reason") == "WaitingForData", "WaitingForData")

    kubectl("apply", *there, "-f", "-", manifest=loader())
    kubectl("wait", *there, "pod/loader", "--for=condition=Ready", "--timeout=120s")
    for folder in ("datasets", "models"):
        assert shown(f"kubectl cp demo/{folder}").endswith(f"demo/{folder} loader:/workspace/")
        kubectl("cp", *there, str(inputs / folder), "loader:/workspace/")
    assert "ltx2.dev/data-uploaded=" in shown("kubectl annotate ltx2 fox")
    kubectl("annotate", *there, "ltx2", "fox", "ltx2.dev/data-uploaded=now", "--overwrite")
    # Both stages in full, beside whatever else two cores do.
    operator.wait_for(lambda: operator.status("fox", restricted).get("state") == "Succeeded", "Succeeded", most=300)

    assert shown("kubectl cp loader:").endswith("loader:/workspace/runs/fox fox")
    kubectl("cp", *there, "loader:/workspace/runs/fox", str(tmp_path / "fox"))
    kubectl("delete", *there, "pod", "loader", "--now")
    steps = yaml.safe_load(MANIFEST.read_text())["spec"]["config"]["max_train_steps"]
    assert json.loads((tmp_path / "fox" / "result.json").read_text())["steps"] == steps
    assert any(value.abs().max() > 0 for value in load_file(tmp_path / "fox" / "lora.safetensors").values())

    kubectl("delete", *there, "ltx2", "fox")
    assert operator.names("pvc", restricted) == ["fox-data"]
    kubectl("apply", *there, "-f", str(MANIFEST))
    said = operator.condition("fox", restricted, "Succeeded")["message"]
    assert "finished before" in said
    assert not any("train" in name for name in operator.names("job", restricted))
