"""Keeps results: JSON, page and plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.paper.figures import over_seeds
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
    """Means and intervals of all figures."""
    figures = {
        part: {cell: _compact(systems) for cell, systems in found.part(part).items()} for part in found.rows
    }
    return msgspec.json.encode({"about": about, "figures": figures}) + b"\n"


def _compact(systems: SystemRows) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for system, rows in systems.items():
        found[system] = {"seeds": len(rows)}
        for name in rows[0]:
            if name != "seed" and all(row[name] is not None for row in rows):
                spread = over_seeds(rows, name)
                bounds = (spread.mean, spread.low, spread.high)
                found[system][name] = [float(f"{value:.5g}") for value in bounds]
    return found
