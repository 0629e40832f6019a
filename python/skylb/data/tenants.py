"""The tenant of a request: by its API key, or by a header of a trusted proxy. Residency depends on it."""

import hashlib
import re
from collections.abc import Mapping

from skylb._core import Head, Tenant
from skylb.data.answers import refusal
from skylb.mesh.signing import TENANT_LEN_MAX, Claims

_TENANT = re.compile(rf"[\x21-\x7e]{{1,{TENANT_LEN_MAX}}}", re.ASCII)


class Tenants:
    """Names the tenant of a request.

    Args:
        header: in which a trusted front names it (lower case), or ``None``.
        keys: tenants by the SHA-256 of their API keys, in hexadecimal.
    """

    def __init__(self, header: str | None = None, keys: Mapping[str, str] | None = None) -> None:
        self._header = header
        self.set_keys(keys or {})

    def set_keys(self, keys: Mapping[str, str]) -> None:
        """Other keys."""
        self._keys = keys
        self.tells = bool(keys) or self._header is not None
        """Something names tenants here: keys, or a trusted proxy."""

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
        if self._header is not None and trusted:
            named = head.header(self._header)
            if named is not None:
                if _TENANT.fullmatch(named) is None:
                    raise refusal("bad_tenant", "the header that names the tenant is malformed")
                return Tenant(named)
        by_key = self._by_key(head) if self._keys else Tenant.NOBODY
        unnamed = self._header is not None and not trusted
        return Tenant.UNKNOWN if unnamed and by_key.name is None else by_key

    def _by_key(self, head: Head) -> Tenant:
        authorization = head.header("authorization")
        if authorization is not None:
            scheme, _, key = authorization.partition(" ")
            key = key.strip() if scheme.lower() == "bearer" else ""
        else:
            key = head.header("x-api-key") or ""
        if not key:
            return Tenant.UNKNOWN if authorization else Tenant.NOBODY
        name = self._keys.get(hashlib.sha256(key.encode("latin-1")).hexdigest())
        return Tenant(name) if name is not None else Tenant.UNKNOWN
