"""``make bench-guard``: what keys, limits and fairness cost per request, beside a balancer without them.

Balancers stand in front of the same mock replicas and get the same requests in turn. One has a keys file
with limits that are never reached, one a keys file without limits, and one none and ``tenant_rule``
``"none"``. With ``--before``, one is of another checkout, to show that what is off costs nothing. CPU time is
the balancer's own, from the kernel's accounts. Each round gives a ratio, so that a machine that is slower for
a while spoils that round only.

    python -m bench.guard [--rounds 9] [--count 4000] [--before ../main]
"""

import argparse
import hashlib
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.overhead import work
from bench.overhead.cpu import cpu_ns
from bench.overhead.measure import KINDS, Kind, one_round, upstreams
from bench.overhead.proxies import BUILDERS
from bench.processes import REST_CPU, Proxy, wait_ready
from bench.record import keep

TENANTS = 10
OWN_KEY = "sk-bench"
"""The key of the requests of `bench.overhead.work`."""

TARGET = 1.05
LIMITS = ["requests_per_minute = 1000000000", "tokens_per_minute = 1000000000", "concurrent = 1000000"]
UNUSED = Path()


def keys_file(path: Path, *, limits: bool) -> Path:
    """Tenants with a key each, and with every limit, far away, or none."""
    lines = []
    for number in range(TENANTS):
        digest = hashlib.sha256(key(number).encode()).hexdigest()
        lines += [f"[tenants.t{number}]", f"weight = {1 + number}", 'models = ["bench"]']
        if limits:
            lines += LIMITS
        lines += [
            "[[keys]]",
            f'id = "k{number}"',
            f'sha256 = "{digest}"',
            f'tenant = "t{number}"',
        ]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


def key(number: int) -> str:
    """A key as long as those that ``skylb keys new`` makes; the first one is that of all requests."""
    return OWN_KEY if number == 0 else f"sk-{number:043}"


def requests(kind: Kind) -> list[bytes]:
    """Requests of all tenants in turn."""
    plain = work.requests(kind.distinct, size=kind.size, stream=kind.stream, tokens=kind.tokens)
    return [
        request.replace(OWN_KEY.encode(), key(index % TENANTS).encode(), 1)
        for index, request in enumerate(plain)
    ]


@contextmanager
def balancers(urls: list[str], before: Path | None, body: bytes) -> Iterator[dict[str, Proxy]]:
    """All balancers, ready, by name."""
    with tempfile.TemporaryDirectory() as scratch:
        made: dict[str, Proxy] = {}
        for name in ("off", "keys", "on", *(("before",) if before is not None else ())):
            room = Path(scratch) / name
            room.mkdir()
            proxy = BUILDERS["skylb"](urls, room, UNUSED)
            if proxy is None:
                raise RuntimeError("skylb is not installed")
            if name in {"on", "keys"}:
                file = keys_file(room / "keys.toml", limits=name == "on")
                proxy.process.command += ["--keys-file", str(file)]
                proxy.key = OWN_KEY
            if name == "off":
                proxy.process.command += ["--engine-tenant-rule", "none"]
            if name == "before" and before is not None:
                proxy.process.command[0] = str(before / ".venv" / "bin" / "python")
            made[name] = proxy
        try:
            for proxy in made.values():
                proxy.process.start()
            for proxy in made.values():
                wait_ready(proxy, body)
            yield made
        finally:
            for proxy in made.values():
                proxy.process.stop()


def measure(kind: Kind, *, rounds: int, count: int, before: Path | None) -> dict[str, list[float]]:
    """CPU microseconds per request in each round, by balancer."""
    sent = requests(kind)
    body = sent[0].partition(b"\r\n\r\n")[2]
    figures: dict[str, list[float]] = {}
    with upstreams(4, *kind.mock) as urls, balancers(urls, before, body) as found:
        for number in range(rounds + 1):
            names = sorted(found, reverse=bool(number % 2))  # no balancer always comes first
            for name in names:
                proxy = found[name]
                spent = -cpu_ns(proxy.process.pid)
                tally = one_round(proxy.port, sent, count=count, concurrency=kind.concurrency)
                spent += cpu_ns(proxy.process.pid)
                if tally.errors or not tally.requests:
                    raise RuntimeError(f"{name}: {tally.errors} errors in {tally.requests} requests")
                if number:  # the first round warms up
                    figures.setdefault(name, []).append(spent / tally.requests / 1000)
    return figures


def ratio(figures: dict[str, list[float]], one: str, other: str) -> tuple[float, float, float]:
    """Median, smallest and largest ratio of two balancers' rounds."""
    ratios = [a / b for a, b in zip(figures[one], figures[other], strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def table(title: str, figures: dict[str, list[float]]) -> list[str]:
    """Rows of one kind of work."""
    lines = [f"{title}: CPU per request, us; {len(figures['off'])} rounds in turn"]
    for name in ("before", "off", "keys", "on"):
        if name in figures:
            values = figures[name]
            lines.append(
                f"  {name:<8}{statistics.median(values):>8.1f}   {min(values):.1f} to {max(values):.1f}"
            )
    median, low, high = ratio(figures, "keys", "off")
    lines.append(f"  keys / off    {median:.3f}   {low:.3f} to {high:.3f}")
    median, low, high = ratio(figures, "on", "off")
    lines.append(f"  on / off      {median:.3f}   {low:.3f} to {high:.3f}   (target <= {TARGET})")
    if "before" in figures:
        median, low, high = ratio(figures, "off", "before")
        lines.append(f"  off / before  {median:.3f}   {low:.3f} to {high:.3f}   (target: 1 within the noise)")
    return lines


def main() -> None:
    """Measures, prints, stores."""
    parser = argparse.ArgumentParser(prog="bench.guard")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--before", type=Path, help="another checkout with a built .venv, as ../main")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {REST_CPU})
    lines: list[str] = []
    for name in ("unary", "short"):
        kind = WORK[name]
        figures = measure(kind, rounds=arguments.rounds, count=arguments.count, before=arguments.before)
        lines += [*table(kind.title, figures), ""]
        print("\n".join(lines[-len(table(kind.title, figures)) - 1 :]), flush=True)
    if arguments.rounds >= 5:
        keep("bench-guard", lines[:-1])


WORK = {
    "unary": KINDS["unary"],
    "short": Kind("short", "2 kB chat, streamed, 8 tokens", "request", (), 2000, True, 8, 4000, 32, 1000),
}


if __name__ == "__main__":
    main()
