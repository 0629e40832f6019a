"""What `skylb doctor` finds, as values and as text for a terminal."""

import asyncio
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import orjson

Item = TypeVar("Item")
Found = TypeVar("Found")

WIDTH = 80
"""Columns of the text."""

SUBJECTS_SHOWN_MAX = 3
"""Of those that one finding concerns; the rest is counted."""


class Level(IntEnum):
    """How bad a finding is."""

    OK = 0
    WARNING = 1
    """It works, and may not do what was meant."""
    FAULT = 2
    """Something would not work."""


_MARKS = {Level.OK: "ok", Level.WARNING: "WARN", Level.FAULT: "FAULT"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact.

    Args:
        level: how bad it is.
        area: what it is about: ``replica``, ``peer`` and so on.
        subject: which of them; empty where there is one.
        text: what was found.
        fix: what to do; empty where nothing is to be done.
    """

    level: Level
    area: str
    subject: str
    text: str
    fix: str = ""


@dataclass(slots=True)
class Report:
    """All that was found."""

    findings: list[Finding] = field(default_factory=list)

    def add(self, level: Level, area: str, subject: str, text: str, fix: str = "") -> None:
        """Notes one finding."""
        self.findings.append(Finding(level, area, subject, text, fix))

    def ok(self, area: str, text: str, subject: str = "") -> None:
        """Notes what is as it should be."""
        self.add(Level.OK, area, subject, text)

    def warn(self, area: str, text: str, fix: str, subject: str = "") -> None:
        """Notes what works, and may not be meant."""
        self.add(Level.WARNING, area, subject, text, fix)

    def fault(self, area: str, text: str, fix: str, subject: str = "") -> None:
        """Notes what would not work."""
        self.add(Level.FAULT, area, subject, text, fix)

    def count(self, level: Level) -> int:
        """How many findings have a level."""
        return sum(finding.level is level for finding in self.findings)

    @property
    def works(self) -> bool:
        """Whether nothing was found that would not work."""
        return not self.count(Level.FAULT)


async def in_order(
    report: Report, look: Callable[[Item, Report], Awaitable[Found]], items: Sequence[Item]
) -> list[Found]:
    """Looks at all at once. What is found of each is reported in their order, whichever answers first."""
    own = [Report() for _ in items]
    try:
        return await asyncio.gather(*map(look, items, own))
    finally:
        for part in own:
            report.findings += part.findings


def as_json(report: Report) -> str:
    """The report for programs: one JSON object."""
    rows: list[dict[str, Any]] = [
        {
            "level": finding.level.name.lower(),
            "area": finding.area,
            "subject": finding.subject or None,
            "text": finding.text,
            "fix": finding.fix or None,
        }
        for finding in report.findings
    ]
    return orjson.dumps({"works": report.works, "findings": rows}, option=orjson.OPT_INDENT_2).decode()


def render(report: Report) -> str:
    """The report for people: what is wrong comes last, next to the prompt."""
    lines: list[str] = []
    for level in Level:
        for subjects, finding in _alike(f for f in report.findings if f.level is level):
            lines += _lines(finding, subjects)
    return "\n".join([*lines, "", _verdict(report)])


def _alike(findings: Iterable[Finding]) -> list[tuple[list[str], Finding]]:
    """Findings that differ in their subject alone are one: a fleet of a thousand fits on a screen."""
    groups: dict[tuple[str, str, str], tuple[list[str], Finding]] = {}
    for finding in findings:
        subjects, _ = groups.setdefault((finding.area, finding.text, finding.fix), ([], finding))
        if finding.subject:
            subjects.append(finding.subject)
    return list(groups.values())


def _lines(finding: Finding, subjects: Sequence[str]) -> list[str]:
    mark = f"{_MARKS[finding.level]:<6}"
    shown = ", ".join(subjects[:SUBJECTS_SHOWN_MAX])
    if len(subjects) > SUBJECTS_SHOWN_MAX:
        shown = f"{len(subjects)} of them ({shown}, ...)"
    head = f"{finding.area} {shown}" if shown else finding.area
    lines = _wrapped(f"{mark}{head}: {finding.text}")
    return lines + (_wrapped(f"{'':<6}fix: {finding.fix}") if finding.fix else [])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _verdict(report: Report) -> str:
    faults, warnings = report.count(Level.FAULT), report.count(Level.WARNING)
    counted = f"{faults} fault{'s' * (faults != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    return f"{counted}: " + ("it would work" if report.works else "something would not work")
