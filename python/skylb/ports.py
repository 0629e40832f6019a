"""All addresses of one balancer: bound together, handed over to a successor."""

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from skylb.addresses import ListenAddress
from skylb.config import Settings
from skylb.listeners import RETRY_S, Listening, bind, bind_patiently, is_taken

HAND_OVER_S = 5.0
"""How long a balancer that has got the clients' addresses waits for the others of the one before it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Listening sockets, by what they are for, and where they listen."""

    clients: list[Listening]
    peers: list[Listening]
    sync: list[Listening]
    admin: list[Listening]
    addresses: list[ListenAddress]
    """Where clients connect."""

    @classmethod
    async def bind(cls, settings: Settings) -> "Ports":
        """Binds all of them or none.

        The clients' addresses must be free. The balancer that had them may still drain, so the others are
        tried again for a few seconds.

        Raises:
            ListenError: an address cannot be bound.
        """
        mesh = settings.mesh
        with ExitStack() as undo:
            clients = _kept(undo, (sock for address in settings.listen for sock in bind(address)))
            peers, sync, admin = [
                _kept(undo, await bind_patiently(address, HAND_OVER_S) if address is not None else ())
                for address in (mesh.peer_listen, mesh.sync_listen, settings.admin)
            ]
            undo.pop_all()
        return cls(clients, peers, sync, admin, [sock.address for sock in clients])

    def named(self) -> dict[str, list[ListenAddress]]:
        """Where each kind listens, in the order of the report at the start."""
        groups = {"clients": self.clients, "admin": self.admin, "forwards": self.peers, "sync": self.sync}
        return {name: [sock.address for sock in group] for name, group in groups.items()}

    async def succeeded(self) -> None:
        """Waits until another process listens for clients where this balancer did."""
        while True:
            if any(map(is_taken, self.addresses)):
                return
            await asyncio.sleep(RETRY_S)

    def unlink_admin(self) -> None:
        """Removes the file of a Unix socket of the admin listener, which still listens."""
        for sock in self.admin:
            sock.unlink()

    def release(self) -> None:
        """Frees what is still bound."""
        for group in (self.clients, self.peers, self.sync, self.admin):
            for sock in group:
                sock.release()


def _kept(undo: ExitStack, sockets: Iterable[Listening]) -> list[Listening]:
    found = []
    for sock in sockets:
        undo.callback(sock.release)
        found.append(sock)
    return found
