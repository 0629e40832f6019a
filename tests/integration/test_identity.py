"""Who a client is: by the address that its socket has, in one form, and by what a trusted front says."""

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from skylb.addresses import IpNetwork, ListenAddress
from skylb.app import Service
from skylb.config import Settings
from tests.support.mock import run
from tests.support.plane import until
from tests.support.processes import PATIENCE_S, Balancer, balancer, eventually, free_port, mocks
from tests.support.raw import Connection, ask, chat, request

HOME = ["--region", "us", "--residency", "acme/*=eu", "--tenant-header", "X-Tenant"]
"""A balancer in us, where requests of the tenant acme may not be served."""


@contextmanager
def dual_stack(*arguments: str) -> Iterator[tuple[Balancer, int]]:
    """A balancer that listens on every address of the machine by one IPv6 socket, and the port of that."""
    port = free_port()
    try:
        socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with mocks(1, "--profile", "instant") as urls:
        with balancer(*urls, arguments=["--listen", f"[::]:{port}", *arguments]) as front:
            yield front, port


def logged(front: Balancer, field: str, count: int) -> list[object]:
    """One field of the access log's lines, once there are ``count``."""
    return eventually(
        lambda: found if len(found := [line[field] for line in front.log()]) == count else None,
        what=f"{count} lines in the log",
    )


def status(port: int, *headers: str) -> int:
    """Of one chat over IPv4."""
    return asyncio.run(ask(port, request(chat("hello"), headers=headers))).status


def test_a_front_on_ipv4_is_trusted_by_a_listener_on_all_addresses() -> None:
    with dual_stack(*HOME, "--trusted-proxies", "127.0.0.1") as (front, port):
        assert status(port, "X-Tenant: acme") == 403
        assert status(port, "X-Tenant: globex") == 200
        assert status(port) == 200, "a trusted front that names no tenant says that it is nobody's"
        assert logged(front, "client", 3) == ["127.0.0.1"] * 3


def test_a_network_written_in_the_mapped_form_is_the_same_network() -> None:
    with dual_stack(*HOME, "--trusted-proxies", "::ffff:127.0.0.0/104") as (_, port):
        assert status(port, "X-Tenant: acme") == 403
        assert status(port, "X-Tenant: globex") == 200


@pytest.mark.parametrize("headers", [(), ("X-Tenant: acme",), ("X-Tenant: globex",)])
def test_a_client_that_is_no_front_is_refused_where_it_may_be_a_tenant_of_elsewhere(
    headers: tuple[str, ...],
) -> None:
    with dual_stack(*HOME, "--trusted-proxies", "192.0.2.1") as (front, port):
        answer = asyncio.run(ask(port, request(chat("hello"), headers=headers)))
        assert answer.status == 403
        assert json.loads(answer.body)["error"]["code"] == "residency"
        assert logged(front, "tenant", 1) == [None]
        assert logged(front, "tenant_known", 1) == [False]


def test_clients_of_a_unix_socket_are_answered_and_are_never_a_trusted_front(tmp_path: Path) -> None:
    path = tmp_path / "clients.sock"
    arguments = ["--listen", f"unix:{path}", "--trusted-proxies", "0.0.0.0/0", *HOME]
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=arguments) as front:
        for tenant, line in (("acme", b"HTTP/1.1 403 "), ("globex", b"HTTP/1.1 403 ")):
            with closing(socket.socket(socket.AF_UNIX)) as client:
                client.connect(str(path))
                client.settimeout(PATIENCE_S)
                client.sendall(request(chat("hello"), headers=[f"X-Tenant: {tenant}"]))
                assert client.recv(65536).startswith(line)
        assert logged(front, "client", 2) == [None, None]


class Broken(tuple[IpNetwork, ...]):
    """A list of networks that cannot be asked."""

    __slots__ = ()

    def __iter__(self) -> Iterator[IpNetwork]:
        raise RuntimeError("broken")


def test_a_connection_whose_setting_up_fails_is_closed_and_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        local = ListenAddress("127.0.0.1", 0)
        service = Service(Settings(listen=(local,), admin=local, replica=("http://127.0.0.1:9",)))
        await service.start()
        try:
            service.frontend.context.trusted_proxies = Broken()
            with caplog.at_level(logging.CRITICAL, logger="asyncio"):
                client = await Connection.open(service.operations.addresses["clients"][0].port)
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await asyncio.wait_for(client.reader.readexactly(1), 10)
                await client.close()
            await until(lambda: service.frontend.connections_len == 0, "the connection is gone")
        finally:
            await service.stop()

    run(test)
