"""``make bench-demo``: what the demo's switches change, as its page shows it.

Starts ``skylb demo`` and turns its switches over the page's own buttons, several times. After each turn it
waits, and reads from the page's stream the TTFT P90 of all users before and since. CPU is that of all the
demo's processes, from the kernel's accounts.

    python -m bench.demo [--each-s 12] [--rounds 4] [-- flags of skylb demo]
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.record import keep

START_S = 120.0
WARM_S = 25.0
TURNS = (
    ("policy", "round_robin", "predictive to round robin"),
    ("policy", "predictive", "round robin to predictive"),
    ("share", "off", "regions share to regions alone"),
    ("share", "on", "regions alone to regions share"),
)


def started(process: "subprocess.Popen[str]") -> str:
    """The page's URL, once users have been answered."""
    url = ""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.stdout is not None:
        line = process.stdout.readline()
        if found := re.search(r"live page: (\S+)", line):
            url = found[1]
        if "requests/s" in line:
            return url
    raise SystemExit("the demo did not start")


def press(url: str, what: str, name: str) -> None:
    """Turns a switch."""
    body = json.dumps({"do": "set", "what": what, "name": name}).encode()
    request = urllib.request.Request(f"{url}actions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10):
        pass


def frame(url: str) -> dict[str, Any]:
    """The page now."""
    with urllib.request.urlopen(f"{url}events", timeout=10) as stream:
        for line in stream:
            if line.startswith(b"data: {"):
                found: dict[str, Any] = json.loads(line[6:])
                return found
    raise SystemExit("the demo has ended")


def cpu_s(pid: int) -> float:
    """CPU time of a process and its children that have ended or been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def turn(url: str, what: str, name: str, each_s: float) -> tuple[float, float, float]:
    """Turns a switch: TTFT P90 before and since, and the seconds of the latter."""
    press(url, what, name)
    time.sleep(each_s)
    shown = frame(url)
    before, since = shown["before"], shown["since"]
    return before["p90_s"], since["p90_s"], since["seconds"]


def measure(arguments: Sequence[str], *, each_s: float, rounds: int) -> list[str]:
    """The lines of the report."""
    command = [sys.executable, "-m", "skylb", "demo", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = started(process)
        time.sleep(WARM_S)
        pids = family(process.pid)
        cpu, clock = sum(map(cpu_s, pids)), time.monotonic()
        lines = [
            f"skylb demo {' '.join(arguments)}".strip(),
            "TTFT P90 of all users, before and since each turn of a switch",
        ]
        for number in range(rounds):
            for what, name, text in TURNS:
                before_s, since_s, seconds = turn(url, what, name, each_s)
                ratio = since_s / before_s
                lines.append(
                    f"  {number + 1}  {text:<31} {before_s * 1e3:6.0f} ms  {since_s * 1e3:6.0f} ms"
                    f"  x {ratio:4.2f}  (since: {seconds:.0f} s)"
                )
        used = sum(map(cpu_s, pids)) - cpu
        lines.append(f"CPU of all processes: {used / (time.monotonic() - clock):.2f} cores")
        lines.append("in all, under each setting:")
        lines += [
            f"  {found['setting']:<28} P50 {found['p50_s'] * 1e3:5.0f} ms  P90 {found['p90_s'] * 1e3:5.0f} ms"
            f"  in {found['seconds']:.0f} s, {found['requests']} requests"
            for found in frame(url)["given"]
        ]
        return lines
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each-s", type=float, default=12.0, help="seconds after each turn of a switch")
    parser.add_argument("--rounds", type=int, default=4, help="how often all switches are turned")
    parser.add_argument("demo", nargs="*", help="flags of skylb demo, after --")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    lines = measure(given.demo, each_s=given.each_s, rounds=given.rounds)
    lines.append(f"load average of the machine before the run: {load:.1f}")
    print("\n".join(lines))
    if given == parser.parse_args([]):
        keep("bench-demo", lines)


if __name__ == "__main__":
    main()
