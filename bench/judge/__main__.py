"""Which policy serves the most sessions within a bound, and how fast it is: SkyLB against its rivals.

    python -m bench.judge [--quick] [--cases a,b] [--policies a,b] [--traces DIR] [--minutes 30]

Every rival runs as its project ships it (requests are pushed at once) and behind SkyLB's gate; the better of
both counts. SkyLB's default has its shipped settings. For each case the capacity is measured first: the rate
that half of the rules sustain. Then all rules run at 85 % of it. Then the highest rate is searched at which
90 % of the requests get their first token within the case's bound. Other loads, settings tried for an upper
bound, and the bound of inter-token times follow.

The figures go to ``bench/results/judge.json``, tables and plots to ``bench/results/judge.md``. Ctrl-C keeps
what there is in files named ``judge-part``, as does the end of ``--minutes``. The quick judge writes
``judge-quick``.
"""

import argparse
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from bench.judge.cases import NAMES, Case, cases
from bench.judge.document import document, stored
from bench.judge.judgment import TTFT, Judgment
from bench.judge.plan import QUICK, Effort, Plan
from bench.judge.plots import write
from bench.judge.runs import Figures, Task, run_task
from bench.judge.summary import summary
from bench.judge.variants import DEFAULT, POLICIES
from bench.pool import Follower, Pool, cores
from bench.record import RESULTS, machine
from skylb.tools.sim.simulate import BrokenError

QUICK_CASES = (
    "arena",
    "tree",
    "short_answers",
    "one_turn",
    "tool_agent",
    "long_mix",
    "burst",
    "mixed_fleet",
    "trace_agent",
)
QUICK_LENGTH = 0.5
"""The quick judge measures half as long; caches need all their time to fill."""


def judge(plans: list[Plan], judgment: Judgment, options: argparse.Namespace) -> bool:
    """Runs all plans; whether they came to their end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # a shell's background job would ignore the first
    judgment.verdicts = {plan.verdict.case.name: plan.verdict for plan in plans}
    pool = Pool(options.processes, options.minutes)
    followers: list[Follower[Task, list[Figures]]] = [
        Follower(plan.steps(), plan.verdict.add) for plan in plans
    ]
    try:
        pool.follow(run_task, followers, lambda task: f"{task.case.name}, {task.load}")
    except KeyboardInterrupt:
        print("interrupted: what there is", file=sys.stderr)
        return False
    except BrokenError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    finally:
        pool.close()
    return True


def quick(case: Case) -> Case:
    """The same case, measured half as long."""
    measured_s = (case.duration_s - case.warmup_s) * QUICK_LENGTH
    workload = case.workload
    if workload.burst_s:
        into_s = (workload.burst_at_s - case.warmup_s) * QUICK_LENGTH
        workload = msgspec.structs.replace(workload, burst_at_s=case.warmup_s + into_s)
    return replace(case, workload=workload, duration_s=case.warmup_s + measured_s)


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line."""
    parser.add_argument("--quick", action="store_true", help="some cases, half as long, fewer seeds")
    parser.add_argument("--cases", default="", help=f"only these of {', '.join(NAMES)}")
    parser.add_argument("--policies", default=",".join(POLICIES), help=f"only these, and {DEFAULT}")
    parser.add_argument("--traces", type=Path, help="directory of trace files (../shared/data/examples)")
    parser.add_argument("--minutes", type=float, default=1e6, help="end after so long with what there is")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--write", action="store_true", help="renew bench/results/judge.md, whatever ran")
    return parser.parse_args()


def keep(judgment: Judgment, name: str) -> None:
    """Writes figures, tables and plots to bench/results; git ignores all names but ``judge``."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_bytes(stored(judgment))
    (RESULTS / f"{name}.md").write_text(document(judgment, name))
    write(judgment, RESULTS, name)


def main() -> int:
    """Judges, writes, prints the summary."""
    parser = argparse.ArgumentParser(
        prog="bench.judge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = options_of(parser)
    names = [name for name in options.cases.split(",") if name]
    wanted = names or (QUICK_CASES if options.quick else ())
    policies = options.policies.split(",")
    unknown = sorted(set(policies) - set(POLICIES))
    if unknown:
        parser.error(f"--policies: there is no {', '.join(unknown)}")
    try:
        found, reason = cases(wanted, options.traces)
    except KeyError as error:
        parser.error(f"--cases: there is no {error}")
    except FileNotFoundError as error:
        parser.error(f"--traces: there is no {error}")
    if reason:
        print(reason, file=sys.stderr)
    effort = QUICK if options.quick else Effort()
    plans = [Plan(quick(case) if options.quick else case, effort, policies) for case in found]
    judgment = Judgment()
    began_s = time.monotonic()
    whole = judge(plans, judgment, options)
    judgment.about = machine() | {
        "command": "make judge" + " QUICK=1" * options.quick,
        "wall_s": round(time.monotonic() - began_s),
        "interrupted": not whole,
        "left_out": reason,
    }
    if not any(verdict.rates[TTFT] for verdict in judgment.verdicts.values()):
        print("nothing was run to its end", file=sys.stderr)
        return 1
    print(summary(judgment))
    complete = whole and not options.quick and not names and set(policies) == set(POLICIES)
    keep(judgment, "judge" if complete or options.write else "judge-quick" if options.quick else "judge-part")
    return 0 if whole else 130


if __name__ == "__main__":
    sys.exit(main())
