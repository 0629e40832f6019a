"""What the two processes of a hand-over say to each other, over a Unix stream socket.

A frame is its kind, the length of its payload, and the payload. The descriptors of the sockets go with the
first byte of the frame `SOCKETS` (SCM_RIGHTS, unix(7)).

| from | kind | payload |
|---|---|---|
| new | `HELLO` | `Hello` |
| old | `REFUSED` | why, as text: the new process must not serve. The connection ends. |
| old | `SOCKETS` | `Sockets`, with a descriptor for each |
| old | `STATE` | a part of what the engine has learned; any number of these frames |
| old | `STATE_END` | `Intent`: what operators want |
| new | `READY` | nothing: it could serve |
| new | `FAULT` | why it cannot, as text. The connection ends. |
| old | `YIELDED` | nothing: it accepts no connection for now |
| old | `IN_FLIGHT` | the engine's requests at replicas that have not ended, all of them, again and again |
| new | `ACCEPTING` | nothing: it serves from now on, and nothing of its start is left that could fail |
| old | `RETIRED` | nothing: it has let go of peers and DNS records |

The old process goes on as if nothing had happened if the connection ends before `ACCEPTING`. The new process
serves if it ends after `SOCKETS` without `REFUSED`: then the old one has died.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import TypeVar

import msgspec

from skylb.errors import SkyLBError

VERSION = 2
"""Of the protocol. Two processes of different versions do not hand over."""

FRAME_BYTES_MAX = 4 << 20
"""Of one payload; the state comes in several."""

DESCRIPTORS_MAX = 253
"""In one message: the kernel's bound (``SCM_MAX_FD``)."""

HANDOVER = "handover"
"""The name of the socket at which hand-overs begin, beside those of `inherited.LISTENERS`."""

_HEAD = struct.Struct(">BI")


class HandoverError(SkyLBError):
    """No hand-over: the other process refused, or broke off, or is not one of ours."""


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    REFUSED = 2
    SOCKETS = 3
    STATE = 4
    STATE_END = 5
    READY = 6
    FAULT = 7
    YIELDED = 8
    IN_FLIGHT = 9
    ACCEPTING = 10
    RETIRED = 11


class Hello(msgspec.Struct, frozen=True):
    """What the new process says first."""

    version: int
    software: str
    pid: int


class Passed(msgspec.Struct, frozen=True):
    """One socket that goes along."""

    name: str
    inherited: bool
    """A service manager holds it too."""


class Sockets(msgspec.Struct, frozen=True):
    """Which sockets go along, in the order of their descriptors."""

    passed: list[Passed]
    software: str


class Leaving(msgspec.Struct, frozen=True):
    """A replica that is left at a time."""

    name: str
    at_ns: int
    """Of the monotonic clock, which all processes of a machine share."""
    ends: bool
    """It ends then; else an operator wants it empty."""


class RegionOrder(msgspec.Struct, frozen=True):
    """An operator's last order for a region, as peers pass it on."""

    region: str
    evacuating: bool
    issued_unix_ns: int
    leave_unix_ns: int


class Intent(msgspec.Struct, frozen=True):
    """What the old process knows besides: what operators have asked of it, and which peers it has."""

    draining: list[str] = []
    """Names of replicas that are to get nothing new, offered at present or not."""
    leaving: list[Leaving] = []
    isolated: list[str] = []
    """Names of peers."""
    reached: list[str] = []
    """Names of peers that the old process was connected to."""
    regions: list[RegionOrder] = []
    policy: str | None = None
    """Set while it ran."""
    continuing: bool | None = None
    """Streams go on elsewhere, or not: set while it ran."""


Payload = TypeVar("Payload", Hello, Sockets, Intent)


def encode(kind: Kind, payload: bytes | msgspec.Struct = b"") -> bytes:
    """A frame."""
    data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return _HEAD.pack(kind, len(data)) + data


def pieces(data: bytes) -> Iterator[bytes]:
    """A part of a state, in payloads that fit into frames."""
    for start in range(0, len(data), FRAME_BYTES_MAX):
        yield data[start : start + FRAME_BYTES_MAX]


def decode(payload: bytes, kind: type[Payload]) -> Payload:
    """What a frame says.

    Raises:
        HandoverError: nothing that can be understood.
    """
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise HandoverError(f"the other process is not understood: {error}") from error


def _head(head: bytes) -> tuple[Kind, int]:
    number, length = _HEAD.unpack(head)
    if number not in Kind._value2member_map_ or length > FRAME_BYTES_MAX:
        raise HandoverError("the other process is not understood: no frame of ours")
    return Kind(number), length


async def receive(reader: asyncio.StreamReader) -> tuple[Kind, bytes] | None:
    """The next frame; ``None`` at the end of the connection.

    Raises:
        HandoverError: it is none of ours.
    """
    try:
        kind, length = _head(await reader.readexactly(_HEAD.size))
        return kind, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Waiting:
    """The receiving side of a blocking socket: frames, and the descriptors that come with them.

    Args:
        sock: connected, with a time-out.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.descriptors: list[int] = []
        """All that have come; the caller's to close."""

    def receive(self) -> tuple[Kind, bytes] | None:
        """The next frame; ``None`` at the end of the connection.

        Raises:
            HandoverError: it is none of ours, or does not come in time.
        """
        try:
            head = self._exactly(_HEAD.size)
            if head is None:
                return None
            kind, length = _head(head)
            payload = self._exactly(length)
        except TimeoutError:
            raise HandoverError("the running balancer does not answer in time") from None
        except ConnectionError:
            return None
        return None if payload is None else (kind, payload)

    def _exactly(self, length: int) -> bytes | None:
        """So many bytes, and not one more: what follows is read by somebody else."""
        found = bytearray()
        while len(found) < length:
            wanted = min(length - len(found), 1 << 20)
            data, descriptors, _, _ = socket.recv_fds(self._sock, wanted, DESCRIPTORS_MAX)
            for descriptor in descriptors:  # Python leaves them inheritable, and passes no flag on
                os.set_inheritable(descriptor, False)
            self.descriptors += descriptors
            if not data:
                return None
            found += data
        return bytes(found)
