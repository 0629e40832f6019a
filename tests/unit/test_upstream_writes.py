"""How a request is written to a replica."""

import asyncio
from typing import Any, cast

import pytest

from skylb.upstream import SMALL_BODY_BYTES, TLS_PIECE_BYTES, Connection, Pool

BODY = bytes(range(256)) * (4 * TLS_PIECE_BYTES // 256) + b"end"


class Socket:
    """A transport that is full whenever a test says so."""

    def __init__(self, *, tls: bool) -> None:
        self.tls = tls
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.pieces.append(bytes(data))

    def get_extra_info(self, name: str) -> object:
        return self if self.tls and name == "ssl_object" else None

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = abort


def connected(*, tls: bool) -> tuple[Connection, Socket, Pool]:
    pool = Pool()
    connection, sock = Connection(pool, 1), Socket(tls=tls)
    connection.connection_made(cast(asyncio.BaseTransport, sock))
    return connection, sock, pool


def test_a_plain_socket_is_given_a_large_body_as_it_is() -> None:
    async def test() -> None:
        connection, sock, _ = connected(tls=False)
        connection.send(b"head", BODY)
        assert sock.pieces == [b"head", BODY]
        assert not connection.unsent

    asyncio.run(test())


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("length", [0, 10, SMALL_BODY_BYTES, TLS_PIECE_BYTES, len(BODY)])
@pytest.mark.parametrize("at", [0, 1, 5, TLS_PIECE_BYTES + 1])
def test_a_body_in_parts_arrives_as_the_same_body_in_one(tls: bool, length: int, at: int) -> None:
    async def test() -> None:
        connection, sock, pool = connected(tls=tls)
        body = memoryview(BODY[:length])
        connection.send(b"head", body[:at], b"salt", body[at:])
        for _ in range(10):
            await asyncio.sleep(0)
        assert not connection.unsent
        assert b"".join(sock.pieces) == b"head" + BODY[:length][:at] + b"salt" + BODY[:length][at:]
        assert max(map(len, sock.pieces)) <= (TLS_PIECE_BYTES + 8 if tls else len(BODY))
        pool.release(connection)
        assert pool.idle_len == 1

    asyncio.run(test())


def test_over_tls_a_large_body_goes_out_in_pieces_and_the_loop_runs_in_between() -> None:
    async def test() -> None:
        connection, sock, _ = connected(tls=True)
        connection.send(b"head", BODY)
        counts = []
        while connection.unsent:
            counts.append(len(sock.pieces))
            await asyncio.sleep(0)
        assert counts == [2, 3, 4, 5]
        assert b"".join(sock.pieces) == b"head" + BODY

    asyncio.run(test())


def test_a_large_body_waits_while_the_other_side_takes_nothing() -> None:
    async def test() -> None:
        connection, sock, _ = connected(tls=True)
        connection.send(b"head", BODY)
        connection.pause_writing()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(sock.pieces) == 2
        connection.resume_writing()
        for _ in range(10):
            await asyncio.sleep(0)
        assert b"".join(sock.pieces) == b"head" + BODY

    asyncio.run(test())


def test_a_connection_that_was_answered_before_it_had_the_whole_body_is_not_used_again() -> None:
    async def test() -> None:
        connection, sock, pool = connected(tls=True)
        connection.send(b"head", BODY)
        pool.release(connection)
        assert sock.closed
        assert pool.idle_len == 0
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(sock.pieces) == 2

    asyncio.run(test())
