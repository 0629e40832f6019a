"""``make chaos-regions``: a peer cut off in five ways, and a balancer killed; prints the figures' table.

Three balancers in network namespaces where the machine allows it, else over ``skylb wan``. Clients ask in
all three regions, most at ``us``, so that there is always something to forward. ``FAULT_S`` in the
environment is how long each fault lasts (60 s unless given). A run with another length only prints.
"""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from bench.record import keep
from tests.support import namespaces
from tests.support.partitions import CLIENTS, NAMESPACE_WAYS, WAYS, Heal, Load, logged
from tests.support.processes import eventually
from tests.support.raw import Answer
from tests.support.regions import Region, Regions, regions

KEPT_S = 60.0
"""How long each fault lasts in a run whose figures are kept."""

FAULT_S = float(os.environ.get("FAULT_S", KEPT_S))
RTT_S = 0.02
WAIT_S = 30.0
SETTLE_S = 2.0
SAMPLE_S = 0.1
FLOW_S = 1.0
"""Over how long a net flow is summed before its sign is taken."""

ROOM = 8
"""Requests that the two replicas of a region run at once."""

CLIENTS_OF = {"us": CLIENTS, "eu": 2, "asia": 2}

HEAD = (
    "| fault | requests | failed, no first byte | cut after it | us served by | out of choice, s | back, s "
    "| most held at eu | flips of direction |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Watch:
    """What happens between us and eu, looked at ten times a second."""

    us: Region
    held_max: int = 0
    net: list[tuple[float, int]] = field(default_factory=list)
    """When, and forwards to eu minus forwards from it so far."""

    def look(self) -> None:
        """One sample, as us sees it."""
        row = self.us.peers()["eu"]
        self.held_max = max(self.held_max, row["hold"])
        self.net.append((time.monotonic(), row["forwards_out"] - row["forwards_in"]))

    def flips(self) -> int:
        """How often the sign of the net flow over a second changed."""
        marks = [self.net[0]] if self.net else []
        for when, total in self.net:
            if when - marks[-1][0] >= FLOW_S:
                marks.append((when, total))
        flows = [later[1] - earlier[1] for earlier, later in pairwise(marks)]
        signs = [flow > 0 for flow in flows if flow]
        return sum(one is not other for one, other in pairwise(signs))


@contextmanager
def watched(found: Regions, clients: dict[str, int], name: str) -> Iterator[tuple[Watch, dict[str, Load]]]:
    """Clients in every region, each in its region's network, and somebody who looks."""
    watch, loads = Watch(found["us"]), dict[str, Load]()
    stop = threading.Event()

    def ask(region: Region) -> None:
        async def run() -> None:
            load = Load(region.front.port, f"{name}-{region.name}", clients[region.name])
            loads[region.name] = load
            await asyncio.to_thread(stop.wait)
            await load.stop()

        with region.inside():
            asyncio.run(run())

    def look() -> None:
        while not stop.wait(SAMPLE_S):
            watch.look()

    threads = [threading.Thread(target=ask, args=[found[region]]) for region in clients]
    threads.append(threading.Thread(target=look))
    for thread in threads:
        thread.start()
    try:
        yield watch, loads
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def seconds_until(probe: Callable[[], bool], what: str) -> float:
    """How long it takes to come true."""
    start = time.monotonic()
    eventually(probe, timeout_s=WAIT_S, what=what)
    return time.monotonic() - start


def row(found: Regions, name: str, loads: dict[str, Load], watch: Watch, out_s: float, back_s: float) -> str:
    """A row of the table, when all has been answered."""
    answers: list[Answer] = [answer for load in loads.values() for answer in load.answers.values()]
    asked = loads["us"].answers
    lines = eventually(lambda: logged(found["us"], f"{name}-us", len(asked)), what="the log")
    served = Counter(line["peer"] or "us" for line in lines.values())
    cells = (
        name,
        len(answers),
        sum(answer.status != 200 for answer in answers),
        sum(answer.status == 200 and answer.done_events == 0 for answer in answers),
        ", ".join(f"{peer} {count}" for peer, count in sorted(served.items(), key=str)),
        f"{out_s:.2f}",
        f"{back_s:.2f}",
        f"{watch.held_max} ({100 * watch.held_max / ROOM:.0f} % of its room)",
        watch.flips(),
    )
    return f"| {' | '.join(map(str, cells))} |"


def partition(found: Regions, way: str, begin: Callable[[Regions], Heal]) -> str:
    """One fault under load."""
    us = found["us"]

    def available() -> bool:
        return bool(us.peers()["eu"]["available"])

    with watched(found, CLIENTS_OF, way) as (watch, loads):
        time.sleep(SETTLE_S)
        start = time.monotonic()
        heal = begin(found)
        try:
            out_s = seconds_until(lambda: not available(), f"{way}: eu out of choice")
            time.sleep(max(0.0, FAULT_S - (time.monotonic() - start)))
        finally:
            heal()
        back_s = seconds_until(available, f"{way}: eu back")
        time.sleep(SETTLE_S)
    return row(found, way, loads, watch, out_s, back_s)


def killed(found: Regions) -> str:
    """A balancer killed under load, and started again: its replicas are adopted, then handed back."""
    eu = found["eu"]
    others = [region for name, region in found.by_name.items() if name != "eu"]

    def adopted() -> bool:
        return any(set(eu.replicas) <= region.serves() for region in others)

    clients = {name: count for name, count in CLIENTS_OF.items() if name != "eu"}
    with watched(found, clients, "killed") as (watch, loads):
        time.sleep(SETTLE_S)
        eu.kill()
        out_s = seconds_until(adopted, "its replicas are adopted")
        time.sleep(min(FAULT_S, 5.0))
        start = time.monotonic()
        eu.start()
        eventually(lambda: not any(set(eu.replicas) & region.serves() for region in others), timeout_s=WAIT_S)
        back_s = time.monotonic() - start
        time.sleep(SETTLE_S)
    return row(found, "killed", loads, watch, out_s, back_s)


def main() -> None:
    """Runs all of them, one after the other, on the same three balancers."""
    apart = namespaces.allowed()
    where = (
        "in network namespaces, cut by nft" if apart else f"over skylb wan, round trip {1000 * RTT_S:g} ms"
    )
    text = [
        f"Three balancers {where}; faults of {FAULT_S:g} s between us and eu; two mock replicas a region, "
        f"which run {ROOM} requests at once; clients: "
        + ", ".join(f"{count} at {name}" for name, count in CLIENTS_OF.items())
        + ".\n",
        HEAD,
    ]
    print("\n".join(text))
    ways = NAMESPACE_WAYS if apart else WAYS
    wan = None if apart else ("--rtt-s", str(RTT_S))
    with regions("us", "eu", "asia", namespaces=apart, wan=wan) as found:
        for way, begin in ways.items():
            text.append(partition(found, way, begin))
            print(text[-1], flush=True)
        text.append(killed(found))
        print(text[-1])
    text.append(
        "\nkilled: SIGKILL to the balancer of eu, which then has no clients. Out of choice: until its "
        "replicas are adopted; back: from the start of the new process until they are handed back."
    )
    print(text[-1])
    if FAULT_S == KEPT_S:
        keep("chaos-regions", text)


if __name__ == "__main__":
    main()
