"""Replicas that cost next to nothing: every request gets the same stream of four events at once.

For the added TTFT at thousands of requests a second: the mock replica, which keeps the books of an
engine, and the client share one CPU, and would be the queue that is measured.

    python -m bench.overhead.canned --count 4
"""

import argparse
import asyncio

import uvloop

METRICS = (
    b'vllm:num_requests_running{model_name="bench"} 0.0\n'
    b'vllm:num_requests_waiting{model_name="bench"} 0.0\n'
    b'vllm:kv_cache_usage_perc{model_name="bench"} 0.0\n'
)
MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","max_model_len":4096}]}'
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}]}\n\n'
)


def whole(kind: bytes, body: bytes) -> bytes:
    """A response of known length."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


PAGES = {
    b"GET /metrics": whole(b"text/plain", METRICS),
    b"GET /v1/models": whole(b"application/json", MODELS),
}
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(EVENT) * 4
    + chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
LENGTH = b"content-length: "


class Canned(asyncio.Protocol):
    """One connection; requests are not pipelined."""

    def __init__(self) -> None:
        self.pending = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = transport  # type: ignore[assignment]  # stream servers hand a Transport, typeshed the base

    def data_received(self, data: bytes) -> None:
        """Answers once head and body are here."""
        data = self.pending + data if self.pending else data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            head = data[:end].lower()
            at = head.find(LENGTH)
            length = int(head[at + len(LENGTH) :].split(b"\r", 1)[0]) if at >= 0 else 0
            if len(data) >= end + 4 + length:
                self.pending = b""
                page = data[:end].split(b" HTTP", 1)[0].partition(b"/?")[0]
                self.transport.write(PAGES.get(page, STREAM))
                return
        self.pending = data


async def main() -> None:
    """Serves until killed; prints the URLs, then ``ready``, as ``skylb mock`` does."""
    parser = argparse.ArgumentParser(prog="bench.overhead.canned")
    parser.add_argument("--count", type=int, default=4)
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Canned, "127.0.0.1", 0) for _ in range(parser.parse_args().count)]
    for server in servers:
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
