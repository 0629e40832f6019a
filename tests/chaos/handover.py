"""``make bench-handover``: hand-overs under load, and what they cost clients; prints and keeps the figures.

Clients keep their connections, retry nothing, and count what becomes of each request. ``HANDOVERS`` in the
environment is how many there are of each kind (20 unless given). A run with another number only prints.
"""

import asyncio
import os
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.record import keep
from tests.support.callers import Callers, Door, Tally
from tests.support.processes import PATIENCE_S, SKYLB, Child, free_port, mocks

KEPT = 20
"""Hand-overs of each kind in a run whose figures are kept."""

HANDOVERS = int(os.environ.get("HANDOVERS", KEPT))
CALLERS = 24
REPLICAS = 4
SETTLE_S = 1.0
OPEN = 3
THINK_S = 1.0
"""Where hit rates are measured: conversations that each client has open, and its pause between two requests.
So many of a minute's requests continue what was cached before it."""
MINUTE_S = 60.0 if HANDOVERS == KEPT else 10.0
"""Before and after the hand-over whose hit rate is measured."""

READY = "try: curl"
TLS = Path(__file__).parents[1] / "support" / "tls"

HEAD = (
    "| clients at | hand-overs | requests | refused | reset | cut | other | start to report, s |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass
class Line:
    """A balancer that is succeeded again and again."""

    command: list[str]
    current: Child

    def succeed(self, *more: str) -> tuple[Child, float]:
        """Starts the next one, which takes over; the one before it, and how long it took."""
        began = time.monotonic()
        after = Child([*self.command, *more])
        after.require(lambda: READY in after.text(), timeout_s=PATIENCE_S, what="takes over")
        before, self.current = self.current, after
        return before, time.monotonic() - began


@contextmanager
def line(replicas: list[str], *arguments: str) -> Iterator[Line]:
    """The first of them."""
    command = [*SKYLB, "serve", "--access-log", "off", *arguments]
    for url in replicas:
        command += ["--replica", url]
    first = Child(command)
    found = Line(command, first)
    try:
        first.require(lambda: READY in first.text(), timeout_s=PATIENCE_S, what="balancer ready")
        yield found
    finally:
        found.current.stop()


async def hand_over(found: Line, callers: Callers, count: int) -> list[float]:
    """So many, each once the process before has ended."""
    took = []
    for _ in range(count):
        await asyncio.sleep(SETTLE_S)
        before, seconds = await asyncio.to_thread(found.succeed, "--takeover")
        took.append(seconds)
        status = await asyncio.to_thread(
            before.popen.wait, 2 * PATIENCE_S
        )  # a signal would cut its drain short
        if status != 0:
            print(before.text())
    await asyncio.sleep(SETTLE_S)
    return took


async def kind(found: Line, doors: list[Door], count: int) -> str:
    """Hand-overs under load; a row of the table."""
    async with Callers(doors, CALLERS) as callers:
        took = await hand_over(found, callers, count)
    rows = []
    for name, tally in callers.tallies.items():
        counts = tally.outcomes
        other = {word: n for word, n in tally.faults.items() if word not in {"refused", "reset", "cut"}}
        cells = (name, count, counts.total(), counts["refused"], counts["reset"], counts["cut"])
        told = ", ".join(f"{n} x {word}" for word, n in sorted(other.items())) or "0"
        rows.append(f"| {' | '.join(map(str, cells))} | {told} | {sorted(took)[len(took) // 2]:.1f} |")
    return "\n".join(rows)


async def hit_rates(found: Line, door: Door, state: Path) -> list[tuple[str, Tally, Tally]]:
    """Before and after a hand-over, and a restart with and without a state."""
    rows = []
    async with Callers([door], CALLERS, pause_s=THINK_S, open_len=OPEN) as callers:
        await asyncio.sleep(MINUTE_S / 2)
        callers.anew()
        await asyncio.sleep(MINUTE_S)
        before = callers.total()
        old, _ = await asyncio.to_thread(found.succeed, "--takeover")
        callers.anew()
        await asyncio.sleep(MINUTE_S)
        rows.append(("hand-over", before, callers.total()))
        await asyncio.to_thread(old.popen.wait, PATIENCE_S)
        for name in ("stop and start, with --state-dir", "stop and start, the state removed"):
            before = callers.total()
            await asyncio.to_thread(found.current.popen.terminate)
            await asyncio.to_thread(found.current.popen.wait, 2 * PATIENCE_S)
            if "removed" in name:
                (state / "state").unlink()
            await asyncio.to_thread(found.succeed)
            callers.anew()
            await asyncio.sleep(MINUTE_S)
            rows.append((name, before, callers.total()))
    return rows


def tls_of() -> tuple[list[str], ssl.SSLContext]:
    """Arguments of a server, and the context of its clients."""
    words = ["--tls-cert", str(TLS / "server-1.pem"), "--tls-key", str(TLS / "server-1.key")]
    return words, ssl.create_default_context(cafile=TLS / "ca.pem")


def main() -> None:
    """Runs all of it."""
    text = [HEAD]
    print(HEAD)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skylb-handover-")))
        urls = stack.enter_context(mocks(REPLICAS, "--profile", "l4-8b", "--time-scale", "0.05"))
        tls_words, context = tls_of()
        for name, words, tls in (("", [], None), ("TLS over ", tls_words, context)):
            port, path, state = free_port(), directory / f"c{len(text)}.sock", directory / f"s{len(text)}"
            doors = [
                Door(f"{name}TCP", port=port, tls=tls),
                Door(f"{name}Unix socket", path=str(path), tls=tls),
            ]
            listen = ["--listen", f"127.0.0.1:{port}", "--listen", f"unix:{path}"]
            admin = ["--admin", f"127.0.0.1:{free_port()}", "--state-dir", str(state)]
            with line(urls, *listen, *admin, *words) as found:
                text.append(asyncio.run(kind(found, doors, HANDOVERS)))
                print(text[-1], flush=True)
                if tls is None:
                    rates = asyncio.run(hit_rates(found, doors[0], state))
    text.append(f"\n| | hit rate in {MINUTE_S:g} s before | after | difference, points |\n|---|---|---|---|")
    for name, before, after in rates:
        change = after.hit_percent - before.hit_percent
        text.append(f"| {name} | {before.hit_percent:.1f} % | {after.hit_percent:.1f} % | {change:+.1f} |")
    text.append(
        f"\n{CALLERS} clients, {REPLICAS} mock replicas in one process. Conversations of six turns. A client "
        "keeps its connection, and retries nothing. For the hit rates each client has "
        f"{OPEN} conversations open, and waits {THINK_S:g} s between two requests. "
        "Reset: the connection ended before a byte of the answer. "
        "Cut: the answer began, and did not end as it should. "
        "Each process was started with --takeover; the one before it had ended. "
        "Start to report: median, from exec until the new process serves."
    )
    print("\n".join(text[2:]))
    if HANDOVERS == KEPT:
        keep("bench-handover", text)


if __name__ == "__main__":
    main()
