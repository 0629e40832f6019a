"""Runs all proxies in turn over the same work, and prints a table with ratios.

python -m bench.overhead [--rounds 5] [--only haproxy,skylb] [--work unary,loop,stream,large,ttft,probes]
"""

import argparse
import os
import sys
from typing import Any

from bench.overhead import report
from bench.overhead.measure import KINDS, added_ttft, measure, probing
from bench.overhead.proxies import BUILDERS
from bench.processes import REST_CPU
from bench.record import machine


def main() -> None:
    """Measures, prints, stores."""
    parser = argparse.ArgumentParser(prog="bench.overhead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(BUILDERS))
    parser.add_argument("--work", default="unary,loop,stream,large,ttft,probes")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {REST_CPU})
    names, kinds = arguments.only.split(","), arguments.work.split(",")
    command = " ".join(["python -m bench.overhead", *sys.argv[1:]])
    result: dict[str, Any] = {"machine": machine(), "command": command}
    texts = []

    def tell(text: str) -> None:
        texts.append(text)
        print(text, flush=True)

    for name in (name for name in kinds if name in KINDS):
        result[name] = measure(KINDS[name], names, arguments.rounds)
        tell(report.table(KINDS[name], result[name]))
    if "ttft" in kinds:
        result["ttft"] = added_ttft(arguments.rounds)
        tell(report.ttft_line(result["ttft"]))
    if "probes" in kinds:
        result["probes"], result["whole_probes"] = probing(whole=False), probing(whole=True)
        tell(report.probing_lines(result["probes"], result["whole_probes"]))
    if {*KINDS, "ttft", "probes"} <= set(kinds) and arguments.rounds >= 5:
        report.store(result, texts)


if __name__ == "__main__":
    main()
