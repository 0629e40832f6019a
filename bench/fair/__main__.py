"""Runs all rows, prints the tables, keeps them."""

import argparse
import sys
from itertools import product

import msgspec

from bench.fair import plot, report
from bench.fair.cases import CASES, LOADS, Task
from bench.fair.runs import Outcome, outcome
from bench.paper.workloads import REGIONS
from bench.pool import Pool, cores
from bench.record import RESULTS

SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)
QUICK_SEEDS = (1, 2)

ABOUT = """\
What nine tenants ("the others") notice of a tenth. The requests of the nine are the same in four runs.
*alone*: there is no tenth. *filled*: it sends politely what the nine leave of the fleet. *fair* and
*unfair*: it floods one region with twice what the fleet can do, and `tenant_rule` is `"fair"` or
`"none"`. The load is what the nine send, as a share of what the fleet can do. That is the tokens/s of a
flooded fleet, measured first. Seeds are paired, intervals are of 95 %. Times are the P90 of the others'
time to first token. A request that fails counts as 120 s."""


def main() -> None:
    """Runs, prints, keeps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds, shorter runs; prints only")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--engine", action="append", default=[], metavar="SETTING=VALUE")
    given = parser.parse_args()
    engine = {
        name: msgspec.json.decode(value) for name, _, value in (of.partition("=") for of in given.engine)
    }
    seeds = QUICK_SEEDS if given.quick else SEEDS
    rows = [
        [Task(case, regions, load, seed, given.quick) for seed in seeds]
        for regions, case, load in product((1, len(REGIONS)), CASES, LOADS)
    ]
    found: dict[tuple[int, str, float, int], Outcome] = {}
    pool = Pool(given.processes)
    pool.each(
        outcome,
        [(task, engine) for tasks in rows for task in tasks],
        lambda item, out: found.update({item[0].key: out}),
    )
    pool.close()
    whole = [(tasks[0], [found[task.key] for task in tasks]) for tasks in rows]
    lines, missed = report.tables(whole)
    lines += ["", "Missed: " + ("; ".join(missed) if missed else "nothing") + "."]
    print(*lines, sep="\n")
    if not given.quick and not given.engine:
        command = " ".join(["make bench-fair", *sys.argv[1:]])
        (RESULTS / "fair.md").write_text(report.document(lines, ABOUT, command))
        plot.write(whole, RESULTS / "fair.png")


if __name__ == "__main__":
    main()
