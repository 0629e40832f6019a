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
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from bench.guard import WORK
from bench.overhead import work
from bench.paired import Change, Figures, another, compared, costs, flags, measure
from bench.processes import REST_CPU
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


def variants(endpoint: str, before: Path | None) -> dict[str, Change]:
    """The balancers, by name."""
    found = {"off": flags()}
    for name, share in RATIOS.items():
        found[name] = flags("--otlp-endpoint", endpoint, "--otlp-sample-ratio", share)
    found[AWAY] = flags("--otlp-endpoint", "http://127.0.0.1:9", "--otlp-sample-ratio", "1")
    return found if before is None else {**found, "before": another(before)}


def table(title: str, figures: Figures) -> list[str]:
    """Rows of one kind of work."""
    lines = [f"{title}: CPU per request, us; {len(figures['off'])} rounds in turn"]
    lines += costs(figures, ("before", "off", *RATIOS, AWAY))
    lines += [compared(figures, name, "off", f"   (target <= {TARGET})") for name in (*RATIOS, AWAY)]
    if "before" in figures:
        lines.append(compared(figures, "off", "before", "   (target: 1 within the noise)"))
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
        sent = work.requests(kind.distinct, size=kind.size, stream=kind.stream, tokens=kind.tokens)
        with collector() as endpoint:
            changes = variants(endpoint, arguments.before)
            figures = measure(kind, sent, changes, rounds=arguments.rounds, count=arguments.count)
        rows = [*table(kind.title, figures), ""]
        lines += rows
        print("\n".join(rows), flush=True)
    if arguments.rounds >= 5:
        keep("bench-tracing", lines[:-1])


if __name__ == "__main__":
    main()
