"""Listening sockets that this process was started with: who gets which.

systemd binds the sockets of a ``.socket`` unit, and passes them as descriptors from 3 on (sd_listen_fds(3)).
A socket's name says which listener it is. A socket without a name is the listener whose address it has.
The service manager keeps these sockets: connections wait in them while this process is restarted.
"""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from skylb.addresses import IpAddress, ListenAddress, parse_ip
from skylb.errors import ConfigError
from skylb.listeners import Listening

FIRST = 3
"""The first descriptor that is passed (``SD_LISTEN_FDS_START``)."""

SOCKETS_MAX = 256
"""More than a balancer has addresses: `listen` takes 64."""

LISTENERS = {"client": "listen", "admin": "admin", "peer": "peer_listen", "sync": "sync_listen"}
"""Names of sockets, and the options whose addresses they stand for."""


def flag(name: str) -> str:
    """The option of a listener's addresses, as on a command line."""
    return f"--{LISTENERS[name].replace('_', '-')}"


NAMELESS = frozenset({"", "unknown"})
"""What sd_listen_fds(3) calls a socket for which the unit names nothing; or it has the unit's own name."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A descriptor that was passed, and its name."""

    descriptor: int
    name: str = ""

    @property
    def named(self) -> bool:
        """Whether the name says which listener it is."""
        return self.name not in NAMELESS and not self.name.endswith(".socket")

    def __str__(self) -> str:
        """As faults call it."""
        return f"socket {self.descriptor}" + (f" ({self.name})" if self.name else "")


@dataclass(slots=True)
class Listener:
    """What one listener gets: sockets that are there already, and addresses that are to be bound."""

    sockets: list[Listening] = field(default_factory=list)
    addresses: list[ListenAddress] = field(default_factory=list)


def passed(variables: Mapping[str, str], pid: int) -> list[Passed]:
    """What the variables say; nothing where they are meant for another process.

    Raises:
        ConfigError: they contradict themselves.
    """
    if "LISTEN_FDS" not in variables or variables.get("LISTEN_PID") != str(pid):
        return []
    text = variables["LISTEN_FDS"]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= SOCKETS_MAX):
        raise ConfigError([f"LISTEN_FDS: {text!r}: expected a number of sockets, at most {SOCKETS_MAX}"])
    descriptors = range(FIRST, FIRST + int(text))
    names = variables["LISTEN_FDNAMES"].split(":") if "LISTEN_FDNAMES" in variables else [""] * int(text)
    if len(names) != len(descriptors):
        raise ConfigError([f"LISTEN_FDNAMES: {len(names)} names: expected {text}, one for each socket"])
    return [Passed(*found) for found in zip(descriptors, names, strict=True)]


def assigned(
    sockets: Sequence[Passed], addresses: Mapping[str, Sequence[ListenAddress]]
) -> dict[str, Listener]:
    """Divides what was passed among the listeners.

    Sockets with a listener's name take the place of all its addresses. One without a name takes the place of
    the address that it has.

    Args:
        sockets: what was passed; their descriptors are this function's from now on.
        addresses: by the names of `LISTENERS`, where the settings want them.

    Returns:
        By the same names, what each listener gets.

    Raises:
        ConfigError: names every socket that is none, or that no listener wants.
    """
    faults: list[str] = []
    found = {name: Listener(addresses=list(wanted)) for name, wanted in addresses.items()}
    with ExitStack() as undo:
        opened = [(given, undo.enter_context(sock)) for given in sockets if (sock := _opened(given, faults))]
        for given, sock in opened:
            if given.named and not addresses.get(given.name):
                faults.append(f"{given} at {sock.address}: {_unwanted(given.name)}")
            elif given.named:
                found[given.name].addresses = []
                found[given.name].sockets.append(sock)
        for given, sock in opened:
            if not given.named and not any(_takes(listener, sock) for listener in found.values()):
                faults.append(f"{given} at {sock.address}: {_elsewhere(found)}")
        if faults:
            raise ConfigError(faults)
        undo.pop_all()
    for listener in found.values():
        held = listener.sockets
        listener.addresses = [a for a in listener.addresses if not any(_is_at(sock, a) for sock in held)]
    return found


def kept(group: Sequence[Listening], addresses: Sequence[ListenAddress]) -> Listener:
    """Divides a predecessor's sockets of one listener: those at an address of the settings stay.

    Port 0 stands for any port of its host. The others are released, because the settings have changed. But a
    service manager's that is at no address has a name: as at the start, such sockets take the place of all
    addresses.

    Args:
        group: the sockets; this function's from now on.
        addresses: where the settings want the listener.
    """
    named = [sock for sock in group if sock.inherited and not any(_is_at(sock, a) for a in addresses)]
    found = Listener(sockets=named)
    left = [sock for sock in group if sock not in named]
    for address in addresses:
        here = [sock for sock in left if _is_at(sock, _on_port(address, sock.address.port))]
        left = [sock for sock in left if sock not in here]
        found.sockets += here
        if not here and not named:
            found.addresses.append(address)
    for sock in left:
        sock.release()
    return found


def _on_port(address: ListenAddress, port: int) -> ListenAddress:
    """The address with a port that it stands for: 0 is any."""
    anywhere = address.port == 0 and not address.unix
    return ListenAddress(address.host, port) if anywhere else address


def _takes(listener: Listener, sock: Listening) -> bool:
    """Gives a socket without a name to the listener, if it is at one of its addresses."""
    fits = any(_is_at(sock, address) for address in listener.addresses)
    if fits:
        listener.sockets.append(sock)
    return fits


def _unwanted(name: str) -> str:
    option = LISTENERS.get(name)
    if option is None:
        return f"expected the name {', '.join([*LISTENERS][:-1])} or {[*LISTENERS][-1]}, or none"
    return f"expected {option} in the settings too"


def _elsewhere(listeners: Mapping[str, Listener]) -> str:
    wanted = ", ".join(f"{LISTENERS[name]} {a}" for name, one in listeners.items() for a in one.addresses)
    return f"it has no name, so it is expected at an address of the settings: {wanted or 'there are none'}"


def _opened(given: Passed, faults: list[str]) -> Listening | None:
    """The socket behind a descriptor, from now on not passed any further; a fault where there is none."""
    try:
        sock = Listening(fileno=given.descriptor)
    except OSError as error:
        faults.append(f"{given}: no socket: {error.strerror}")
        return None
    families = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in families or sock.type != socket.SOCK_STREAM or not listens:
        sock.detach()
        faults.append(f"{given}: expected a socket that listens for streams (ListenStream=)")
        return None
    sock.inherited = True
    sock.setblocking(False)
    os.set_inheritable(given.descriptor, False)
    return sock


def _is_at(sock: Listening, address: ListenAddress) -> bool:
    """Whether a socket serves whoever connects to an address of the settings."""
    at = sock.address
    if at.unix or address.unix:
        return (at.unix, at.host) == (address.unix, address.host)
    if at.port != address.port:
        return False
    here = parse_ip(at.host)
    both = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return any(ip == here or (both and at.is_wildcard and ip.is_unspecified) for ip in _ips(address.host))


def _ips(host: str) -> Iterator[IpAddress]:
    """What a host stands for; nothing where the name is not known."""
    with suppress(OSError):
        for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
            yield parse_ip(str(found[4][0]))
