"""Every verb has a help with an example, and every example is a line that the command takes."""

import re
import shlex

import pytest

from ltx2_job import cli as job
from ltx2_job.config.layers import read_flags
from ltx2_operator import cli as operator

BELOW = {"config": ("reference", "check"), "store": ("ls", "gc")}
ALL = [
    ("ltx2", ()),
    *(("ltx2", (verb,)) for verb in operator.VERBS),
    *(("ltx2-job", (verb,)) for verb in job.VERBS),
    *(("ltx2-job", (verb, below)) for verb, belows in BELOW.items() for below in belows),
]


def help_of(program, verbs, capsys):
    with pytest.raises(SystemExit) as end:
        (operator if program == "ltx2" else job).main([*verbs, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("program", "verbs"), ALL, ids=[" ".join((program, *verbs)) for program, verbs in ALL])
def test_the_example_of_a_help_is_a_line_that_the_command_takes(program, verbs, capsys):
    shown = help_of(program, verbs, capsys)
    found = re.search(r"^example:\n((?:  .+\n?)+)", shown, re.MULTILINE)
    assert found, shown
    for line in found[1].strip().splitlines():
        words = shlex.split(line.partition(" > ")[0])
        assert words[0] == program and tuple(words[1 : 1 + len(verbs)]) == verbs
        parser = (operator if program == "ltx2" else job).build_parser()
        args, rest = parser.parse_known_args(words[1:])
        assert (rest == [] or args.verb == "train") and read_flags(rest).problems == []


def test_every_verb_is_tried_here(capsys):
    # Catches a verb below a verb that is added without a place in BELOW.
    for verb in job.VERBS:
        below = re.search(r"\{?([a-z]+(?:\|[a-z]+)+)\}?", help_of("ltx2-job", (verb,), capsys).splitlines()[0])
        assert tuple(below[1].split("|") if below else ()) == BELOW.get(verb, ())
    for name, (target, _) in operator.PASSED_THROUGH.items():
        assert target in job.VERBS, name
