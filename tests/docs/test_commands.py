"""Every command that the pages show is run and prints what they show, or says truthfully why it is not run."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from checkout import Checkout, Ran
from docpages import ROOT, SHELL, Command, Mark, blocks, commands, pages
from ltx2_operator.machine import detect

COMMANDS = [command for page in pages() for command in commands(page)]
RUN = [command for command in COMMANDS if command.mark is None]
MARKED = [command for command in COMMANDS if command.mark is not None]
# Programs that may stand in a shell block; one that is new here is looked at before it is run by every test.
KNOWN = {
    "ltx2", "ltx2-job", "make", "python", "pip", "apt-get", "kubectl", "helm", "hf", "docker", "podman",
    "cp", "mkdir", "ls", "cat", "cd", "source",
}  # fmt: skip
# What kubectl and helm do without an API server.
OFFLINE = re.compile(r"(kubectl kustomize|helm (template|lint|package|show|dependency|version))\b")
ON_A_CLUSTER = re.compile(r"ltx2 (upload|fetch|retry|ls( \w+)? --claim)\b")
INSTALLERS = re.compile(r"(pip install|make setup|apt-get install)\b")
LONG = re.compile(
    r"(make (test|test-[a-z]+|lint|cluster|cluster-down|images)|python benchmarks/[a-z_]+\.py|(docker|podman) build)\b"
)
ONLY_ON_A_GPU = "not on this machine: spec.gpu.class"


def name(command: Command) -> str:
    return f"{command.where} {command.text[:60]}"


@pytest.fixture(scope="module")
def no_gpu() -> None:
    if detect():
        pytest.skip("this machine has a GPU: what needs one would run")


def test_the_pages_have_commands_of_each_kind() -> None:
    """A harness that finds nothing passes everything."""
    assert len(RUN) >= 20 and {command.mark for command in MARKED} >= {Mark.GPU, Mark.CLUSTER, Mark.INSTALLS}
    assert {command.page.name for command in RUN} >= {"README.md", "quickstart.md", "from-the-guide.md"}


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_its_program_is_known(command: Command) -> None:
    assert command.program in KNOWN, f"{command.where}: {command.program}: not one of {sorted(KNOWN)}"


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=name)
def test_it_runs(command: Command, outcomes: dict[Command, Ran]) -> None:
    ran = outcomes[command]
    good: tuple[int, ...] = (0,)
    if command.text == "ltx2 doctor":  # it may find something to fix on this machine
        good = (0, 78)
    elif command.shown and command.shown[-1].endswith(": cannot run as it stands"):  # the page says so
        good = (78,)
    assert ran.code in good, f"{command.where}: {command.text}\nexit code {ran.code}\n{ran.output}"


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in RUN if command.shown], ids=name)
def test_it_prints_what_the_page_shows(command: Command, outcomes: dict[Command, Ran]) -> None:
    printed = outcomes[command].output
    missing = first_difference(command.shown, printed)
    assert missing is None, f"{command.where}: {command.text}\nshown:   {missing}\nprinted:\n{printed}"


def first_difference(shown: tuple[str, ...], printed: str) -> str | None:
    """The first shown line that is not printed in its place, None if all are.

    Numbers may differ; `…` in a line stands for any text, as a line of its own for any lines.
    """
    lines, free = [_plain(line) for line in printed.splitlines()], False
    at = 0
    for line in shown:
        if line.strip() in ("", "…"):
            free = free or line.strip() == "…"
            continue
        pattern = re.compile(".*".join(map(re.escape, _plain(line).split("…"))))
        where = range(at, len(lines)) if free else range(at, min(at + 1, len(lines)))
        found = next((number for number in where if pattern.fullmatch(lines[number])), None)
        if found is None:
            return line
        at, free = found + 1, False
    return None


def _plain(line: str) -> str:
    line = re.sub(r"(/[^\s:]*)?/ltx2-operator/", "", line)
    return " ".join(re.sub(r"\d+(?:[.,]\d+)*", "#", line).split())


def test_the_comparison_sees_a_difference() -> None:
    printed = "a: 12 clips\nb: 3.5 s\n\nc: done\n"
    assert first_difference(("a: 7 clips", "b: 1 s", "c: done"), printed.replace("\n\n", "\n")) is None
    assert first_difference(("a: 7 clips", "…", "c: …"), printed) is None
    assert first_difference(("a: 7 clips", "c: done"), printed) == "c: done"
    assert first_difference(("a: 7 videos",), printed) == "a: 7 videos"
    assert first_difference(("…", "d: done"), printed) == "d: done"


@pytest.mark.parametrize("command", [one for one in MARKED if one.mark is not Mark.GPU], ids=name)
def test_its_mark_is_true(command: Command) -> None:
    """A mark is no way round: a command that could be run here must be."""
    text = command.text
    true = {
        Mark.CLUSTER: (command.program in ("kubectl", "helm") and not OFFLINE.match(text)) or ON_A_CLUSTER.match(text),
        Mark.LOGIN: re.match(r"(hf (auth login|download)|wandb login)\b", text),
        Mark.INSTALLS: INSTALLERS.match(text),
        Mark.MINUTES: LONG.match(text),
    }
    assert true[command.mark], f"{command.where}: {text} could be run here; remove the mark {command.mark.value!r}"


@pytest.mark.slow
@pytest.mark.parametrize("command", [one for one in MARKED if one.mark is Mark.GPU], ids=name)
def test_what_needs_a_gpu_says_so_without_one(command: Command, checkout: Checkout, no_gpu: None) -> None:
    """Run without a GPU it fails for that reason; what would compute for hours instead has a twin that is run."""
    if (verb := _verb(command.text)) in ("generate", "validate"):
        twins = [one for one in RUN if _verb(one.text) == verb and _options(one.text) >= _options(command.text)]
        assert twins, f"{command.where}: no page runs `ltx2 {verb}` with {sorted(_options(command.text))}"
        return
    file = next((word for word in command.text.split()[2:] if not word.startswith("-")), "config/config.json")
    ran, looked = checkout.run(command.text), checkout.run(f"ltx2 check {file}")
    assert ran.code != 0 and ONLY_ON_A_GPU in looked.output, f"{command.where}: {command.text}\n{looked.output}"


def _verb(text: str) -> str:
    return text.split()[1]


def _options(text: str) -> set[str]:
    return set(re.findall(r"(?<=\s)--[a-z-]+", text))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_it_installs_exists(page: Path) -> None:
    """The extras of every `pip install '.[...]'`, in blocks and in the text, stand in pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"pip install '\.\[([^\]]+)\]'", page.read_text()))
    assert named <= set(extras), named - set(extras)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.program in ("make", "python")], ids=name)
def test_targets_and_scripts_exist(command: Command) -> None:
    words = command.text.split()
    if command.program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), command.where
    elif words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), command.where


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_command_hides_in_a_block_of_another_language(page: Path) -> None:
    hidden = [
        f"{page.name}:{number}: {line}"
        for block in blocks(page)
        if block.language not in SHELL
        for number, line in enumerate(block.lines, block.line)
        if re.match(r"(\$ )?(ltx2|ltx2-job|kubectl|helm|make|pip|python) ", line)
    ]
    assert not hidden, hidden


@pytest.fixture(scope="module")
def trained(checkout: Checkout, outcomes: dict[Command, Ran]) -> Checkout:
    """The checkout after docs/from-the-guide.md: `ltx2 train` in a folder laid out as the guide says."""
    (command,) = {one.text for one in outcomes if one.text.startswith("ltx2 train --")}
    assert "--max_train_steps=4" in command and "--resolution=96" in command
    return checkout


@pytest.mark.slow
def test_the_flags_stand_above_the_file_and_the_file_above_the_defaults(trained: Checkout) -> None:
    """The run's folder, 4 steps and 96 come from the flags, the warm-up from config.json."""
    run = trained.root / "output" / "tiny"
    written = json.loads((ROOT / "configs" / "config.json.example").read_text())
    used = json.loads((run / "config.json").read_text())
    assert json.loads((run / "result.json").read_text())["steps"] == 4 != written["max_train_steps"]
    assert used["resolution"] == 96 != written["resolution"]
    assert used["lr_warmup_steps"] == written["lr_warmup_steps"] == 50
    assert (run / "lora.safetensors").stat().st_size > 0


@pytest.mark.slow
def test_the_datasets_are_those_of_the_file_that_the_configuration_names(trained: Checkout) -> None:
    run = trained.root / "output" / "tiny"
    (dataset,) = json.loads((run / "datasets.json").read_text())
    assert (dataset["id"], dataset["instance_data_dir"]) == ("clips", "datasets/videos")
    report = json.loads((run / "report.json").read_text())
    assert report["clips"]["used"] == 3
