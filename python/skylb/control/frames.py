"""The messages of peer sync, and what proves them: no input or output here.

Both sides say hello with a fresh nonce. From the two hellos and a shared secret each direction gets a key
of its own, and every further frame carries a counter and an HMAC-SHA256 under that key: a frame that was
forged, changed, repeated, left out, reflected, or taken from another connection does not verify.
"""

import hashlib
import hmac
import secrets
from enum import IntEnum

import msgspec

from skylb.signing import Keys, Refused

VERSION = 1
FRAME_BYTES_MAX = 64 << 10
"""A frame, its MAC included."""

NONCE_BYTES = 32
MAC_BYTES = 32
NAME_LEN_MAX = 64
URL_LEN_MAX = 300
REPLICAS_MAX = 256
"""Replicas a balancer tells its peers about, for failover; those beyond are served by it alone."""


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


class Hello(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who speaks, before it is proven. Later versions may only add fields at the end."""

    version: int
    name: str
    region: str
    incarnation: int
    key: str
    nonce: bytes
    unix_ms: int
    """Wall clock: told to operators where it does not fit, and used for nothing."""
    forward: str
    """URL that forwards go to; empty for none."""


class Ping(msgspec.Struct, frozen=True, array_like=True):
    """Measures the round trip, and tells the sender's clock."""

    monotonic_ns: int
    rtt_ns: int
    """Round trip as the sender has measured it, 0 while unknown."""


class News(msgspec.Struct, frozen=True, array_like=True):
    """What a balancer knows besides load; sent when it changes."""

    reached: list[str]
    """Peers it hears at present: what one cannot reach may live all the same."""
    heirs: dict[str, tuple[int, int, list[str]]]
    """By balancer: incarnation, sequence, and who takes its replicas over, first to last."""
    replicas: list[str]
    """URLs of its own replicas."""


class Order(msgspec.Struct, frozen=True, array_like=True):
    """An operator's word for a whole region; of two for one region the later counts."""

    region: str
    evacuating: bool
    issued_unix_ns: int
    """Wall clock where it was given; at least one more than that of the order it replaces."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """What one message holds, before its MAC."""

    kind: int
    sequence: int
    payload: bytes


_encoder = msgspec.msgpack.Encoder()
_hellos = msgspec.msgpack.Decoder(Hello)
_frames = msgspec.msgpack.Decoder(Frame)
_pings = msgspec.msgpack.Decoder(Ping)
_news = msgspec.msgpack.Decoder(News)
_orders = msgspec.msgpack.Decoder(Order)

_KINDS = frozenset(Kind)
_MALFORMED = (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError)


def encode(value: Hello | Ping | News | Order) -> bytes:
    """The bytes of a payload."""
    return _encoder.encode(value)


def read_hello(data: bytes) -> Hello:
    """Raises `Refused`: ``malformed``, ``oversized``, or ``version``."""
    if len(data) > FRAME_BYTES_MAX:
        raise Refused("oversized")
    if _version(data) != VERSION:
        raise Refused("version")
    try:
        hello = _hellos.decode(data)
    except _MALFORMED:
        raise Refused("malformed") from None
    texts = (hello.name, hello.region, hello.key)
    sane = all(0 < len(text) <= NAME_LEN_MAX for text in texts) and len(hello.forward) <= URL_LEN_MAX
    if not sane or len(hello.nonce) != NONCE_BYTES:
        raise Refused("malformed")
    return hello


def _version(data: bytes) -> int:
    """The first field of a hello, whatever comes behind it in other versions."""
    try:
        fields = msgspec.msgpack.decode(data)
    except _MALFORMED:
        raise Refused("malformed") from None
    if not isinstance(fields, list) or not fields or not isinstance(fields[0], int):
        raise Refused("malformed")
    return fields[0]


def read_ping(payload: bytes) -> Ping:
    """Raises `Refused`: ``malformed``."""
    try:
        return _pings.decode(payload)
    except _MALFORMED:
        raise Refused("malformed") from None


def read_order(payload: bytes) -> Order:
    """Raises `Refused`: ``malformed``."""
    try:
        return _orders.decode(payload)
    except _MALFORMED:
        raise Refused("malformed") from None


def read_news(payload: bytes, peers_max: int) -> News:
    """Raises `Refused`: ``malformed``, also where a list is longer than it may be."""
    try:
        news = _news.decode(payload)
    except _MALFORMED:
        raise Refused("malformed") from None
    lists = [news.reached, *(heirs for _, _, heirs in news.heirs.values())]
    names = [*news.heirs, *(name for names in lists for name in names)]
    sane = (
        len(news.heirs) <= peers_max
        and all(len(names) <= peers_max for names in lists)
        and all(0 < len(name) <= NAME_LEN_MAX for name in names)
        and len(news.replicas) <= REPLICAS_MAX
        and all(len(url) <= URL_LEN_MAX for url in news.replicas)
    )
    if not sane:
        raise Refused("malformed")
    return news


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

    Raises:
        Refused: ``key``: the peer signs with a key that we do not have.
    """

    def __init__(self, keys: Keys, *, ours: Hello, theirs: Hello, dialled: bool) -> None:
        their_key, our_key = keys.find(theirs.key), keys.find(ours.key)
        if their_key is None or our_key is None:
            raise Refused("key")
        first, second = (ours, theirs) if dialled else (theirs, ours)
        hellos = hashlib.sha256(encode(first)).digest() + hashlib.sha256(encode(second)).digest()
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

    def open(self, data: bytes) -> tuple[Kind, bytes]:
        """Kind and payload of a message that the peer sealed as its next one.

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
        try:
            frame = _frames.decode(body)
        except _MALFORMED:
            raise Refused("malformed") from None
        if frame.sequence != self._received:
            raise Refused("replayed")
        if frame.kind not in _KINDS:
            raise Refused("malformed")
        self._received += 1
        return Kind(frame.kind), frame.payload
