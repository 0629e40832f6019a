"""One leg of a request: a target, and its response on the way to the client.

The Rust relay follows head, framing and event boundaries, and says in one call per chunk what to write. Here
bytes only pass from one transport to the other.
"""

import asyncio
from typing import Protocol

from skylb._core import (
    FEED_DONE,
    FEED_FAILED,
    FEED_FIRST_BYTE,
    FEED_WRITE_BUFFER,
    FEED_WRITE_INPUT,
    Forward,
    Relay,
)
from skylb.types import Peer, Replica
from skylb.upstream import Connection, Pool

BEGINS = FEED_FIRST_BYTE | FEED_DONE
"""A response begins with the first input that has one of these flags: with a body byte, or its end."""

STALE_NS = 1_000_000_000
"""A used connection that breaks later than this after the request had it: somebody has read the request."""


class Owner(Protocol):
    """The exchange, as far as a leg needs it."""

    def first_byte(self, leg: "Leg", /) -> bool:
        """The status is known and a body byte (or the end) is here; ``False``: write nothing."""

    def relayed(self, leg: "Leg", /) -> None:
        """The response is complete and written."""

    def broken(self, leg: "Leg", /, *, malformed: bool) -> None:
        """The response cannot be completed."""


class Write(Protocol):
    """A transport's ``write``."""

    def __call__(self, data: bytes, /) -> None:
        """Queues bytes for the client."""


class Leg:
    """Part of a request's work at one target; the sink of its upstream connection.

    What is kept of its output is in ``relay``: status, usage, the id of the response, the hashes of the
    answer's blocks.

    Args:
        owner: the exchange.
        target: the replica or peer that the request goes to.
        forward: the engine's decision, if the target is a peer.
        pool: the pool of connections to the target.
        now_ns: the time at which the leg begins.
    """

    __slots__ = (
        "_client_write",
        "_closed",
        "_events",
        "_feed",
        "_pending",
        "begun",
        "connecting",
        "connection",
        "forward",
        "heard",
        "heard_ns",
        "owner",
        "paused",
        "pool",
        "relay",
        "sent",
        "target",
        "withheld",
    )

    def __init__(
        self, owner: Owner, target: Replica | Peer, forward: Forward | None, pool: Pool, now_ns: int
    ) -> None:
        self.owner = owner
        self.target = target
        self.forward = forward
        self.pool = pool
        self.heard_ns = now_ns
        """When the target last sent something, or the leg began."""
        self.connecting: asyncio.Task[None] | None = None
        self.connection: Connection | None = None
        """Set while the target may answer."""
        self.relay: Relay
        """Set once the request is sent, with ``connection``."""
        self.sent = False
        """The request was sent, also if that connection has broken."""
        self.withheld = False
        """The attempt has failed. Its answer waits until the engine decides if another attempt follows."""
        self.begun = False
        self.heard = False
        """Bytes were relayed since the last sweep."""
        self.paused = False
        self._pending: tuple[int, bytes] | None = None
        self._closed = False
        """The target closed while its answer was withheld."""
        self._events = 0

    def acquire(self, *, only_new: bool) -> Connection | None:
        """An idle connection of the pool, or ``None``.

        Args:
            only_new: the request must not run twice. If a used connection breaks, it is not known whether the
                request was read.
        """
        return None if only_new else self.pool.acquire(self.target.id)

    def is_stale(self, now_ns: int) -> bool:
        """Whether the target most likely closed its idle connection before it read the request."""
        connection = self.connection
        reused = connection is not None and connection.reused and not self.relay.started
        return reused and now_ns - self.heard_ns < STALE_NS

    def listen(self, connection: Connection, relay: Relay, client_write: Write, paused: bool) -> None:
        """Takes the response from now on.

        Args:
            connection: where the response comes from.
            relay: follows head, framing and events.
            client_write: the client transport's ``write``.
            paused: the client is not taking bytes at present.
        """
        self.connection = connection
        self.relay = relay
        self.sent = True
        self._feed = relay.feed
        self._client_write = client_write
        connection.sink = self
        if paused:
            self.pause()

    def upstream_data(self, data: bytes, /) -> None:
        """Bytes from the target: the only code that runs per chunk."""
        # Into locals first: `self._feed(data)` would look a method up on the class, in vain, each time.
        feed = self._feed
        flags = feed(data)
        if flags == FEED_WRITE_INPUT:
            self.heard = True
            write = self._client_write
            write(data)
        elif flags:
            self._advance(flags, data)

    def upstream_closed(self, error: Exception | None, /) -> None:
        """The target closed: the end of a close-delimited body, or a break."""
        del error  # FIN and RST mean the same to a response that is not complete
        if self.withheld:
            self._closed = True
            return
        flags = self.relay.eof()
        if flags & FEED_DONE:
            self._advance(flags, b"")
        else:
            self.owner.broken(self, malformed=False)

    def _advance(self, flags: int, data: bytes) -> None:
        failed = flags & FEED_FAILED
        if failed and not flags & FEED_WRITE_BUFFER:
            self.owner.broken(self, malformed=True)
            return
        self.heard = True
        if not self.begun and flags & BEGINS:
            self._pending = (flags, data)
            if not self.owner.first_byte(self):
                return
            self._pending = None
            self.begun = True
        self._write(flags, data)
        if failed:  # the stream says so, behind what was written
            self.owner.broken(self, malformed=True)

    def withhold(self) -> None:
        """The attempt has failed: nothing more is read of its answer until the engine has decided."""
        self.withheld = True
        self.pause()

    def proceed(self, *, paused: bool) -> None:
        """Relays the answer that was withheld: no other attempt follows.

        Args:
            paused: the client is not taking bytes at present.
        """
        if self._pending is not None:
            flags, data = self._pending
            self._pending = None
            self.withheld = False
            self.begun = True
            if not paused and not flags & FEED_DONE:
                self.resume()
            self._write(flags, data)
            if self._closed and not flags & FEED_DONE:
                self.upstream_closed(None)

    def _write(self, flags: int, data: bytes) -> None:
        if flags & FEED_WRITE_BUFFER:
            self._client_write(self.relay.take())
        elif flags & FEED_WRITE_INPUT:
            self._client_write(data)
        if flags & FEED_DONE:
            self.owner.relayed(self)

    def moved(self) -> bool:
        """Whether a stream had an event, which a comment is not, since the last call. Else always true."""
        events, self._events = self._events, self.relay.events
        return not self.relay.streaming or events != self._events

    def pause(self) -> None:
        """The client does not take bytes: stop reading from the target."""
        connection = self.connection
        if connection is not None and not self.paused and not connection.transport.is_closing():
            self.paused = True
            connection.transport.pause_reading()

    def resume(self) -> None:
        """The client takes bytes again."""
        connection = self.connection
        if connection is not None and self.paused and not connection.transport.is_closing():
            self.relay.resumed()
            connection.transport.resume_reading()
        self.paused = False

    def give_back(self) -> None:
        """The response is complete: the connection may serve another request, if the target says so."""
        connection, self.connection = self.connection, None
        if connection is not None:
            if self.relay.reusable:
                connection.pool.release(connection)
            else:
                connection.discard()

    def discard(self) -> None:
        """Stops connecting, or closes the connection at once. vLLM then aborts the request."""
        connecting, self.connecting = self.connecting, None
        self.paused = False  # the next connection reads
        if connecting is not None:
            connecting.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.discard()
