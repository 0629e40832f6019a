"""Keeps results: JSON, page and plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.paper.figures import COLUMNS, mean, over_seeds
from bench.paper.page import document
from bench.paper.plots import write
from bench.paper.runs import Found, SystemRows
from bench.record import RESULTS


def keep(found: Found, about: Mapping[str, str], *, whole: bool) -> Path:
    """Writes JSON, page and plots; the page's path.

    A part of it goes where nothing is kept in the repository.

    Raises:
        OSError: a file cannot be written.
    """
    directory = RESULTS if whole else RESULTS / "tmp"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "paper.json").write_bytes(stored(found, about))
    plots = [(title, f"paper/{name}") for title, name in write(found, directory / "paper")]
    page = directory / "paper.md"
    page.write_text(document(found, about, plots))
    return page


def stored(found: Found, about: Mapping[str, str]) -> bytes:
    """All figures."""
    figures = {
        part: {cell: _compact(systems) for cell, systems in found.part(part).items()} for part in found.rows
    }
    return msgspec.json.encode({"about": about, "figures": figures}) + b"\n"


def _compact(systems: SystemRows) -> dict[str, dict[str, Any]]:
    """Mean and interval of what tables show, the mean alone of the rest."""
    shown = {column.name for column in COLUMNS}
    found: dict[str, dict[str, Any]] = {}
    for system, rows in systems.items():
        found[system] = {"seeds": len(rows)}
        for name in rows[0]:
            if name == "seed" or any(row[name] is None for row in rows):
                continue
            if name in shown:
                spread = over_seeds(rows, name)
                found[system][name] = [_short(value) for value in (spread.mean, spread.low, spread.high)]
            else:
                found[system][name] = _short(mean(rows, name))
    return found


def _short(value: float) -> float:
    """A figure to five digits."""
    return float(f"{value:.5g}")
