"""TLS between balancers: what their listeners show, and whom they believe."""

import ssl

from skylb.errors import ConfigError
from skylb.listeners import ServerTls, client_tls
from skylb.meshsettings import MeshSettings

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


def check_mesh_tls(mesh: MeshSettings) -> None:
    """Reads the files, if there are any.

    Raises:
        ConfigError: they do not make contexts.
    """
    if mesh.peer_tls_cert is not None or mesh.peer_tls_ca is not None:
        MeshTls(mesh)
