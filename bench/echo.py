"""Streams whose next chunk is sent when the client has got the one before: source and client in one process.

So a proxy never finds two chunks of one stream in a socket, however slow it is, and source and client cost
little. Each chunk is prepared, and is one write.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.overhead import work
from bench.overhead.canned import EVENT, METRICS, MODELS, chunk, whole

PAGES = {
    b"GET /metrics": whole(b"text/plain", METRICS),
    b"GET /v1/models": whole(b"application/json", MODELS),
}
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)
CHUNK = chunk(EVENT)
LAST = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
NUMBER = re.compile(rb'"user": "stream-(\d+)"')
END = b"\r\n\r\n"


@dataclass
class Counted:
    """What a round has relayed."""

    chunks: int
    wall_s: float
    cpu_s: float
    """CPU time of source and client."""


def requests(count: int, size: int = 2000) -> list[bytes]:
    """One request for each stream."""
    rng = random.Random(1)
    systems = [work.text(rng, size // 2) for _ in range(8)]
    bodies = (json.loads(work.body(rng, systems, size=size, stream=True, tokens=1000)) for _ in range(count))
    return [work.http(json.dumps(body | {"user": f"stream-{at}"}).encode()) for at, body in enumerate(bodies)]


class Source(asyncio.Protocol):
    """A connection to a replica that sends what `Streams` says.

    Args:
        current: the streams of the round that runs, if one does.
    """

    def __init__(self, current: list["Streams"]) -> None:
        self._current = current
        self._pending = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = transport  # type: ignore[assignment]  # stream servers hand a Transport, typeshed the base

    def data_received(self, data: bytes) -> None:
        """Answers a page, or begins a stream."""
        data = self._pending + data
        head, end, body = data.partition(END)
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not end or (length is not None and len(body) < int(length[1])):
            self._pending = data
            return
        self._pending = b""
        page = head.split(b" HTTP", 1)[0].partition(b"/?")[0]
        if page in PAGES:
            self.transport.write(PAGES[page])
            return
        found = NUMBER.search(body)
        self.transport.write(HEAD + CHUNK)
        if found is None:  # a warm-up
            self.transport.write(LAST)
        else:
            self._current[0].sources[int(found[1])] = self


class Sink(asyncio.Protocol):
    """A client's connection with one stream."""

    def __init__(self, streams: "Streams", number: int) -> None:
        self._streams = streams
        self._number = number
        self._begun = False
        self.ended = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = transport  # type: ignore[assignment]  # a connection of streams

    def data_received(self, data: bytes) -> None:
        """Asks for the next chunk."""
        events = data.count(b"\n\n")
        if not self._begun:
            if not data.startswith(b"HTTP/1.1 200"):
                self._streams.fail(f"stream {self._number}: {data[:200]!r}")
                return
            self._begun = True
        if b"[DONE]" in data:
            self.ended = True
            self._streams.ended(self)
        elif events:
            self._streams.got(self._number, events)

    def connection_lost(self, exc: Exception | None) -> None:
        """A stream that breaks ends the bench."""
        if not self.ended:
            self._streams.fail(f"stream {self._number} broke: {exc}")


class Streams:
    """Endless streams through a proxy, until they are stopped.

    Args:
        requests: one for each stream; the body's ``user`` has its number.
    """

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self.sources: dict[int, Source] = {}
        self._chunks = 0
        self._stopping = False
        self._left = len(requests)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def got(self, number: int, events: int) -> None:
        """A client has got a chunk: the source sends the next."""
        self._chunks += events
        self.sources[number].transport.write(LAST if self._stopping else CHUNK)

    def ended(self, sink: Sink) -> None:
        """A stream has ended well."""
        sink.transport.close()
        self._left -= 1
        if not self._left and not self._over.done():
            self._over.set_result(None)

    def fail(self, why: str) -> None:
        """The round is worth nothing."""
        if not self._over.done():
            self._over.set_exception(RuntimeError(why))

    async def run(self, port: int, warm_s: float, for_s: float, mark: Callable[[], None]) -> Counted:
        """Relays for some time; ``mark`` is called when the time begins and when it ends.

        Raises:
            RuntimeError: a stream has failed.
        """
        loop = asyncio.get_running_loop()
        for number, request in enumerate(self._requests):
            _, sink = await loop.create_connection(partial(Sink, self, number), "127.0.0.1", port)
            sink.transport.write(request)
        await self._for(warm_s)
        mark()
        before, began, cpu_s = self._chunks, time.monotonic(), time.process_time()
        await self._for(for_s)
        counted = Counted(self._chunks - before, time.monotonic() - began, time.process_time() - cpu_s)
        mark()
        self._stopping = True
        await asyncio.wait_for(self._over, 30)
        return counted

    async def _for(self, time_s: float) -> None:
        done, _ = await asyncio.wait([self._over], timeout=time_s)
        for each in done:
            each.result()
