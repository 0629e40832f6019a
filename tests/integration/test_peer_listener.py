"""Who comes to the peer listener has bounds of its own: strangers there cost clients and peers nothing."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

from skylb.mesh.signing import Identity
from tests.support.hostile import as_the_peer, attacked, forward, signed
from tests.support.raw import ask, chat, request

STRANGERS = 64
BOUNDS = ("--connections-max", "16", "--peer-connections-max", "24")


def is_closed(sock: socket.socket) -> bool:
    """Waits until the other side has closed or reset the connection."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def test_silent_strangers_neither_keep_clients_out_nor_peers_and_are_sent_away(tmp_path: Path) -> None:
    with attacked(tmp_path, *BOUNDS) as victim, ExitStack() as stack:
        strangers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", victim.forward_port)))
            for _ in range(STRANGERS)
        ]
        for _ in range(4):
            assert asyncio.run(ask(victim.front.port, request(chat("hello")))).status == 200

        async def talk(to: Identity) -> None:
            data = forward(signed(to, key=victim.keys.first))
            assert (await asyncio.wait_for(ask(victim.forward_port, data), 60)).status == 200

        asyncio.run(as_the_peer(victim, talk))
        page = victim.front.metrics()
        assert 'skylb_connections_max{listener="clients"} 16.0' in page
        assert 'skylb_connections_max{listener="peers"} 24.0' in page
        for sock in strangers:
            sock.settimeout(60)
            assert is_closed(sock)
