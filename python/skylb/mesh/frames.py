"""The messages of peer sync, and how they are authenticated. There is no I/O here.

Each side sends a hello with a fresh nonce. Both hellos and a shared secret give one key per direction. Every
further frame carries a counter, and an HMAC-SHA256 under that key. A frame does not verify if it was forged,
changed, repeated, left out, sent back to its sender, or taken from another connection.

Messages are read into types with bounds. Numbers, names, lists and nesting out of bounds are refused here,
and need no check elsewhere. A later version may add fields at the end of a message; unknown fields are
ignored.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from skylb.mesh.signing import Keys, Refused
from skylb.settings.mesh import PEERS_MAX

VERSION = 1
"""Balancers of different versions do not talk. It changes only where what is known can no longer be read by
those before: additions are new fields at the end, and kinds of frames that are sent to who knows them."""

FRAME_BYTES_MAX = 64 << 10
"""A frame, its MAC included."""

NONCE_BYTES = 32
MAC_BYTES = 32
NAME_LEN_MAX = 64
URL_LEN_MAX = 300
REPLICAS_MAX = 256
"""Replicas a balancer tells its peers about, for failover; those beyond are served by it alone."""

NUMBER_MAX = 1 << 62
"""Times, starts and counters: one more, or the difference of two, is a number of 64 bits."""

PING_BYTES_MAX = 256
"""A ping is sent back as it came."""

KINDS_MAX = 64
KIND_MAX = 1 << 16


class Kind(IntEnum):
    """What a frame holds."""

    READY = 0
    """Nothing: the first frame, which proves that the sender knows the secret."""
    PING = 1
    """`Ping`."""
    PONG = 2
    """The payload of the ping."""
    SUMMARY = 3
    """What the engine tells the peer's engine."""
    NEWS = 4
    """`News`."""
    ORDER = 5
    """`Order`."""
    BYE = 6
    """Nothing: the sender stops."""
    SHARE = 7
    """What the engine tells the engine of a peer of its region about replicas that both list."""
    DIGEST = 8
    """Prefixes that are hot at the sender, as its engine tells the peer's engine."""
    MORE = 9
    """`More`."""
    TENANTS = 10
    """What tenants with limits ask for at the sender, and which part of their limits it uses, as its engine
    tells the peer's engine."""
    CACHED = 11
    """Prompts that the sender pushed to replicas that a peer of its region lists too."""


KINDS_OF_ALL = frozenset(Kind) - {Kind.SHARE, Kind.DIGEST, Kind.MORE, Kind.TENANTS, Kind.CACHED}
"""What every balancer of this version of the protocol knows. Other kinds are sent to a peer that has said
that it knows them, or has sent some itself."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
"""Of a balancer or a region; see `skylb.addresses.is_name`."""
Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Names = Annotated[list[Name], Meta(max_length=PEERS_MAX)]
Url = Annotated[str, Meta(max_length=URL_LEN_MAX)]
Urls = Annotated[list[Url], Meta(max_length=REPLICAS_MAX)]
Heirs = tuple[Number, Number, Names]
"""Incarnation, sequence, and who takes a balancer's replicas over, first to last."""
HeirsByName = Annotated[dict[Name, Heirs], Meta(max_length=PEERS_MAX)]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks, before it is proven."""

    version: int
    name: Name
    region: Annotated[str, Meta(min_length=1, max_length=NAME_LEN_MAX)]
    incarnation: Number
    key: Annotated[str, Meta(min_length=1, max_length=NAME_LEN_MAX)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    unix_ms: Annotated[int, Meta(ge=0, le=1 << 53)]
    """Wall clock: shown to operators where it does not fit, and used for nothing."""
    forward: Url
    """URL that forwards go to; empty for none."""


class Ready(msgspec.Struct, frozen=True, array_like=True):
    """What the sender can do beyond what all balancers of this version can."""

    kinds: Annotated[list[Annotated[int, Meta(ge=0, le=KIND_MAX)]], Meta(max_length=KINDS_MAX)] = []
    """Kinds of frames that it knows."""


class Ping(msgspec.Struct, frozen=True, array_like=True):
    """Measures the round trip, and tells the sender's clock."""

    monotonic_ns: Number
    rtt_ns: Number
    """Round trip as the sender has measured it, 0 while unknown."""


class News(msgspec.Struct, frozen=True, array_like=True):
    """What a balancer knows besides load; sent when it changes."""

    reached: Names
    """Peers from which it receives at present: what one cannot reach may live all the same."""
    heirs: HeirsByName
    """By balancer; those that are missing are as they were sent before."""
    replicas: Urls
    """URLs of its own replicas; more may follow."""
    same_replicas: bool = False
    """They are those that were sent before, and not repeated here."""


class More(msgspec.Struct, frozen=True, array_like=True):
    """What did not fit into `News`."""

    heirs: HeirsByName
    replicas: Urls
    """To be added to those sent so far."""


class Order(msgspec.Struct, frozen=True, array_like=True):
    """An operator's word for a whole region; of two for one region the later counts."""

    region: Name
    evacuating: bool
    issued_unix_ns: Number
    """Wall clock where it was given; at least one more than that of the order it replaces."""
    leave_unix_ns: Number = 0
    """Wall clock at which streams leave the region; 0: they end there."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """What one message holds, before its MAC."""

    kind: int
    sequence: int
    payload: bytes


class _Versioned(msgspec.Struct, frozen=True, array_like=True):
    """The first fields of a hello, whatever comes behind them in other versions."""

    version: int
    name: object = None


class WrongVersion(Refused):
    """A hello is of another version.

    Args:
        version: the peer's.
        name: how it calls itself, if that can be read; not proven.
    """

    def __init__(self, version: int, name: str) -> None:
        super().__init__("version")
        self.version = version
        self.name = name


def why(refused: Refused) -> str:
    """A refusal in words, for operators."""
    if isinstance(refused, WrongVersion):
        return f"it speaks version {refused.version} of the peers' protocol, this balancer {VERSION}"
    return refused.reason


_encoder = msgspec.msgpack.Encoder()
_versions = msgspec.msgpack.Decoder(_Versioned)
_hellos = msgspec.msgpack.Decoder(Hello)
_frames = msgspec.msgpack.Decoder(Frame)
_readys = msgspec.msgpack.Decoder(Ready)
_pings = msgspec.msgpack.Decoder(Ping)
_news = msgspec.msgpack.Decoder(News)
_more = msgspec.msgpack.Decoder(More)
_orders = msgspec.msgpack.Decoder(Order)

_KINDS = frozenset(Kind)

T = TypeVar("T")


def encode(value: Hello | Ready | Ping | News | More | Order) -> bytes:
    """The bytes of a payload."""
    return _encoder.encode(value)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    """The only place where a peer's bytes become values.

    Raises:
        Refused: ``malformed``: they are no such message, or something is out of bounds.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise Refused("malformed") from None


def read_hello(data: bytes) -> Hello:
    """Raises `Refused`: ``malformed``, ``oversized``, or ``version``: then `WrongVersion`."""
    if len(data) > FRAME_BYTES_MAX:
        raise Refused("oversized")
    said = _decode(_versions, data)
    if said.version != VERSION:
        raise WrongVersion(said.version, said.name if isinstance(said.name, str) else "")
    return _decode(_hellos, data)


def read_ready(payload: bytes) -> Ready:
    """Raises `Refused`: ``malformed``. Balancers that know no more than all do send nothing."""
    return _decode(_readys, payload) if payload else Ready()


def read_ping(payload: bytes) -> Ping:
    """Raises `Refused`: ``malformed``."""
    if len(payload) > PING_BYTES_MAX:
        raise Refused("malformed")
    return _decode(_pings, payload)


def read_order(payload: bytes) -> Order:
    """Raises `Refused`: ``malformed``."""
    return _decode(_orders, payload)


def read_news(payload: bytes, peers_max: int = PEERS_MAX) -> News:
    """Raises `Refused`: ``malformed``, also where a list is longer than it may be."""
    news = _decode(_news, payload)
    lists: Iterable[list[str]] = (news.reached, *(heirs for _, _, heirs in news.heirs.values()))
    if len(news.heirs) > peers_max or any(len(names) > peers_max for names in lists):
        raise Refused("malformed")
    return news


def read_more(payload: bytes) -> More:
    """Raises `Refused`: ``malformed``."""
    return _decode(_more, payload)


def new_nonce() -> bytes:
    """A nonce for a hello."""
    return secrets.token_bytes(NONCE_BYTES)


class Session:
    """One connection after both hellos: seals what goes out, opens what comes in.

    Args:
        keys: shared secrets; each side signs with its own first one.
        ours: the hello we sent.
        theirs: the hello we got.
        dialled: whether we opened the connection.
        said: their hello as it came, which may hold fields of a later version.

    Raises:
        Refused: ``key``: the peer signs with a key that we do not have.
    """

    def __init__(
        self, keys: Keys, *, ours: Hello, theirs: Hello, dialled: bool, said: bytes | None = None
    ) -> None:
        their_key, our_key = keys.find(theirs.key), keys.find(ours.key)
        if their_key is None or our_key is None:
            raise Refused("key")
        sent, heard = encode(ours), encode(theirs) if said is None else said
        first, second = (sent, heard) if dialled else (heard, sent)
        hellos = hashlib.sha256(first).digest() + hashlib.sha256(second).digest()
        roles = (b"sync dialler\n", b"sync listener\n")
        our_role, their_role = roles if dialled else roles[::-1]
        self._seal_key = our_key.mac(our_role + hellos)
        self._open_key = their_key.mac(their_role + hellos)
        self._sent = 0
        self._received = 0

    def seal(self, kind: Kind, payload: bytes = b"") -> bytes:
        """The next message.

        Raises:
            ValueError: the payload is too long.
        """
        body = _encoder.encode(Frame(kind, self._sent, payload))
        if len(body) + MAC_BYTES > FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {len(body)} bytes")
        self._sent += 1
        return body + hmac.digest(self._seal_key, body, "sha256")

    def open(self, data: bytes) -> tuple[int, bytes]:
        """Kind and payload of a message that the peer sealed as its next one.

        The kind is one of `Kind`, or a number that a later version has given one.

        Raises:
            Refused: ``oversized``, ``truncated``, ``signature``, ``malformed`` or ``replayed``.
        """
        if len(data) > FRAME_BYTES_MAX:
            raise Refused("oversized")
        if len(data) <= MAC_BYTES:
            raise Refused("truncated")
        body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
        if not hmac.compare_digest(hmac.digest(self._open_key, body, "sha256"), mac):
            raise Refused("signature")
        frame = _decode(_frames, body)
        if frame.sequence != self._received:
            raise Refused("replayed")
        if not 0 <= frame.kind <= KIND_MAX:
            raise Refused("malformed")
        self._received += 1
        return Kind(frame.kind) if frame.kind in _KINDS else frame.kind, frame.payload
