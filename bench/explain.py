"""``make bench-explain``: what receipts, spans and a shadow policy cost per request, alone and together.

Balancers stand in front of the same mock replicas and get the same requests in turn (`bench.paired`). One has
none of these features, one each of them, and one all. A receiver takes the spans and answers at once. With
``--before``, one balancer is of another checkout, to show that what is off costs nothing.

    python -m bench.explain [--rounds 9] [--count 4000] [--before ../main]
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.guard import WORK
from bench.overhead import work
from bench.overhead.measure import Kind, canned_upstreams
from bench.paired import Change, Figures, another, compared, costs, flags, measure
from bench.processes import REST_CPU, Proxy
from bench.record import keep
from skylb.config import Settings
from skylb.options import options

TARGET = 1.05
POLICY = ("--policy", "predictive")
"""The default: the bench's other balancers have ``prefix``, which counts here for a row of its own."""

WIDTH = 28


def features(collector: str) -> dict[str, tuple[str, ...]]:
    """What each feature is turned on with; ``collector`` takes the spans."""
    return {
        "receipts": ("--receipts", "1000"),
        "spans": ("--otlp-endpoint", collector, "--otlp-sample-ratio", "0.1"),
        "shadow": ("--shadow-policy", "prefix"),
    }


def known(arguments: Sequence[str], names: set[str]) -> bool:
    """Whether this checkout has all flags."""
    return all(argument in names for argument in arguments if argument.startswith("--"))


def variants(collector: str, before: Path | None) -> dict[str, Change]:
    """The balancers, by name; a feature that this checkout lacks is left out."""
    names = {option.flag for option in options(Settings)}
    found = {name: of for name, of in features(collector).items() if known(of, names)}
    changes = {"off": flags(*POLICY)}
    changes |= {name: flags(*POLICY, *of) for name, of in found.items()}
    changes["all"] = flags(*POLICY, *(argument for of in found.values() for argument in of))
    if "shadow" in found:
        changes["prefix off"] = flags()
        changes["prefix shadow"] = flags("--shadow-policy", "predictive")
    return changes if before is None else {**changes, "before": _before(before)}


def _before(checkout: Path) -> Change:
    def change(proxy: Proxy, room: Path) -> None:
        flags(*POLICY)(proxy, room)
        another(checkout)(proxy, room)

    return change


@contextmanager
def collecting() -> Iterator[str]:
    """A receiver of spans, on the other CPU; its URL."""
    with canned_upstreams(1) as urls:
        yield urls[0]


def table(title: str, figures: Figures) -> list[str]:
    """Rows of one kind of work."""
    lines = [f"{title}: CPU per request, us; {len(figures['off'])} rounds in turn"]
    lines += costs(figures, ("before", *(name for name in figures if name != "before")), WIDTH)
    if "before" in figures:
        lines.append(compared(figures, "off", "before", "   (target: 1 within the noise)", WIDTH))
    for name in ("receipts", "spans", "shadow"):
        if name in figures:
            lines.append(compared(figures, name, "off", "", WIDTH))
    lines.append(compared(figures, "all", "off", f"   (target <= {TARGET})", WIDTH))
    if "prefix shadow" in figures:
        lines.append(compared(figures, "prefix shadow", "prefix off", "", WIDTH))
    return lines


def run(rounds: int, count: int, before: Path | None, kinds: Mapping[str, Kind]) -> list[str]:
    """Measures and prints; the lines."""
    lines: list[str] = []
    with collecting() as collector:
        for kind in kinds.values():
            sent = work.requests(kind.distinct, size=kind.size, stream=kind.stream, tokens=kind.tokens)
            figures = measure(kind, sent, variants(collector, before), rounds=rounds, count=count)
            rows = [*table(kind.title, figures), ""]
            print("\n".join(rows), flush=True)
            lines += rows
    return lines


def main() -> None:
    """Measures, prints, stores."""
    parser = argparse.ArgumentParser(prog="bench.explain")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--before", type=Path, help="another checkout with a built .venv, as ../main")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {REST_CPU})
    lines = run(arguments.rounds, arguments.count, arguments.before, WORK)
    if arguments.rounds >= 5:
        keep("bench-explain", lines[:-1])


if __name__ == "__main__":
    main()
