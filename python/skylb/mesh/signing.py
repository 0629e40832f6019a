"""The shared secrets of the mesh, and the signed header of a forwarded request.

The header names the sender, the hops (one), the attempts that are left, and the time that is left. The
signature (HMAC-SHA256, RFC 2104) covers the header, the method, the path and the query. It also covers all
end-to-end header fields, the body's digest, and the receiver's name and incarnation. So nobody can change a
forward, send it to another balancer, or send it twice. Times are those of the sender's monotonic clock.
Peers know from sync how far it is from their own, so wall clocks do not matter.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from skylb._core import Tenant

HEADER = "X-SkyLB-Forward"
HEADER_LOWER = HEADER.lower()

REFUSED_HEADER = "X-SkyLB-Refused"
"""On a peer's answer: it has not tried the request, or has withdrawn it before its first byte; and why."""

VERSION = "v2"
HOPS_MAX = 1
"""A forwarded request is never forwarded again."""

WINDOW_S = 30.0
"""How old a forward's signature may be."""

AHEAD_S = 2.0
"""How far it may lie ahead: the error of the clock offset that peer sync measured."""

NONCES_MAX = 1 << 17
"""Nonces remembered for the window, so 4,000 forwards/s; beyond it forwards are refused."""

TIME_MS_MAX = 10**16 - 1
"""Latest time that a signature can hold: 317,000 years."""

DEADLINE_MS_MAX = 10**10 - 1
"""Longest time left that a signature can hold, 115 days; a longer one is signed as this."""

ATTEMPTS_LEFT_MAX = 9

HEADER_LEN_MAX = 1024
TENANT_LEN_MAX = 128
KEYS_MAX = 16
SECRET_BYTES_MIN = 16
FILE_BYTES_MAX = 64 << 10

BLOCK_SECRET_BYTES = 32
MARK_KEY_BYTES = 24
_BLOCKS = b"prefix blocks v1\n"
_MARKS = b"prefix marks v1\n"
_COVERS = b"prefix covers v1\n"
"""Labels that set what is derived from a secret apart from all that it signs (RFC 5869, 3.2)."""

REASONS = (
    "absent",
    "body",
    "busy",
    "certificate",
    "hop",
    "key",
    "malformed",
    "origin",
    "replayed",
    "signature",
    "stale",
    "version",
)
"""Why a forward is not let in: what `Verifier` says, and of its certificate and its body the data plane."""

_UNNAMED = {Tenant.NOBODY: "", Tenant.UNKNOWN: "-"}
"""How tenants without a name are written; no base64url of a name has a length of nought or one."""

_KEY_LINE = re.compile(r"([A-Za-z0-9._-]{1,32}):([A-Za-z0-9+/]+={0,2})", re.ASCII)
_FORWARD = re.compile(
    r"(?P<signed>(?P<version>v[0-9]{1,4});(?P<key>[A-Za-z0-9._-]{1,32});(?P<origin>[A-Za-z0-9._-]{1,64});"
    r"(?P<nonce>[0-9a-f]{32});(?P<time_ms>0|[1-9][0-9]{0,15});(?P<hop>[0-9]);(?P<attempts_left>[0-9]);"
    r"(?P<deadline_ms>0|[1-9][0-9]{0,9});(?P<front>[01]);(?P<tenant>[A-Za-z0-9_-]{0,171});(?P<digest>[0-9a-f]{64}));"
    r"(?P<mac>[0-9a-f]{64})",
    re.ASCII,
)


class Refused(Exception):  # noqa: N818 - a verdict, told to the sender and counted
    """A message of a peer is not accepted.

    Args:
        reason: one word, the label of a metric.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Key:
    """One shared secret."""

    id: str
    secret: bytes

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256 of a message, 32 bytes."""
        return hmac.digest(self.secret, message, "sha256")


class Keys:
    """The secrets of a key file: the first signs, all verify.

    To rotate: add the new key at the end everywhere, then move it to the front everywhere, then take the
    old one away.

    Args:
        keys: one or more, of distinct ids.
    """

    def __init__(self, keys: list[Key]) -> None:
        self.first = keys[0]
        self._by_id = {key.id: key for key in keys}

    @property
    def mark_key(self) -> bytes:
        """What prefixes are named by between balancers; see `Engine.set_peer_digest`."""
        return self.first.mac(_MARKS)[:MARK_KEY_BYTES]

    @property
    def cover_key(self) -> bytes:
        """What covers hashes between balancers of one region; see `Engine.set_region_cache`."""
        return self.first.mac(_COVERS)[:MARK_KEY_BYTES]

    def find(self, key_id: str) -> Key | None:
        """A key by its id."""
        return self._by_id.get(key_id)


def block_secret(keys: Keys | None) -> bytes:
    """What the engine's hashes of prompts are keyed by, 32 bytes.

    Derived from the secret that peers share, so that theirs can be compared with ours; without peers drawn.
    It stays until the process ends, also when the secret changes: what is known of prefixes is known by it.
    """
    return secrets.token_bytes(BLOCK_SECRET_BYTES) if keys is None else keys.first.mac(_BLOCKS)


def parse_keys(text: str) -> Keys:
    """Reads ``KEYID:BASE64`` lines; empty ones and those that begin with ``#`` are passed over.

    Raises:
        ValueError: names the line, never what is in it.
    """
    keys: dict[str, Key] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _KEY_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number}: expected KEYID:BASE64")
        try:
            secret = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raise ValueError(f"line {number}: the secret is not base64") from None
        if len(secret) < SECRET_BYTES_MIN:
            raise ValueError(f"line {number}: the secret has under {SECRET_BYTES_MIN} bytes")
        if match[1] in keys:
            raise ValueError(f"line {number}: the key id is given twice")
        keys[match[1]] = Key(match[1], secret)
    if not keys or len(keys) > KEYS_MAX:
        raise ValueError(f"expected 1 to {KEYS_MAX} lines KEYID:BASE64")
    return Keys(list(keys.values()))


@dataclass(frozen=True, slots=True)
class Identity:
    """One run of one balancer."""

    name: str
    incarnation: int
    """Wall clock at its start, in nanoseconds: greater with every start."""

    @property
    def audience(self) -> str:
        """The receiver that a forward is signed for."""
        return f"{self.name}@{self.incarnation}"


@dataclass(frozen=True, slots=True)
class Claims:
    """What the signature of a forward vouches for."""

    origin: str
    hop: int
    attempts_left: int
    """Replicas that the receiver may try."""
    deadline_ms: int
    """Time left when it was sent."""
    tenant: Tenant = Tenant.NOBODY
    front: bool = False
    """Its client is a front that the origin trusts: the class that it names counts."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A forward whose head was verified; the body is compared when it is complete."""

    claims: Claims
    digest: str

    def fits(self, body_digest: str) -> bool:
        """Whether a body with this SHA-256 (hexadecimal digits) is the one that was signed."""
        return hmac.compare_digest(body_digest, self.digest)


def sha256(body: bytes) -> str:
    """The digest of a body, in hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


def _message(signed: str, method: str, head: bytes, audience: str) -> bytes:
    # None of the parts can hold a line break: the parser refuses one in a request line.
    return f"forward\n{audience}\n{method}\n{hashlib.sha256(head).hexdigest()}\n{signed}".encode("latin-1")


def sign(
    key: Key, *, to: Identity, method: str, head: bytes, body_digest: str, claims: Claims, now_ns: int
) -> str:
    """The value of `HEADER` for one request.

    Args:
        key: of the sender.
        to: the receiver.
        method: as it is sent.
        head: what `Head.signed` gives for the head as it is sent.
        body_digest: SHA-256 of the body as it is sent, in hexadecimal digits.
        claims: what is vouched for.
        now_ns: this process's monotonic clock.

    More time or attempts than a signature can hold are signed as the most that it can.

    Raises:
        ValueError: names the claim that no signature can hold: every value that is returned can be read.
    """
    tenant = _spelled(claims.tenant)
    time_ms = now_ns // 1_000_000
    for name, value, most in (("now_ns", time_ms, TIME_MS_MAX), ("hop", claims.hop, 9)):
        if not 0 <= value <= most:
            raise ValueError(f"{name}: expected a value that is not negative, in ms at most {most}: {value}")
    if claims.attempts_left < 0 or claims.deadline_ms < 0:
        raise ValueError("attempts_left, deadline_ms: expected values that are not negative")
    attempts_left = min(claims.attempts_left, ATTEMPTS_LEFT_MAX)
    deadline_ms = min(claims.deadline_ms, DEADLINE_MS_MAX)
    signed = (
        f"{VERSION};{key.id};{claims.origin};{secrets.token_hex(16)};{time_ms};{claims.hop};"
        f"{attempts_left};{deadline_ms};{int(claims.front)};{tenant};{body_digest}"
    )
    return f"{signed};{key.mac(_message(signed, method, head, to.audience)).hex()}"


class Verifier:
    """Accepts each forward of a known peer once.

    Args:
        identity: the receiver that forwards must be signed for.
        keys: all of them verify.
        ahead_ns: by a peer's name how far our monotonic clock is ahead of its clock, in nanoseconds;
            ``None`` for a name that is no peer, or one that peer sync has not reached yet.
    """

    def __init__(self, identity: Identity, keys: Keys, ahead_ns: Callable[[str], int | None]) -> None:
        self.keys = keys
        self._identity = identity
        self._ahead_ns = ahead_ns
        self._nonces: set[str] = set()
        self._order: deque[tuple[int, str]] = deque()

    @property
    def nonces_len(self) -> int:
        """Nonces remembered."""
        return len(self._nonces)

    def verify(self, header: str | None, method: str, head: bytes, now_ns: int) -> Verified:
        """Reads the header of one request; ``head`` is what `Head.signed` gives for it.

        Raises:
            Refused: ``absent``, ``malformed``, ``version``, ``key``, ``signature``, ``origin``, ``stale``,
                ``hop``, ``replayed``, or ``busy``: too many forwards to remember.
        """
        if header is None:
            raise Refused("absent")
        match = _FORWARD.fullmatch(header) if len(header) <= HEADER_LEN_MAX else None
        if match is None:
            raise Refused("malformed")
        if match["version"] != VERSION:
            raise Refused("version")
        key = self.keys.find(match["key"])
        if key is None:
            raise Refused("key")
        expected = key.mac(_message(match["signed"], method, head, self._identity.audience)).hex()
        if not hmac.compare_digest(expected, match["mac"]):
            raise Refused("signature")
        # What follows was signed by somebody who knows the secret.
        self._check_time(match["origin"], int(match["time_ms"]), now_ns)
        if not 1 <= int(match["hop"]) <= HOPS_MAX:
            raise Refused("hop")
        tenant = _tenant(match["tenant"])
        self._remember(match["nonce"], now_ns)
        claims = Claims(
            match["origin"],
            int(match["hop"]),
            int(match["attempts_left"]),
            int(match["deadline_ms"]),
            tenant,
            match["front"] == "1",
        )
        return Verified(claims, match["digest"])

    def _check_time(self, origin: str, time_ms: int, now_ns: int) -> None:
        ahead_ns = self._ahead_ns(origin)
        if ahead_ns is None:
            raise Refused("origin")
        age_ns = now_ns - ahead_ns - time_ms * 1_000_000
        if not -AHEAD_S * 1e9 <= age_ns <= WINDOW_S * 1e9:
            raise Refused("stale")

    def _remember(self, nonce: str, now_ns: int) -> None:
        # One that arrives now is stale after the window, and may have been signed AHEAD_S in the future.
        oldest_ns = now_ns - int((WINDOW_S + AHEAD_S) * 1e9)
        while self._order and self._order[0][0] < oldest_ns:
            self._nonces.discard(self._order.popleft()[1])
        if nonce in self._nonces:
            raise Refused("replayed")
        if len(self._nonces) >= NONCES_MAX:
            raise Refused("busy")
        self._nonces.add(nonce)
        self._order.append((now_ns, nonce))


def _spelled(tenant: Tenant) -> str:
    """The claim in a signature: the name in base64url, nothing for nobody, a dash for unknown."""
    if tenant.name is None:
        return _UNNAMED[tenant]
    name = tenant.name.encode()
    if not 1 <= len(name) <= TENANT_LEN_MAX:
        raise ValueError(f"tenant: expected a name of 1 to {TENANT_LEN_MAX} bytes")
    return base64.urlsafe_b64encode(name).rstrip(b"=").decode()


def _tenant(text: str) -> Tenant:
    for tenant, spelled in _UNNAMED.items():
        if text == spelled:
            return tenant
    try:
        return Tenant(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    except (binascii.Error, UnicodeDecodeError):
        raise Refused("malformed") from None
