"""One response on its way from a replica to a client.

The Rust relay follows head, framing and event boundaries and says in one call per chunk what to
write; here bytes only pass from one transport to the other.
"""

from typing import Protocol

from skylb._core import (
    FEED_DONE,
    FEED_FAILED,
    FEED_FIRST_BYTE,
    FEED_WRITE_BUFFER,
    FEED_WRITE_INPUT,
    Relay,
)
from skylb.upstream import Connection


class Owner(Protocol):
    """What the exchange wants to know of its response."""

    def first_byte(self, response: "Response", /) -> bool:
        """The status is known and a body byte (or the end) is here; ``False``: write nothing."""

    def relayed(self, response: "Response", /) -> None:
        """The response is complete and written."""

    def broken(self, response: "Response", /, *, malformed: bool) -> None:
        """The response cannot be completed."""


class Write(Protocol):
    """A transport's ``write``."""

    def __call__(self, data: bytes, /) -> None:
        """Queues bytes for the peer."""


class Response:
    """A replica's response to one attempt; the sink of its upstream connection.

    Args:
        owner: the exchange.
        connection: where the response comes from.
        relay: follows head, framing and events.
        client_write: the client transport's ``write``.
        paused: the client is not taking bytes at present.
    """

    __slots__ = (
        "_client_write",
        "_events",
        "_feed",
        "_pending",
        "begun",
        "connection",
        "heard",
        "owner",
        "paused",
        "relay",
    )

    def __init__(
        self, owner: Owner, connection: Connection, relay: Relay, client_write: Write, paused: bool
    ) -> None:
        self.owner = owner
        self.connection = connection
        self.relay = relay
        self.begun = False
        self.heard = False
        """Bytes were relayed since the last sweep."""
        self.paused = False
        self._feed = relay.feed
        self._client_write = client_write
        self._pending: tuple[int, bytes] | None = None
        self._events = 0
        connection.sink = self
        if paused:
            self.pause()

    def upstream_data(self, data: bytes, /) -> None:
        """Bytes from the replica: the only code that runs per chunk."""
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
        """The replica closed: the end of a close-delimited body, or a break."""
        del error  # FIN and RST mean the same to a response that is not complete
        flags = self.relay.eof()
        if flags & FEED_DONE:
            self._advance(flags, b"")
        else:
            self.owner.broken(self, malformed=False)

    def _advance(self, flags: int, data: bytes) -> None:
        if flags & FEED_FAILED:
            self.owner.broken(self, malformed=True)
            return
        self.heard = True
        if not self.begun and flags & (FEED_FIRST_BYTE | FEED_DONE):
            self._pending = (flags, data)
            if self.owner.first_byte(self):
                self.proceed()
        else:
            self._write(flags, data)

    def proceed(self) -> None:
        """Relays what waited for ``first_byte`` to say yes."""
        if self._pending is not None:
            flags, data = self._pending
            self._pending = None
            self.begun = True
            self._write(flags, data)

    def _write(self, flags: int, data: bytes) -> None:
        if flags & FEED_WRITE_BUFFER:
            self._client_write(self.relay.take())
        elif flags & FEED_WRITE_INPUT:
            self._client_write(data)
        if flags & FEED_DONE:
            self.owner.relayed(self)

    def moved(self) -> bool:
        """Whether an event has come since the last call, or bytes of another body; comments are none."""
        events, self._events = self._events, self.relay.events
        return not self.relay.streaming or events != self._events

    def pause(self) -> None:
        """The client does not take bytes: stop reading from the replica."""
        if not self.paused and not self.connection.transport.is_closing():
            self.paused = True
            self.connection.transport.pause_reading()

    def resume(self) -> None:
        """The client takes bytes again."""
        if self.paused and not self.connection.transport.is_closing():
            self.connection.transport.resume_reading()
        self.paused = False

    def discard(self) -> None:
        """Closes the upstream connection at once; the engine aborts the request."""
        self.connection.discard()
