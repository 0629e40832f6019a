"""What other settings change: the same requests with and without them, seed by seed.

    python -m bench.judge.paired --set evict_weight=1 --set delay_weight=0.2 --seeds 10
    python -m bench.judge.paired --try "evict_weight=1" --try "queue_weight=1" --cases agent,tree

All ``--set`` together are one change; each ``--try`` is one more. They are compared with what SkyLB
ships, or with ``--base``. Loads are shares of each case's capacity, as `bench.judge.cases` has it. Figures
are changes of means over seeds, with 95 % bootstrap intervals over seeds. Hit rates are differences in
points. A star marks an interval without zero. A failed request counts as 120 s to its first token. Below the
cases stands the geometric mean over them.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.judge.cases import NAMES, Case, cases
from bench.judge.runs import Figures, Task, run_task
from bench.judge.variants import Variant, known, ours
from bench.pool import Pool, cores
from skylb.tools.sim.simulate import BrokenError
from skylb.tools.sim.summary import Interval, change, interval
from skylb.tools.text import table

FIRST_SEED = 300
"""Seeds that ``make judge`` does not use: what was chosen here is judged there on other requests."""

COLUMNS: tuple[tuple[str, str], ...] = (
    ("P50", "ttft_p50_s"),
    ("P90", "ttft_p90_s"),
    ("P99", "ttft_p99_s"),
    ("ITL P99", "inter_token_p99_s"),
    ("E2E P90", "e2e_p90_s"),
    ("out tok/s", "output_tokens_per_s"),
)
WORSE = 0.03

Key = tuple[str, str, str]
"""Case, load, name of the variant."""

Rows = dict[Key, dict[int, Figures]]
"""Figures by seed."""


def value(text: str) -> Any:
    """A setting's value as TOML would read it; text without quotes is text."""
    try:
        return json.loads(text)
    except ValueError:
        return None if text == "none" else text


def settings(texts: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` items.

    Raises:
        ValueError: one has no ``=``, or the engine does not know it.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        name = name.removeprefix("engine.")
        if not equals:
            raise ValueError(f"{text}: expected NAME=VALUE")
        found[name] = value(given)
        if not known({name: found[name]}):
            raise ValueError(f"{text}: this version of the engine does not know it")
    return found


def variants(base: dict[str, Any], changes: Sequence[dict[str, Any]]) -> list[Variant]:
    """The base first, then each change of it."""
    shipped = dict(ours().engine) | base
    found = [Variant("base", "", shipped)]
    for number, values in enumerate(changes):
        text = " ".join(f"{name}={given}" for name, given in values.items())
        found.append(Variant(f"change {number + 1}", text, shipped | values))
    return found


def compared(rows: Rows, case: str, load: str, names: tuple[str, str], figure: str) -> Interval | None:
    """By what share a figure of the second variant differs from the first's, over the seeds of both."""
    base, changed = (rows.get((case, load, name), {}) for name in names)
    seeds = [
        seed
        for seed in sorted(base.keys() & changed.keys())
        if figure in base[seed] and figure in changed[seed]
    ]
    if not seeds:
        return None
    ours_, theirs = ([found[seed][figure] for seed in seeds] for found in (changed, base))
    if figure == "hit_rate":
        return interval([one - other for one, other in zip(ours_, theirs, strict=True)])
    return change(ours_, theirs)


def cell(found: Interval | None, *, points: bool = False) -> str:
    """A change with its interval; a star marks one that excludes zero."""
    if found is None:
        return "-"
    star = "*" if found.low > 0 or found.high < 0 else ""
    if points:
        return f"{found.mean * 100:+.1f} [{found.low * 100:+.1f}, {found.high * 100:+.1f}]{star}"
    return f"{found.mean:+.1%} [{found.low:+.1%}, {found.high:+.1%}]{star}"


def report(rows: Rows, chosen: Sequence[Case], load: str, base: Variant, changed: Variant) -> str:
    """The table of one change at one load."""
    lines, factors = [], defaultdict[str, list[float]](list)
    names = (base.name, changed.name)
    worse = []
    for case in chosen:
        before = rows.get((case.name, load, base.name), {})
        after = rows.get((case.name, load, changed.name), {})
        seeds = before.keys() & after.keys()
        if not seeds:
            continue
        cells = [case.name, str(len(seeds)), f"{fmean(before[s]['ttft_p90_s'] for s in seeds) * 1e3:.0f}"]
        for _, figure in COLUMNS:
            found = compared(rows, case.name, load, names, figure)
            cells.append(cell(found))
            if found is not None:
                factors[figure].append(1 + found.mean)
                if figure == "ttft_p90_s" and found.mean > WORSE:
                    worse.append(case.name)
        cells.append(cell(compared(rows, case.name, load, names, "hit_rate"), points=True))
        refused = (sum(found[seed]["refused"] for seed in seeds) for found in (before, after))
        cells.append(" -> ".join(f"{count:.0f}" for count in refused))
        lines.append(tuple(cells))
    means = [
        f"{math.prod(factors[figure]) ** (1 / len(factors[figure])) - 1:+.1%}" if factors[figure] else "-"
        for _, figure in COLUMNS
    ]
    lines.append(("mean of cases", "", "", *means, "", ""))
    head = ("case", "seeds", "base P90 ms", *(title for title, _ in COLUMNS), "hits, points", "refused")
    where = f"P90 worse by more than {WORSE:.0%}: {', '.join(worse) or 'nowhere'}"
    return f"\n{load} of capacity, {changed.name}:\n" + "\n".join(table(head, lines, left=1)) + f"\n{where}"


def measure(
    pool: Pool, chosen: Sequence[Case], shares: Sequence[float], seeds: int, tried: Sequence[Variant]
) -> Rows:
    """Runs all; what there is when it is interrupted."""
    rows: Rows = defaultdict(dict)
    tasks = [
        Task(case, f"{share:.0%}", case.capacity_per_s * share, FIRST_SEED + seed, tuple(tried))
        for seed in range(seeds)
        for share in shares
        for case in chosen
    ]

    def took(task: Task, found: list[Figures]) -> None:
        for variant, row in zip(task.variants, found, strict=True):
            rows[task.case.name, task.load, variant.name][task.seed] = row

    try:
        pool.each(run_task, tasks, took)
    except KeyboardInterrupt:
        print("interrupted: what there is", file=sys.stderr)
    return rows


def main() -> int:
    """Compares and prints."""
    parser = argparse.ArgumentParser(
        prog="bench.judge.paired", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="changed setting")
    parser.add_argument(
        "--try",
        action="append",
        default=[],
        dest="tries",
        metavar="'NAME=VALUE ...'",
        help="one more change, compared with the base too",
    )
    parser.add_argument(
        "--base", default="", metavar="'NAME=VALUE ...'", help="settings of the base and all changes"
    )
    parser.add_argument("--cases", default="", help=f"only these of {', '.join(NAMES)}")
    parser.add_argument("--traces", type=Path, help="directory of trace files")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each variant")
    parser.add_argument("--shares", default="0.85", help="of capacity, such as 0.6,0.85,1.1")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--minutes", type=float, default=1e6, help="end after so long with what there is")
    options = parser.parse_args()
    try:
        base = settings(options.base.split())
        changes = [
            settings(group) for group in (options.set, *(text.split() for text in options.tries)) if group
        ]
        chosen, reason = cases([name for name in options.cases.split(",") if name], options.traces)
    except (KeyError, ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    if not changes:
        parser.error("nothing is changed: expected --set or --try")
    if reason:
        print(reason, file=sys.stderr)
    shares = [float(share) for share in options.shares.split(",")]
    tried = variants(base, changes)
    pool = Pool(options.processes, options.minutes)
    try:
        rows = measure(pool, chosen, shares, options.seeds, tried)
    except BrokenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        pool.close()
    for share in shares:
        for changed in tried[1:]:
            print(report(rows, chosen, f"{share:.0%}", tried[0], changed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
