"""Shared vocabulary of the two planes. Imports nothing of ours."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Where to dial: resolved, so that the data plane never resolves a name.

    ``host`` is an IP address or, for ``unix``, the socket's path; ``port`` is 0 then.
    """

    host: str
    port: int
    unix: bool = False
    tls: bool = False
    server_name: str | None = None
    """Name to verify in the certificate and to send as SNI, for TLS."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine endpoint as the data plane needs it.

    ``name`` is the URL as configured (logs, metrics, ``/state``), ``authority`` the value of ``Host``.
    """

    id: int
    name: str
    address: Address
    authority: str
    authorization: str | None = None
