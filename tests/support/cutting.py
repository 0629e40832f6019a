"""A TCP proxy that cuts a stream of events behind a given one."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

READ_BYTES = 65_536

_TEXT = re.compile(rb'"(?:content|text)":"[^"]')


@dataclass
class Cut:
    """What the proxy is to do; a test changes it between two requests."""

    url: str = ""
    """Of the proxy."""
    after: int | None = None
    """Events of the next stream that pass; then its connection is reset, and this is ``None`` again."""
    behind_text: bool = False
    """No stream is cut before an event with text: a busy engine puts more or fewer tokens into its events."""
    done: int = 0
    """Streams that were cut."""


class _Side:
    """One connection of the balancer, and the one to the replica behind it."""

    def __init__(self, cut: Cut, host: str, port: int) -> None:
        self._cut = cut
        self._host = host
        self._port = port
        self._events = 0
        self._texted = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes bytes on in both directions until one side ends."""
        try:
            upstream, to_replica = await asyncio.open_connection(self._host, self._port)
        except BaseException:  # refused, or the test ends
            writer.transport.abort()
            raise
        ways = [
            asyncio.create_task(self._forth(reader, to_replica)),
            asyncio.create_task(self._back(upstream, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (to_replica, writer):
                end.transport.abort()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            if data.startswith(b"POST "):
                self._events, self._texted = 0, False
            writer.write(data)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            for part in _events(data):
                may_cut = self._texted or not self._cut.behind_text
                if self._cut.after is not None and self._events >= self._cut.after and may_cut:
                    self._cut.after = None
                    self._cut.done += 1
                    await writer.drain()
                    return
                self._events += part.startswith(b"data:") or b"\ndata:" in part
                self._texted = self._texted or _TEXT.search(part) is not None
                writer.write(part)


def _events(data: bytes) -> Iterator[bytes]:
    """The bytes, an event in each part at most."""
    at = 0
    while (end := data.find(b"\n\n", at)) >= 0:
        yield data[at : end + 2]
        at = end + 2
    if at < len(data):
        yield data[at:]


@contextmanager
def cutting(url: str) -> Iterator[Cut]:
    """A proxy in front of a replica, in a thread with a loop of its own."""
    cut = Cut()
    host, port = url.removeprefix("http://").split(":")
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                await _Side(cut, host, int(port)).serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        cut.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        ready.set()
        async with server:
            await asyncio.Event().wait()

    task: list[asyncio.Task[None]] = []

    def main() -> None:
        asyncio.set_event_loop(loop)
        task.append(loop.create_task(run()))
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task[0])
        others = asyncio.all_tasks(loop)
        for other in others:
            other.cancel()
        loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))  # transports that were aborted close their sockets
        loop.close()

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield cut
    finally:
        loop.call_soon_threadsafe(task[0].cancel)
        thread.join(10)
