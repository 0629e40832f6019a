"""Listening sockets and their TLS contexts: made in one place, so that sockets can also be inherited."""

import asyncio
import errno
import logging
import os
import socket
import ssl
import stat
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from skylb.addresses import ListenAddress
from skylb.errors import ConfigError, ListenError

log = logging.getLogger("skylb.listeners")

BACKLOG = 4096

RETRY_S = 0.1
"""Between two looks whether an address has been let go of."""


class Listening(socket.socket):
    """A socket that listens, or is about to."""

    _file: tuple[Path, int, int] | None = None
    """Of a Unix socket: the file that it made, with its device and inode."""

    inherited = False
    """Another process holds it too, a service manager or a successor: the address stays in use, and what
    waits in its queue is the next process's."""

    @property
    def address(self) -> ListenAddress:
        """Where it listens, with the port it was given."""
        return bound_address(self)

    def bind_file(self, path: str) -> None:
        """Binds a Unix socket, and remembers which file is its own."""
        self.bind(path)
        made = Path(path).stat()
        self._file = Path(path), made.st_dev, made.st_ino

    def own_file(self) -> None:
        """Takes over the file of a Unix socket that another process has bound: it is this one's to remove."""
        path = self.address
        if path.unix:
            with suppress(FileNotFoundError):
                made = Path(path.host).stat()
                self._file = Path(path.host), made.st_dev, made.st_ino

    def yield_up(self) -> None:
        """Another process has this socket too, and from now on its file."""
        self.inherited = True
        self._file = None

    def unlink(self) -> None:
        """Removes the file of a Unix socket, unless somebody else has put another one in its place."""
        if self._file is None:
            return
        path, device, inode = self._file
        self._file = None
        with suppress(FileNotFoundError):
            found = path.stat()
            if (found.st_dev, found.st_ino) == (device, inode):
                path.unlink(missing_ok=True)

    def release(self) -> None:
        """Frees the address. The file goes first: a successor takes only a dead one for stale."""
        self.unlink()
        self.close()


def bind(address: ListenAddress, *, reuse_port: bool = False) -> list[Listening]:
    """Binds and listens; a name with several addresses gives one socket each.

    Args:
        address: where.
        reuse_port: other processes may bind the address too (``SO_REUSEPORT``); TCP only.

    Raises:
        ListenError: the address is in use, not this machine's, or not permitted.
    """
    try:
        if address.unix:
            return [_bind_unix(address.host)]
        return _bind_tcp(address.host, address.port, reuse_port=reuse_port)
    except OSError as error:
        raise _listen_error(address, error) from error


def _listen_error(address: ListenAddress, error: OSError) -> ListenError:
    in_use = error.errno == errno.EADDRINUSE
    reason = "already in use" if in_use else error.strerror or str(error)
    return ListenError(f"cannot listen on {address}: {reason}", in_use=in_use)


def bound_address(sock: socket.socket) -> ListenAddress:
    """Where a socket listens, with the port it was given."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return ListenAddress(name, 0, unix=True)
    return ListenAddress(name[0], name[1])


async def bind_patiently(
    address: ListenAddress, patience_s: float, *, reuse_port: bool = False
) -> list[Listening]:
    """Binds and listens, as soon as the holder of the address lets go of it.

    Raises:
        ListenError: it did not in time, or the address is not to be had at all.
    """
    for turn in range(round(patience_s / RETRY_S)):
        try:
            return bind(address, reuse_port=reuse_port)
        except ListenError as error:
            if not error.in_use:
                raise
            if turn == 0:
                log.info("%s; waiting for it for %g s", error, patience_s)
        await asyncio.sleep(RETRY_S)
    return bind(address, reuse_port=reuse_port)


def is_taken(address: ListenAddress) -> bool:
    """Whether somebody listens on an address that this process has let go of.

    To bind without listening disturbs nobody: with ``SO_REUSEADDR`` on both sides others can do so too.
    """
    if address.unix:
        return Path(address.host).exists()
    try:
        check_address(address)
    except ListenError as error:
        return error.in_use
    return False


def check_address(address: ListenAddress) -> None:
    """Binds without listening, and lets go again; nothing is left behind.

    Raises:
        ListenError: the address is in use, not this machine's, or not permitted.
    """
    try:
        if address.unix:
            _check_unix(Path(address.host))
            return
        for sock in _bind_tcp(address.host, address.port, listen=False):
            sock.close()
    except OSError as error:
        raise _listen_error(address, error) from error


def _check_unix(path: Path) -> None:
    """Looks whether the file of a socket can be made."""
    fault = 0
    if not path.parent.is_dir():
        fault = errno.ENOENT
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        fault = errno.EACCES
    elif path.exists() and not path.is_socket():
        fault = errno.EADDRINUSE
    if fault:
        raise OSError(fault, os.strerror(fault))
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return  # nothing is there, or a stale socket, which `bind` removes
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _bind_tcp(host: str, port: int, *, listen: bool = True, reuse_port: bool = False) -> list[Listening]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[Listening] = []
    with ExitStack() as stack:
        for family, _, _, _, target in dict.fromkeys(found):
            sock = stack.enter_context(Listening(family, socket.SOCK_STREAM))
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # "[::]" means every address of the machine, those of IPv4 included (RFC 3493, 5.3).
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
            sock.bind((target[0], sockets[0].getsockname()[1] if port == 0 and len(sockets) > 1 else port))
            if listen:
                sock.listen(BACKLOG)
        stack.pop_all()
    return sockets


def _bind_unix(path: str) -> Listening:
    _remove_stale(path)
    with ExitStack() as stack:
        sock = stack.enter_context(Listening(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.setblocking(False)
        sock.bind_file(path)
        sock.listen(BACKLOG)
        stack.pop_all()
    return sock


def _remove_stale(path: str) -> None:
    """Removes a socket that nobody listens on any more; anything else there is left alone."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return  # bind fails and says so
    except FileNotFoundError:
        return
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)


FAR_DEAD_S = 10
"""Between balancers: a peer may be tried elsewhere."""

NEAR_DEAD_S = 30
"""To replicas: one that stands still for a moment (its machine is moved, say) keeps its requests."""


def notice_dead_paths(sock: socket.socket, within_s: int) -> None:
    """Ends a TCP connection whose path has died without a word, after about ``within_s``.

    Idle ones by keep-alive probes, those with unsent bytes by TCP_USER_TIMEOUT (RFC 5482).
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, within_s // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, round(within_s / 6))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, within_s * 1000)


class ServerTls:
    """The TLS context of listeners, renewable while they listen.

    Args:
        cert: certificate chain (PEM).
        key: its private key (PEM).
        client_ca: authorities of client certificates (PEM), or ``None`` to ask for none.
        options: what the three are called in the settings.

    Raises:
        ConfigError: the files do not make a context.
    """

    def __init__(
        self,
        cert: Path,
        key: Path,
        client_ca: Path | None,
        options: tuple[str, str, str] = ("tls_cert", "tls_key", "tls_client_ca"),
    ) -> None:
        self._options = options
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self.context = self._make()

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._fill(context)
        return context

    def _fill(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            cert, key, _ = self._options
            raise ConfigError([f"{cert}: {self._cert}, {key}: {self._key}: {error}"]) from error
        if self._client_ca is None:
            return
        try:
            context.load_verify_locations(self._client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError([f"{self._options[2]}: {self._client_ca}: {error}"]) from error
        context.verify_mode = ssl.CERT_REQUIRED

    def renew(self) -> None:
        """Reads the files again; new connections get the new certificate.

        An authority that was taken out of ``client_ca`` stays trusted until a restart: OpenSSL only adds.

        Raises:
            ConfigError: the files do not make a context; the old certificate stays in use.
        """
        self._make()  # a half-written file must not break the context in use
        self._fill(self.context)


def check_authorities(ca: Path | None, option: str) -> None:
    """Reads a file of authorities, if there is one.

    Raises:
        ConfigError: it, which the settings call ``option``, holds no certificates.
    """
    if ca is not None:  # the system's own take a twentieth of a second, and were read before
        client_tls(ca, option)


def client_tls(ca: Path | None, option: str = "replica_ca") -> ssl.SSLContext:
    """The context for servers that speak TLS: certificates and names are verified.

    Raises:
        ConfigError: the file, which the settings call ``option``, holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"{option}: {ca}: {error}"]) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
