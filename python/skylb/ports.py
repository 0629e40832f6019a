"""All addresses of one balancer: bound together, handed over to a successor."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from skylb.addresses import ListenAddress
from skylb.config import Settings
from skylb.errors import ListenError
from skylb.inherited import Passed, assigned, flag, kept
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
    async def bind(
        cls,
        settings: Settings,
        passed: Sequence[Passed] = (),
        handed: Mapping[str, Sequence[Listening]] | None = None,
    ) -> "Ports":
        """Binds all of them or none, but those that were passed to this process.

        Args:
            settings: which addresses.
            passed: by the service manager.
            handed: by a predecessor, as it had them.

        The clients' addresses must be free. The balancer that had them may still drain, so the others are
        tried again for a few seconds.

        Raises:
            ListenError: an address cannot be bound.
            ConfigError: a socket was passed that no listener wants.
        """
        mesh = settings.mesh
        addresses = {
            "client": settings.listen,
            "admin": (settings.admin,),
            "peer": () if mesh.peer_listen is None else (mesh.peer_listen,),
            "sync": () if mesh.sync_listen is None else (mesh.sync_listen,),
        }
        if handed is None:
            found = assigned(passed, addresses)
        else:
            found = {name: kept(handed.get(name, ()), wanted) for name, wanted in addresses.items()}
        with ExitStack() as undo:
            for listener in found.values():
                _keep(undo, listener.sockets)
            for name, listener in found.items():
                for address in listener.addresses:
                    patience_s = 0.0 if name == "client" else HAND_OVER_S
                    bound = await _bind(name, address, patience_s, reuse_port=settings.reuse_port)
                    listener.sockets += _keep(undo, bound)
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

    def by_name(self) -> dict[str, list[Listening]]:
        """All of them, by the names of `inherited.LISTENERS`."""
        return {"client": self.clients, "admin": self.admin, "peer": self.peers, "sync": self.sync}

    def yield_up(self) -> None:
        """A successor has all of them: what waits in their queues is its, and so are the files."""
        for group in self.by_name().values():
            for sock in group:
                sock.yield_up()

    def unlink_admin(self) -> None:
        """Removes the file of a Unix socket of the admin listener, which still listens."""
        for sock in self.admin:
            sock.unlink()

    def release(self) -> None:
        """Frees what is still bound."""
        for group in self.by_name().values():
            for sock in group:
                sock.release()


async def _bind(name: str, address: ListenAddress, patience_s: float, *, reuse_port: bool) -> list[Listening]:
    try:
        return await bind_patiently(address, patience_s, reuse_port=reuse_port)
    except ListenError as error:
        waited = f", for {patience_s:g} s now" if error.in_use and patience_s else ""
        raise ListenError(f"{flag(name)}: {error}{waited}", in_use=error.in_use) from error


def _keep(undo: ExitStack, sockets: list[Listening]) -> list[Listening]:
    for sock in sockets:
        undo.callback(sock.release)
    return sockets
