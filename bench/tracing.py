"""``make bench-tracing``: what spans cost per request, beside a balancer without them.

Balancers stand in front of the same mock replicas and get the same requests in turn. One makes no spans, the
others export 1, 10 and 100 % of the requests to a collector that answers and keeps nothing, or to none that
is there. With ``--before``, one is of another checkout, to show that what is off costs nothing. CPU time is
the balancer's own, from the kernel's accounts, the exporter's thread included. Each round gives a ratio, so
that a machine that is slower for a while spoils that round only.

    python -m bench.tracing [--rounds 9] [--count 4000] [--before ../main]
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from bench.guard import UNUSED, WORK, ratio
from bench.overhead import work
from bench.overhead.cpu import cpu_ns
from bench.overhead.measure import Kind, one_round, upstreams
from bench.overhead.proxies import BUILDERS
from bench.processes import REST_CPU, Proxy, wait_ready
from bench.record import keep

TARGET = 1.05

RATIOS = {"1 %": "0.01", "10 %": "0.1", "100 %": "1"}
AWAY = "away"
"""All requests have spans, and no collector is there."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Takes spans and keeps nothing."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def collector() -> Iterator[str]:
    """The URL of a collector in this process, whose CPU time does not count."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def balancers(urls: list[str], before: Path | None, body: bytes) -> Iterator[dict[str, Proxy]]:
    """All balancers, ready, by name."""
    with tempfile.TemporaryDirectory() as scratch, collector() as endpoint:
        made: dict[str, Proxy] = {}
        for name in ("off", *RATIOS, AWAY, *(("before",) if before is not None else ())):
            room = Path(scratch) / name.split()[0]
            room.mkdir()
            proxy = BUILDERS["skylb"](urls, room, UNUSED)
            if proxy is None:
                raise RuntimeError("skylb is not installed")
            if name in RATIOS:
                proxy.process.command += ["--otlp-endpoint", endpoint, "--otlp-sample-ratio", RATIOS[name]]
            if name == AWAY:
                proxy.process.command += ["--otlp-endpoint", "http://127.0.0.1:9"]
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
    sent = work.requests(kind.distinct, size=kind.size, stream=kind.stream, tokens=kind.tokens)
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


def table(title: str, figures: dict[str, list[float]]) -> list[str]:
    """Rows of one kind of work."""
    lines = [f"{title}: CPU per request, us; {len(figures['off'])} rounds in turn"]
    names = [name for name in ("before", "off", *RATIOS, AWAY) if name in figures]
    for name in names:
        values = figures[name]
        lines.append(f"  {name:<8}{statistics.median(values):>8.1f}   {min(values):.1f} to {max(values):.1f}")
    for name in (*RATIOS, AWAY):
        median, low, high = ratio(figures, name, "off")
        lines.append(f"  {name:>6} / off      {median:.3f}   {low:.3f} to {high:.3f}   (target <= {TARGET})")
    if "before" in figures:
        median, low, high = ratio(figures, "off", "before")
        lines.append(f"     off / before   {median:.3f}   {low:.3f} to {high:.3f}   (target: 1)")
    return lines


def main() -> None:
    """Measures, prints, stores."""
    parser = argparse.ArgumentParser(prog="bench.tracing")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--before", type=Path, help="another checkout with a built .venv, as ../main")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {REST_CPU})
    lines: list[str] = []
    for name in ("unary", "short"):
        kind = WORK[name]
        figures = measure(kind, rounds=arguments.rounds, count=arguments.count, before=arguments.before)
        rows = [*table(kind.title, figures), ""]
        lines += rows
        print("\n".join(rows), flush=True)
    if arguments.rounds >= 5:
        keep("bench-tracing", lines[:-1])


if __name__ == "__main__":
    main()
