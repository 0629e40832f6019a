"""Peer sync's messages: the peer's next one is opened, and nothing else ever."""

import random
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb.mesh.frames import (
    FRAME_BYTES_MAX,
    MAC_BYTES,
    NONCE_BYTES,
    REPLICAS_MAX,
    VERSION,
    Hello,
    Kind,
    More,
    News,
    Order,
    Ping,
    Ready,
    Session,
    WrongVersion,
    encode,
    new_nonce,
    read_hello,
    read_more,
    read_news,
    read_order,
    read_ping,
    read_ready,
)
from skylb.mesh.signing import Key, Keys, Refused
from skylb.settings.mesh import PEERS_MAX

FORGERIES = 10_000
KEYS = Keys([Key("k1", b"0123456789abcdef")])


def hello(name: str = "eu", key: str = "k1", **changed: object) -> Hello:
    return msgspec.structs.replace(
        Hello(VERSION, name, "europe", 1, key, new_nonce(), 1_700_000_000_000, "http://127.0.0.1:1"),
        **changed,
    )


def pair(first: Keys = KEYS, second: Keys = KEYS) -> tuple[Session, Session]:
    """Both ends of one connection."""
    dialler, listener = hello("eu", first.first.id), hello("us", second.first.id)
    return (
        Session(first, ours=dialler, theirs=listener, dialled=True),
        Session(second, ours=listener, theirs=dialler, dialled=False),
    )


def reason(session: Session, message: bytes) -> str:
    with pytest.raises(Refused) as caught:
        session.open(message)
    return caught.value.reason


def test_messages_arrive_in_their_order_both_ways() -> None:
    one, other = pair()
    for number in range(3):
        assert other.open(one.seal(Kind.SUMMARY, b"%d" % number)) == (Kind.SUMMARY, b"%d" % number)
        assert one.open(other.seal(Kind.BYE)) == (Kind.BYE, b"")


def test_a_message_is_opened_once_and_only_in_its_turn() -> None:
    one, other = pair()
    messages = [one.seal(Kind.PING, b"x") for _ in range(3)]
    other.open(messages[0])
    assert reason(other, messages[0]) == "replayed"
    assert reason(other, messages[2]) == "replayed"
    assert other.open(messages[1]) == (Kind.PING, b"x")


def test_a_message_is_for_one_direction_of_one_connection() -> None:
    (one, other), (_, stranger) = pair(), pair()
    message = one.seal(Kind.READY)
    assert reason(one, message) == "signature"
    assert reason(stranger, message) == "signature"
    other.open(message)


def test_both_sides_may_sign_with_another_key_while_keys_are_changed() -> None:
    old, new = Key("k1", b"0123456789abcdef"), Key("k2", b"fedcba9876543210")
    one, other = pair(Keys([old, new]), Keys([new, old]))
    assert other.open(one.seal(Kind.READY)) == (Kind.READY, b"")
    assert one.open(other.seal(Kind.READY)) == (Kind.READY, b"")


def test_a_peer_with_an_unknown_key_is_refused_and_one_with_a_wrong_secret_proves_nothing() -> None:
    with pytest.raises(Refused, match="key"):
        pair(KEYS, Keys([Key("k9", b"0123456789abcdef")]))
    one, other = pair(KEYS, Keys([Key("k1", b"fedcba9876543210")]))
    assert reason(other, one.seal(Kind.READY)) == "signature"
    assert reason(one, other.seal(Kind.READY)) == "signature"


def changed(message: bytes, rng: random.Random) -> bytes:
    """A message that is cut, stretched, or has a byte of its own."""
    how = rng.randrange(4)
    if how == 0:
        return message[: rng.randrange(len(message))]
    if how == 1:
        return message + rng.randbytes(rng.choice((1, 32, FRAME_BYTES_MAX)))
    if how == 2:
        return rng.randbytes(len(message))
    at = rng.randrange(len(message))
    return message[:at] + bytes([message[at] ^ (1 << rng.randrange(8))]) + message[at + 1 :]


def test_of_ten_thousand_forged_messages_none_is_opened_and_the_genuine_one_still_is() -> None:
    rng = random.Random(7)
    one, other = pair()
    genuine = one.seal(Kind.SUMMARY, b"room: 5")
    reasons = {reason(other, changed(genuine, rng)) for _ in range(FORGERIES)}
    assert reasons == {"truncated", "signature", "oversized"}
    assert other.open(genuine) == (Kind.SUMMARY, b"room: 5")


def test_a_message_over_the_limit_is_neither_made_nor_opened() -> None:
    one, other = pair()
    with pytest.raises(ValueError, match="a frame of"):
        one.seal(Kind.SUMMARY, bytes(FRAME_BYTES_MAX))
    assert reason(other, bytes(FRAME_BYTES_MAX + 1)) == "oversized"
    longest = one.seal(Kind.SUMMARY, bytes(FRAME_BYTES_MAX - MAC_BYTES - 8))
    assert len(other.open(longest)[1]) == FRAME_BYTES_MAX - MAC_BYTES - 8


def test_a_kind_of_a_later_version_is_opened_as_its_number() -> None:
    one, other = pair()
    message = one.seal(99, b"new")  # type: ignore[arg-type]  # what a later version might send
    assert other.open(message) == (99, b"new")
    assert reason(other, one.seal(-1, b"")) == "malformed"  # type: ignore[arg-type]  # on purpose


# ------------------------------------------------------------------------------- payloads


def test_a_hello_is_read_as_it_was_written() -> None:
    said = hello()
    assert read_hello(encode(said)) == said


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "malformed"),
        (b"\x90", "malformed"),
        (msgspec.msgpack.encode([VERSION]), "malformed"),
        (msgspec.msgpack.encode([VERSION + 1, {"anything": 1}]), "version"),
        (b"\x91" * 60_000, "malformed"),
        (b"\x92\x01" + b"\x91" * 60_000, "malformed"),
        (encode(hello())[:1] + b"\xcf" + b"\xff" * 8 + encode(hello())[2:], "version"),
        (encode(hello(incarnation=(1 << 64) - 1)), "malformed"),
        (encode(hello(unix_ms=-1)), "malformed"),
        (encode(hello(region="x" * 65)), "malformed"),
        (encode(hello(name="two words")), "malformed"),
        (msgspec.msgpack.encode({"version": VERSION}), "malformed"),
        (encode(hello(name="")), "malformed"),
        (encode(hello(name="x" * 65)), "malformed"),
        (encode(hello(nonce=bytes(NONCE_BYTES - 1))), "malformed"),
        (encode(hello(forward="x" * 301)), "malformed"),
        (encode(hello())[:-1], "malformed"),
        (bytes(FRAME_BYTES_MAX + 1), "oversized"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",  # keys are drawn anew
)
def test_a_hello_that_is_none_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Refused) as caught:
        read_hello(data)
    assert caught.value.reason == why


def test_a_hello_of_a_later_version_with_more_fields_is_read_and_both_sides_prove_it() -> None:
    said = [*msgspec.structs.astuple(hello("eu")), "a field of a later version", {"and": "another"}]
    data, ours = msgspec.msgpack.encode(said), hello("us")
    theirs = read_hello(data)
    assert theirs.name == "eu"
    listener = Session(KEYS, ours=ours, theirs=theirs, dialled=False, said=data)
    later = Session(KEYS, ours=ours, theirs=theirs, dialled=False, said=data)
    later._seal_key, later._open_key = later._open_key, later._seal_key  # the later version, which dialled
    assert listener.open(later.seal(Kind.READY)) == (Kind.READY, b"")


def test_of_a_hello_of_another_version_the_version_and_if_it_can_be_read_the_name_are_told() -> None:
    for fields, name in (([VERSION + 1, "eu", 5], "eu"), ([VERSION + 1], ""), ([VERSION + 1, {"x": 1}], "")):
        with pytest.raises(WrongVersion) as caught:
            read_hello(msgspec.msgpack.encode(fields))
        assert (caught.value.version, caught.value.name) == (VERSION + 1, name)


def test_fields_of_a_later_version_are_passed_over_and_missing_ones_have_their_defaults() -> None:
    later = {
        read_ping: Ping(5, 6),
        read_order: Order("eu", True, 7),
        read_news: News(["us"], {}, [], True),
        read_more: More({"us": (1, 2, [])}, []),
        read_ready: Ready([1, 99]),
    }
    for read, value in later.items():
        fields = [*msgspec.structs.astuple(value), {"later": [1]}, None]
        assert read(msgspec.msgpack.encode(fields)) == value  # type: ignore[operator]  # of its own type
    assert read_news(msgspec.msgpack.encode([["us"], {}, ["http://a:80"]])) == News(
        ["us"], {}, ["http://a:80"]
    )
    assert read_ready(b"") == read_ready(msgspec.msgpack.encode([])) == Ready([])


HUGE = (1 << 64) - 1


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (read_ping, [HUGE, 0]),
        (read_ping, [0, HUGE]),
        (read_ping, [-1, 0]),
        (read_ping, [0, 0, "x" * 300]),
        (read_order, ["eu", True, HUGE]),
        (read_order, ["eu", 1, 5]),
        (read_order, ["e u", True, 5]),
        (read_news, [[], {"us": [HUGE, 0, []]}, []]),
        (read_news, [[], {"us": [0, HUGE, []]}, []]),
        (read_news, [["u s"], {}, []]),
        (read_news, [["u"] * (PEERS_MAX + 1), {}, []]),
        (read_more, [{}, ["u"] * (REPLICAS_MAX + 1)]),
        (read_ready, [[-1]]),
        (read_ready, [[1] * 65]),
    ],
)
def test_what_is_out_of_bounds_is_refused_where_it_is_read(
    read: Callable[[bytes], object], value: object
) -> None:
    with pytest.raises(Refused, match="malformed"):
        read(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("read", [read_ping, read_order, read_news, read_more, read_ready, read_hello])
@pytest.mark.parametrize(
    "data", [b"\x91" * 60_000, b"\x99" + b"\x00" * 8 + b"\x91" * 60_000, b"\xdd\xff\xff\xff\xff"]
)
def test_no_nesting_and_no_length_makes_a_reader_fail(read: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(Refused):
        read(data)


@given(st.binary(max_size=200))
def test_no_bytes_make_a_reader_fail_otherwise_than_by_refusing(data: bytes) -> None:
    for read in (read_hello, read_ping, read_order, lambda payload: read_news(payload, 4)):
        with suppress(Refused):
            read(data)


def test_news_are_read_within_bounds() -> None:
    news = News(["us"], {"us": (1, 2, ["eu"])}, ["http://a:80"])
    assert read_news(encode(news), 2) == news
    assert read_ping(encode(Ping(5, 6))) == Ping(5, 6)
    assert read_order(encode(Order("eu", True, 7))) == Order("eu", True, 7)
    for beyond in (
        News(["a", "b", "c"], {}, []),
        News([], {"a": (1, 1, []), "b": (1, 1, []), "c": (1, 1, [])}, []),
        News([], {"a": (1, 1, ["x", "y", "z"])}, []),
        News([], {"a" * 65: (1, 1, [])}, []),
        News([""], {}, []),
        News([], {}, ["u"] * (REPLICAS_MAX + 1)),
        News([], {}, ["u" * 301]),
    ):
        with pytest.raises(Refused, match="malformed"):
            read_news(encode(beyond), 2)
