"""What the pages refer to is there: links, verbs and flags in the text, JSON and YAML examples, files of configs/."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
import yaml

from docpages import ROOT, anchors, blocks, inline_code, links, pages, prose
from ltx2_job import cli as job_cli
from ltx2_job.config import TrainingConfig, resolve
from ltx2_job.metrics import Metrics
from ltx2_operator import cli
from ltx2_operator.api import not_supported_yet, parse

EVERY_PAGE = pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
MENTIONS = [
    (f"{page.relative_to(ROOT)}:{line}", code)
    for page in pages()
    for line, code in inline_code(page)
    if re.match(r"(ltx2|ltx2-job) \S", code)
]
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*") if path.is_file() and "crd" not in path.parts)


@EVERY_PAGE
def test_its_links_lead_somewhere(page: Path) -> None:
    broken = []
    for line, target in links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{page.name}:{line}: {target}")
    assert not broken, broken


def test_the_readme_links_every_page() -> None:
    linked = {(ROOT / target.partition("#")[0]).resolve() for _, target in links(ROOT / "README.md")}
    assert [page.name for page in pages()[1:] if page not in linked] == []


@EVERY_PAGE
def test_files_and_make_targets_named_in_its_text_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing = []
    for line, code in inline_code(page):
        files = re.findall(r"(?:benchmarks|configs|docs|job|operator|scripts|tests)/[\w./-]+", code)
        wanted = code.split()[1:2] if code.startswith("make ") else []
        missing += [f"{page.name}:{line}: {file}" for file in files if not (ROOT / file).exists()]
        missing += [f"{page.name}:{line}: make {word}" for word in wanted if word not in targets]
    assert not missing, missing


def test_the_readme_names_every_verb() -> None:
    words = {word for _, code in inline_code(ROOT / "README.md") for word in re.findall(r"[a-z]+", code)}
    assert {*cli.VERBS, *cli.PASSED_THROUGH} - words == set()


def parsers(program: str) -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb of `ltx2` or `ltx2-job`; ltx2's own verbs win over those that it passes through."""
    job = _verbs(job_cli.build_parser())
    if program == "ltx2-job":
        return job
    return {name: job[verb] for name, (verb, _) in cli.PASSED_THROUGH.items()} | _verbs(cli.build_parser())


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found)


@pytest.mark.parametrize(("where", "code"), MENTIONS, ids=[f"{where} {code[:40]}" for where, code in MENTIONS])
def test_a_command_named_in_the_text_exists(where: str, code: str) -> None:
    """`ltx2 cache ls|gc`: each alternative is a sub-verb; every flag belongs to its verb."""
    program, name, *rest = code.split(" #")[0].split()
    verbs = parsers(program)
    if name in ("--help", "--version"):
        return
    for verb in re.split(r"[|\\]+", name):
        assert verb in verbs, f"{where}: `{code}`: {program} has no verb {verb}"
        parser = verbs[verb]
        below = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if below and rest and not rest[0].startswith("-"):
            for sub in re.split(r"[|\\]+", rest[0]):
                assert sub in below[0], f"{where}: `{code}`: {verb} has no {sub}"
            parser = below[0][rest[0].split("|")[0].rstrip("\\")]
        flags = {word.partition("=")[0].strip("[],;.") for word in rest if word.startswith("--")}
        known = set(parser._option_string_actions)
        if verb == "train":
            known |= {f"--{key}" for key in TrainingConfig.model_fields}
        assert flags <= known, f"{where}: `{code}`: {verb} does not know {sorted(flags - known)}"


def test_the_metrics_named_in_training_md_are_those_that_are_served() -> None:
    """The row of `/metrics` writes `ltx2_job_step`, then `_max_steps`, `_loss{part}`, ...: every series, no other."""
    (row,) = (line for _, line in prose(ROOT / "docs" / "training.md") if line.startswith("| `/metrics` |"))
    named = {name.partition("{")[0].removeprefix("ltx2_job") for name in re.findall(r"`((?:ltx2_job)?_[^`]+)`", row)}
    families = Metrics("fox", "train").registry.collect()
    served = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert {f"ltx2_job{name}" for name in named} == served


@EVERY_PAGE
def test_its_json_and_yaml_can_be_read(page: Path) -> None:
    """A manifest or a list of datasets in a page is also one that would be accepted."""
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "json":
            json.loads("\n".join(block.lines))
        if block.language == "yaml":
            for body in yaml.safe_load_all("\n".join(block.lines)):
                assert body, where
                if isinstance(body, list):
                    resolve({}, body).require_supported()
                elif body.get("kind") == "LTX2Training":
                    spec = parse(body).spec
                    assert not not_supported_yet(spec), where
                    resolve(spec.config or {}, spec.datasets, workspace=ROOT).require_supported()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_configs_is_explained_and_accepted(path: Path) -> None:
    """Each is named on a page and can be run as it stands; what cannot says so (the guide's own files: per key)."""
    name = str(path.relative_to(ROOT))
    assert any(name in page.read_text() for page in pages()), f"no page names {name}"
    datasets = json.loads((ROOT / "configs" / "guide" / "multidatabackend.json").read_text())
    body = yaml.safe_load(path.read_text())
    if isinstance(body, list):
        resolve({}, body).require_supported()
    elif "kind" in body:
        spec = parse(body).spec
        assert not not_supported_yet(spec)
        later = resolve(spec.config or {}, spec.datasets).unsupported
        assert bool(later) == path.read_text().startswith("# NOT YET"), later
    else:
        assert all(len(item.why) > 10 for item in resolve(body, datasets).unsupported)
        assert path.parent.name == "guide" or not resolve(body, datasets).unsupported
