"""Runs of ``make paper``: what one process of the pool does, and what is kept of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.paper.systems import System
from bench.paper.workloads import HOLD_TIMEOUT_S, Case, Counts, requests_of, scenario
from skylb.tools.sim.result import Result
from skylb.tools.sim.simulate import BrokenError, finish, prepare
from skylb.tools.sim.summary import METRICS

Figures = dict[str, float | None]
"""The figures of one run; ``seed`` is one of them."""

SystemRows = dict[str, list[Figures]]
"""Rows of one cell by system, one per seed."""


@dataclass(frozen=True)
class Cell:
    """One case on one layout: with one seed all its systems get the same requests.

    Attributes:
        part: the table or figure that it belongs to.
        name: of the cell in it.
        case: workload and users.
        layout: replicas in us, eu and asia; a region without is left out.
        systems: what is compared.
        duration_s, warmup_s: virtual time, and how much of it is not measured.
    """

    part: str
    name: str
    case: Case
    layout: Counts
    systems: tuple[System, ...]
    duration_s: float
    warmup_s: float


@dataclass(frozen=True)
class Task:
    """Some systems of a cell with one seed."""

    cell: Cell
    seed: int
    systems: tuple[System, ...]


SYSTEMS_MAX = 6
"""Systems of a task: so few that the end of the time and Ctrl-C need not wait long."""


def tasks(cell: Cell, seed: int) -> Iterator[Task]:
    """All systems of a cell with one seed."""
    for first in range(0, len(cell.systems), SYSTEMS_MAX):
        yield Task(cell, seed, cell.systems[first : first + SYSTEMS_MAX])


def run_task(task: Task) -> list[Figures]:
    """Figures of each system of the task.

    Raises:
        BrokenError: an invariant broke; the message names the system.
    """
    cell = task.cell
    base = scenario(cell.case, cell.layout, task.seed, cell.duration_s, cell.warmup_s)
    made = requests_of(cell.case, base)
    found = []
    for system in task.systems:
        try:
            result = finish(prepare(system.of(base), made))
        except BrokenError as error:
            raise BrokenError(f"{cell.part}, {cell.name}, {system.name}: {error}") from error
        found.append(figures(result))
    return found


QUANTILES = {"ttft_p50_s": 0.5, "ttft_p90_s": 0.9}


def first_token_s(result: Result, share: float) -> float:
    """A quantile of the times to the first token; what failed or did not end counts as `HOLD_TIMEOUT_S`.

    Raises:
        AssertionError: the scenario asked for no records.
    """
    if result.records is None:
        raise AssertionError("the scenario asks for records")
    times = [
        time_s if time_s is not None and outcome == "ok" else HOLD_TIMEOUT_S
        for time_s, outcome in zip(result.records.ttft_s, result.records.outcome, strict=True)
    ]
    times += [HOLD_TIMEOUT_S] * result.total.unfinished
    times.sort()
    return times[min(len(times) - 1, int(share * len(times)))] if times else HOLD_TIMEOUT_S


def figures(result: Result) -> Figures:
    """All figures of a run."""
    found: Figures = {metric.name: metric.of(result) for metric in METRICS}
    found |= {name: first_token_s(result, share) for name, share in QUANTILES.items()}
    found["seed"] = float(result.seed)
    found["forwards"] = float(result.forwards.sent) if result.forwards else 0.0
    found["requests"] = float(result.total.requests)
    return found


@dataclass
class Found:
    """What there is so far: rows by part, cell and system."""

    rows: dict[str, dict[str, SystemRows]] = field(default_factory=dict)

    @classmethod
    def of(cls, todo: Iterable[Task]) -> "Found":
        """Nothing yet, and cells and systems in the order of their tasks."""
        found = cls()
        for task in todo:
            systems = found.rows.setdefault(task.cell.part, {}).setdefault(task.cell.name, {})
            for system in task.systems:
                systems.setdefault(system.name, [])
        return found

    def add(self, task: Task, found: Sequence[Figures]) -> None:
        """Puts a task's figures where they belong."""
        systems = self.rows[task.cell.part][task.cell.name]
        for system, figures_ in zip(task.systems, found, strict=True):
            systems[system.name].append(figures_)
            systems[system.name].sort(key=lambda row: row["seed"] or 0.0)

    def everywhere(self) -> bool:
        """Whether every system of every cell has run with a seed at least."""
        return all(
            rows for cells in self.rows.values() for systems in cells.values() for rows in systems.values()
        )

    def part(self, name: str) -> dict[str, SystemRows]:
        """The cells of a part, and their systems, that have begun."""
        found = {
            cell: {system: rows for system, rows in systems.items() if rows}
            for cell, systems in self.rows.get(name, {}).items()
        }
        return {cell: systems for cell, systems in found.items() if systems}
