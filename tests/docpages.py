"""README.md and docs/*.md as data: fenced blocks, the commands in them with their marks, links, anchors, mentions.

A command in a ```sh, ```bash or ```console block is run by tests/docs, or carries a mark: a comment behind it that says
why it is not run ("# needs a GPU: ..."). The vocabulary of marks is closed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHELL = frozenset({"sh", "bash", "console"})


class Mark(Enum):
    """Why a command is not run by a test."""

    GPU = "needs a GPU"
    CLUSTER = "needs a cluster"
    LOGIN = "needs a login"
    INSTALLS = "installs packages"
    MINUTES = "takes minutes"


PORTUGUESE = {
    "precisa de GPU": Mark.GPU,
    "precisa de cluster": Mark.CLUSTER,
    "precisa de login": Mark.LOGIN,
    "instala pacotes": Mark.INSTALLS,
    "leva minutos": Mark.MINUTES,
}
WORDS = {mark.value: mark for mark in Mark} | PORTUGUESE
# A comment that begins like a mark must be one: a misspelt mark would otherwise pass for a remark.
LIKE_A_MARK = re.compile(r"(needs|installs|takes|downloads|requires|precisa|instala|leva|baixa|requer)\b")


class BadPage(Exception):
    """A page that cannot be read as meant; the message names page and line."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" if none) and lines; `line` is the number of its first line in the page."""

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """One command line of a shell block.

    text: the command without its comment; shown: the output that a ```console block prints below it; block: number of
    its block in the page, since a block shares folder and variables.
    """

    page: Path
    line: int
    block: int
    text: str
    mark: Mark | None
    shown: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """page:line, for messages and test names."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def program(self) -> str:
        """The first word that is no variable assignment."""
        return next((word for word in self.text.split() if not re.match(r"\w+=", word)), "")


def pages() -> list[Path]:
    """README.md, then the pages of docs/ by name."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Every fenced block. Raises BadPage for one that is not closed."""
    found, start, opened, inside = [], 0, "", []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r"\s*(`{3,})\s*([\w+-]*)\s*$", line)
        if fence and not start:
            start, opened, inside = number + 1, fence[2], []
        elif fence and not fence[2]:
            found.append(Block(page, start, opened, tuple(inside)))
            start = 0
        elif start:
            inside.append(line)
    if start:
        raise BadPage(f"{page.name}:{start - 1}: this block is not closed")
    return found


def prose(page: Path) -> list[tuple[int, str]]:
    """(line number, text) of every line outside fenced blocks."""
    lines = dict(enumerate(page.read_text().splitlines(), 1))
    for block in blocks(page):
        for number in range(block.line - 1, block.line + len(block.lines) + 1):
            lines.pop(number)
    return list(lines.items())


def commands(page: Path) -> list[Command]:
    """The commands of a page's shell blocks in their order. Raises BadPage."""
    found: list[Command] = []
    for index, block in enumerate(blocks(page)):
        if block.language in SHELL:
            found += _of_block(block, index)
    return found


def _of_block(block: Block, index: int) -> Iterator[Command]:
    texts: list[tuple[int, str, list[str]]] = []
    continued = False
    for number, line in enumerate(block.lines, block.line):
        if block.language == "console" and not continued and not line.startswith("$ "):
            if not texts:
                raise BadPage(f"{block.page.name}:{number}: a console block begins with a command (`$ ...`)")
            texts[-1][2].append(line)
            continue
        text = line.removeprefix("$ ") if block.language == "console" else line
        if continued:
            first, before, shown = texts.pop()
            texts.append((first, f"{before[:-1].rstrip()} {text.strip()}", shown))
        elif text.strip() and not text.lstrip().startswith("#"):
            texts.append((number, text.strip(), []))
        continued = text.endswith("\\")
    for number, text, shown in texts:
        command, comment = split_comment(text)
        yield Command(block.page, number, index, command, mark_of(comment, block.page, number), tuple(shown))


def split_comment(line: str) -> tuple[str, str]:
    """A command line as (command, comment without #); a # in quotes or inside a word begins no comment."""
    quote = ""
    for at, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at].rstrip(), line[at + 1 :].strip()
    return line.rstrip(), ""


def mark_of(comment: str, page: Path, line: int) -> Mark | None:
    """The mark that a comment begins with, up to a colon or its end. Raises BadPage for one not in the vocabulary."""
    word = comment.partition(":")[0].strip()
    if word in WORDS:
        if (word in PORTUGUESE) != (page.suffixes[:1] == [".pt"]):
            raise BadPage(f"{page.name}:{line}: the mark {word!r} is not in the language of the page")
        return WORDS[word]
    if LIKE_A_MARK.match(comment):
        raise BadPage(f"{page.name}:{line}: {word!r} is no mark; known: {', '.join(WORDS)}")
    return None


def links(page: Path) -> list[tuple[int, str]]:
    """(line, target) of every Markdown link outside fenced blocks, addresses of other sites left out."""
    found = [
        (number, target)
        for number, line in prose(page)
        for target in re.findall(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "x", line))
    ]
    return [(number, target) for number, target in found if "://" not in target and not target.startswith("mailto:")]


def headings(page: Path) -> list[tuple[int, str]]:
    """(level, text) of every heading outside fenced blocks."""
    matches = (re.match(r"(#{1,6})\s+(.*?)\s*#*$", line) for _, line in prose(page))
    return [(len(match[1]), match[2]) for match in matches if match]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings; a repeated one gets -1, -2, ..."""
    found: set[str] = set()
    for _, text in headings(page):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\]\([^)]*\)", "", text).lower()).strip().replace(" ", "-")
        number = next(number for number in range(len(found) + 1) if _numbered(slug, number) not in found)
        found.add(_numbered(slug, number))
    return found


def _numbered(slug: str, number: int) -> str:
    return f"{slug}-{number}" if number else slug


def inline_code(page: Path) -> list[tuple[int, str]]:
    """(line, text) of every `...` outside fenced blocks."""
    return [(number, code) for number, line in prose(page) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", line)]
