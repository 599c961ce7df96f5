"""A copy of the checkout in which the pages' commands are run, each distinct one once, as a reader would type them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from docpages import Command, commands


@dataclass(frozen=True)
class Ran:
    """What a command did: exit code, stdout and stderr together, and the folder and variables that it left."""

    code: int
    output: str
    folder: Path
    variables: Mapping[str, str]


@dataclass
class Checkout:
    """The folder, and what has been run in it."""

    root: Path
    variables: Mapping[str, str]
    ran: dict[tuple[str, Path, tuple[tuple[str, str], ...]], Ran] = field(default_factory=dict)

    def page(self, page: Path) -> dict[Command, Ran]:
        """Run the unmarked commands of a page in their order; a block begins in the checkout's root."""
        done: dict[Command, Ran] = {}
        block, folder, variables = -1, self.root, self.variables
        for command in commands(page):
            if command.block != block:
                block, folder, variables = command.block, self.root, self.variables
            if command.mark is None:
                done[command] = self.run(command.text, folder, variables)
                folder, variables = done[command].folder, done[command].variables
        return done

    def run(self, text: str, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> Ran:
        """Run one command line in bash; the same line in the same folder with the same variables is run once."""
        folder, variables = folder or self.root, variables or self.variables
        key = (text, folder, tuple(sorted(variables.items())))
        if key not in self.ran:
            self.ran[key] = self._run(text, folder, variables)
        return self.ran[key]

    def _run(self, text: str, folder: Path, variables: Mapping[str, str]) -> Ran:
        state = self.root.parent / "state"
        after = f'__code=$?; {{ pwd; env -0; }} > "{state}"; exit $__code'
        done = subprocess.run(
            ["bash", "-c", f"{text}\n{after}"],
            cwd=folder, env=dict(variables), text=True, timeout=300,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        where, _, rest = state.read_text().partition("\n")
        left = dict(entry.partition("=")[::2] for entry in rest.split("\0") if entry)
        own = {"_", "SHLVL", "PWD", "OLDPWD"}
        return Ran(done.returncode, done.stdout, Path(where), {k: v for k, v in left.items() if k not in own})
