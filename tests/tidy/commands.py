"""docs/COMMANDS.md: each command's help text stands there as the command prints it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from skylb.cli import main
from skylb.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "COMMANDS.md"

_BLOCK = re.compile(r"(<!-- help: (?P<words>[a-z ]+) -->\n).*?(<!-- end of help -->)", re.DOTALL)


@contextmanager
def _columns(count: int) -> Iterator[None]:
    """Help texts of this width, whatever the terminal's is."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(count)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def help_text(words: str) -> str:
    """What ``skylb WORDS --help`` prints."""
    said = StringIO()
    with _columns(80), redirect_stdout(said):
        with suppress(SystemExit):
            main([*words.split(), "--help"])
    return said.getvalue()


def renewed(text: str) -> str:
    """The page with the help texts as they are now."""
    return _BLOCK.sub(
        lambda match: f"{match[1]}\n```text\n{help_text(match['words']).rstrip()}\n```\n\n{match[3]}", text
    )


def missing(text: str) -> list[str]:
    """Commands that the page does not have."""
    there = {match["words"].split()[0] for match in _BLOCK.finditer(text)}
    return [name for name in COMMANDS if name not in there]
