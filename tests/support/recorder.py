"""A replica that keeps what it is sent, byte for byte, and answers what a test wants."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

import orjson

from tests.support.plane import VLLM_PAGE

DONE = b'{"object":"list","data":[]}'


@dataclass
class Seen:
    """One request as it came."""

    method: str
    target: str
    lines: list[tuple[str, str]]
    """Header names as they were written, and values."""
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case; the last of several."""
        return {name.lower(): value for name, value in self.lines}


@dataclass
class Recorder:
    """What came, but for probes, and what goes back."""

    models: list[str]
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    status: int = 200
    answer_lines: list[str] = field(default_factory=list)
    """Header lines of every answer."""
    answer: bytes = DONE
    content_type: str = "application/json"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    await self._one(reader, writer)
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        lines = [(name, value.strip()) for name, _, value in (line.partition(":") for line in rest)]
        seen = Seen(method, target, lines, b"")
        seen.body = await reader.readexactly(int(seen.headers.get("content-length", "0")))
        status, content_type, answer, more = 200, "application/json", b"", []
        path = target.partition("?")[0]
        if path.startswith("/metrics"):
            content_type, answer = "text/plain", VLLM_PAGE.format(running=0, waiting=0).encode()
        elif path == "/v1/models":
            answer = orjson.dumps({"object": "list", "data": [{"id": name} for name in self.models]})
        else:
            self.seen.append(seen)
            status, content_type, answer, more = (
                self.status,
                self.content_type,
                self.answer,
                self.answer_lines,
            )
        out = [
            f"HTTP/1.1 {status} X",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(answer)}",
            *more,
        ]
        writer.write(("\r\n".join(out) + "\r\n\r\n").encode() + answer)
        await writer.drain()


@contextmanager
def recording(*models: str) -> Iterator[Recorder]:
    """A recorder that serves ``models`` from a thread of its own, so that tests may wait for processes."""
    recorder = Recorder(list(models or ("m",)))
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(recorder.serve, "127.0.0.1", 0, limit=1 << 20)

    async def stop() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    recorder.port = server.sockets[0].getsockname()[1]
    try:
        yield recorder
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
