"""The forward header: what was signed is let in once, and nothing else ever."""

import base64
import hashlib
import random
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb._core import Tenant
from skylb.mesh.signing import (
    AHEAD_S,
    ATTEMPTS_LEFT_MAX,
    DEADLINE_MS_MAX,
    HEADER_LEN_MAX,
    NONCES_MAX,
    WINDOW_S,
    Claims,
    Identity,
    Key,
    Keys,
    Refused,
    Verifier,
    block_secret,
    parse_keys,
    sign,
)

NOW_NS = 5_000_000_000_000
AHEAD_NS = 1_234_567_890_123
"""Our clock is ahead of the origin's."""

KEY = Key("k1", b"0123456789abcdef")
HERE = Identity("eu", 7)
CLAIMS = Claims("us", 1, 1, 30_000, Tenant("tenant-1"))
HEAD = b"/v1/chat/completions\ncontent-type:application/json"
BODY = b'{"model":"m"}'
FORGERIES = 10_000


DIGEST = hashlib.sha256(BODY).hexdigest()


def verifier(*keys: Key, here: Identity = HERE) -> Verifier:
    return Verifier(here, Keys(list(keys or (KEY,))), lambda name: AHEAD_NS if name == "us" else None)


def signed(claims: Claims = CLAIMS, *, key: Key = KEY, to: Identity = HERE, at_ns: int = NOW_NS) -> str:
    return sign(
        key,
        to=to,
        method="POST",
        head=HEAD,
        body_digest=DIGEST,
        claims=claims,
        now_ns=at_ns - AHEAD_NS,
    )


def reason(
    header: str | None,
    *,
    method: str = "POST",
    head: bytes = HEAD,
    at: Verifier | None = None,
    now_ns: int = NOW_NS,
) -> str:
    with pytest.raises(Refused) as caught:
        (at or verifier()).verify(header, method, head, now_ns)
    return caught.value.reason


def test_what_was_signed_is_let_in_with_its_claims_and_its_body_only() -> None:
    verified = verifier().verify(signed(), "POST", HEAD, NOW_NS)
    assert verified.claims == CLAIMS
    assert verified.fits(hashlib.sha256(BODY).hexdigest())
    assert not verified.fits(hashlib.sha256(BODY + b" ").hexdigest())


@given(
    now_ns=st.integers(0, 2**63 - 1),
    deadline_ms=st.integers(0, 2**63),
    attempts_left=st.integers(0, 2**31),
)
def test_whatever_the_signer_returns_can_be_read_at_any_time_of_a_clock(
    now_ns: int, deadline_ms: int, attempts_left: int
) -> None:
    claims = Claims("us", 1, attempts_left, deadline_ms)
    header = sign(
        KEY,
        to=HERE,
        method="POST",
        head=HEAD,
        body_digest=DIGEST,
        claims=claims,
        now_ns=now_ns,
    )
    at = Verifier(HERE, Keys([KEY]), lambda _: AHEAD_NS)
    read = at.verify(header, "POST", HEAD, now_ns + AHEAD_NS).claims
    assert read.attempts_left == min(attempts_left, ATTEMPTS_LEFT_MAX)
    assert read.deadline_ms == min(deadline_ms, DEADLINE_MS_MAX)


@pytest.mark.parametrize(
    ("what", "claims", "now_ns"),
    [
        ("now_ns", CLAIMS, -1),
        ("now_ns", CLAIMS, 10**22),
        ("hop", replace(CLAIMS, hop=10), 0),
        ("hop", replace(CLAIMS, hop=-1), 0),
        ("attempts_left", replace(CLAIMS, attempts_left=-1), 0),
        ("deadline_ms", replace(CLAIMS, deadline_ms=-1), 0),
    ],
)
def test_what_no_signature_can_hold_is_not_signed(what: str, claims: Claims, now_ns: int) -> None:
    with pytest.raises(ValueError, match=what):
        sign(
            KEY,
            to=HERE,
            method="POST",
            head=HEAD,
            body_digest=DIGEST,
            claims=claims,
            now_ns=now_ns,
        )


def test_a_forward_is_let_in_once() -> None:
    at, header = verifier(), signed()
    at.verify(header, "POST", HEAD, NOW_NS)
    assert reason(header, at=at) == "replayed"
    assert reason(header, at=at, now_ns=NOW_NS + int((WINDOW_S - 1) * 1e9)) == "replayed"
    assert reason(header, at=at, now_ns=NOW_NS + int((WINDOW_S + 1) * 1e9)) == "stale"


def test_no_moment_exists_at_which_a_forward_is_let_in_a_second_time() -> None:
    for signed_ahead_s in (-WINDOW_S + 1, -1.0, 0.0, 1.0, AHEAD_S - 0.001):
        at, header = verifier(), signed(at_ns=NOW_NS + int(signed_ahead_s * 1e9))
        at.verify(header, "POST", HEAD, NOW_NS)
        for later_s in range(80):
            assert reason(header, at=at, now_ns=NOW_NS + later_s * 10**9) in {"replayed", "stale"}


@pytest.mark.parametrize("age_s", [WINDOW_S + 0.1, 3600.0, -AHEAD_S - 0.1, -3600.0])
def test_a_skewed_time_is_refused(age_s: float) -> None:
    assert reason(signed(at_ns=NOW_NS - int(age_s * 1e9))) == "stale"


def test_a_forward_is_for_one_run_of_one_balancer_one_method_and_one_path() -> None:
    assert reason(signed(to=Identity("asia", 7))) == "signature"
    assert reason(signed(to=Identity("eu", 8))) == "signature"
    assert reason(signed(), method="GET") == "signature"
    assert reason(signed(), head=b"/v1/completions") == "signature"


def test_only_peers_forward_and_only_once() -> None:
    assert reason(signed(Claims("mars", 1, 1, 30_000))) == "origin"
    assert reason(signed(Claims("us", 2, 1, 30_000))) == "hop"
    assert reason(signed(Claims("us", 0, 1, 30_000))) == "hop"


def test_an_unknown_key_or_version_or_no_header_is_refused() -> None:
    assert reason(None) == "absent"
    assert reason(signed(key=Key("k2", b"fedcba9876543210"))) == "key"
    assert reason(signed(key=Key("k1", b"fedcba9876543210"))) == "signature"
    assert reason("v1" + signed()[2:]) == "version"


def test_the_first_key_signs_and_all_verify() -> None:
    new = Key("k2", b"fedcba9876543210")
    at = verifier(new, KEY)
    at.verify(signed(key=KEY), "POST", HEAD, NOW_NS)
    at.verify(signed(key=new), "POST", HEAD, NOW_NS)
    assert at.keys.first is new


def changed(header: str, rng: random.Random) -> str:
    """A forgery: one that is cut, stretched, spliced, or has a character or a field of its own."""
    fields = header.split(";")
    how = rng.randrange(6)
    if how == 0:
        return header[: rng.randrange(len(header))]
    if how == 1:
        return header + rng.choice(string.printable) * rng.choice((1, 2, HEADER_LEN_MAX))
    if how == 2:
        at = rng.randrange(len(header))
        return header[:at] + rng.choice(string.printable.replace(header[at], "")) + header[at + 1 :]
    if how == 3:
        at = rng.randrange(len(fields))
        fields[at] = "".join(rng.choices("0123456789abcdef", k=len(fields[at]) or 1))
        return ";".join(fields)
    if how == 4:
        at = rng.randrange(len(fields) - 1)
        fields[at], fields[at + 1] = fields[at + 1], fields[at]
        return ";".join(fields)
    del fields[rng.randrange(len(fields))]
    return ";".join(fields)


def test_of_ten_thousand_forgeries_none_is_let_in_and_none_takes_memory() -> None:
    rng, at = random.Random(5), verifier()
    accepted = 0
    for _ in range(FORGERIES):
        genuine = signed()
        forged = changed(genuine, rng)
        if forged == genuine:
            continue
        try:
            at.verify(forged, "POST", HEAD, NOW_NS)
            accepted += 1
        except Refused:
            pass
    assert accepted == 0
    assert at.nonces_len == 0


@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    assert reason(text) in {"malformed", "version", "key", "signature"}


def test_nonces_are_bounded_and_forgotten_after_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skylb.mesh.signing.NONCES_MAX", 3)
    at = verifier()
    for _ in range(3):
        at.verify(signed(), "POST", HEAD, NOW_NS)
    assert reason(signed(), at=at) == "busy"
    later_ns = NOW_NS + int((WINDOW_S + AHEAD_S + 1) * 1e9)
    at.verify(signed(at_ns=later_ns), "POST", HEAD, later_ns)
    assert at.nonces_len == 1
    assert NONCES_MAX >= 4000 * WINDOW_S


def test_a_tenant_that_is_too_long_is_not_signed() -> None:
    with pytest.raises(ValueError, match="tenant"):
        signed(Claims("us", 1, 1, 1, Tenant("x" * 129)))


@given(st.text(max_size=30))
def test_any_tenant_arrives_as_it_was_signed(tenant: str) -> None:
    try:
        tenant.encode()
    except UnicodeEncodeError:
        return
    claims = Claims("us", 1, 1, 1, Tenant(tenant) if tenant else Tenant.NOBODY)
    assert verifier().verify(signed(claims), "POST", HEAD, NOW_NS).claims == claims


def test_that_a_tenant_is_unknown_arrives_as_it_was_signed() -> None:
    claims = Claims("us", 1, 1, 1, Tenant.UNKNOWN)
    assert verifier().verify(signed(claims), "POST", HEAD, NOW_NS).claims == claims


# ------------------------------------------------------------------------------------ keys


def test_a_key_file_has_keys_comments_and_empty_lines() -> None:
    secret = base64.b64encode(b"x" * 32).decode()
    keys = parse_keys(f"# rotation of May\n\nnew:{secret}\nold:{secret}\n")
    assert keys.first == Key("new", b"x" * 32)
    assert keys.find("old") is not None
    assert keys.find("other") is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "expected 1 to 16 lines"),
        ("k1", "line 1: expected KEYID:BASE64"),
        ("k1:c2hvcnQ=", "line 1: the secret has under 16 bytes"),
        ("k1:AAAA=AAA", "line 1: expected KEYID:BASE64"),
        ("k1:AAAAA", "line 1: the secret is not base64"),
        (f"k:{'A' * 44}\nk:{'A' * 44}", "line 2: the key id is given twice"),
        ("\n".join(f"k{n}:{'A' * 44}" for n in range(17)), "expected 1 to 16 lines"),
    ],
)
def test_a_key_file_that_is_no_good_names_the_line_and_not_the_secret(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        parse_keys(text)
    assert "AAAA" not in str(caught.value)


def test_what_prompts_are_hashed_by_is_the_same_for_all_who_sign_with_one_secret_and_is_not_that_secret() -> (
    None
):
    one, other = Keys([KEY, Key("k2", b"another secret..")]), Keys([KEY])
    assert block_secret(one) == block_secret(other)
    assert one.mark_key == other.mark_key
    rotated = Keys([Key("k2", b"another secret.."), KEY])
    assert block_secret(rotated) != block_secret(one)
    assert rotated.mark_key != one.mark_key
    derived = (block_secret(one), one.mark_key)
    assert [len(key) for key in derived] == [32, 24]
    assert derived[1] not in derived[0]
    assert all(KEY.secret not in key for key in derived)


def test_without_peers_prompts_are_hashed_by_a_secret_of_each_process() -> None:
    assert block_secret(None) != block_secret(None)
    assert len(block_secret(None)) == 32
