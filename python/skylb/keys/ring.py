"""The keys as the data plane looks them up, and the terms as the engine gets them."""

import hashlib
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from skylb._core import Tenant
from skylb.errors import ConfigError
from skylb.keys.document import Document, KeyTable, TenantTable, read
from skylb.watch import Signature

NEVER_NS = 1 << 63
"""Later than any time that a clock shows."""

MISSING, UNKNOWN, EXPIRED, REVOKED = REASONS = ("missing", "unknown", "expired", "revoked")
"""Why a request is not let in. A client is not told which; metrics are."""


@dataclass(frozen=True, slots=True)
class Party:
    """A tenant, as far as the data plane needs to know it."""

    tenant: Tenant
    metered: bool = False
    """Its tokens are limited, so each of its streams is asked for usage."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key stands for."""

    id: str
    party: Party
    ends_ns: int
    """From this moment on (Unix time) the key is not valid."""
    reason: str
    """Why, then."""


NOBODY = Party(Tenant.UNKNOWN)
UNKNOWN_ENTRY = Entry("", NOBODY, -1, UNKNOWN)
"""Of every key that is in no file."""
MISSING_ENTRY = Entry("", NOBODY, -1, MISSING)


class Ring:
    """All keys of one reading of the file, and all that follows from it.

    It takes long to make of a large file: a thread does it.

    Args:
        document: the file.
    """

    __slots__ = ("_ends", "_keys_len", "entries", "parties", "residency", "terms")

    def __init__(self, document: Document) -> None:
        self._keys_len = len(document.keys)
        self.parties = {name: _party(name, terms) for name, terms in document.tenants.items()}
        self.entries: dict[bytes, Entry] = {hashlib.sha256(b"").digest(): MISSING_ENTRY}
        """By the SHA-256 of the key. The one of no text stands for a request without a key."""
        for key in document.keys:
            self.entries[bytes.fromhex(key.sha256)] = _entry(key, self.parties[key.tenant])
        ends = ((entry.reason, entry.ends_ns) for entry in self.entries.values() if entry.id)
        self._ends: dict[str, list[int]] = {EXPIRED: [], REVOKED: []}
        """When keys end, in order, by the reason."""
        for reason, ends_ns in sorted(ends):
            self._ends[reason].append(ends_ns)
        self.terms = _terms(document)
        """The terms of all tenants; `Engine.set_tenants` says how."""
        self.residency = _residency(document)
        """The tenants' regions, as rules of residency; `Engine.set_residency` says how."""

    def party(self, name: str) -> Party:
        """A tenant whom a trusted proxy names. One that is in no table has no terms."""
        return self.parties.get(name) or Party(Tenant(name))

    def states(self, now_ns: int) -> dict[str, int]:
        """How many keys are valid, expired and revoked at a moment of Unix time."""
        ended = {reason: bisect_right(ends, now_ns) for reason, ends in self._ends.items()}
        return {"valid": self._keys_len - sum(ended.values()), **ended}


def read_ring(path: Path) -> tuple[Signature | None, Ring]:
    """What tells this content of the file from others, and its keys.

    Raises:
        ConfigError: it cannot be read or understood; its faults. A file without any table is one: more likely
            it is being written than meant.
    """
    signature, document = read(path)
    if not document.tenants:
        raise ConfigError([f"{path}: expected at least one table [tenants.NAME]"])
    return signature, Ring(document)


def _terms(document: Document) -> bytes:
    tenants = [
        {
            "name": name,
            "weight": terms.weight,
            "class": terms.class_,
            "models": terms.models,
            "requests_per_minute": terms.requests_per_minute,
            "tokens_per_minute": terms.tokens_per_minute,
            "concurrent": terms.concurrent,
            "continue_streams": terms.continue_streams,
        }
        for name, terms in document.tenants.items()
    ]
    return orjson.dumps({"tenants": tenants})


def _residency(document: Document) -> list[tuple[str | None, str | None, list[str]]]:
    return [
        (name, None, list(terms.regions))
        for name, terms in document.tenants.items()
        if terms.regions is not None
    ]


def _party(name: str, terms: TenantTable) -> Party:
    return Party(Tenant(name), metered=terms.tokens_per_minute is not None)


def _entry(key: KeyTable, party: Party) -> Entry:
    expires_ns, revoked_ns = unix_ns(key.expires), unix_ns(key.revoked)
    reason = REVOKED if revoked_ns <= expires_ns else EXPIRED
    return Entry(key.id, party, min(expires_ns, revoked_ns), reason)


def unix_ns(moment: datetime | None) -> int:
    """A moment as nanoseconds of Unix time; `NEVER_NS` for none."""
    return NEVER_NS if moment is None else round(moment.timestamp() * 1e6) * 1000


def state_of(key: KeyTable, now_ns: int) -> str:
    """``valid``, ``expired`` or ``revoked``, at a moment of Unix time."""
    entry = _entry(key, NOBODY)
    return "valid" if now_ns < entry.ends_ns else entry.reason
