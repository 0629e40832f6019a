"""One function for each reader of foreign bytes; it fails where a property does not hold."""

import hmac
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from skylb.control.models import MODEL_ID_LEN_MAX, MODELS_MAX, read_models
from skylb.discovery.file import PEERS, REPLICAS, parse
from skylb.errors import ConfigError
from skylb.mesh.frames import (
    KIND_MAX,
    MAC_BYTES,
    NONCE_BYTES,
    NUMBER_MAX,
    REPLICAS_MAX,
    VERSION,
    Frame,
    Hello,
    Kind,
    More,
    News,
    Order,
    Ping,
    Ready,
    Session,
    encode,
    read_hello,
    read_more,
    read_news,
    read_order,
    read_ping,
    read_ready,
)
from skylb.mesh.signing import (
    ATTEMPTS_LEFT_MAX,
    HOPS_MAX,
    KEYS_MAX,
    Identity,
    Key,
    Keys,
    Refused,
    Verifier,
    parse_keys,
    sign,
)

PEERS_MAX = 4
KEY = Key("k1", b"0123456789abcdef")
KEYS = Keys([KEY])
US = Identity("us", 1)
NOW_NS = 10**15


@dataclass(frozen=True)
class Target:
    """One reader."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _one_of(value: object, known: Collection[object]) -> None:
    assert value in known, value


def _hello(name: str) -> Hello:
    return Hello(
        VERSION, name, "europe", 1, KEY.id, bytes(NONCE_BYTES), 1_700_000_000_000, "http://127.0.0.1:1"
    )


def _receiver() -> tuple[Session, bytes]:
    """The end of a connection that opens messages, and the key that they are sealed with."""
    dialler, listener = _hello("eu"), _hello("us")
    sender = Session(KEYS, ours=dialler, theirs=listener, dialled=True)
    receiver = Session(KEYS, ours=listener, theirs=dialler, dialled=False)
    return receiver, sender._seal_key


def frame(data: bytes) -> None:
    """Sealed as the peer's next message: opened, or refused without a trace. Not sealed: refused."""
    receiver, key = _receiver()
    with suppress(Refused):
        receiver.open(data)
        raise AssertionError("opened without a seal")
    try:
        kind, payload = receiver.open(data + hmac.digest(key, data, "sha256"))
    except Refused as refused:
        _one_of(refused.reason, {"malformed", "replayed", "oversized", "truncated"})
        body = msgspec.msgpack.encode(Frame(Kind.PING, 0, b"x"))
        opened = receiver.open(body + hmac.digest(key, body, "sha256"))
        assert opened == (Kind.PING, b"x")
        return
    assert 0 <= kind <= KIND_MAX
    assert len(payload) <= len(data)
    with suppress(Refused):
        receiver.open(data + hmac.digest(key, data, "sha256"))
        raise AssertionError("opened twice")


def hello(data: bytes) -> None:
    """Read, and said again the same; its session needs a key that is known."""
    try:
        said = read_hello(data)
    except Refused:
        return
    assert said.version == VERSION
    assert len(said.nonce) == NONCE_BYTES
    assert 0 <= said.incarnation <= NUMBER_MAX
    assert read_hello(encode(said)) == said
    with suppress(Refused):
        session = Session(KEYS, ours=_hello("us"), theirs=said, dialled=False, said=data)
        assert said.key == KEY.id
        with suppress(Refused):
            session.open(bytes(MAC_BYTES + 1))
            raise AssertionError("opened without a seal")


_READERS: tuple[Callable[[bytes], Ready | Ping | Order | News | More], ...] = (
    read_ready,
    read_ping,
    read_order,
    lambda payload: read_news(payload, PEERS_MAX),
    read_more,
)


def payload(data: bytes) -> None:
    """Each reader of payloads: within bounds, and read again from what it writes."""
    for read in _READERS:
        try:
            value = read(data)
        except Refused as refused:
            _one_of(refused.reason, {"malformed"})
            continue
        assert read(encode(value)) == value
        if isinstance(value, News):
            assert len(value.reached) <= PEERS_MAX
            assert len(value.heirs) <= PEERS_MAX
        if isinstance(value, News | More):
            assert len(value.replicas) <= REPLICAS_MAX
            assert all(0 <= start <= NUMBER_MAX for start, _, _ in value.heirs.values())


_REASONS = frozenset(
    {"malformed", "version", "key", "signature", "origin", "stale", "hop", "replayed", "busy", "absent"}
)


def signature(data: bytes) -> None:
    """As it is: refused. With the right MAC at its end: its claims are within bounds, and count once."""
    text = data.decode("latin-1")
    verifier = Verifier(US, KEYS, lambda origin: None if origin == "unknown" else 0)
    message = f"forward\n{US.audience}\nPOST\n{_EMPTY}\n{text}".encode("latin-1")
    signed = f"{text};{KEY.mac(message).hex()}"
    for header in (text, signed):
        try:
            verified = verifier.verify(header, "POST", b"", NOW_NS)
        except Refused as refused:
            _one_of(refused.reason, _REASONS)
            assert verifier.nonces_len == 0
            continue
        assert header == signed, "verified without a key"
        claims = verified.claims
        assert 1 <= claims.hop <= HOPS_MAX
        assert 0 <= claims.attempts_left <= ATTEMPTS_LEFT_MAX
        assert claims.deadline_ms >= 0
        with suppress(Refused):
            verifier.verify(header, "POST", b"", NOW_NS)
            raise AssertionError("verified twice")
        again = sign(
            KEY, to=US, method="POST", head=b"", body_digest=verified.digest, claims=claims, now_ns=NOW_NS
        )
        assert verifier.verify(again, "POST", b"", NOW_NS).claims == claims


def models(data: bytes) -> None:
    """A list within bounds, sorted, each model once; space around it says nothing."""
    try:
        listing = read_models(data)
    except ValueError:
        return
    names = [name for name, _ in listing.models]
    assert names == sorted(set(names))
    assert len(names) <= MODELS_MAX
    assert all(0 < len(name) <= MODEL_ID_LEN_MAX for name in names)
    assert all(length is None or 0 < length < 1 << 32 for _, length in listing.models)
    for name in names:
        name.encode()
    assert read_models(b" \n" + data + b" ") == listing


def listing(data: bytes) -> None:
    """Files of replicas and of peers, in each of their forms: a bounded list, or faults with their line."""
    for suffix in (".txt", ".json", ".toml"):
        for kind in (REPLICAS, PEERS):
            path = Path(f"list{suffix}")
            try:
                found = parse(path, data, kind)
            except ConfigError as error:
                _one_of(True, {fault.startswith("list.") for fault in error.faults})
                continue
            assert len(found) <= kind.len_max


def keys(data: bytes) -> None:
    """Secrets of a key file; no message repeats what the file holds."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        found = parse_keys(text)
    except ValueError as error:
        said = str(error)
        words = [word for line in text.splitlines() for word in line.split(":")[1:] if len(word) > 11]
        assert not any(word in said for word in words)
        return
    assert found.find(found.first.id) is found.first
    assert text.count(":") <= 64 * KEYS_MAX or "#" in text


_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_CLAIMS = f"v2;k1;eu;{'0' * 32};{NOW_NS // 1_000_000};1;3;5000;0;;{_EMPTY}"
_ORDER = Order("eu", True, 7)
_NEWS = News(["us"], {"us": (1, 2, ["eu"])}, ["http://a:80"])

TARGETS = (
    Target(
        "frame",
        frame,
        tuple(
            msgspec.msgpack.encode(Frame(kind, sequence, b"p"))
            for kind, sequence in ((Kind.NEWS, 0), (Kind.PING, 1), (77, 0))
        ),
    ),
    Target("hello", hello, (encode(_hello("eu")), msgspec.msgpack.encode([2, "eu"]))),
    Target(
        "payload",
        payload,
        tuple(
            encode(value)
            for value in (
                _NEWS,
                More({}, ["http://a:80"]),
                _ORDER,
                Ping(1, 2),
                Ready([1, 7]),
                News([], {}, [], True),
            )
        ),
    ),
    Target(
        "signature",
        signature,
        (
            _CLAIMS.encode(),
            _CLAIMS.replace(";;", ";-;").replace("eu", "unknown").encode(),
            _CLAIMS.replace(";;", ";YWNtZQ;").encode(),
        ),
    ),
    Target(
        "models",
        models,
        (
            b'{"object":"list","data":[{"id":"base","max_model_len":4096},{"id":"lora","parent":"base"}]}',
            b'{"data":[{"id":"a","max_model_len":1e400},{"id":""},{"id":"\\ud83d\\ude00"},7]}',
        ),
    ),
    Target(
        "listing",
        listing,
        (
            b"http://a:80  # one\nunix:/run/s\n\nhttps://[::1]:8000\n",
            b'["http://a:80", "https://b:443"]',
            b'{"peers": ["eu@europe=http://a:80,http://b:80"]}',
            b'replicas = ["http://a:80"]\n',
            b"eu=http://a:80\n",
        ),
    ),
    Target("keys", keys, (b"# keys\nk1:MDEyMzQ1Njc4OWFiY2RlZg==\n", b"k1:MDEy\nk1:MDEyMzQ1Njc4OWFiY2RlZg==")),
)
