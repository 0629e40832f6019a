"""Which policy is best, and what gate and correction are worth.

    python -m bench.judge [--quick] [--traces DIR] [--seeds 10] [--processes N] [--policies a,b]

Six workloads, three loads, the same seeds for all. For each workload the capacity is measured first:
the highest rate of sessions that ``prefix`` sustains. Then the settings of the rivals are tuned, on
seeds of their own; then every variant runs at each share of capacity with the same requests, 85 % first.
The figures go to ``bench/results/judge.json``, the tables to ``bench/results/judge.md``. Ctrl-C keeps
what there is, as does the end of ``--minutes``.
"""

import argparse
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import msgspec

from bench.judge.cases import (
    CASES,
    POLICIES,
    SHARES,
    TUNED_AT,
    Case,
    Variant,
    from_traces,
    tuning_variants,
    variants,
)
from bench.judge.judgment import Judgment
from bench.judge.runs import Task, capacity, run_task
from bench.judge.table import compact, document, summary
from bench.record import RESULTS, machine
from skylb.tools.sim.simulate import BrokenError

TUNING_SEEDS = (100, 101)
SWITCH_SEEDS = 2
"""Each part is switched off on so many of the seeds."""

In = TypeVar("In")
Out = TypeVar("Out")


class Pool:
    """Processes; Ctrl-C is the parent's business alone."""

    def __init__(self, processes: int, minutes: float) -> None:
        self._pool = ProcessPoolExecutor(processes, initializer=_deaf)
        self.began_s = time.monotonic()
        self._until_s = self.began_s + minutes * 60

    def each(
        self, do: Callable[[In], Out], items: Iterable[In], what: str, took: Callable[[In, Out], None]
    ) -> None:
        """Hands every outcome to ``took`` as it comes.

        Raises:
            KeyboardInterrupt: or the time is over; after what had not begun was given up.
        """
        futures: dict[Future[Out], In] = {self._pool.submit(do, item): item for item in items}
        with ExitStack() as undo:
            undo.callback(self._pool.shutdown, cancel_futures=True)
            for done, future in enumerate(as_completed(futures), 1):
                took(futures[future], future.result())
                elapsed_s = time.monotonic() - self.began_s
                print(f"{elapsed_s:6.0f} s  {what}: {done}/{len(futures)}", file=sys.stderr, flush=True)
                self._mind_the_time()
            undo.pop_all()

    def _mind_the_time(self) -> None:
        if time.monotonic() > self._until_s:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown()


def _deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def judge(options: argparse.Namespace, judgment: Judgment) -> None:
    """Runs everything; ``judgment`` holds what there is at any time."""
    wanted = options.cases.split(",")
    found = from_traces(options.traces) if options.traces else CASES
    cases = [case for case in found if case.name in wanted]
    pool = Pool(options.processes, options.minutes)
    try:
        pool.each(capacity, cases, "capacity", lambda case, rate: judgment.capacity.update({case.name: rate}))
        if not options.quick:
            tune(pool, cases, judgment)
        shares = [float(share) for share in options.shares.split(",")]
        tasks = [
            Task(
                case=case,
                share=share,
                rate_per_s=judgment.capacity[case.name] * share,
                seed=seed,
                variants=chosen(case, share, seed, options, judgment),
                duration_s=case.duration_s,
                warmup_s=case.warmup_s,
            )
            for seed in range(options.seeds)
            for share in shares
            for case in cases
        ]
        tasks.sort(key=lambda task: task.share != TUNED_AT)
        pool.each(run_task, tasks, "runs", judgment.add)
    finally:
        pool.close()


def chosen(
    case: Case, share: float, seed: int, options: argparse.Namespace, judgment: Judgment
) -> list[Variant]:
    """The variants of one case at one load, with one seed."""
    main = share == TUNED_AT
    switches = main and seed < SWITCH_SEEDS and (not options.quick or options.switches)
    found = variants(judgment.tuned.get(case.name, {}), floor=main, switches=switches)
    wanted = options.policies.split(",")
    return [variant for variant in found if variant.policy in wanted or variant.policy not in POLICIES]


def tune(pool: Pool, cases: Sequence[Case], judgment: Judgment) -> None:
    """For each rival the settings of its grid with the best P90 TTFT at one load, on seeds of their own."""
    grid = tuning_variants()
    tasks = [
        Task(
            case=case,
            share=TUNED_AT,
            rate_per_s=judgment.capacity[case.name] * TUNED_AT,
            seed=seed,
            variants=[Variant(policy, engine={"policy": policy} | values) for policy, values in grid],
            duration_s=case.duration_s,
            warmup_s=case.warmup_s,
        )
        for case in cases
        for seed in TUNING_SEEDS
    ]
    found: dict[str, list[list[float]]] = defaultdict(list)
    pool.each(
        run_task,
        tasks,
        "tuning",
        lambda task, rows: found[task.case.name].append([row["ttft_p90_s"] or 0.0 for row in rows]),
    )
    for case, runs in found.items():
        means = [fmean(column) for column in zip(*runs, strict=True)]
        best: dict[str, tuple[float, dict[str, Any]]] = {}
        for (policy, values), mean in zip(grid, means, strict=True):
            if policy not in best or mean < best[policy][0]:
                best[policy] = (mean, values)
        judgment.tuned[case] = {policy: values for policy, (_, values) in best.items()}


def stored(judgment: Judgment) -> bytes:
    """What bench/results keeps: means and intervals."""
    rows = {
        case: {share: compact(variants) for share, variants in shares.items()}
        for case, shares in judgment.rows.items()
    }
    found = {"about": judgment.about, "capacity": judgment.capacity, "tuned": judgment.tuned, "figures": rows}
    return msgspec.json.encode(found) + b"\n"


def main() -> int:
    """Judges, writes, prints the summary."""
    parser = argparse.ArgumentParser(prog="bench.judge", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="85 %% only, nothing tuned or switched off; 3 seeds"
    )
    parser.add_argument(
        "--traces", type=Path, help="directory of trace files to use instead of made-up requests"
    )
    parser.add_argument("--seeds", type=int, default=0, help="runs of each variant (10; quick: 3)")
    parser.add_argument("--shares", default="", help="of capacity (0.6,0.85,1.1; quick: 0.85)")
    parser.add_argument("--switches", action="store_true", help="quick: gate and correction too")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES), help="only these workloads")
    parser.add_argument("--minutes", type=float, default=1e6, help="end after so long with what there is")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--policies", default=",".join(POLICIES), help="only these (and oracle, paper's rules)"
    )
    parser.add_argument("--write", action="store_true", help="renew bench/results/judge.md, quick or not")
    options = parser.parse_args()
    options.shares = options.shares or ",".join(map(str, (TUNED_AT,) if options.quick else SHARES))
    options.seeds = options.seeds or (3 if options.quick else 10)
    judgment = Judgment()
    began_s = time.monotonic()
    interrupted = False
    try:
        judge(options, judgment)
    except KeyboardInterrupt:
        interrupted = True
    except BrokenError as error:
        print(f"error: {error}", file=sys.stderr)
        interrupted = True
    judgment.about = machine() | {
        "command": "make judge" + " QUICK=1" * options.quick,
        "requests": "trace files" if options.traces else "made up (skylb.tools.sim.workload)",
        "seeds": options.seeds,
        "wall_s": round(time.monotonic() - began_s),
        "interrupted": interrupted,
    }
    if not judgment.rows:
        print("nothing was run to its end", file=sys.stderr)
        return 1
    name = "judge" + "-quick" * options.quick + "-traces" * bool(options.traces)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_bytes(stored(judgment))
    print(summary(judgment))
    if options.write or not (options.quick or options.traces or interrupted):
        (RESULTS / "judge.md").write_text(document(judgment))
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
