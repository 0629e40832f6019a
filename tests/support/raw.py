"""Raw HTTP over asyncio streams: tests decide every byte and when to leave."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from skylb._core import ResponseReader

HEADERS = (
    "access-control-allow-origin",
    "allow",
    "connection",
    "content-type",
    "retry-after",
    "x-request-id",
)
"""Of a response, those that tests look at."""


def request(
    body: dict[str, Any] | bytes,
    *,
    path: str = "/v1/chat/completions",
    request_id: str = "",
    headers: Sequence[str] = (),
) -> bytes:
    """The bytes of one POST; ``headers`` are whole lines."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: test",
        "Content-Type: application/json",
        f"Content-Length: {len(payload)}",
        *headers,
    ]
    if request_id:
        lines.append(f"X-Request-Id: {request_id}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + payload


def chat(text: str, *, max_tokens: int = 8, stream: bool = False, model: str = "mock") -> dict[str, Any]:
    """A chat request."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": stream,
    }


@dataclass
class Answer:
    """What one response was, as far as it came."""

    status: int = 0
    body: bytes = b""
    complete: bool = False
    error: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def error_events(self) -> int:
        """In-band error events of a stream."""
        return sum(line.startswith(b'data: {"error"') for line in self.body.split(b"\n"))

    @property
    def done_events(self) -> int:
        """``[DONE]`` events of a stream."""
        return self.body.count(b"data: [DONE]")


class Connection:
    """One client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connects to loopback."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def answer(self) -> Answer:
        """Reads one response to its end, or to the connection's."""
        framing = ResponseReader()
        answer = Answer()
        parts = []
        while not framing.done and framing.error is None:
            try:
                data = await self.reader.read(65536)
            except ConnectionError as error:
                answer.error = type(error).__name__
                break
            if not data:
                framing.eof()
                break
            parts.append(framing.feed(data))
        answer.body = b"".join(parts)
        answer.status = framing.status
        answer.complete = framing.done
        answer.error = answer.error or framing.error
        for name in HEADERS:
            value = framing.header(name)
            if value is not None:
                answer.headers[name] = value
        return answer

    async def ask(self, data: bytes) -> Answer:
        """Sends bytes, reads one response."""
        self.writer.write(data)
        return await self.answer()

    async def close(self) -> None:
        """FIN."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        """RST or FIN at once, whatever is unsent."""
        self.writer.transport.abort()


async def ask(port: int, data: bytes) -> Answer:
    """One request over one connection."""
    connection = await Connection.open(port)
    try:
        return await connection.ask(data)
    finally:
        await connection.close()


async def until(probe: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Polls until ``probe`` is true; fails after ``timeout_s``."""
    for _ in range(int(timeout_s / 0.05)):
        if probe():
            return
        await asyncio.sleep(0.05)
    message = f"not true within {timeout_s} s"
    raise AssertionError(message)
