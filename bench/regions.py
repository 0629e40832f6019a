"""``make bench-regions``: what a forward adds to a request, and what peer sync costs.

Mock replicas that answer at once, so that what is left is the balancers' work and the way. A rule of
residency makes a tenant's requests leave ``us`` for ``eu``; everybody else's stay. Requests of both kinds
alternate, and the difference of their medians is what the crossing adds.
"""

import asyncio
import itertools
import time
from statistics import median

from bench.record import keep
from skylb._core import ResponseReader
from tests.support.partitions import Load
from tests.support.raw import chat, request
from tests.support.regions import Region, regions

INSTANT = ("--profile", "instant")
AWAY = "X-Tenant: away"
RULES = ["--residency", "away/*=eu", "--tenant-header", "x-tenant", "--trusted-proxies", "127.0.0.1"]
FAR_RTT_S = 0.15
PAIRS = 400
LARGE_PAIRS = 8
WARM_UP = 20
PEERS = 10
WATCH_S = 15.0
BUSY_CLIENTS = 32

Lines = list[str]


class Client:
    """One keep-alive connection that measures."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def seconds(self, data: bytes) -> float:
        """From the first byte sent to the last one received."""
        start = time.perf_counter()
        self.writer.write(data)
        framing = ResponseReader()
        while not framing.done:
            framing.feed(await self.reader.read(65536))
        if framing.status != 200:
            raise SystemExit(f"status {framing.status}")
        return time.perf_counter() - start


def prompt(number: int, size_bytes: int) -> dict[str, object]:
    """A request of about so many bytes, which shares no prefix with others."""
    return chat((f"{number} " + "word " * (size_bytes // 5))[:size_bytes], max_tokens=1)


async def alternate(region: Region, pairs: int, size_bytes: int) -> tuple[list[float], list[float]]:
    """Times of requests that stay and of those that cross, in turn over one connection."""
    client = Client(*await asyncio.open_connection("127.0.0.1", region.front.port))
    stay, cross = [], []
    for number in range(pairs + WARM_UP):
        here = await client.seconds(request(prompt(number, size_bytes)))
        there = await client.seconds(request(prompt(number, size_bytes), headers=[AWAY]))
        if number >= WARM_UP:
            stay.append(here)
            cross.append(there)
    client.writer.close()
    return stay, cross


def near() -> Lines:
    """2 kB over loopback: the crossing without a way."""
    with regions("us", "eu", mock=INSTANT, arguments=RULES) as found:
        stay, cross = asyncio.run(alternate(found["us"], PAIRS, 2000))
    added_ms = 1000 * (median(cross) - median(stay))
    return [
        (
            f"forwarded 2 kB request over loopback, {PAIRS} pairs: p50 {1000 * median(cross):.2f} ms, "
            f"local {1000 * median(stay):.2f} ms, added {added_ms:.2f} ms (figure: 2 ms)"
        )
    ]


def far() -> Lines:
    """2 kB and 400 kB over 150 ms, one after the other on one connection, whose window has grown."""
    lines = []
    wan = ("--rtt-s", str(FAR_RTT_S))
    with regions("us", "eu", mock=INSTANT, arguments=RULES, wan=wan) as found:
        for name, size_bytes in (("2 kB", 2000), ("400 kB", 400_000)):
            stay, cross = asyncio.run(alternate(found["us"], LARGE_PAIRS, size_bytes))
            added_s = median(cross) - median(stay)
            lines.append(
                f"forwarded {name} request over {1000 * FAR_RTT_S:g} ms, {LARGE_PAIRS} pairs: added p50 "
                f"{1000 * added_s:.1f} ms = {added_s / FAR_RTT_S:.2f} round trips, "
                f"{1000 * (added_s - FAR_RTT_S):.1f} ms beyond one; "
                f"largest {1000 * max(there - here for here, there in zip(stay, cross, strict=True)):.0f} ms"
            )
    return lines


def cpu_s(region: Region) -> float:
    """CPU time that a balancer has used."""
    return region.front.metric("process_cpu_seconds_total")


def sync_bytes(region: Region) -> float:
    """Bytes of peer sync that a balancer has sent to all its peers."""
    lines = region.front.metrics().splitlines()
    out = [line for line in lines if line.startswith("skylb_peer_bytes_total{") and 'direction="out"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in out)


def watched(region: Region) -> tuple[float, float]:
    """Bytes per second and peer that go out, and the share of a core, over a while."""
    bytes_before, cpu_before, start = sync_bytes(region), cpu_s(region), time.monotonic()
    time.sleep(WATCH_S)
    elapsed_s = time.monotonic() - start
    per_peer = elapsed_s * len(region.peers())
    return (sync_bytes(region) - bytes_before) / per_peer, (cpu_s(region) - cpu_before) / elapsed_s


def sync() -> Lines:
    """Idle and busy, with two balancers and with eleven: what each further peer costs."""
    cores = {}
    for count in (1, PEERS):
        names = ["us", *(f"r{number}" for number in range(count))]
        with regions(*names, replicas=1, mock=INSTANT) as found:
            idle, cores[count] = watched(found["us"])
            if count < PEERS:
                continue
            busy = asyncio.run(under_load(found["us"]))
    added = (cores[PEERS] - cores[1]) * PEERS / (PEERS - 1)
    told = f"sync, {PEERS} peers,"
    return [
        f"{told} idle: {idle / 1024:.2f} KiB/s out per peer (figure: 1)",
        f"{told} {BUSY_CLIENTS} clients: {busy / 1024:.2f} KiB/s out per peer (figure: 64)",
        f"{told} idle: {added:.4f} core for all (figure: 0.02); process {cores[PEERS]:.4f}",
    ]


async def under_load(region: Region) -> float:
    """Bytes per second and peer while clients keep one region full."""
    load = Load(region.front.port, "busy", BUSY_CLIENTS)
    found, _ = await asyncio.to_thread(watched, region)
    await load.stop()
    return found


def main() -> None:
    """Measures, prints, keeps."""
    lines = []
    for line in itertools.chain.from_iterable(measure() for measure in (near, far, sync)):
        print(line, flush=True)
        lines.append(line)
    keep("bench-regions", lines)


if __name__ == "__main__":
    main()
