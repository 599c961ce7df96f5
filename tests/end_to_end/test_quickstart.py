"""The README's promise as tests: one manifest, run by the shipped command, trains; and its numbers are true."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LTX2 = str(Path(sys.executable).parent / "ltx2")
MANIFEST = ROOT / "configs" / "quickstart.yaml"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, real_clips: Path, tiny20: Path) -> Path:
    """What `make demo` prepares: three real clips with captions and a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(real_clips, folder / "datasets" / "videos")
    shutil.copytree(tiny20.parent, folder / "models")
    (folder / "datasets" / "sounding").mkdir()
    for suffix in (".mp4", ".txt"):
        shutil.copy(real_clips / f"bigbuckbunny{suffix}", folder / "datasets" / "sounding")
    return folder


@pytest.fixture(scope="module")
def quickstart(workspace: Path) -> subprocess.CompletedProcess[str]:
    """`ltx2 run configs/quickstart.yaml`, once for all tests here."""
    return ltx2("run", MANIFEST, "--workspace", workspace)


def ltx2(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the shipped command as a user does; fails with all it printed if the exit code is another."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LTX2")}
    done = subprocess.run(
        [LTX2, *map(str, arguments)],
        text=True, capture_output=True, env=environment | {"OMP_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def changed(folder: Path, name: str, **keys: Any) -> Path:
    """The quick start under another name, with other configuration keys; validation off."""
    manifest = yaml.safe_load(MANIFEST.read_text())
    manifest["metadata"]["name"] = name
    if (clips := keys.pop("clips", None)) is not None:
        manifest["spec"]["datasets"][0]["instance_data_dir"] = clips
    manifest["spec"]["config"].update({"validation_disable": True} | keys)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(manifest))
    return path


def result(workspace: Path, name: str) -> dict[str, Any]:
    return json.loads((workspace / "runs" / name / "result.json").read_text())


def test_the_quick_start_learns(workspace: Path, quickstart: subprocess.CompletedProcess[str]) -> None:
    losses = result(workspace, "quickstart")["heldOutLoss"]
    assert losses["end"] < 0.95 * losses["start"], losses
    for word in ("held-out", "lora.safetensors", "metrics", "kubectl apply"):
        assert word in quickstart.stdout, quickstart.stdout


def test_it_leaves_every_file_of_the_layout(workspace: Path, quickstart: subprocess.CompletedProcess[str]) -> None:
    run = workspace / "runs" / "quickstart"
    names = {
        "lora.safetensors", "lora.diffusers.safetensors", "loss.png", "metrics.jsonl", "log.txt", "report.json",
        "config.json", "datasets.json", "plan.json", "index.json", "attempt", "result.json",
    }  # fmt: skip
    assert names <= {path.name for path in run.iterdir()}
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in sorted((run / "checkpoints").iterdir())][-1] == "step-0000060"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == list(range(1, 61))
    report = json.loads((run / "report.json").read_text())
    assert (report["clips"]["found"], report["clips"]["used"], report["clips"]["sounding"]) == (3, 3, 1)
    assert json.loads((run / "attempts" / "1.json").read_text())["exitCode"] == 0


def test_the_validation_video_has_pictures_and_sound(
    workspace: Path, quickstart: subprocess.CompletedProcess[str]
) -> None:
    (film,) = (workspace / "runs" / "quickstart" / "validation").glob("step-0000060/*.mp4")
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(film)) as container:
        sound = [frame.to_ndarray() for frame in container.decode(audio=0)]
    assert len(frames) == 17 and frames[0].shape == (96, 160, 3)
    assert frames[0].std() > 1 and sum(abs(part).sum() for part in sound) > 0


def test_running_again_says_so_and_trains_nothing(
    workspace: Path, quickstart: subprocess.CompletedProcess[str]
) -> None:
    lora = workspace / "runs" / "quickstart" / "lora.safetensors"
    before = lora.stat().st_mtime_ns
    again = ltx2("run", MANIFEST, "--workspace", workspace)
    assert "finished" in again.stdout and "step 1/60" not in again.stdout
    assert lora.stat().st_mtime_ns == before


def test_without_a_learning_rate_nothing_is_learnt(workspace: Path, tmp_path: Path) -> None:
    """The witness of the test above: the held-out loss falls by training, by nothing else."""
    ltx2("run", changed(tmp_path, "flat", learning_rate=0, max_train_steps=20), "--workspace", workspace)
    losses = result(workspace, "flat")["heldOutLoss"]
    assert losses["end"] == losses["start"]


def test_stock_diffusers_finds_the_same_loss_in_the_exported_files(workspace: Path, tmp_path: Path) -> None:
    """A second process, sharing no code, from the files alone; alpha is twice the rank, so that a lost alpha shows."""
    manifest = changed(tmp_path, "sounding", clips="datasets/sounding", lora_rank=8, lora_alpha=16, max_train_steps=20)
    ltx2("run", manifest, "--workspace", workspace)
    run = workspace / "runs" / "sounding"
    script = Path(__file__).with_name("recompute.py")
    done = subprocess.run(
        [sys.executable, script, workspace / "models" / "ltx-2-tiny.safetensors", run, "42"],
        text=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, told = json.loads(done.stdout.splitlines()[-1]), result(workspace, "sounding")["heldOutLoss"]
    assert found["base"] == pytest.approx(told["start"], rel=1e-5)
    assert found["official"] == pytest.approx(told["end"], rel=1e-5)
    assert found["diffusers"] == pytest.approx(told["end"], rel=1e-5)
    assert told["end"] < 0.95 * told["start"]


def test_what_render_prints_gives_the_same_lora(workspace: Path, tmp_path: Path) -> None:
    """The rendered YAML, run by itself, and the manifest, run by name: the same bytes. Another step count: others."""
    manifest = changed(tmp_path, "twice", max_train_steps=6)
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(ltx2("render", manifest, "--workspace", workspace).stdout)
    ltx2("run", rendered, "--workspace", workspace)
    lora = workspace / "runs" / "twice" / "lora.safetensors"
    from_rendered = lora.read_bytes()
    shutil.rmtree(lora.parent)
    ltx2("run", manifest, "--workspace", workspace)
    assert lora.read_bytes() == from_rendered
    shutil.rmtree(lora.parent)
    ltx2("run", changed(tmp_path, "twice", max_train_steps=7), "--workspace", workspace)
    assert lora.read_bytes() != from_rendered
