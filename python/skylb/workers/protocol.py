"""Notes between a worker and the engine process, within the frames that the core writes and reads."""

import msgspec

from skylb.router import Loads, Models
from skylb.types import Peer, Replica


class View(msgspec.Struct, tag=True, frozen=True):
    """What workers need to know of the engine process, whole: sent when it changes."""

    ready: bool
    """Requests can be served, here or at a peer."""
    leaves: bool
    """This balancer is being stopped, or its region evacuated."""
    only_model: str | None
    policy: str
    continuing: bool
    """Streams of new requests may go on at another replica."""
    identity: tuple[str, int]
    """Name and start of this balancer, with which forwards are signed."""
    replicas: list[Replica]
    peers: list[Peer]
    silent_peers: list[int]
    """Those from which nothing arrives any more."""
    holds: bool = False
    """No connection is accepted for now: another process takes over, or does not accept yet."""


class Asked(msgspec.Struct, tag=True, frozen=True):
    """A worker asks for a listing."""

    number: int
    models: bool
    """Models, or else the loads of replicas."""
    tenant: str | None
    """Whose models; ``None``: nobody's, or one that is not known."""
    unknown: bool


class Listing(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Asked`."""

    number: int
    models: Models = []
    loads: Loads = []


class Figures(msgspec.Struct, tag=True, frozen=True):
    """How a worker stands, once a second."""

    gauges: dict[str, int]
    """What is so now."""
    counters: dict[str, int]
    """What was counted since the worker's start."""


Down = View | Listing
Up = Asked | Figures

_encoder = msgspec.msgpack.Encoder()
_down: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)
_up: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)


def encode(note: Down | Up) -> bytes:
    """A note as bytes."""
    return _encoder.encode(note)


def decode_down(data: bytes) -> Down:
    """A note from the engine process.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _down.decode(data)


def decode_up(data: bytes) -> Up:
    """A note from a worker.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _up.decode(data)
