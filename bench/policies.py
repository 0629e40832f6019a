"""A real trace through the real proxy: every policy at two shares of measured capacity.

    python -m bench.policies [--workload FILE] [--sessions 300] [--seconds 30] [--policies prefix,ring]

Four mock replicas (`l4-8b` with 200k tokens of KV room, time ten times faster), sessions in closed
loop. Capacity is the throughput with more users than the replicas can take. The users for a share of
it follow from the interactive response-time law, corrected by what was reached.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

from bench.record import keep
from skylb.config import Policy
from tests.support.processes import balancer, mocks

ROOT = Path(__file__).resolve().parents[1]
WORKLOAD = ROOT.parent / "shared" / "data" / "examples" / "chat_wildchatlike_b64.jsonl.gz"
TIME_SCALE = "0.1"
MOCK = ("--profile", "l4-8b", "--kv-tokens", "200000", "--max-model-len", "65536", "--time-scale", TIME_SCALE)
SATURATING_USERS = 150
SHARES = (0.60, 0.85)
CORRECTIONS_MAX = 4


def run(policy: str, users: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run: fresh replicas, fresh balancer; the load generator's report."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        mocks(4, *MOCK) as urls,
        balancer(*urls, arguments=["--policy", policy]) as front,
    ):
        report = Path(scratch) / "report.json"
        command = [sys.executable, "-m", "skylb", "load", "--target", front.url, "--progress", "off"]
        command += ["--workload", str(options.workload), "--sessions", str(options.sessions)]
        command += [
            "--concurrency",
            str(users),
            "--time-scale",
            TIME_SCALE,
            "--duration-s",
            str(options.seconds),
        ]
        command += ["--drain-s", "5", "--warmup-s", str(options.seconds / 6), "--json-file", str(report)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result: dict[str, Any] = json.loads(report.read_text())
    return result


def tokens_per_s(report: dict[str, Any]) -> float:
    """Throughput as the paper counts: input + 2 x output tokens."""
    return float(report["total"]["tokens_per_s"])


def row(policy: str, share: float, users: int, capacity: float, report: dict[str, Any]) -> str:
    """One line of the table."""
    total = report["total"]
    rate = tokens_per_s(report)
    p50, p90, p99 = (total["ttft_s"][q] * 1e3 for q in ("p50", "p90", "p99"))
    load = f"  {policy:<14}{share:>6.0%}{users:>7}{rate / capacity:>9.0%}{rate:>10.0f}"
    return f"{load}{total['hit_rate']:>10.3f}{p50:>13.0f}{p90:>9.0f}{p99:>9.0f}{total['failed']:>8}"


def users_for(share: float, capacity: float, per_user: float, options: argparse.Namespace) -> int:
    """Users with whom `prefix` reaches that share of capacity, as nearly as whole users can."""
    users, tried = max(1, round(share * capacity / per_user)), dict[int, float]()
    while users not in tried and len(tried) < CORRECTIONS_MAX:
        tried[users] = tokens_per_s(run("prefix", users, options)) / capacity
        users = max(1, round(users * share / max(tried[users], 0.1)))
    return min(tried, key=lambda count: abs(tried[count] - share))


def main() -> None:
    """Measures capacity, then all policies at both shares; prints and stores the table."""
    parser = argparse.ArgumentParser(prog="bench.policies")
    parser.add_argument("--workload", type=Path, default=WORKLOAD)
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--policies", default=",".join(get_args(Policy)))
    options = parser.parse_args()
    if not options.workload.exists():
        parser.error(f"--workload: {options.workload} does not exist")
    capacity = tokens_per_s(run("prefix", SATURATING_USERS, options))
    lines = [f"capacity under prefix: {capacity:.0f} tokens/s (input + 2 x output), time scale {TIME_SCALE}"]
    lines.append(
        f"  {'policy':<14}{'share':>6}{'users':>7}{'reached':>9}{'tokens/s':>10}"
        f"{'hit rate':>10}{'TTFT P50 ms':>13}{'P90':>9}{'P99':>9}{'failed':>8}"
    )
    print("\n".join(lines), flush=True)
    per_user = tokens_per_s(run("prefix", 4, options)) / 4
    for share in SHARES:
        users = users_for(share, capacity, per_user, options)
        for policy in options.policies.split(","):
            lines.append(row(policy, share, users, capacity, run(policy, users, options)))
            print(lines[-1], flush=True)
    if options == parser.parse_args([]):
        keep("bench-policies", lines)


if __name__ == "__main__":
    main()
