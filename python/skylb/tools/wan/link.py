"""A link between two ends: any number of ports that lead over it, one fate for all."""

import asyncio
import random
from collections.abc import Callable

import msgspec

from skylb.addresses import ListenAddress
from skylb.listeners import Listening, bind
from skylb.tasks import TaskGroup
from skylb.tools.wan.connection import Connection, End
from skylb.tools.wan.pipe import Way
from skylb.tools.wan.shape import Fault, Shape

CONNECTIONS_MAX = 4096
"""Connections of one link; more are reset."""


class PortState(msgspec.Struct, frozen=True):
    """A port: dialled at ``listen``, it leads ``origin``'s connections to ``target``."""

    origin: str
    listen: str
    target: str


class LinkState(msgspec.Struct, frozen=True):
    """A link as it is now.

    Attributes:
        name: its two ends.
        shape: its figures.
        fault: what is wrong with it.
        origin: the end whose bytes are affected; empty: both.
        ports: what leads over it.
        connections: open ones.
        accepted_total: connections so far, refused ones too.
        reset_total: connections that a fault has reset or refused.
        carried_bytes: by the end they came from.
        lost_bytes: by the end they came from.
    """

    name: str
    shape: Shape
    fault: Fault
    origin: str
    ports: list[PortState]
    connections: int
    accepted_total: int
    reset_total: int
    carried_bytes: dict[str, int]
    lost_bytes: dict[str, int]


class Link:
    """Two ends, two ways.

    Args:
        ends: their names.
        shape: both ways' figures.
        seed: of the jitter.
    """

    def __init__(self, ends: tuple[str, str], shape: Shape, seed: int) -> None:
        self.ends = ends
        self.name = "-".join(ends)
        self.fault: Fault = "none"
        self.origin = ""
        self.ways = {
            end: Way(end, shape, random.Random(f"{seed} {self.name} {end}"))  # noqa: S311 - jitter, no secret
            for end in ends
        }
        self._ports: list[tuple[asyncio.Server, PortState, Listening]] = []
        self._connections: dict[Connection, None] = {}
        self._tasks = TaskGroup()
        self._accepted_total = 0
        self._reset_total = 0

    @property
    def shape(self) -> Shape:
        """Figures of both ways."""
        return self.ways[self.ends[0]].shape

    async def listen(self, origin: str, address: ListenAddress, target: ListenAddress) -> ListenAddress:
        """Opens a port for connections from ``origin``; where it listens.

        Raises:
            ListenError: the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        bound = address
        for sock in bind(address):
            bound = sock.address
            create = loop.create_unix_server if address.unix else loop.create_server
            server = await create(self._acceptor(origin, target), sock=sock)
            self._ports.append((server, PortState(origin, str(bound), str(target)), sock))
        return bound

    def _acceptor(self, origin: str, target: ListenAddress) -> Callable[[], End]:
        far = next(end for end in self.ends if end != origin)

        def accept() -> End:
            self._accepted_total += 1
            connection = Connection(self.ways[origin], self.ways[far], target, self._tasks, self._forget)
            if self.fault == "cut" or len(self._connections) >= CONNECTIONS_MAX:
                self._reset_total += 1
                connection.close()
            else:
                self._connections[connection] = None
                if self.fault == "accept_stall":
                    connection.lose()
            return connection.accepted

        return accept

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    # -------------------------------------------------------------------------------- the weather

    def break_(self, fault: Fault, origin: str = "") -> None:
        """Something goes wrong, or (``none``) is over.

        Args:
            fault: what.
            origin: only what comes from this end is affected (``stall`` and ``drop``).
        """
        self.fault, self.origin = fault, origin
        resets = fault in {"cut", "accept_stall"}
        for end, way in self.ways.items():
            way.stalled = fault == "stall" and origin in {"", end}
            way.lost = fault == "blackhole" or (fault == "drop" and origin in {"", end})
        for connection in list(self._connections):
            if resets or (fault == "none" and connection.damaged):
                self._reset_total += 1
                connection.close()
            else:
                connection.wake()

    def reshape(self, shape: Shape) -> None:
        """Other figures, from now on; bytes under way arrive when they would have."""
        for way in self.ways.values():
            way.shape = shape
        for connection in list(self._connections):
            connection.wake()

    def state(self) -> LinkState:
        """As it is now."""
        return LinkState(
            name=self.name,
            shape=self.shape,
            fault=self.fault,
            origin=self.origin,
            ports=[port for _, port, _ in self._ports],
            connections=len(self._connections),
            accepted_total=self._accepted_total,
            reset_total=self._reset_total,
            carried_bytes={end: way.carried_bytes for end, way in self.ways.items()},
            lost_bytes={end: way.lost_bytes for end, way in self.ways.items()},
        )

    async def close(self) -> None:
        """Resets every connection and stops listening."""
        for server, _, _ in self._ports:
            server.close()
        for connection in list(self._connections):
            connection.close()
        await self._tasks.stop()
        for server, _, sock in self._ports:
            await server.wait_closed()
            sock.unlink()
