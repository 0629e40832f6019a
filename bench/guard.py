"""``make bench-guard``: what keys, limits and fairness cost per request, beside a balancer without them.

Balancers stand in front of the same mock replicas and get the same requests in turn. One has a keys file
with limits that are never reached, one a keys file without limits, and one none and ``tenant_rule``
``"none"``. With ``--before``, one is of another checkout, to show that what is off costs nothing.
`bench.paired` measures.

    python -m bench.guard [--rounds 9] [--count 4000] [--before ../main]
"""

import argparse
import hashlib
import os
from pathlib import Path

from bench.overhead import work
from bench.overhead.measure import KINDS, Kind
from bench.paired import Change, Figures, another, compared, costs, flags, measure
from bench.processes import REST_CPU, Proxy
from bench.record import keep

TENANTS = 10
OWN_KEY = "sk-bench"
"""The key of the requests of `bench.overhead.work`."""

TARGET = 1.05
LIMITS = ["requests_per_minute = 1000000000", "tokens_per_minute = 1000000000", "concurrent = 1000000"]


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


def keyed(*, limits: bool) -> Change:
    """A balancer with a keys file."""

    def change(proxy: Proxy, room: Path) -> None:
        proxy.process.command += ["--keys-file", str(keys_file(room / "keys.toml", limits=limits))]
        proxy.key = OWN_KEY

    return change


def variants(before: Path | None) -> dict[str, Change]:
    """The balancers, by name."""
    found = {
        "off": flags("--engine-tenant-rule", "none"),
        "keys": keyed(limits=False),
        "on": keyed(limits=True),
    }
    return found if before is None else {**found, "before": another(before)}


def table(title: str, figures: Figures) -> list[str]:
    """Rows of one kind of work."""
    lines = [f"{title}: CPU per request, us; {len(figures['off'])} rounds in turn"]
    lines += costs(figures, ("before", "off", "keys", "on"))
    lines.append(compared(figures, "keys", "off", ""))
    lines.append(compared(figures, "on", "off", f"   (target <= {TARGET})"))
    if "before" in figures:
        lines.append(compared(figures, "off", "before", "   (target: 1 within the noise)", 16))
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
        changes = variants(arguments.before)
        figures = measure(kind, requests(kind), changes, rounds=arguments.rounds, count=arguments.count)
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
