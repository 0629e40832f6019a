"""An engine in the test's own loop, whose metrics page and answers a test decides."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress

from tests.support.processes import Balancer, balancer

MODELS = b'{"object":"list","data":[{"id":"mock","object":"model","max_model_len":4096}]}'

Answer = Callable[[bytes], Awaitable[bytes]]
"""The bytes of a response to a request's body."""


def page(running: int = 0, waiting: int = 0, tokens: int = 0) -> bytes:
    """A metrics page of vLLM."""
    figures = {
        "num_requests_running": running,
        "num_requests_waiting": waiting,
        "kv_cache_usage_perc": 0.5,
        "generation_tokens_total": tokens,
    }
    lines = [f'vllm:{name}{{engine="0",model_name="mock"}} {value}\n' for name, value in figures.items()]
    return "".join(lines).encode()


def response(
    body: bytes, status: int = 200, kind: str = "application/json", headers: Sequence[str] = ()
) -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def healthy(body: bytes) -> bytes:
    """Answers."""
    del body
    return response(b'{"ok": true}')


async def silent(body: bytes) -> bytes:
    """Never answers."""
    del body
    await asyncio.Event().wait()
    return b""


def status(code: int, *headers: str, text: bytes = b'{"error": {"message": "no"}}') -> Answer:
    """Answers with an error."""

    async def answer(body: bytes) -> bytes:
        del body
        return response(text, code, headers=headers)

    return answer


class Engine:
    """One engine on loopback.

    Attributes:
        answer: what inference is answered with.
        metrics: what ``/metrics`` is answered with, whole or narrowed.
        requests: bodies of inference requests, as they came.
    """

    def __init__(self, answer: Answer = healthy) -> None:
        self.answer = answer
        self.metrics: Callable[[bool], Awaitable[bytes]] = self._page
        self.page = page()
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        """Set with the first of them."""
        self.probes = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = False

    async def _page(self, narrowed: bool) -> bytes:
        del narrowed
        return response(self.page, kind="text/plain")

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def vanish(self) -> None:
        """New connections are refused, probes are answered no more, and requests stay as they are."""
        self._gone = True
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """Closes everything."""
        self.vanish()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    writer.write(await self._respond(await reader.readuntil(b"\r\n\r\n"), reader))
                    await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _respond(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        if self._gone:
            raise ConnectionAbortedError
        if head.startswith(b"GET /metrics"):
            self.probes += 1
            return await self.metrics(b"name" in head.split(b" ", 2)[1])
        if head.startswith(b"GET /v1/models"):
            return response(MODELS)
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        self.requests.append(body)
        self.asked.set()
        return await self.answer(body)


@asynccontextmanager
async def engines(*served: Engine) -> AsyncIterator[None]:
    """Engines that listen."""
    for engine in served:
        await engine.start()
    try:
        yield
    finally:
        for engine in served:
            await engine.stop()


@asynccontextmanager
async def fronted(*served: Engine, arguments: Sequence[str] = ()) -> AsyncIterator[Balancer]:
    """A balancer process in front of engines."""
    async with engines(*served):
        stack = ExitStack()
        context = balancer(*(engine.url for engine in served), arguments=list(arguments))
        front = await asyncio.to_thread(stack.enter_context, context)
        try:
            yield front
        finally:
            await asyncio.to_thread(stack.close)
