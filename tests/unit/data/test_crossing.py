"""Forwards: what one balancer signs and sends, another accepts."""

from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest

from skylb._core import Forward, Head, HeadParser, Request, RequestIds, Sender, Tenant
from skylb.clock import monotonic_ns
from skylb.data.crossing import Crossing
from skylb.mesh.signing import HEADER_LOWER, Identity, Key, Keys, Verifier
from skylb.types import Peer
from skylb.upstream import Pool

HEAD_BYTES_MAX = 16_384
HEADERS_MAX = 100
KEYS = Keys([Key("k1", b"0123456789abcdef")])
FIELDS = ("Host: a", "Content-Type: application/json", "Content-Length: 2")


def _crossing(name: str) -> Crossing:
    identity = Identity(name, 1)
    verifier = Verifier(identity, KEYS, lambda _: 0)
    return Crossing(identity, verifier, Pool(), Counter(), lambda *_: True)


def _parsed(head: bytes) -> Head:
    parsed = HeadParser().parse(head)
    assert parsed is not None
    return parsed


def _head(*more: str) -> bytes:
    lines = ("POST /v1/completions HTTP/1.1", *FIELDS, *more, "", "")
    return "\r\n".join(lines).encode()


MANY = _head(*["X:y"] * (HEADERS_MAX - len(FIELDS)))
LONG = _head("X: " + "y" * (HEAD_BYTES_MAX - len(_head("X: "))))


@pytest.mark.parametrize("raw", [_head(), MANY, LONG], ids=["small", "many fields", "long"])
def test_a_head_that_a_balancer_accepts_is_accepted_by_the_peer_it_is_forwarded_to(raw: bytes) -> None:
    head = _parsed(raw)
    request = Request(head, Sender("192.0.2.7", "http", False, False), RequestIds("request"), 1, 2)
    sent = request.upstream("10.0.0.1:8000", None, 2)
    deadline_ns = monotonic_ns() + 10**9
    forward = cast(Forward, SimpleNamespace(attempts_left=2, deadline_ns=deadline_ns))
    peer = cast(Peer, SimpleNamespace(name="us", incarnation=1))
    signed = _crossing("eu").sign(sent, forward, peer, head, Tenant.NOBODY, False, "0" * 64)
    received = _parsed(signed)
    assert received.consumed == len(signed)
    verifier = Verifier(Identity("us", 1), KEYS, lambda _: 0)
    verified = verifier.verify(
        received.header(HEADER_LOWER), received.method, received.signed(), monotonic_ns()
    )
    assert verified.claims.origin == "eu"
