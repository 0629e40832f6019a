"""Balancers that get the same requests in turn, and what each spends on one.

CPU time is the balancer's own, from the kernel's accounts. Each round gives a ratio of two balancers, so that
a machine that is slower for a while spoils that round only.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.overhead.cpu import cpu_ns
from bench.overhead.measure import Kind, one_round, upstreams
from bench.overhead.proxies import BUILDERS
from bench.processes import Proxy, wait_ready

Figures = Mapping[str, Sequence[float]]
"""CPU microseconds per request in each round, by balancer."""

Change = Callable[[Proxy, Path], None]
"""Makes an ordinary balancer another one, before it starts; it has a directory to itself."""

UNUSED = Path()


def another(checkout: Path) -> Change:
    """The balancer of another checkout with a built ``.venv``."""

    def change(proxy: Proxy, room: Path) -> None:
        del room
        proxy.process.command[0] = str(checkout / ".venv" / "bin" / "python")

    return change


def flags(*arguments: str) -> Change:
    """A balancer with more arguments."""

    def change(proxy: Proxy, room: Path) -> None:
        del room
        proxy.process.command += arguments

    return change


@contextmanager
def balancers(urls: list[str], changes: Mapping[str, Change], body: bytes) -> Iterator[dict[str, Proxy]]:
    """All balancers, ready, by name."""
    with tempfile.TemporaryDirectory() as scratch:
        made: dict[str, Proxy] = {}
        for name, change in changes.items():
            room = Path(scratch) / name
            room.mkdir()
            proxy = BUILDERS["skylb"](urls, room, UNUSED)
            if proxy is None:
                raise RuntimeError("skylb is not installed")
            change(proxy, room)
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


def measure(
    kind: Kind, sent: Sequence[bytes], changes: Mapping[str, Change], *, rounds: int, count: int
) -> dict[str, list[float]]:
    """Runs the rounds.

    Args:
        kind: of work, and of replicas.
        sent: the requests, in turn.
        changes: the balancers.
        rounds: that are measured; one more warms up.
        count: of requests in a round.

    Raises:
        RuntimeError: a request failed.
    """
    body = sent[0].partition(b"\r\n\r\n")[2]
    figures: dict[str, list[float]] = {}
    with upstreams(4, *kind.mock) as urls, balancers(urls, changes, body) as found:
        for number in range(rounds + 1):
            names = sorted(found, reverse=bool(number % 2))  # no balancer always comes first
            for name in names:
                proxy = found[name]
                spent = -cpu_ns(proxy.process.pid)
                tally = one_round(proxy.port, list(sent), count=count, concurrency=kind.concurrency)
                spent += cpu_ns(proxy.process.pid)
                if tally.errors or not tally.requests:
                    raise RuntimeError(f"{name}: {tally.errors} errors in {tally.requests} requests")
                if number:  # the first round warms up
                    figures.setdefault(name, []).append(spent / tally.requests / 1000)
    return figures


def ratio(figures: Figures, one: str, other: str) -> tuple[float, float, float]:
    """Median, smallest and largest ratio of two balancers' rounds."""
    ratios = [a / b for a, b in zip(figures[one], figures[other], strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def costs(figures: Figures, names: Sequence[str], width: int = 8) -> list[str]:
    """A line per balancer: the median of its rounds, the least and the most."""
    lines = []
    for name in names:
        if name in figures:
            values = figures[name]
            median = statistics.median(values)
            lines.append(f"  {name:<{width}}{median:>8.1f}   {min(values):.1f} to {max(values):.1f}")
    return lines


def compared(figures: Figures, one: str, other: str, target: str, width: int = 14) -> str:
    """A line with the ratio of two balancers."""
    median, low, high = ratio(figures, one, other)
    return f"  {f'{one} / {other}':<{width}}{median:.3f}   {low:.3f} to {high:.3f}{target}"
