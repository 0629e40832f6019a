"""A client's connection with a transport that a test reads and stops, and all that it stands on."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from skylb._core import LOG_OFF, Engine, HeadParser, Recorder, ResponseReader
from skylb.config import EngineSettings, TimeoutSettings
from skylb.data.client import ClientConnection
from skylb.data.context import Budget, Context, Limits
from skylb.data.reading import Reading
from skylb.localrouter import LocalRouter
from skylb.upstream import Pool
from tests.support.transport import KeepingTransport

MODELS = b"GET /v1/models HTTP/1.1\r\nHost: test\r\n\r\n"
NOWHERE = b"POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
BODY_BYTES_MAX = 1000
S = 1_000_000_000


class Transport(KeepingTransport):
    """The client's end of a connection."""

    def __init__(self, *, half_close: bool = True) -> None:
        super().__init__()
        self.half_close = half_close

    def write(self, data: Any) -> None:
        assert not self.ended, "written behind the end"
        super().write(data)

    def can_write_eof(self) -> bool:
        return self.half_close

    def is_closing(self) -> bool:
        return self.ended in {"closed", "aborted"}

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def answers(self) -> list[tuple[int, str]]:
        """Status and ``Connection`` of every answer written so far."""
        found, rest = [], self.written
        while rest:
            head, _, behind = rest.partition(b"\r\n\r\n")
            reader = ResponseReader()
            reader.feed(head + b"\r\n\r\n")
            if reader.status >= 200:
                behind = behind[int(reader.header("content-length") or 0) :]
            found.append((reader.status, reader.header("connection") or ""))
            rest = behind
        return found


class Kept:
    """What a connection needs of a frontend."""

    def __init__(self, *, body_bytes_max: int = BODY_BYTES_MAX, scanner: Any = None) -> None:
        engine = Engine(EngineSettings().model_dump_json().encode(), b"k" * 16, 1)
        self.router = LocalRouter(engine)
        self.recorder = Recorder(LOG_OFF, 0, "prefix", 0)
        self.context = Context(
            router=self.router,
            pool=Pool(),
            recorder=self.recorder,
            parser=HeadParser(),
            budget=Budget(1 << 24),
            limits=Limits(TimeoutSettings(), body_bytes_max, 10, 1),
            reading=Reading(scanner or engine.scanner(), False),
        )

    def opened(self, connection: ClientConnection, /) -> None:
        """Nothing to keep."""

    def closed(self, connection: ClientConnection, /) -> None:
        """Nothing to forget."""

    def connect(self, *, half_close: bool = True) -> tuple[ClientConnection, Transport]:
        """A new connection."""
        connection, transport = ClientConnection(self, "http"), Transport(half_close=half_close)
        transport.protocol = connection
        connection.connection_made(transport)
        return connection, transport


async def settle() -> None:
    """Lets everything run that is due."""
    for _ in range(200):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)
