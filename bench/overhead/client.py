"""A lean client: prebuilt requests, one protocol object per connection, no parsing but framing."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from skylb._core import ResponseReader


@dataclass
class Tally:
    """What one round did. Times in nanoseconds."""

    requests: int = 0
    chunks: int = 0
    errors: int = 0
    ttft_ns: list[int] = field(default_factory=list)
    wall_s: float = 0.0


class Call(asyncio.Protocol):
    """One connection that sends the next request when the last answer is complete."""

    def __init__(self, round_: "Round") -> None:
        self.round = round_
        self.reader = ResponseReader()
        self.sent_ns = 0
        self.first = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self.transport = transport  # type: ignore[assignment]

    def send(self, request: bytes) -> None:
        """Sends one request."""
        self.reader = ResponseReader()
        self.first = True
        self.sent_ns = time.monotonic_ns()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Counts chunks, notes the first body byte, goes on at the end."""
        reader = self.reader
        body = reader.feed(data)
        if body:
            if self.first:
                self.first = False
                self.round.tally.ttft_ns.append(time.monotonic_ns() - self.sent_ns)
            self.round.tally.chunks += body.count(b"\n\n")
        if reader.error is not None or (reader.done and reader.status != 200):
            self.round.tally.errors += 1
        if reader.done or reader.error is not None:
            self.round.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that breaks under a request is an error."""
        del exc
        self.round.lost(self)


class Round:
    """A number of requests over a number of connections.

    Args:
        port: the proxy's.
        requests: prebuilt requests, sent in turn.
        count: how many in all.
        concurrency: connections.
        rate: requests per second (open loop); 0 is closed loop.
    """

    def __init__(
        self, port: int, requests: Sequence[bytes], *, count: int, concurrency: int, rate: float = 0.0
    ) -> None:
        self.port = port
        self.requests = requests
        self.count = count
        self.concurrency = concurrency
        self.rate = rate
        self.tally = Tally()
        self.sent = 0
        self.ended = 0
        self.free: list[Call] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finishing = False

    async def run(self) -> Tally:
        """Runs the round to its end."""
        loop = asyncio.get_running_loop()
        calls = []
        for _ in range(self.concurrency):
            _, call = await loop.create_connection(lambda: Call(self), "127.0.0.1", self.port)
            calls.append(call)
        started = time.monotonic()
        self.free = calls.copy()
        if self.rate:
            await self._open_loop()
        else:
            while self.free and self.sent < self.count:
                self._send(self.free.pop())
        await asyncio.wait_for(self.done, 120)
        self.tally.wall_s = time.monotonic() - started
        self.finishing = True
        for call in calls:
            call.transport.abort()
        return self.tally

    async def _open_loop(self) -> None:
        start = time.monotonic()
        for index in range(self.count):
            delay = start + index / self.rate - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            if self.free:
                self._send(self.free.pop())
            else:
                self.sent += 1
                self.tally.errors += 1
                self._end()

    def _send(self, call: Call) -> None:
        call.send(self.requests[self.sent % len(self.requests)])
        self.sent += 1

    def answered(self, call: Call) -> None:
        """One answer is complete."""
        self.tally.requests += 1
        if self.rate or self.sent >= self.count:
            self.free.append(call)
        else:
            self._send(call)
        self._end()

    def lost(self, call: Call) -> None:
        """A connection broke."""
        if not self.finishing and call not in self.free:
            self.tally.errors += 1
            self._end()

    def _end(self) -> None:
        self.ended += 1
        if self.ended >= self.count and not self.done.done():
            self.done.set_result(None)
