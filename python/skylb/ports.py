"""All addresses of one balancer: bound together, handed over to a successor."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from skylb.addresses import ListenAddress
from skylb.config import Settings
from skylb.errors import ListenError
from skylb.inherited import Passed, assigned, flag
from skylb.listeners import RETRY_S, Listening, bind_patiently, is_taken

HAND_OVER_S = 5.0
"""How long a balancer that has got the clients' addresses waits for the others of the one before it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Listening sockets, by what they are for, and where they listen."""

    clients: list[Listening]
    peers: list[Listening]
    sync: list[Listening]
    admin: list[Listening]
    own: list[ListenAddress]
    """Where clients connect, as far as nobody else holds the socket."""

    @classmethod
    async def bind(cls, settings: Settings, passed: Sequence[Passed] = ()) -> "Ports":
        """Binds all of them or none, but those that were passed to this process.

        The clients' addresses must be free. The balancer that had them may still drain, so the others are
        tried again for a few seconds.

        Raises:
            ListenError: an address cannot be bound.
            ConfigError: a socket was passed that no listener wants.
        """
        mesh = settings.mesh
        found = assigned(
            passed,
            {
                "client": settings.listen,
                "admin": (settings.admin,),
                "peer": () if mesh.peer_listen is None else (mesh.peer_listen,),
                "sync": () if mesh.sync_listen is None else (mesh.sync_listen,),
            },
        )
        with ExitStack() as undo:
            for listener in found.values():
                _keep(undo, listener.sockets)
            for name, listener in found.items():
                for address in listener.addresses:
                    patience_s = 0.0 if name == "client" else HAND_OVER_S
                    listener.sockets += _keep(undo, await _bind(name, address, patience_s))
            undo.pop_all()
        clients, peers, sync, admin = (found[name].sockets for name in ("client", "peer", "sync", "admin"))
        own = [sock.address for sock in clients if not sock.inherited]
        return cls(clients, peers, sync, admin, own)

    def named(self) -> dict[str, list[ListenAddress]]:
        """Where each kind listens, in the order of the report at the start."""
        groups = {"clients": self.clients, "admin": self.admin, "forwards": self.peers, "sync": self.sync}
        return {name: [sock.address for sock in group] for name, group in groups.items()}

    async def succeeded(self) -> None:
        """Waits until another process listens for clients where this balancer did.

        An inherited socket does not show it: the service manager listens there all the time.
        """
        while True:
            if any(map(is_taken, self.own)):
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


async def _bind(name: str, address: ListenAddress, patience_s: float) -> list[Listening]:
    try:
        return await bind_patiently(address, patience_s)
    except ListenError as error:
        waited = f", for {patience_s:g} s now" if error.in_use and patience_s else ""
        raise ListenError(f"{flag(name)}: {error}{waited}", in_use=error.in_use) from error


def _keep(undo: ExitStack, sockets: list[Listening]) -> list[Listening]:
    for sock in sockets:
        undo.callback(sock.release)
    return sockets
