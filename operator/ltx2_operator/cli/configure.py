"""`ltx2 configure`: a few questions, and a manifest (or the guide's two files) that passes `ltx2 check`."""

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from ltx2_job import exitcodes
from ltx2_job.errors import ConfigError, Problem, UsageError
from ltx2_job.workspace import write_atomic
from ltx2_operator import manifest
from ltx2_operator.cli.questions import (
    BY_KEY,
    FILE,
    GUIDE_CONFIG,
    GUIDE_DATASETS,
    QUESTIONS,
    Review,
    Surroundings,
    canonical,
    complete,
    concerns,
    review,
)
from ltx2_operator.cli.words import shown
from ltx2_operator.machine import detect

INTERRUPTED: Final = 130  # as shells report a Ctrl-C
NONE: Final = "none"  # what is typed to leave an optional key out


def configure(args: Namespace) -> int:
    """Ask what was not given, and write the file; nothing is written before the last answer.

    Raises UsageError, ConfigError.
    """
    around = Surroundings(args.workspace.resolve(), detect(), args.guide)
    given, extra = _given(args)
    places = _places(args, around)
    _refuse_old(places, args.force)
    console = Console(highlight=False)
    try:
        answers = given if args.yes else _ask_all(console, given, extra, around)
        final = _judged(complete(answers, around), extra, around)
    except (KeyboardInterrupt, EOFError) as end:
        console.print()
        if isinstance(end, EOFError):
            raise UsageError(
                "the input ended before the last answer; nothing was written (--yes takes all defaults)"
            ) from None
        print("ltx2: nothing was written", file=sys.stderr)
        return INTERRUPTED
    for name, body in final.documents.items():
        path = places[name]
        write_atomic(path, manifest.dump([body]) if name == Path(FILE) else json.dumps(body, indent=2) + "\n")
    _tell(console, final, places, around, args)
    return exitcodes.OK


def _given(args: Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """(answers by flags and --set, further keys of --set). Raises UsageError."""
    answers = {
        question.key: value
        for question in QUESTIONS
        if (value := getattr(args, question.flag.replace("-", "_"))) is not None
    }
    extra: dict[str, str] = {}
    for text in args.set:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text}: write --set KEY=VALUE, for example --set max_train_steps=500")
        (answers if canonical(key) in BY_KEY else extra)[canonical(key)] = value
    return answers, extra


def _places(args: Namespace, around: Surroundings) -> dict[Path, Path]:
    """Where each file goes. A manifest's path counts from the current folder, the guide's files from the workspace."""
    if not around.guide:
        return {Path(FILE): args.file or Path(FILE)}
    if args.file is not None:
        raise UsageError(f"{args.file}: --guide writes {GUIDE_CONFIG} and its datasets; leave the file's name out")
    return {GUIDE_CONFIG: around.workspace / GUIDE_CONFIG, GUIDE_DATASETS: around.workspace / GUIDE_DATASETS}


def _refuse_old(places: Mapping[Path, Path], force: bool) -> None:
    old = [shown(path) for path in places.values() if path.exists()]
    if old and not force:
        raise UsageError(f"{', '.join(old)}: exists already; give --force to replace it, or another name")


def _judged(answers: Mapping[str, str], extra: Mapping[str, str], around: Surroundings) -> Review:
    found = review(answers, extra, around)
    if found.problems:
        raise ConfigError([_by_key(problem) for problem in found.problems])
    return found


def _by_key(problem: Problem) -> Problem:
    """The problem under the name that the user can set."""
    key = next((question.key for question in QUESTIONS if concerns(problem, question)), problem.field)
    return Problem(key, problem.message, problem.remedy)


def _ask_all(
    console: Console, given: Mapping[str, str], extra: Mapping[str, str], around: Surroundings
) -> dict[str, str]:
    """Every answer. What was given is not asked again, and must be good."""
    before = _judged(given, extra, around)
    console.print("Return takes what stands in brackets; Ctrl-C ends without writing anything.\n")
    answers = dict(given)
    for question in QUESTIONS:
        filled = complete(answers, around)
        if question.key in given or not question.asked(filled, around):
            continue
        while True:
            hint = escape(f"[{filled[question.key] or NONE}]")
            typed = console.input(f"[bold]{question.text}[/] [cyan]{hint}[/]: ").strip() or filled[question.key]
            typed = "" if question.optional and typed == NONE else typed
            after = review({**answers, question.key: typed}, extra, around)
            bad = [each for each in after.problems if concerns(each, question) or each not in before.problems]
            for problem in bad:
                console.print(f"  [red]{escape(str(_by_key(problem)))}[/]")
            if not bad:
                break
        for line in (
            *(each for each in after.corrections if each not in before.corrections),
            question.note(typed, around),
        ):
            if line:
                console.print(f"  [dim]{escape(line)}[/]")
        answers[question.key], before = typed, after
    return answers


def _tell(console: Console, final: Review, places: Mapping[Path, Path], around: Surroundings, args: Namespace) -> None:
    written = ", ".join(shown(places[name]) for name in final.documents)
    console.print(f"\nwritten: [bold]{escape(written)}[/]")
    for line in final.corrections:
        console.print(f"corrected: {escape(line)}")
    main = shown(places[GUIDE_CONFIG if around.guide else Path(FILE)])
    place = "" if args.workspace == Path(".") else f" --workspace {args.workspace}"
    console.print("next:")
    last = "train" + (f" --config {main}" if place else "") if around.guide else f"run {main}"
    for verb in (f"check {main}", f"estimate {main}", last):
        console.print(f"  ltx2 {escape(verb)}{escape(place)}")
