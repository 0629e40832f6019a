"""The bench of workers sends one chunk of a stream at a time, and says which goals are missed."""

import asyncio

import pytest

from bench import echo, workers


def test_a_chunk_is_sent_when_the_one_before_has_come() -> None:
    async def run() -> tuple[echo.Counted, int, int]:
        current = [echo.Streams(echo.requests(3))]
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: echo.Source(current), "127.0.0.1", 0)
        marks: list[int] = []
        counted = await current[0].run(
            server.sockets[0].getsockname()[1], 0.05, 0.1, lambda: marks.append(len(current[0].sources))
        )
        server.close()
        return counted, marks[0], len(marks)

    counted, streams, marks = asyncio.run(run())
    assert counted.chunks > 0
    assert counted.wall_s >= 0.1
    assert (streams, marks) == (3, 2)


def test_a_stream_that_is_refused_ends_the_bench() -> None:
    async def run() -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            await echo.Streams(echo.requests(1)).run(port, 30, 30, lambda: None)
        finally:
            server.close()

    with pytest.raises(RuntimeError, match=r"stream 0: b'HTTP/1.1 503"):
        asyncio.run(run())


def test_a_verdict_says_whether_a_goal_is_met() -> None:
    assert workers.verdict("speed", 1.71, ">=", 1.7) == "- met: speed: 1.71 (goal >= 1.70)"
    assert workers.verdict("cost", 1.2, "<=", 1.1) == "- MISSED: cost: 1.20 (goal <= 1.10)"


def test_the_first_bottleneck_of_eight_workers_is_said() -> None:
    assert "reach 100,000. The first bottleneck is the engine process" in workers.eight("request", 40, 10)
    assert "reach 80,000. The first bottleneck is the workers" in workers.eight("request", 100, 10)
