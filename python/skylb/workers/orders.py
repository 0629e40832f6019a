"""What the supervisor tells its children, and they it: a packet each, with descriptors.

The packets are pickled: only so does every setting arrive as it was. Both ends are processes of one balancer,
and nobody else can write to their sockets, which have no address.
"""

import pickle
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skylb.addresses import ListenAddress
from skylb.config import Settings
from skylb.handover.protocol import Intent
from skylb.handover.state import Secrets

ENGINE = 0
"""The engine process, among the workers' numbers."""

PACKET_BYTES_MAX = 4 << 20
"""A packet's bound: the settings of thousands of replicas take less."""

DESCRIPTORS_MAX = 253
"""Descriptors of one packet (``SCM_MAX_FD``, unix(7))."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What a child is to be. Its descriptors are listening sockets, kind after kind."""

    settings: Settings
    worker: int
    """The worker's number, from 1 on; 0: the engine process."""
    secrets: Secrets
    """Key the hashes of prompts and the salts of tenants: all processes of a balancer have the same."""
    sockets: Mapping[str, int]
    """How many listening sockets come along, by what they are for."""
    addresses: Mapping[str, Sequence[ListenAddress]]
    """Where each kind listens."""
    starts: Mapping[str, int] = field(default_factory=dict)
    """How often processes have been started again, by kind."""
    inherited: Sequence[bool] = ()
    """Of each of those sockets: a service manager holds it too."""
    intent: Intent = field(default_factory=Intent)
    """What operators have asked of the engine process before this one."""
    heritage: "Legacy | None" = None
    """What an engine process takes over. Its descriptors follow those sockets: the connection to the balancer
    that makes way, then a file with the state."""


@dataclass(frozen=True, slots=True)
class Legacy:
    """What a balancer that makes way has given, besides sockets and its state."""

    intent: Intent
    pid: int
    """The process at the other end of the connection."""


@dataclass(frozen=True, slots=True)
class Line:
    """A new line comes along: to this worker, or to the engine process (0)."""

    worker: int
    serial: int
    """Of the line: its two ends have the same, and no other line has."""
    pid: int
    """The process at the other end."""
    starts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stop:
    """A child is to end in good order; a further one skips what it waits for."""

    succeeded: bool = False
    """Another balancer accepts in its place: what waits in the queues of its sockets is that one's."""


@dataclass(frozen=True, slots=True)
class Succeed:
    """A process was started that takes this balancer's place: the connection to it comes along."""

    pid: int


@dataclass(frozen=True, slots=True)
class Renew:
    """A child is to read its files again."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A child serves."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Another process takes this balancer's place: all children but the engine process are to end."""

    pid: int


@dataclass(frozen=True, slots=True)
class HandsOver:
    """Another process gets what it needs to take this balancer's place."""

    pid: int


@dataclass(frozen=True, slots=True)
class GaveUp:
    """A process does not take this balancer's place."""

    pid: int


@dataclass(frozen=True, slots=True)
class Accepts:
    """This balancer serves in the place of the one before it, which ends; or that one serves after all."""

    accepts: bool


@dataclass(frozen=True, slots=True)
class Intends:
    """What operators have asked of the engine process, for the next one."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class Status:
    """A line for the service manager."""

    text: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A line has ended at this end: the process needs another one."""

    worker: int
    """Whose line it is."""
    serial: int
    why: str
    """What the other process has done wrong; empty: nothing is known of a fault."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The event loop of a child turns, or the child waits for its `Boot`."""


Order = Boot | Line | Stop | Succeed | Renew
Report = Ready | HandsOver | GaveUp | Succeeded | Accepts | Intends | Status | Broken | Beat


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel for packets."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_BYTES_MAX)
    return ends


def send(channel: socket.socket, packet: Order | Report, descriptors: Sequence[int] = ()) -> None:
    """Sends a packet.

    Raises:
        OSError: the other side is gone, takes nothing at present, or the packet is too large.
    """
    socket.send_fds(channel, [pickle.dumps(packet)], list(descriptors))


def receive(channel: socket.socket) -> tuple[Order | Report | None, list[int]]:
    """The next packet and its descriptors; ``None``: the other side is gone.

    Raises:
        BlockingIOError: there is none at present.
        OSError: the other side is gone.
    """
    data, descriptors, _, _ = socket.recv_fds(channel, PACKET_BYTES_MAX, DESCRIPTORS_MAX)
    packet = pickle.loads(data) if data else None  # noqa: S301 - of a process of this balancer alone
    return packet, descriptors
