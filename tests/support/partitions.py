"""Ways in which a peer cannot be reached, and clients that go on asking meanwhile."""

import asyncio
import os
import signal
from collections.abc import Callable

from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import Region, Regions

CLIENTS = 24
"""More than the eight requests that a region's replicas run at once: there is always something to forward."""

Heal = Callable[[], None]


class Load:
    """Clients of one region that ask one request after the other until told to stop.

    Args:
        port: of the region's balancer.
        name: begins every request's id.
        clients: how many.
    """

    def __init__(self, port: int, name: str, clients: int = CLIENTS) -> None:
        self.answers: dict[str, Answer] = {}
        self._port = port
        self._name = name
        self._stopping = False
        self._clients = [asyncio.ensure_future(self._client(number)) for number in range(clients)]

    async def _client(self, number: int) -> None:
        turn = 0
        while not self._stopping:
            turn += 1
            name = f"{self._name}-{number}-{turn}"
            body = chat(f"{name} asks", max_tokens=16, stream=True)
            self.answers[name] = await ask(self._port, request(body, request_id=name))

    async def stop(self) -> None:
        """Lets what was asked be answered."""
        self._stopping = True
        await asyncio.gather(*self._clients)


def logged(region: Region, name: str, count: int) -> dict[str, dict[str, object]] | None:
    """The access log's lines of a load by request, once all are written."""
    lines = {str(line["request_id"]): line for line in region.front.log()}
    mine = {request_id: line for request_id, line in lines.items() if request_id.startswith(f"{name}-")}
    return mine if len(mine) >= count else None


def stop_process(found: Regions) -> Heal:
    """SIGSTOP to the balancer of eu."""
    pid = found["eu"].front.child.pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def wan(**fault: str) -> Callable[[Regions], Heal]:
    """A fault of the link between us and eu."""

    def begin(found: Regions) -> Heal:
        link = found.wan
        assert link is not None
        link.tell(link="us-eu", **fault)
        return lambda: link.tell(link="us-eu", fault="none")

    return begin


def filtered(*rules: str) -> Callable[[Regions], Heal]:
    """Packets between us and eu that eu's kernel drops."""

    def begin(found: Regions) -> Heal:
        net = found.net
        assert net is not None
        net.drop("eu", *rules)
        return lambda: net.pass_all("eu")

    return begin


def link_down(found: Regions) -> Heal:
    """The pair between us and eu is taken down."""
    net = found.net
    assert net is not None
    net.link("eu", "us", up=False)
    return lambda: net.link("eu", "us", up=True)


def alone(found: Regions) -> Heal:
    """Nothing comes to us from any peer, and nothing goes there."""
    net = found.net
    assert net is not None
    for name in found.by_name.keys() - {"us"}:
        net.drop("us", f"input iifname to-{name}", f"output oifname to-{name}")
    return lambda: net.pass_all("us")


NAMESPACE_WAYS: dict[str, Callable[[Regions], Heal]] = {
    "link_down": link_down,
    "blackhole": filtered("input iifname to-us", "output oifname to-us"),
    "one_way_drop": filtered("output oifname to-us"),
    # Handshakes and acknowledgements pass, data does not: connections open, and nothing comes.
    "accept_then_stall": filtered("output oifname to-us ip length > 100"),
    "sigstop": stop_process,
}
"""The same faults in network namespaces, by the kernel."""

WAYS: dict[str, Callable[[Regions], Heal]] = {
    "link_down": wan(fault="cut"),
    "blackhole": wan(fault="blackhole"),
    "one_way_drop": wan(fault="drop", **{"from": "eu"}),
    "accept_then_stall": wan(fault="accept_stall"),
    "sigstop": stop_process,
}
"""Through ``skylb wan``."""
