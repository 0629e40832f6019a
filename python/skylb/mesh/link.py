"""One peer as this balancer knows it, and the loop that sends it news.

All times are of this process's monotonic clock. Of the peer's clock only the difference to it is used, to
judge how old the peer's signatures are.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from statistics import median
from typing import NoReturn, Protocol

from skylb import _core
from skylb._core import Tell
from skylb.addresses import PeerUrl
from skylb.clock import monotonic_ns
from skylb.mesh.frames import (
    REPLICAS_MAX,
    Hello,
    Kind,
    News,
    Order,
    Ping,
    encode,
    read_more,
    read_news,
    read_order,
    read_ping,
)
from skylb.mesh.news import NewsTeller
from skylb.mesh.orders import ORDERS_MAX
from skylb.mesh.signing import Refused
from skylb.mesh.sync import Closed, Connection, Meter, TurnedAway
from skylb.router import Router
from skylb.tasks import TaskGroup

log = logging.getLogger("skylb.mesh.peers")

TICK_S = 0.1
"""How often a connection is looked at for pings and news. Messages of the engine do not wait for it."""

MESSAGES = {
    _core.MESSAGE_SUMMARY: Kind.SUMMARY,
    _core.MESSAGE_DIGEST: Kind.DIGEST,
    _core.MESSAGE_SHARE: Kind.SHARE,
    _core.MESSAGE_TENANTS: Kind.TENANTS,
    _core.MESSAGE_CACHED: Kind.CACHED,
}
"""The frame of each of the engine's messages."""

PING_NS = 1_000_000_000
PINGS_OPEN_MAX = 4
"""Pings that wait for their answer; a connection is given up before there are more (`sync.SILENT_S`)."""

MEASURES_KEPT = 15
"""Round trips for the median that says who is close, and clock offsets for the least delayed one."""

GOODBYE_S = 0.5
"""A peer that takes nothing is not waited for."""


OnFailure = Callable[[str, BaseException], None]

REDIAL_S = 0.2


@dataclass(frozen=True, slots=True)
class _End:
    """How a connection ended."""

    fault: str
    refused: str = ""
    """What the peer said was refused, for this reason."""
    sound: bool = True
    """For no fault in what either side said."""


class State(IntEnum):
    """Whether a peer lives, as far as can be known from here."""

    ALIVE = _core.PEER_ALIVE
    UNREACHABLE = _core.PEER_UNREACHABLE
    """Nothing arrives from it here; another peer may receive from it."""
    DEAD = _core.PEER_DEAD
    """No peer from which this balancer receives has received from it, or it has said goodbye."""


class LinkOwner(Protocol):
    """What a link needs of the set of peers that it is in."""

    region: str
    """Where this balancer is."""
    news: News
    """What every peer should know."""

    def orders(self) -> list[Order]:
        """Operators' orders that a peer may have missed."""

    def established(self, link: "Link", /) -> None:
        """The peer is connected."""

    def lost(self, link: "Link", /) -> None:
        """Nothing arrives from the peer any more."""

    def told(self, link: "Link", /) -> None:
        """A peer's news changed."""

    def ordered(self, link: "Link", order: Order, /) -> None:
        """An operator's order came in, from this peer."""


class Link:
    """One peer.

    Args:
        peer_id: the engine's id.
        url: how it is configured.
        router: takes what it tells.
        owner: called at each change.
    """

    def __init__(self, peer_id: int, url: PeerUrl, router: Router, owner: LinkOwner) -> None:
        self.id = peer_id
        self.url = url
        self.name = url.name
        self.meter = Meter()
        self.state = State.UNREACHABLE
        self.fault = "not reached yet"
        """Why there is no connection; empty while there is one."""
        self.digest_fault = ""
        """Why its last digest of hot prefixes does not count, if it does not."""
        self.lost_ns = monotonic_ns()
        self.hello: Hello | None = None
        """Of the last connection."""
        self.skew_s = 0.0
        """How far the peer's wall clock is ahead of ours."""
        self.news = News([], {}, [])
        self.left = False
        """It said goodbye."""
        self.connection: Connection | None = None
        self.redial_s = REDIAL_S
        """How long to wait before it is dialled again."""
        self._router = router
        self._owner = owner
        self._teller = NewsTeller(self.name)
        self._round_trips_ns: deque[int] = deque(maxlen=MEASURES_KEPT)
        self._offsets_ns: deque[int] = deque(maxlen=MEASURES_KEPT)
        self._pings: deque[tuple[bytes, int]] = deque(maxlen=PINGS_OPEN_MAX)
        """Payload and time of each that was sent and not answered."""
        self._clock_anew = True
        """The next ping is the connection's first: the peer may run on another machine by now."""
        self._pinged_ns = 0
        self._orders: deque[Order] = deque(maxlen=ORDERS_MAX)
        self._messages: deque[Tell] = deque()
        """Not yet written: the engine keeps to one of each kind."""
        self._wake = asyncio.Event()
        """There is something to write."""
        self._hearers: dict[int, Callable[[bytes], None]] = {
            Kind.SUMMARY: self._merge,
            Kind.DIGEST: self._merge_digest,
            Kind.SHARE: self._merge_share,
            Kind.TENANTS: self._merge_tenants,
            Kind.CACHED: self._merge_cached,
            Kind.PONG: self._hear_pong,
            Kind.NEWS: lambda payload: self._hear_news(read_news(payload)),
            Kind.MORE: self._hear_more,
            Kind.ORDER: self._hear_order,
        }

    @property
    def region(self) -> str:
        """As listed, else as it said when it first connected; empty before."""
        if self.url.region is not None:
            return self.url.region
        return self.hello.region if self.hello is not None else ""

    @property
    def sure_region(self) -> str:
        """Its region where that is not its word alone: it is listed, or is that of its name; else empty."""
        return self.region if self.url.region is not None or self.region == self.name else ""

    def may_be_in(self, region: str) -> bool:
        """Whether its hello may say so: as listed, or as it has said before."""
        return self.region in ("", region)

    @property
    def ahead_ns(self) -> int | None:
        """How far our monotonic clock is ahead of the peer's, by the least delayed of the last pings."""
        return min(self._offsets_ns) - (self.rtt_ns or 0) // 2 if self._offsets_ns else None

    @property
    def rtt_ns(self) -> int | None:
        """Median of the last round trips."""
        return round(median(self._round_trips_ns)) if self._round_trips_ns else None

    async def serve(self, connection: Connection) -> bool:
        """Runs one connection to its end; it takes the place of an earlier one.

        Returns:
            Whether it ended for no fault in what either side said.
        """
        earlier, self.connection = self.connection, connection
        if earlier is not None:
            await earlier.close("replaced")
        self.hello = connection.hello
        self.left = False
        self.fault = ""
        self._clock_anew = True
        self._pings.clear()
        self._pinged_ns = 0
        self._orders.clear()
        self._orders.extend(self._owner.orders())
        self._teller = NewsTeller(self.name)
        self._messages.clear()
        self._router.peer_connected(self.id, _messages(connection), self._take)
        self._owner.established(self)
        try:
            end = await self._talk(connection)
            if end.refused:
                self.meter.refused[end.refused] += 1
                log.warning("peer %s: a message was refused: %s", self.name, end.refused)
            self._ended(connection, end.fault)
            await connection.close(end.refused)
        finally:
            self._ended(connection, "stopped")
            await connection.close()
        return end.sound

    async def _talk(self, connection: Connection) -> _End:
        """Both directions, until one ends: that is the end of this connection, and of nothing else."""
        tasks = TaskGroup()
        try:
            write = tasks.start(self._write(connection), name=f"tell {self.name}")
            read = tasks.start(self._hear(connection), name=f"hear {self.name}")
            await asyncio.wait((read, write), return_when=asyncio.FIRST_COMPLETED)
            if write.done() and write.exception() is None:
                await asyncio.wait((read,))  # it ends as well, and says why
            failed = next(
                (task.exception() for task in (read, write) if task.done() and task.exception()), None
            )
            if failed is not None:
                return _End(f"it failed: {type(failed).__name__}", "failed", sound=False)
            end: _End = read.result()
            return end
        finally:
            await tasks.stop()

    async def _hear(self, connection: Connection) -> _End:
        try:
            await self._read(connection)
        except Closed as closed:
            return _End(str(closed), sound=not isinstance(closed, TurnedAway))
        except Refused as refused:
            return _End(f"its message was refused: {refused.reason}", refused.reason, sound=False)

    def failed(self, error: BaseException) -> None:
        """A connection ended by an error that nobody has foreseen."""
        self.meter.refused["failed"] += 1
        self.tell_fault(f"its connection failed: {type(error).__name__}")

    def _ended(self, connection: Connection, fault: str) -> None:
        if self.connection is connection:
            self.connection = None
            self.fault = fault
            self.lost_ns = monotonic_ns()
            self._router.peer_disconnected(self.id, self._take)
            self._owner.lost(self)

    # -------------------------------------------------------------------------- telling

    async def _write(self, connection: Connection) -> None:
        try:
            while self.connection is connection:
                now_ns = monotonic_ns()
                if now_ns - self._pinged_ns >= PING_NS:
                    await self._ping(connection, now_ns)
                await self._tell_news(connection)
                while self._orders:
                    await connection.send(Kind.ORDER, encode(self._orders.popleft()))
                for _ in range(len(self._messages)):
                    await self._tell(connection, self._messages.popleft())
                await self._pause()
        except Closed:
            return  # the reader ends as well, and says why

    async def _tell_news(self, connection: Connection) -> None:
        while True:
            knows_more = Kind.MORE in connection.kinds
            told = self._teller.next(self._owner.news, knows_more=knows_more, now_ns=monotonic_ns())
            if told is None:
                return
            await connection.send(*told)

    async def _tell(self, connection: Connection, tell: Tell) -> None:
        if tell.kind == _core.MESSAGE_DIGEST:
            self.meter.digest_bytes_out += len(tell.payload)
        await connection.send(MESSAGES[tell.kind], tell.payload)
        self._router.written(self.id, tell.kind)

    async def _pause(self) -> None:
        """Until there is something to write, a moment at most: news come from elsewhere."""
        timer = asyncio.get_running_loop().call_later(TICK_S, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        self._wake.clear()

    def _take(self, tell: Tell) -> None:
        """The engine's message, to be sent now."""
        self._messages.append(tell)
        self._wake.set()

    async def _ping(self, connection: Connection, now_ns: int) -> None:
        ping = encode(Ping(now_ns, self.rtt_ns or 0))
        self._pings.append((ping, now_ns))
        self._pinged_ns = now_ns
        await connection.send(Kind.PING, ping)

    def order(self, order: Order) -> None:
        """Passes an operator's word on."""
        if self.connection is not None:
            self._orders.append(order)
            self._wake.set()

    async def say_goodbye(self) -> None:
        """This balancer stops: the peer need not find out."""
        if self.connection is not None:
            try:
                async with asyncio.timeout(GOODBYE_S):
                    await self.connection.send(Kind.BYE)
            except (Closed, TimeoutError):
                return  # it has gone first, or will find out

    # -------------------------------------------------------------------------- hearing

    async def _read(self, connection: Connection) -> NoReturn:
        known = len(connection.kinds)
        while True:
            kind, payload = await connection.receive()
            if len(connection.kinds) != known:
                known = len(connection.kinds)
                self._router.peer_takes(self.id, _messages(connection))
            hear = self._hearers.get(kind)
            if hear is not None:
                hear(payload)
            elif kind == Kind.PING:
                self._hear_clock(read_ping(payload))
                await connection.send(Kind.PONG, payload)
            elif kind == Kind.BYE:
                self.left = True
                raise Closed("it stopped")
            elif kind == Kind.READY:
                raise Refused("malformed")
            else:
                self._pass_over(kind)

    def _hear_order(self, payload: bytes) -> None:
        self._owner.ordered(self, read_order(payload))

    def _hear_more(self, payload: bytes) -> None:
        more = read_more(payload)
        replicas = [*self.news.replicas, *more.replicas][:REPLICAS_MAX]
        self._hear_news(News(self.news.reached, more.heirs, replicas))

    def _hear_news(self, news: News) -> None:
        replicas = self.news.replicas if news.same_replicas else news.replicas
        self._teller.heard(news.heirs)
        self.news = News(news.reached, news.heirs, replicas)
        self._owner.told(self)

    def _pass_over(self, kind: int) -> None:
        """A later version knows more kinds of messages."""
        self.meter.passed_over += 1
        if self.meter.passed_over == 1:
            log.info("peer %s: messages of kind %d are passed over: it runs a later version", self.name, kind)

    def _merge(self, summary: bytes) -> None:
        try:
            self._router.merge_peer(self.id, summary)
        except ValueError as error:
            # The connection is sound: the frame was the peer's own. What it says may be of another version.
            self.meter.refused["summary"] += 1
            self.tell_fault(f"its summary was refused: {error}")
        else:
            self.fault = ""

    def _merge_digest(self, digest: bytes) -> None:
        self.meter.digest_bytes_in += len(digest)
        try:
            self._router.merge_peer_digest(self.id, digest)
        except ValueError as error:
            # As above; and what cannot be compared with ours does no harm.
            self.meter.refused["digest"] += 1
            fault = str(error)
        else:
            fault = ""
        if fault not in ("", self.digest_fault):
            log.warning("peer %s: %s", self.name, fault)
        self.digest_fault = fault

    def _merge_share(self, share: bytes) -> None:
        ahead_ns = self.ahead_ns
        if ahead_ns is None:
            raise Refused("malformed")  # a connection's first message is a ping
        try:
            self._router.merge_share(self.id, share, ahead_ns)
        except ValueError as error:
            self.meter.refused["share"] += 1
            self.tell_fault(f"what it shares was refused: {error}")

    def _merge_cached(self, cached: bytes) -> None:
        try:
            self._router.merge_cached(self.id, cached)
        except ValueError as error:
            self.meter.refused["cached"] += 1
            self.tell_fault(f"what it says of prompts was refused: {error}")

    def _merge_tenants(self, message: bytes) -> None:
        try:
            self._router.merge_tenants(self.id, message)
        except ValueError as error:
            self.meter.refused["tenants"] += 1
            self.tell_fault(f"what it says of tenants was refused: {error}")

    def tell_fault(self, fault: str) -> None:
        """One log line where the fault is a new one."""
        if fault != self.fault:
            self.fault = fault
            log.warning("peer %s: %s", self.name, fault)

    def _hear_clock(self, ping: Ping) -> None:
        if self._clock_anew:
            self._clock_anew = False
            self._offsets_ns.clear()
        self._offsets_ns.append(monotonic_ns() - ping.monotonic_ns)

    def _hear_pong(self, payload: bytes) -> None:
        now_ns = monotonic_ns()
        while self._pings:
            ping, sent_ns = self._pings.popleft()  # of one connection, so answers come in order
            if ping == payload:
                self._round_trips_ns.append(now_ns - sent_ns)
                self._router.peer_rtt(self.id, now_ns - sent_ns)
                return
        raise Refused("malformed")


def _messages(connection: Connection) -> list[int]:
    """Kinds of the engine's messages that the peer knows."""
    return [kind for kind, frame in MESSAGES.items() if frame in connection.kinds]
