"""The tables of docs/MIGRATING.md: what each flag of other routers becomes, from the rows that do it."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from skylb.dropin.row import PROGRAMS, Became, Outcome, Row, Unneeded, Values
from skylb.dropin.shared import POLICIES
from skylb.dropin.stack import ROUTING
from skylb.dropin.translate import ROWS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "MIGRATING.md"

_TABLE = re.compile(r"(<!-- dropin: (?P<name>[\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_PLACES = {Values.NONE: "", Values.ONE: " X", Values.MANY: " X …"}


def renewed(text: str) -> str:
    """The page with its tables as the rows have them now."""
    return _TABLE.sub(lambda match: f"{match[1]}{_table(match['name'])}{match[3]}", text)


def _table(name: str) -> str:
    if name == "policies":
        return _lines(("theirs", "of", "here", "note"), _policies())
    program = next(program for program in PROGRAMS if program.name == name)
    return _lines(("flag", "here"), _flags(program.letter))


def _lines(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    table = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in table)


def _flags(letter: str) -> Iterator[tuple[str, str]]:
    """A line for all flags that become the same."""
    same: dict[str, list[Row]] = {}
    for row in ROWS:
        if letter in row.programs:
            same.setdefault(row.about, []).append(row)
    for about, rows in same.items():
        yield ", ".join(f"`{row.flag}{_PLACES[row.values]}`" for row in rows), about


def _policies() -> Iterator[tuple[str, str, str, str]]:
    same = Became(
        ("--policy", "cache_aware"), "SkyLB's default, `predictive`, took less time in our measurements"
    )
    turns = Became(("--policy", "round_robin"))
    gateways = "vllm-router, smg, sglang-router"
    named: Mapping[str, Outcome] = {"cache_aware": same, "round_robin": turns, **POLICIES}
    for of, table in ((gateways, named), ("production-stack", ROUTING)):
        for name, outcome in table.items():
            yield f"`{name}`", of, *_here(outcome)


def _here(outcome: Outcome) -> tuple[str, str]:
    if isinstance(outcome, Became):
        return f"`{shlex.join(outcome.words)}`", outcome.note
    why = outcome.why if not isinstance(outcome, Unneeded | Became) and hasattr(outcome, "why") else ""
    use = getattr(outcome, "use", ())
    return (f"none; nearest: `{shlex.join(use)}`" if use else "none"), why


def metrics(text: str) -> frozenset[str]:
    """The names and patterns of metrics in the first cells of the page's tables."""
    first = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return frozenset(name for cell in first for name in re.findall(r"`([a-z]+[:_][a-z0-9_*:]+)`", cell))


def unnamed(text: str, names: Iterable[str]) -> list[str]:
    """Metrics that no row of the page has."""
    patterns = metrics(text)
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]
