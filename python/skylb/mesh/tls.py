"""TLS between balancers: the certificates that they show, and those that they accept."""

import asyncio
import ssl
from collections.abc import Sequence

from skylb.addresses import same_address
from skylb.errors import ConfigError
from skylb.listeners import ServerTls, client_tls
from skylb.settings.mesh import MeshSettings

_OPTIONS = ("peer_tls_cert", "peer_tls_key", "peer_tls_ca")


class MeshTls:
    """The contexts towards peers, renewable while they are in use.

    Args:
        mesh: the files.

    Raises:
        ConfigError: they do not make contexts.
    """

    def __init__(self, mesh: MeshSettings) -> None:
        self._mesh = mesh
        self._listening: ServerTls | None = None
        if mesh.peer_tls_cert is not None and mesh.peer_tls_key is not None:
            self._listening = ServerTls(mesh.peer_tls_cert, mesh.peer_tls_key, mesh.peer_tls_ca, _OPTIONS)
        self.client = client_tls(mesh.peer_tls_ca, "peer_tls_ca")
        """For ``https://`` peers: their certificates and names are verified."""
        self._show()

    @property
    def server(self) -> ssl.SSLContext | None:
        """For both listeners; ``None`` where they speak plain text."""
        return None if self._listening is None else self._listening.context

    @property
    def scheme(self) -> str:
        """Of the listeners' URLs."""
        return "http" if self._listening is None else "https"

    def shows(self, transport: asyncio.BaseTransport | None, hosts: Sequence[str]) -> bool:
        """Whether who is connected has shown a certificate for one of these hosts, if it must show one.

        Args:
            transport: of a connection to one of the listeners.
            hosts: names and addresses.
        """
        if self._mesh.peer_tls_ca is None or self._listening is None:
            return True
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        shown = tls.getpeercert() if tls is not None else None
        names = shown.get("subjectAltName", ()) if shown else ()
        return any(_covers(kind, name, host) for kind, name in names for host in hosts)

    def renew(self) -> None:
        """Reads the certificate again; new connections show the new one.

        Raises:
            ConfigError: the files do not make a context; the old certificate stays in use.
        """
        if self._listening is not None:
            self._listening.renew()
            self._show()

    def _show(self) -> None:
        """Peers that ask get the certificate of the listeners."""
        cert, key = self._mesh.peer_tls_cert, self._mesh.peer_tls_key
        if cert is None or key is None:
            return
        try:
            self.client.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError([f"peer_tls_cert: {cert}, peer_tls_key: {key}: {error}"]) from error


def _covers(kind: str, name: str, host: str) -> bool:
    """Whether a name in a certificate is that of a host (RFC 9525, 6.3): ``*`` stands for one whole label."""
    if kind == "IP Address":
        return same_address(name, host)
    if kind != "DNS":
        return False
    name, host = name.lower(), host.lower().removesuffix(".")
    if name.startswith("*."):
        return "." in host and name[2:] == host.partition(".")[2]
    return name == host


def check_mesh_tls(mesh: MeshSettings) -> None:
    """Reads the files, if there are any.

    Raises:
        ConfigError: they do not make contexts.
    """
    if mesh.peer_tls_cert is not None or mesh.peer_tls_ca is not None:
        MeshTls(mesh)
