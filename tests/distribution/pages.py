"""The commands of a page: its fenced blocks, word for word, and which of them run until they are stopped.

A block is one of commands if each of its lines begins with a program that is named here. A line may begin
with a path (`.venv/bin/skylb`), and a comment may follow. Lines of a block are commands of their own: a page
that changes the directory does so in brackets.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

PROGRAMS = frozenset({"cd", "curl", "make", "pip", "pipx", "python3", "rm", "sha256sum", "skylb", "uv"})

READY = {"mock": "ready\n", "serve": "try: curl ", "demo": "requests/s"}
"""Subcommands of ``skylb`` that run until they are stopped, and what they print once they are of use."""

_FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_TRY = re.compile(r"^try: (curl .*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page.

    Attributes:
        text: as the page has it.
        line: of the page, from 1.
    """

    text: str
    line: int

    @property
    def words(self) -> list[str]:
        """Its words; the first is the program's name, without brackets and directories."""
        first, *others = shlex.split(self.text.strip("()"), comments=True)
        return [PurePosixPath(first).name, *others]

    @property
    def serves(self) -> str:
        """The subcommand that it runs until it is stopped; empty if it ends by itself."""
        program, *others = self.words
        if program == "make" and others[:1] == ["demo"]:
            return "" if any(word.startswith("DEMO_S=") for word in others) else "demo"
        if program == "skylb" and others[:1] and others[0] in READY:
            ends = {"--help", "--help-all", "--duration-s"}.intersection(others)
            return "" if ends else others[0]
        return ""

    @property
    def local(self) -> bool:
        """Whether it needs no network but loopback: all of SkyLB does not."""
        return self.words[0] in {"skylb", "curl"} or bool(self.serves)


def commands(text: str) -> Iterator[Command]:
    """The commands of a Markdown page, in order.

    Raises:
        ValueError: only some lines of a block are commands, or one changes the directory for the next.
    """
    for match in _FENCE.finditer(text):
        first = text.count("\n", 0, match.start()) + 2
        block = [
            Command(line, first + number)
            for number, line in _lines(match["text"])
            if not line.lstrip().startswith("#")
        ]
        known = [command for command in block if _program(command.text) in PROGRAMS]
        if not known:
            continue
        if others := [command for command in block if command not in known]:
            raise ValueError(f"line {others[0].line}: {others[0].text!r}: expected one of {sorted(PROGRAMS)}")
        if moved := [command for command in block if command.text.startswith("cd ")]:
            raise ValueError(f"line {moved[0].line}: {moved[0].text!r}: expected (cd DIRECTORY && ...)")
        yield from known


def _lines(block: str) -> Iterator[tuple[int, str]]:
    """The lines of a block with their numbers; one that ends with a backslash goes on in the next."""
    held, began = "", 0
    for number, line in enumerate(block.splitlines()):
        began = began if held else number
        held += line
        if held.endswith("\\"):
            held = held[:-1]
        elif held.strip():
            yield began, held
            held = ""
        else:
            held = ""


def _program(line: str) -> str:
    return PurePosixPath(line.lstrip("( ").partition(" ")[0]).name


def to_try(printed: str) -> list[str]:
    """The command lines that a program printed for its user to try."""
    return _TRY.findall(printed)
