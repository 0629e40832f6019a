"""Descriptors: who may have how many, and what is said when there are none."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb.data import frontend
from skylb.descriptors import Allotment, Shortage, is_shortage
from skylb.errors import ConfigError, ConnectError, ShortageError
from skylb.types import Address, Replica
from skylb.upstream import Connection, Pool


@given(
    st.integers(0, 1 << 30),
    st.integers(0, 5000),
    st.lists(st.integers(1, 1 << 20), min_size=1, max_size=2),
)
def test_no_more_is_promised_than_there_is(limit: int, used: int, most: list[int]) -> None:
    allotment = Allotment.of(limit, used, most)
    given_out = max(0, 2 * sum(allotment.connections))
    assert given_out == 0 or used + allotment.kept + given_out <= limit
    assert all(count <= allowed for count, allowed in zip(allotment.connections, most, strict=True))


def test_few_descriptors_are_divided_between_clients_and_where_their_requests_go() -> None:
    assert Allotment.of(128, 24, [16_384]) == Allotment(128, 16, [44])
    assert Allotment.of(1 << 20, 30, [16_384, 4096]) == Allotment(1 << 20, 1024, [16_384, 4096])


def test_where_nobody_could_connect_the_limit_is_a_fault() -> None:
    with pytest.raises(ConfigError, match="40 open files are allowed"):
        Allotment.of(40, 24, [16_384]).tell(40, [16_384])


def test_a_shortage_is_counted_each_time_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    given_back: list[None] = []
    shortage = Shortage(lambda: given_back.append(None))
    with caplog.at_level(logging.WARNING, "skylb.descriptors"):
        for doing in ("accept", "connect", "accept"):
            shortage.noted(doing, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert (shortage.total, len(given_back)) == ({"accept": 2, "connect": 1}, 3)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert shown(shortage) == {"accept": 2, "connect": 1}
    assert "Too many open files" in caplog.text


def shown(shortage: Shortage) -> dict[str, float]:
    *_, family = frontend.families([], shortage.total)
    return {sample.labels["doing"]: sample.value for sample in family.samples}


def test_what_may_be_lacked_has_a_series_before_it_is() -> None:
    assert shown(Shortage()) == {"accept": 0, "connect": 0}


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"])
def test_what_this_machine_lacks_is_told_from_what_a_replica_refuses(name: str) -> None:
    assert is_shortage(OSError(getattr(errno, name), "x"))
    assert not is_shortage(ConnectionRefusedError(errno.ECONNREFUSED, "x"))
    assert not is_shortage(TimeoutError("x"))


class Waiter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.error: ConnectError | None = None

    def connected(self, connection: Connection, /) -> None:
        self.connection = connection

    def connect_failed(self, error: ConnectError, /) -> None:
        self.error = error


def connecting(pool: Pool, port: int, patience_s: float, meanwhile: Callable[[], None]) -> Waiter:
    """What becomes of one connect."""

    async def run() -> Waiter:
        waiter = Waiter()
        replica = Replica(1, "replica", Address("127.0.0.1", port), "replica")
        task = pool.connect(replica, waiter, patience_s=patience_s)
        await asyncio.sleep(0)
        meanwhile()
        await task
        if waiter.connection is not None:
            sock = waiter.connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
            waiter.connection.discard()
        await pool.close()
        return waiter

    return asyncio.run(run())


def test_connections_to_replicas_notice_a_path_that_has_died() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        waiter = connecting(Pool(), server.getsockname()[1], 0.0, lambda: None)
    assert waiter.connection is not None


def test_a_connect_that_lacks_something_waits_for_it_and_is_never_the_replicas_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with monkeypatch.context() as patch:
            patch.setattr("skylb.upstream._socket", lacking)
            pool = Pool()
            refused = connecting(pool, port, 0.0, lambda: None)
            assert isinstance(refused.error, ShortageError)
            assert pool.shortage.total == {"connect": 1}
        with monkeypatch.context() as patch:
            patch.setattr("skylb.upstream._socket", lacking)
            waited = connecting(Pool(), port, 60.0, patch.undo)
            assert waited.connection is not None
