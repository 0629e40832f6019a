"""The SkyLB paper's evaluation by simulation, beside the paper's figures.

    python -m bench.paper [--quick] [--seeds 10] [--systems a,b] [--workloads a,b] [--set engine.key=v1,v2]

It writes ``paper.json``, ``paper.md`` and plots to ``bench/results``, and prints the goals. With ``--quick``,
``--parts`` or ``--traces`` they go to ``bench/results/tmp``. A choice of systems, workloads or layouts, or
``--set``, prints tables alone. Ctrl-C keeps what there is, as does the end of ``--minutes``: in
``bench/results`` if every cell has run with one seed.
"""

import argparse
import sys
import time
from pathlib import Path

from bench.paper.cells import PARTS, QUICK, TABLE, Extent, cells
from bench.paper.checks import checks
from bench.paper.figures import COLUMNS, as_text, over_seeds, ratio
from bench.paper.keep import keep
from bench.paper.runs import Cell, Found, SystemRows, Task, run_task, tasks
from bench.paper.systems import LOCAL, PUSHING, SYSTEMS, known, named, varied
from bench.paper.workloads import CASES, LAYOUTS
from bench.pool import Pool, cores
from bench.record import ROOT, machine
from skylb.tools.sim.simulate import BrokenError
from skylb.tools.text import table


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="shorter runs, fewer numbers of replicas, 2 seeds")
    add("--seeds", type=int, default=0, help="runs of each system (10, over replicas 6; quick: 2)")
    add("--first-seed", type=int, default=1)
    add("--parts", default=",".join(PARTS), help="only these; with --systems and the like: table")
    add("--systems", default="", help=f"only these of {', '.join(system.name for system in SYSTEMS)}")
    add("--workloads", default="", help=f"only these of {', '.join(case.name for case in CASES)}")
    add("--layouts", default="", help=f"only these of {', '.join(LAYOUTS)}: replicas in us, eu and asia")
    add(
        "--set",
        action="append",
        default=[],
        metavar="engine.KEY=V1,V2",
        help="add a row of our default for each value (each combination, if given several times)",
    )
    add("--everywhere", action="store_true", help="--set also per region and in one global balancer")
    add("--traces", type=Path, help="directory of trace files to use instead of made-up requests")
    add("--minutes", type=float, default=1e6, help="end after so long with what there is")
    add("--processes", type=int, default=cores())
    add("--write", action="store_true", help="renew bench/results/paper.md, quick or not")
    options = parser.parse_args(arguments)
    for option, known_names in (
        ("parts", list(PARTS)),
        ("workloads", [case.name for case in CASES]),
        ("layouts", list(LAYOUTS)),
    ):
        unknown = [name for name in getattr(options, option).split(",") if name and name not in known_names]
        if unknown:
            expected = ", ".join(known_names)
            parser.error(f"--{option}: there is no {', '.join(unknown)}: expected some of {expected}")
    options.chosen = bool(options.systems or options.workloads or options.layouts or options.set)
    try:
        options.systems = varied(named(options.systems), options.set, everywhere=options.everywhere)
    except ValueError as error:
        parser.error(str(error))
    if options.chosen and options.parts == ",".join(PARTS):
        options.parts = TABLE
    return options


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """All runs: of each cell the first seed, then of each cell the second one, and so on."""
    systems, notes = known(options.systems)
    pushing, more = known(PUSHING)
    for note in notes + more:
        print(note, file=sys.stderr)
    extent = QUICK if options.quick else Extent()
    found = [
        cell
        for cell in cells(extent, systems, pushing, options.traces)
        if cell.systems and wanted(cell, options)
    ]
    seeds = {
        part: options.seeds or (extent.seeds if part in {TABLE, "pushing"} else extent.replica_seeds)
        for part in PARTS
    }
    return [
        task
        for number in range(max(seeds.values()))
        for cell in found
        if number < seeds[cell.part]
        for task in tasks(cell, options.first_seed + number)
    ]


def wanted(cell: Cell, options: argparse.Namespace) -> bool:
    """Whether a cell is among those asked for."""
    if cell.part not in options.parts.split(","):
        return False
    if cell.part != TABLE:
        return True
    workload, _, layout = cell.name.rpartition(" ")
    return (not options.workloads or workload in options.workloads.split(",")) and (
        not options.layouts or layout in options.layouts.split(",")
    )


def shown(name: str, systems: SystemRows) -> str:
    """One cell as text, each system's P90 beside that of our default per region."""
    seeds = max(map(len, systems.values()))
    titles = ("", *(column.title for column in COLUMNS), f"P90 / {LOCAL}")
    rows = []
    for system, found in systems.items():
        texts = [as_text(over_seeds(found, column.name), column, bounds=False) for column in COLUMNS]
        beside = ratio(found, systems.get(LOCAL, []), "ttft_p90_s")
        text = f"{beside.mean:.2f} [{beside.low:.2f}, {beside.high:.2f}]" if beside else "-"
        rows.append((system, *texts, text))
    return "\n".join([f"{name}, {seeds} seeds", *table(titles, rows), ""])


def main() -> int:
    """Runs, writes, prints."""
    options = parsed()
    began_s = time.monotonic()
    interrupted = False
    todo = tasks_of(options)
    found = Found.of(todo)
    pool = Pool(options.processes, options.minutes)
    try:
        pool.each(run_task, todo, found.add)
    except KeyboardInterrupt:
        interrupted = True
    except BrokenError as error:
        print(f"error: {error}: what there is", file=sys.stderr)
        interrupted = True
    finally:
        pool.close()
    if not any(map(found.part, PARTS)):
        print("nothing was run to its end", file=sys.stderr)
        return 1
    whole = options.parts == ",".join(PARTS) and not (options.chosen or options.seeds)
    for part in () if whole else PARTS:
        for name, systems in found.part(part).items():
            print(shown(f"{part}: {name}", systems))
    if not options.chosen:
        print(*(check.text for check in checks(found)), sep="\n")
        about = machine() | {
            "command": "make paper" + " QUICK=1" * options.quick,
            "requests": "trace files" if options.traces else "made up",
            "wall_s": str(round(time.monotonic() - began_s)),
            "interrupted": "yes" if interrupted else "no",
        }
        whole = whole and found.everywhere() and not (options.quick or options.traces)
        page = keep(found, about, whole=whole or options.write)
        print(f"\n{page.relative_to(ROOT)} has it all")
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
