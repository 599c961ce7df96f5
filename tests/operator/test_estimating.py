"""`ltx2 estimate`: rows in groups, the reason in the row, all terms of one class; for what is built and what is not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ltx2_job import estimate as model
from ltx2_operator import gpus, outlook, sizing
from ltx2_operator.cli import main
from ltx2_operator.cli.estimating import case
from ltx2_operator.cli.reading import readable

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
GUIDE = CONFIGS / "guide" / "config-7900xtx.json"
TRAININGS = [CONFIGS / "config.json.example", *sorted(CONFIGS.glob("*.yaml")), *sorted(CONFIGS.glob("cards/*.yaml"))]
FITS, LATER, NONE = "fits, cheapest first", "~ would fit with a plan that is not built yet", "does not fit:"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def manifest(here: Path, spec: dict[str, Any] | None = None, frames: int = 49, **config: Any) -> str:
    clips = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos"}
    body = {
        "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": "fox"},
        "spec": {
            "config": {"max_train_steps": 1000, "pretrained_model_name_or_path": "Lightricks/LTX-2", **config},
            "datasets": [{**clips, "video": {"num_frames": frames, "min_frames": 1}}], **(spec or {}),
        },
    }  # fmt: skip
    (here / "t.yaml").write_text(yaml.safe_dump(body))
    return "t.yaml"


def lines_of(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["estimate", *arguments]) == 0
    return capfd.readouterr().out.splitlines()


def groups(lines: list[str]) -> dict[str, dict[str, str]]:
    """Rows by group and class."""
    found: dict[str, dict[str, str]] = {}
    current = ""
    for line in lines:
        title = next((title for title in (FITS, LATER, NONE) if line.startswith(title)), None)
        if title is not None:
            current = title
        elif current and (words := line.lstrip("*~ ").split()) and words[0] in gpus.BY_NAME:
            found.setdefault(current, {})[words[0]] = line
    return found


def test_every_class_has_one_row_in_its_group_and_the_cheapest_is_marked(here, capfd):
    lines = lines_of(capfd, manifest(here))
    rows = groups(lines)
    names = [name for group in rows.values() for name in group]
    assert sorted(names) == sorted(gpus.BY_NAME)
    assert list(rows) == [FITS, LATER, NONE]
    assert set(rows[NONE]) == {"t4", "v100", "rtx-2080-ti"}
    assert all("does not compute in bf16" in line for line in rows[NONE].values())
    order = [entry.name for entry in gpus.CLASSES]
    for state in (FITS, LATER):
        listed = [name for name in rows[state] if name != "cpu"]
        assert listed == sorted(listed, key=order.index)
    first, *others = rows[FITS].values()
    assert first.startswith("*") and not any(line.startswith("*") for line in others)
    assert all(line.startswith("~") for line in rows[LATER].values())
    assert max(map(len, lines)) <= 120
    heads = lines[0]
    for line in [*rows[FITS].values(), *rows[LATER].values()]:
        for column in ("PLAN", "PEAK", "HOURS", "DISK"):
            assert line[heads.index(column) - 1] == " " != line[heads.index(column)], "columns are aligned"


def test_rows_say_what_the_sizing_says(here, capfd):
    """Mutation caught: a row of another class, stage or plan than what `ltx2 run` would take."""
    path = manifest(here, train_batch_size=2)
    rows = groups(lines_of(capfd, path))
    order, _ = readable(here / path, here)
    asked = (order.training.spec, order.resolved)
    for state, name, line in ((kind, *row) for kind in (FITS, LATER) for row in rows[kind].items()):
        words, cls = line.lstrip("*~ ").split(), gpus.find(name)
        plan = sizing.size(*asked, cls) if state == FITS else sizing.predict(*asked, cls)
        cached = sizing.size(*asked, cls, stage="cache")
        assert words[2:4] == [plan.memory, f"{plan.predicted_peak_bytes / 2**30:.1f}G"]
        if name != "cpu":
            each = float(plan.predicted_seconds_per_step)
            assert words[4] == f"{each:.3g}"
            assert float(words[5]) == pytest.approx(each * 1000 / 3600, rel=0.1)
        host = max(plan.memory_bytes, cached.memory_bytes)
        assert words[6:8] == [f"{host / 2**30:.0f}G", f"{plan.volume_bytes / 2**30:.0f}G"]
        assert line.endswith("on the GPU") == (cached.cache_memory == "device" and name != "cpu")


def test_what_fits_nothing_says_how_much_it_would_need(here, capfd):
    rows = groups(lines_of(capfd, manifest(here, frames=2401, resolution=2048, train_batch_size=8)))
    assert re.search(r"rtx-4090 +int4/streamed:0/keep:0 needs [0-9.]+ GiB, it has 23.3 GiB", rows[NONE]["rtx-4090"])


def test_the_guides_own_file_is_predicted_as_pinned_and_marked(here, capfd):
    """int8, all blocks streamed by ramtorch: every GPU's row is that plan, none of them is said to run."""
    lines = lines_of(capfd, str(GUIDE))
    rows = groups(lines)
    assert set(rows) == {LATER, NONE}
    assert set(rows[LATER]) == {entry.name for entry in gpus.TRAINING}
    assert all(re.search(r" int8/streamed:0/keep:(0|24|48) ", line) for line in rows[LATER].values())
    assert "need a GPU" in rows[NONE]["cpu"]
    assert any("read " in line and "multidatabackend.json instead" in line for line in lines)
    assert any(line.startswith("not supported yet: ramtorch: True") for line in lines)


def test_without_the_data_set_file_beside_it_the_guides_file_says_what_is_missing(here, capfd):
    (here / "config.json").write_text(GUIDE.read_text())
    assert main(["estimate", "config.json"]) == 78
    assert "data_backend_config: cannot read config/ltx2/multidatabackend.json" in capfd.readouterr().err
    (here / "multidatabackend.json").write_text(json.dumps([{"id": "a", "type": "local", "dataset_type": "video",
        "instance_data_dir": "v", "video": {"num_frames": 17, "min_frames": 1}}]))  # fmt: skip
    assert main(["check", "config.json"]) == 78, "a run would not find it either"
    assert main(["estimate", "config.json"]) == 0


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.name)
def test_every_file_that_describes_a_training_gets_its_rows(here, capfd, path):
    rows = groups(lines_of(capfd, str(path)))
    assert set().union(*rows.values()) >= {entry.name for entry in gpus.TRAINING}


def test_a_checkpoint_that_is_not_here_counts_as_its_flavour_and_the_note_says_so(here, capfd):
    lines = lines_of(capfd, manifest(here, pretrained_model_name_or_path="models/mine.safetensors"))
    assert "models/mine.safetensors is not in this workspace: GPU classes are sized for dev" in lines[-1]
    assert "bf16/resident" in groups(lines)[FITS]["h200"]
    assert main(["check", "t.yaml"]) == 66, "a run needs the file itself"
    assert "models/mine.safetensors: the checkpoint is not there" in capfd.readouterr().err


def test_one_class_in_full_adds_up(here, capfd):
    """Mutation caught: a term that is planned with and not shown."""
    text = "\n".join(lines_of(capfd, manifest(here), "--class", "h100-80g"))
    order, _ = readable(here / "t.yaml", here)
    for stage in ("train", "cache"):
        plan = sizing.size(order.training.spec, order.resolved, gpus.find("h100-80g"), stage=stage)
        for term in plan.terms:
            assert re.search(rf"^    {re.escape(term)} +[0-9.]+ (GiB|MiB)$", text, re.MULTILINE), term
        assert f"{plan.predicted_peak_bytes / 2**30:.1f} GiB" in text
        assert f"rounded up: {plan.memory_bytes / 2**30:.1f} GiB" in text
    for word in ("arithmetic", "kernel launches", "copies for a checkpoint", "clips decoded ahead", "/dev/shm 256 MiB",
                 "scratch disk 10.0 GiB", "CPU 6 cores", "downloads", "cached captions", "checkpoints"):  # fmt: skip
        assert word in text, word
    assert "NOT BUILT" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_one_class_that_runs_only_later_says_so_with_the_cache_stages_next_rungs(here, capfd):
    text = "\n".join(lines_of(capfd, manifest(here), "--class", "rtx-4090"))
    assert "train: fp8/streamed:24/keep:0" in text and "NOT BUILT YET" in text
    for word in ("slots", "dequantised", "streamed weights, pinned", "copy of streamed weights"):
        assert word in text, word
    assert re.search(r"not built yet: text encoder in int8, 1[0-9]\.[0-9] GiB on the device, would fit", text)
    assert re.search(r"not built yet: text encoder streamed, [0-9]\.[0-9] GiB on the device, would fit", text)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("h10", "--class: h10 is no GPU class"),
        ("t4", "--class: t4 does not compute"),
        ("auto", "--class: auto is no class by itself; leave it out"),
    ],
)
def test_a_class_that_cannot_be_is_named(here, capfd, name, words):
    assert main(["estimate", manifest(here), "--class", name]) == 78
    assert words in capfd.readouterr().err


def test_a_plan_in_the_manifest_is_predicted_though_it_is_not_built(here, capfd):
    rows = groups(lines_of(capfd, manifest(here, {"memory": "int8/streamed:12/keep:0"})))
    assert set(rows) == {LATER, NONE} and " int8/streamed:12/keep:0 " in rows[LATER]["rtx-3090"]
    rows = groups(lines_of(capfd, manifest(here, {"memory": "bf16/resident/keep:0"})))
    assert "does not go with this run" in rows[NONE]["cpu"] and "bf16/resident/keep:0" in rows[FITS]["h200"]


def test_outlook_never_calls_a_plan_that_is_not_built_ready(here):
    order, _ = readable(here / manifest(here), here)

    for entry in gpus.CLASSES:
        one = outlook.outlook(case(order, entry))
        assert (one.train is None) == (one.state == "no")
        if one.train is not None:
            assert model.PlanName.parse(one.train.memory).built == (one.state == "now")
