"""What becomes of connections that wait in the kernel's queue when a listener closes."""

import asyncio
import os
import socket
from contextlib import closing

import pytest

from skylb.data.accept import Acceptor, Verdict
from skylb.descriptors import Shortage
from skylb.listeners import Listening


class Host:
    """Lets everybody in, and counts."""

    shortage = Shortage()
    handshake_s = 1.0
    accepts_at_once = 64

    def __init__(self) -> None:
        self.made = 0

    def verdict(self) -> Verdict:
        return Verdict.YES

    def make(self, scheme: str) -> asyncio.Protocol:
        self.made += 1
        return asyncio.Protocol()

    def refusal(self) -> bytes:
        raise AssertionError


@pytest.mark.parametrize("inherited", [False, True])
def test_who_waits_is_taken_in_at_the_end_unless_the_socket_is_inherited(inherited: bool) -> None:
    async def run() -> int:
        with closing(socket.create_server(("127.0.0.1", 0))) as held:
            sock = Listening(fileno=os.dup(held.fileno()))
            sock.setblocking(False)
            sock.inherited = inherited
            host = Host()
            acceptor = Acceptor(host, sock, None)
            acceptor.resume()
            with closing(socket.create_connection(held.getsockname())):
                acceptor.close()  # the loop has had no turn since
                await acceptor.settle(5.0)
                await acceptor.stop()
                held.setblocking(False)
                if inherited:
                    held.accept()[0].close()  # the next process finds it
                return host.made

    assert asyncio.run(run()) == (0 if inherited else 1)
