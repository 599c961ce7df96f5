"""The files that users copy: each is valid, estimated, rendered where it runs now, and says what the product says."""

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ltx2_job import estimate
from ltx2_operator import gpus
from ltx2_operator.cli import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
CARDS = sorted((CONFIGS / "cards").glob("*.yaml"))
MANIFESTS = [*sorted(CONFIGS.glob("*.yaml")), *CARDS]
PAGE = (ROOT / "docs" / "performance.md").read_text()
LATER = {"rtx-3090", "rtx-4090", "rtx-5090", "rx-7900-xtx", "a100-40g"}


@pytest.fixture(scope="module")
def predictions() -> ModuleType:
    """scripts/predictions.py."""
    spec = importlib.util.spec_from_file_location("predictions", ROOT / "scripts" / "predictions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def body(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def test_there_is_a_file_for_every_card_that_people_pick() -> None:
    assert {path.stem for path in CARDS} == {
        *LATER, "l40s", "a40", "rtx-a6000", "rtx-6000-ada", "radeon-pro-w7900", "mi210", "mi250x", "a100-80g",
        "h100-80g", "h100-nvl", "rtx-pro-6000", "h200", "b200", "mi300x", "mi325x",
    }  # fmt: skip


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_each_file_is_estimated_with_a_row_per_class(here, capfd, path: Path) -> None:
    shutil.copy(path, here / "t.yaml")
    assert main(["estimate", "t.yaml"]) == 0
    lines = capfd.readouterr().out.splitlines()
    rows = [line.lstrip("*~ ").split()[0] for line in lines if line[:3] in ("*  ", "~  ", "   ")]
    assert sorted(rows) == sorted(["CLASS", *gpus.BY_NAME])
    assert max(len(line) for line in lines if not line.startswith(("not supported yet", "corrected"))) <= 120


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_each_file_runs_or_says_in_its_first_line_that_it_does_not_yet(here, capfd, path: Path) -> None:
    shutil.copy(path, here / "t.yaml")
    (here / "models").mkdir()
    head = path.read_text().splitlines()[0]
    later = path.stem in LATER
    assert head.startswith("# NOT YET: `ltx2 run` refuses this file") == later
    if path.stem in ("quickstart", "cluster-quickstart", "object-store"):
        return  # tests/end_to_end and tests/cluster run them
    code = main(["check", "t.yaml"])
    out, err = capfd.readouterr()
    assert code == (78 if later else 0), out + err
    assert ("not supported yet: base_model_precision" in out) == later
    code = main(["render", "t.yaml"])
    out, err = capfd.readouterr()
    if later:
        assert code == 78 and "not supported yet" in err
        assert main(["run", "t.yaml"]) == 78
        assert sorted(one.name for one in here.iterdir()) == ["models", "t.yaml"], "nothing is left behind"
        return
    assert code == 0, err
    jobs = [one for one in yaml.safe_load_all(out) if one and one["kind"] == "Job"]
    asked = gpus.find(body(path)["spec"]["gpu"]["class"])
    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"][asked.resource] == "1"
        terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert terms == asked.affinity_terms()
    assert jobs


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_comments_predict_what_the_product_predicts(predictions, path: Path) -> None:
    """Mutation caught: a figure in a comment that a changed model leaves behind."""
    text = path.read_text()
    assert text == predictions.with_comment(text, predictions.comment(path)), "run: make generate"
    _, answer = predictions.look(path)
    assert answer.cls.name == path.stem and answer.train is not None
    assert answer.state == ("later" if path.stem in LATER else "now")
    assert f"peak {answer.train.predicted_peak_bytes / 2**30:.1f} GiB of " in text
    assert answer.train.memory in text
    size = re.fullmatch(r"(\d+)Gi", body(path)["spec"]["storage"]["size"])
    assert size is not None and int(size[1]) * 2**30 >= answer.train.volume_bytes


def test_a_stale_comment_and_a_stale_table_are_seen(predictions) -> None:
    path = CARDS[0]
    stale = path.read_text().replace("peak ", "peak 1")
    assert predictions.with_comment(stale, predictions.comment(path)) == path.read_text() != stale
    changed = re.sub(r"\d\d\.\d GiB", "99.9 GiB", PAGE)
    assert changed != PAGE and "| 99.9 GiB |" not in predictions.with_tables(changed)


def test_the_tables_of_the_page_are_those_of_the_product(predictions) -> None:
    assert predictions.with_tables(PAGE) == PAGE, "run: make generate"
    for name, table in predictions.tables().items():
        assert f"<!-- {name}:begin -->\n{table}\n<!-- {name}:end -->" in PAGE
    for figure in ("~13 GB, ~16 s/step", "29-30 GB", "~48 GB, ~8 s/step", "34 GB", "46 GB"):
        assert figure in PAGE, "the guide's own figures stand beside ours"


def test_the_quick_start_shows_the_same_cards(predictions) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    assert predictions.with_tables(page) == page, "run: make generate"
    assert predictions.tables()["cards"] in page


def test_the_page_explains_every_term_and_figure_that_is_planned_with() -> None:
    model, clip = estimate.known_model("2.0"), estimate.shape(768, 512, 49)
    for form, resident in (("bf16", None), ("int8", 0)):
        terms = estimate.training_terms(model, clip, form=form, keep=24, rank=16, resident=resident)
        terms |= estimate.validation_terms(model, clip, form=form, rank=16, resident=resident)
        for name in terms:
            assert all(part in PAGE for part in name.split(", ")), name
    table = estimate.constants()
    for group, name in (
        ("activations", "token_bytes_per_width"), ("activations", "text_bytes_per_width"),
        ("activations", "gradient_bytes_per_width"), ("device", "vae_bytes_per_pixel"),
        ("time", "eager_seconds_per_block_pass"), ("time", "quantised_launches"), ("time", "fp8_speedup"),
        ("time", "matmul_fraction"),
    ):  # fmt: skip
        assert f"{table[group][name]['value']:g}" in PAGE, (group, name)
