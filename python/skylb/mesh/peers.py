"""All peers as this balancer sees them: which there are, which are alive, and what all of them should know.

In each pair of balancers, the one whose name sorts first connects to the other. What a peer says is a hint
that ages. A balancer that receives nothing serves its clients alone.
"""

import asyncio
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence

import aiohttp
from aiohttp import web

from skylb.addresses import PeerUrl, is_name
from skylb.clock import monotonic_ns
from skylb.config import Settings
from skylb.mesh.address import resolve_peer
from skylb.mesh.evacuation import Evacuation
from skylb.mesh.failover import Heirs
from skylb.mesh.frames import (
    REPLICAS_MAX,
    URL_LEN_MAX,
    VERSION,
    Hello,
    News,
    Order,
    WrongVersion,
    new_nonce,
    why,
)
from skylb.mesh.link import Link, OnFailure, State
from skylb.mesh.listener import Listener
from skylb.mesh.orders import Orders, leave_ns
from skylb.mesh.signing import Identity, Keys, Refused
from skylb.mesh.sync import (
    HANDSHAKE_S,
    PATH,
    Closed,
    Connection,
    Meter,
    Socket,
    TurnedAway,
    close,
    dial,
    new_client,
    server_socket,
    shake,
)
from skylb.mesh.tls import MeshTls
from skylb.router import Router
from skylb.settings.mesh import ANY_PEER
from skylb.tasks import TaskGroup, attempt

log = logging.getLogger("skylb.mesh.peers")

JUDGE_S = 0.25
"""How often it is asked who is dead."""

DEAD_AFTER_S = 2.0
"""A balancer from which no peer has received anything for so long is dead."""

REDIAL_S = 0.2
REDIAL_MAX_S = 1.0
"""Time before dialling again: doubles up to this, with jitter."""

REFUSED_REDIAL_MAX_S = 8.0
"""The same where the peer or this balancer refuses what the other says: that takes somebody to change it."""

IDS_MAX = 1024
"""Names of peers whose numbers are remembered; those that left the list first are forgotten."""

SKEW_TOLD_S = 5.0
"""A difference of wall clocks that is shown to operators; nothing depends on it."""


class Peers:
    """All peers of one balancer.

    Args:
        settings: who the peers are.
        router: takes what they tell.
        identity: this run of this balancer.
        keys: the shared secrets.
        tls: contexts towards the peers.
        changed: is called when a peer's state or news changed: for failover.
        on_failure: gets the name of a task that ended with an error, and the error.
    """

    def __init__(
        self,
        settings: Settings,
        router: Router,
        identity: Identity,
        keys: Keys,
        tls: MeshTls,
        changed: Callable[[dict[str, Link]], None],
        on_failure: OnFailure,
    ) -> None:
        mesh = settings.mesh
        self.keys = keys
        self.identity = identity
        self._tls = tls
        self.region = mesh.region
        self.links: dict[str, Link] = {}
        """By name."""
        self.refused: Counter[str] = Counter()
        """Sync connections that were not let in and could not be put down to a peer, by reason."""
        self.heirs = Heirs(identity)
        self._trusted = frozenset(mesh.trusted_peers)
        self.news = News([], {}, [])
        self.isolated: set[str] = set()
        self._router = router
        self.evacuation = Evacuation(mesh.region, router)
        self._changed = changed
        self._forward = str(mesh.advertise) if mesh.advertise is not None else ""
        self._replicas: list[str] = []
        self._orders = Orders()
        self._tasks = TaskGroup(on_failure)
        self._links_served = TaskGroup()
        self._ids: dict[str, int] = {}
        """Of peers that there have been: no other name gets the number of one."""
        self._last_id = 0
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._client: aiohttp.ClientSession | None = None
        self._succeeds = self.retired = False
        """Another process has just been this balancer; another one is, from now on."""
        self._listener = Listener(self._accept, lambda reason: self._count_refused("", reason), on_failure)
        self.set_urls(mesh.peer)

    def set_urls(self, urls: Sequence[PeerUrl]) -> None:
        """All peers, of distinct names; those at another address are met anew."""
        wanted = {url.name: url for url in urls}
        for name, link in list(self.links.items()):
            if wanted.get(name) != link.url:
                self._leave(self.links.pop(name))
        for name, url in wanted.items():
            if name not in self.links:
                link = self.links[name] = Link(self._id(name), url, self._router, self)
                self._dial_if_ours(link)
        self.heirs.set_listed(self.links)
        self._set_peers()
        self._publish()
        if self._client is not None:
            self._changed(self.links)

    def _id(self, name: str) -> int:
        if name not in self._ids:
            self._last_id += 1
            self._ids[name] = self._last_id
            gone = [other for other in self._ids if other not in self.links and other != name]
            for other in gone[: max(0, len(self._ids) - IDS_MAX)]:
                del self._ids[other]
        return self._ids[name]

    def _leave(self, link: Link) -> None:
        log.info("peer %s: no longer listed", link.name)
        dialling = self._dialling.pop(link.name, None)
        if dialling is not None:
            dialling.cancel()
        if link.connection is not None:
            self._links_served.start(link.connection.close(), name=f"leave {link.name}")

    def _dial_if_ours(self, link: Link) -> None:
        """Of each pair the balancer whose name sorts first dials. A successor dials all, once."""
        if self._client is not None and self._succeeds and self.identity.name > link.name:
            self._tasks.start(self._meet(link, self._client), name=f"meet {link.name}")
        elif self._client is not None and self.identity.name < link.name:
            self._dialling[link.name] = self._tasks.start(
                self._dial(link, self._client), name=f"dial {link.name}"
            )

    async def start(self, sockets: Sequence[socket.socket], forward: str, *, succeeds: bool = False) -> None:
        """Listens and dials; the arguments are those of `Mesh.start`."""
        self._forward = self._forward or forward
        self._succeeds = succeeds
        self._listener.open(sockets, self._tls.server)
        self._client = new_client()
        for link in self.links.values():
            self._dial_if_ours(link)
        self._succeeds = False
        self._tasks.start(self._judge(), name="judge peers")

    async def retire(self) -> None:
        """Another process is this balancer from now on: connections last until it has its own."""
        self.retired = True
        await self._listener.retire()

    async def close(self) -> None:
        """Says goodbye, unless it has retired, and closes all connections."""
        for link in () if self.retired else self.links.values():
            await link.say_goodbye()
        await self._tasks.stop()
        await self._links_served.stop()
        await self._listener.close()
        if self._client is not None:
            await self._client.close()

    # ---------------------------------------------------------------------- connections

    async def _dial(self, link: Link, client: aiohttp.ClientSession) -> None:
        while not self.retired:
            error = await attempt(self._meet(link, client), name=f"the connection to {link.name}")
            if error is not None:
                link.redial_s = REFUSED_REDIAL_MAX_S
                link.failed(error)
            await asyncio.sleep(link.redial_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the load, guards nothing

    async def _meet(self, link: Link, client: aiohttp.ClientSession) -> None:
        """Dials once, and serves the connection to its end; says how long to wait before the next."""
        sound, limit_s = False, REFUSED_REDIAL_MAX_S
        try:
            connection = await self._connect(link, client)
        except TurnedAway as turned_away:
            link.tell_fault(str(turned_away))
        except Closed as closed:
            link.tell_fault(str(closed))
            limit_s = REDIAL_MAX_S
        except Refused as refused:
            link.meter.refused[refused.reason] += 1
            link.tell_fault(f"refused: {why(refused)}")
        else:
            sound = await self._serve(link, connection)
        link.redial_s = REDIAL_S if sound else min(2 * link.redial_s, limit_s)

    async def _connect(self, link: Link, client: aiohttp.ClientSession) -> Connection:
        def only_it(hello: Hello) -> Meter:
            if hello.name != link.name:
                raise Refused("name")
            return self._met(hello)

        try:
            async with asyncio.timeout(HANDSHAKE_S):
                found = await dial(client, str(link.url.sync), self._tls.client)
                return await self._shake(found, only_it, dialled=True)
        except TimeoutError:
            raise Closed("not reached: timed out") from None

    async def _shake(self, found: Socket, meter_of: Callable[[Hello], Meter], *, dialled: bool) -> Connection:
        connection: Connection | None = None
        reason = ""
        try:
            connection = await shake(found, self.keys, self._hello(), meter_of, dialled=dialled)
        except Refused as refused:
            reason = refused.reason
            raise
        finally:
            if connection is None:
                await close(found, reason)
        return connection

    async def _accept(self, request: web.BaseRequest) -> web.WebSocketResponse:
        if request.path != PATH:
            raise web.HTTPNotFound
        found, claimed = server_socket(), ""

        def met(hello: Hello) -> Meter:
            nonlocal claimed
            claimed = hello.name
            if not self.shows(request.transport, hello.name):
                raise Refused("certificate")
            return self._met(hello)

        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await found.prepare(request)
                connection = await self._shake(found, met, dialled=False)
        except (Closed, TimeoutError, ConnectionError):
            return found
        except Refused as refused:
            claimed = refused.name if isinstance(refused, WrongVersion) else claimed
            self._count_refused(claimed, refused.reason, why(refused))
            return found
        self._listener.proven(request.protocol)
        # A handler of aiohttp is cancelled when its client goes; the loop must see the end by itself.
        link = self.links.get(connection.hello.name)
        if link is None:  # it has left the list just now
            await connection.close()
            return found
        task = self._links_served.start(
            self._serve(link, connection), name=f"the connection from {link.name}"
        )
        await asyncio.wait([task])
        error = None if task.cancelled() else task.exception()
        if error is not None:
            link.failed(error)
            await connection.close("failed")
        return found

    def _count_refused(self, claimed: str, reason: str, why: str = "") -> None:
        """Somebody was not let in; the name that it gave is not proven."""
        self.refused[reason] += 1
        link = self.links.get(claimed)
        named = f" in the name of {claimed}" if link is not None else ""
        if link is not None and link.connection is None:
            link.fault = f"refused a connection{named}: {why or reason}"
        if self.refused[reason] == 1:
            log.warning(
                "refused a sync connection%s: %s; further ones are only counted", named, why or reason
            )

    def _met(self, hello: Hello) -> Meter:
        """The meter of the peer that says hello, unless it may not."""
        link = self.links.get(hello.name)
        if link is None:
            raise Refused("name")
        if not is_name(hello.region) or not link.may_be_in(hello.region):
            raise Refused("region")
        earlier = link.hello
        if link.connection is not None and earlier is not None and hello.incarnation < earlier.incarnation:
            raise Refused("incarnation")
        return link.meter

    def _hello(self) -> Hello:
        return Hello(
            VERSION,
            self.identity.name,
            self.region,
            self.identity.incarnation,
            self.keys.first.id,
            new_nonce(),
            time.time_ns() // 1_000_000,
            self._forward,
        )

    async def _serve(self, link: Link, connection: Connection) -> bool:
        """Hears a peer until the connection ends; whether that was for no fault in what either said."""
        hello = connection.hello
        link.skew_s = hello.unix_ms / 1000 - time.time()
        if abs(link.skew_s) > SKEW_TOLD_S:
            log.warning("peer %s: its wall clock is %+.1f s from ours", link.name, link.skew_s)
        try:
            peer = await resolve_peer(link.id, link.url, hello, link.region)
        except (ValueError, OSError) as error:
            link.tell_fault(f"its forward address is no good: {error}")
            await connection.close()
            return False
        self._router.set_peer(peer)
        self._router.peer_started(link.id, hello.incarnation)
        return await link.serve(connection)

    # ---------------------------------------------------------------------- what links say

    def established(self, link: Link) -> None:
        """The peer is heard."""
        log.info("peer %s is alive, in region %s", link.name, link.region)
        self._set_peers()
        self._enter(link, State.ALIVE)

    def lost(self, link: Link) -> None:
        """Nothing arrives from the peer any more."""
        log.warning("peer %s is unreachable: %s", link.name, link.fault)
        self._enter(link, State.DEAD if link.left else State.UNREACHABLE)

    def told(self, link: Link) -> None:
        """The peer's news changed: it may be a witness, and know other balancers' heirs."""
        for name, (incarnation, sequence, heirs) in link.news.heirs.items():
            other = self.links.get(name)
            if other is link:
                self.heirs.learn_own(name, incarnation, sequence, heirs)
            elif self._speaks_for(link, other.sure_region if other is not None else ""):
                self.heirs.learn(name, incarnation, sequence, heirs)
        self._publish()
        self._changed(self.links)

    def orders(self) -> list[Order]:
        """Operators' orders, for a peer that may have missed them."""
        return self._orders.all()

    def _speaks_for(self, link: Link, region: str) -> bool:
        """Whether what a peer says of a region counts: it is its own, or the settings say so."""
        trusted = ANY_PEER in self._trusted or link.name in self._trusted
        return trusted or region == link.sure_region != ""

    def shows(self, transport: asyncio.BaseTransport | None, name: str) -> bool:
        """Whether who is connected may speak as a peer of this name.

        Where peers must show certificates: its own is for this name, or for the host at which it is listed.
        """
        link = self.links.get(name)
        hosts = (name,) if link is None else (name, link.url.sync.host)
        return self._tls.shows(transport, hosts)

    def ordered(self, link: Link, order: Order) -> None:
        """An operator's order that a peer passes on."""
        if not self._orders.is_news(order):
            return
        if not self._speaks_for(link, order.region):
            why = "does not count here"
        elif self._orders.is_ahead(order, time.time_ns()):
            why = "is from a clock that is ahead by days"
        else:
            self.carry_out(order)
            return
        link.meter.refused["order"] += 1
        if link.meter.refused["order"] == 1:
            log.warning("peer %s: its order for region %s %s", link.name, order.region, why)

    def carry_out(self, order: Order) -> None:
        """An operator's order: carried out here if it is for this region; passed on if it is new."""
        if not self._orders.is_news(order):
            return
        self._orders.remember(order, {self.region, *(link.region for link in self.links.values())})
        until_ns = leave_ns(order, time.time_ns(), monotonic_ns())
        self._router.evacuate(order.region, order.evacuating, until_ns)
        if order.region == self.region:
            log.info("region %s: %s", self.region, "evacuating" if order.evacuating else "in service")
            self.evacuation.set(evacuating=order.evacuating, leave_ns=until_ns)
        for link in self.links.values():
            link.order(order)

    @property
    def evacuating(self) -> bool:
        """Whether an operator takes this balancer's region out."""
        order = self._orders.of(self.region)
        return order is not None and order.evacuating

    def _set_peers(self) -> None:
        links = self.links.values()
        self._router.set_peers([(link.id, link.name, link.region, link.sure_region != "") for link in links])

    def _enter(self, link: Link, state: State) -> None:
        if state is link.state or self.links.get(link.name) is not link:
            return
        link.state = state
        if state is State.DEAD:
            log.warning("peer %s is dead: no peer receives from it", link.name)
        self._router.peer_state(link.id, state)
        self._publish()
        self._changed(self.links)

    async def _judge(self) -> None:
        while not self.retired:
            await asyncio.sleep(JUDGE_S)
            self._publish()  # round trips may have changed who is close
            self.judge(monotonic_ns())
            self.evacuation.look(monotonic_ns())

    def judge(self, now_ns: int) -> None:
        """Tells the dead from those that only cannot be reached from here."""
        late_ns = now_ns - int(DEAD_AFTER_S * 1e9)
        for link in self.links.values():
            if link.state is State.UNREACHABLE and link.lost_ns < late_ns and not self._witnessed(link):
                self._enter(link, State.DEAD)
            elif link.state is State.DEAD and not link.left and self._witnessed(link):
                self._enter(link, State.UNREACHABLE)

    def _witnessed(self, link: Link) -> bool:
        """Whether a peer from which this balancer receives says that it receives from this one."""
        return any(
            link.name in other.news.reached for other in self.links.values() if other.state is State.ALIVE
        )

    # -------------------------------------------------------------------------- telling

    def set_replicas(self, names: Sequence[str]) -> None:
        """This balancer's own replicas, which others serve when it is dead."""
        self._replicas = [name for name in names if len(name) <= URL_LEN_MAX][:REPLICAS_MAX]
        self._publish()

    def _publish(self) -> None:
        """Renews the news where something in it changed."""
        alive = [link for link in self.links.values() if link.state is State.ALIVE]
        self.heirs.rank({link.name: link.rtt_ns for link in self.links.values()})
        news = News(sorted(link.name for link in alive), self.heirs.known(), self._replicas)
        if news != self.news:
            self.news = news

    # ---------------------------------------------------------------------------- verbs

    def isolate(self, name: str, *, isolated: bool) -> bool:
        """Operator intent: nothing goes to this peer, and nothing is taken from it; ``False`` for no peer."""
        link = self.links.get(name)
        if link is None:
            return False
        if isolated:
            self.isolated.add(name)
        else:
            self.isolated.discard(name)
        log.info("peer %s: %s", name, "isolated" if isolated else "no longer isolated")
        self._router.set_isolated(link.id, isolated)
        return True

    def evacuate(self, region: str, *, evacuating: bool, within_s: float | None = None) -> list[str]:
        """Operator intent for a whole region, and for its streams; its balancers that are known here."""
        names = [link.name for link in self.links.values() if link.region == region]
        names += [self.identity.name] if region == self.region else []
        if names:
            self.carry_out(self._orders.new(region, evacuating, within_s, time.time_ns()))
        return sorted(names)

    def ahead_ns(self, name: str) -> int | None:
        """How far our monotonic clock is ahead of a peer's; ``None`` for one that may not forward."""
        link = self.links.get(name)
        return None if link is None or name in self.isolated else link.ahead_ns
