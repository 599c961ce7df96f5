"""`ltx2 train` in a folder laid out as the guide says: what the page's commands leave behind."""

from __future__ import annotations

import json

import pytest

from checkout import Checkout, Ran
from docpages import ROOT, Command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(checkout: Checkout, outcomes: dict[Command, Ran]) -> Checkout:
    """The checkout after docs/from-the-guide.md."""
    (command,) = {one.text for one in outcomes if one.text.startswith("ltx2 train --")}
    assert "--max_train_steps=4" in command and "--resolution=96" in command
    return checkout


def test_the_flags_stand_above_the_file_and_the_file_above_the_defaults(trained: Checkout) -> None:
    """The run's name is the folder's; 4 steps and 96 come from the flags, rank and warm-up from config.json."""
    run = trained.root / "runs" / trained.root.name
    written = json.loads((ROOT / "configs" / "config.json.example").read_text())
    used = json.loads((run / "config.json").read_text())
    assert json.loads((run / "result.json").read_text())["steps"] == 4 != written["max_train_steps"]
    assert used["resolution"] == 96 != written["resolution"]
    assert used["lr_warmup_steps"] == written["lr_warmup_steps"] == 50
    assert (run / "lora.safetensors").stat().st_size > 0


def test_the_datasets_are_those_of_the_file_that_the_configuration_names(trained: Checkout) -> None:
    run = trained.root / "runs" / trained.root.name
    (dataset,) = json.loads((run / "datasets.json").read_text())
    assert (dataset["id"], dataset["instance_data_dir"]) == ("clips", "datasets/videos")
    report = json.loads((run / "report.json").read_text())
    assert report["clips"]["used"] == 3
