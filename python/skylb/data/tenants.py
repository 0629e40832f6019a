"""The tenant of a request: by its API key, or by a header of a trusted proxy. Residency and limits follow."""

import hashlib
import re
from collections.abc import Mapping

from skylb._core import ROUTE_NONE, Head, RequestError, Tenant
from skylb.data.answers import Headers, fields_of, refusal, status_of
from skylb.data.keyring import Keyring, wrong_key
from skylb.keys.ring import Party
from skylb.mesh.signing import TENANT_LEN_MAX, Claims
from skylb.router import RequestRouter

NO_KEY = hashlib.sha256(b"").digest()
"""What stands for the key of a request that brings none."""

LIMITED = "rate_limit_exceeded"

_TENANT = re.compile(rf"[\x21-\x7e]{{1,{TENANT_LEN_MAX}}}", re.ASCII)


class OverLimitError(RequestError):
    """The refusal of a request by its tenant's limits, before its body is read.

    Args:
        head: of the request.
        tenant: whose request it is.
        message: for the client.
        retry_after_s: when it may come back.
        lines: header lines that say how the tenant stands.
    """

    def __init__(
        self, head: Head, tenant: Tenant, message: str, retry_after_s: int, lines: bytes | None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status_of(LIMITED), LIMITED, message
        self.param, self.allow, self.head = None, None, head
        self.close = head.expect_continue  # its body may come or not
        self.tenant = tenant
        self.headers: Headers = (("Retry-After", str(retry_after_s)), *fields_of(lines))


class Tenants:
    """Names the tenant of a request.

    Args:
        header: in which a trusted front names it (lower case), or ``None``.
        keys: tenants by the SHA-256 of their API keys, in hexadecimal.
        keyring: lets requests in by their keys; without it everybody is let in.
    """

    def __init__(
        self,
        header: str | None = None,
        keys: Mapping[str, str] | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        self._header = header
        self.keyring = keyring
        self.set_keys(keys or {})

    def set_keys(self, keys: Mapping[str, str]) -> None:
        """Other keys."""
        self._keys = keys
        self.tells = bool(keys) or self._header is not None
        """Something names tenants here: keys, or a trusted proxy."""

    def let_in(self, head: Head, trusted: bool, now_ns: int) -> Party | None:
        """Whose request it is, where requests need a key; ``None`` where this one needs none.

        A trusted front that names a tenant needs no key.

        Args:
            head: of the request.
            trusted: it came from a front whose headers are believed.
            now_ns: the time.

        Raises:
            RequestError: it has no valid key, or a trusted front names a tenant that cannot be one.
        """
        keyring = self.keyring
        digest = head.api_key_digest()
        if keyring is None or digest is None:
            return None
        if trusted and (named := self._named(head)) is not None:
            return keyring.ring.party(named)
        party = keyring.party(digest, now_ns)
        if party is None:
            raise wrong_key(head)
        return party

    @staticmethod
    def check_limits(head: Head, party: Party, router: RequestRouter, now_ns: int) -> None:
        """Looks at a tenant's limits before the body of its request is read, and takes nothing of them.

        Raises:
            OverLimitError: the tenant is over one, whatever the body says.
        """
        if head.is_local or head.route == ROUTE_NONE:
            return
        over = router.over_limit(party.tenant, now_ns)
        if over is not None:
            message, retry_after_s, lines = over
            raise OverLimitError(head, party.tenant, message, retry_after_s, lines)

    def _named(self, head: Head) -> str | None:
        """The tenant that a trusted front names, if it names one."""
        named = head.header(self._header) if self._header is not None else None
        if named is not None and _TENANT.fullmatch(named) is None:
            raise refusal("bad_tenant", "the header that names the tenant is malformed")
        return named

    def of(self, head: Head, trusted: bool, claims: Claims | None) -> Tenant:
        """The tenant of a request.

        A key that is listed is proof, and so is the word of a trusted front, who may name nobody. Who is
        no such front although tenants are named by fronts, or brings a key that is not listed, is unknown.

        Args:
            head: of the request.
            trusted: it came from a front whose headers are believed.
            claims: of a forward: the origin has found out, and nothing else counts.

        Raises:
            RequestError: a trusted front names a tenant that cannot be one.
        """
        if claims is not None:
            return claims.tenant
        if trusted and (named := self._named(head)) is not None:
            return Tenant(named)
        by_key = self._by_key(head) if self._keys else Tenant.NOBODY
        unnamed = self._header is not None and not trusted
        return Tenant.UNKNOWN if unnamed and by_key.name is None else by_key

    def _by_key(self, head: Head) -> Tenant:
        digest = head.api_key_digest()
        if digest is None or digest == NO_KEY:
            return Tenant.UNKNOWN if head.header("authorization") else Tenant.NOBODY
        name = self._keys.get(digest.hex())
        return Tenant(name) if name is not None else Tenant.UNKNOWN
