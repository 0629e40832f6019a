"""The SkyLB paper's evaluation by simulation, beside the paper's figures.

    python -m bench.paper [--quick] [--seeds 10] [--systems a,b] [--workloads a,b] [--set engine.key=v1,v2]

The figures go to ``bench/results/paper.json``, the tables to ``bench/results/paper.md``. Ctrl-C keeps what
there is, as does the end of ``--minutes``.
"""

import argparse
import sys

from bench.paper import cells
from bench.paper.figures import COLUMNS, as_text, over_seeds, ratio
from bench.paper.runs import Found, SystemRows, Task, run_task
from bench.paper.systems import LOCAL, SYSTEMS, known, named, varied
from bench.paper.workloads import CASES, LAYOUTS
from bench.pool import Pool, cores
from skylb.tools.sim.simulate import BrokenError
from skylb.tools.text import table


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer points, 3 seeds")
    parser.add_argument("--seeds", type=int, default=0, help="runs of each system (10; quick: 3)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument(
        "--systems", default="", help=f"only these of {', '.join(system.name for system in SYSTEMS)}"
    )
    parser.add_argument("--workloads", default=",".join(case.name for case in CASES), help="only these")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="replicas in us, eu and asia")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="engine.KEY=V1,V2",
        help="add a row of our default for each value (each combination, if given several times)",
    )
    parser.add_argument(
        "--everywhere", action="store_true", help="--set also for our default per region and in one balancer"
    )
    parser.add_argument("--minutes", type=float, default=1e6, help="end after so long with what there is")
    parser.add_argument("--processes", type=int, default=cores())
    options = parser.parse_args(arguments)
    options.seeds = options.seeds or (3 if options.quick else 10)
    try:
        options.systems = varied(named(options.systems), options.set, everywhere=options.everywhere)
    except ValueError as error:
        parser.error(str(error))
    return options


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """All runs: of each cell the first seed, then of each cell the second one, and so on."""
    systems, notes = known(options.systems)
    print(*notes, sep="\n", end="\n" * bool(notes), file=sys.stderr)
    extent = cells.QUICK if options.quick else cells.Extent()
    found = list(cells.table(systems, options.workloads.split(","), options.layouts.split(","), extent))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return [Task(cell, seed) for seed in seeds for cell in found]


def shown(name: str, systems: SystemRows) -> str:
    """One cell as text, each system's P90 beside that of our default per region."""
    seeds = max(map(len, systems.values()))
    titles = ("", *(column.title for column in COLUMNS), f"P90 / {LOCAL}")
    rows = []
    for system, found in systems.items():
        cells_ = [as_text(over_seeds(found, column.name), column, bounds=False) for column in COLUMNS]
        beside = ratio(found, systems.get(LOCAL, []), "ttft_p90_s")
        text = f"{beside.mean:.2f} [{beside.low:.2f}, {beside.high:.2f}]" if beside else "-"
        rows.append((system, *cells_, text))
    return "\n".join([f"{name}, {seeds} seeds", *table(titles, rows), ""])


def main() -> int:
    """Runs, writes, prints."""
    options = parsed()
    found = Found()
    interrupted = False
    pool = Pool(options.processes, options.minutes)
    try:
        pool.each(run_task, tasks_of(options), found.add)
    except KeyboardInterrupt:
        interrupted = True
    except BrokenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        pool.close()
    for cells_ in found.rows.values():
        for name, systems in cells_.items():
            print(shown(name, systems))
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
