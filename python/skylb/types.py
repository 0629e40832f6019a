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
class Upstream:
    """What requests are sent to: a replica or a peer.

    ``name`` is what logs, metrics and ``/state`` call it, ``authority`` the value of ``Host``.
    """

    id: int
    name: str
    address: Address
    authority: str
    authorization: str | None = None


@dataclass(frozen=True, slots=True)
class Replica(Upstream):
    """One engine endpoint as the data plane needs it; ``name`` is the URL as configured."""

    probe_authorization: str | None = None
    """``Authorization`` of probes and of requests for lists of models."""


@dataclass(frozen=True, slots=True)
class Peer(Upstream):
    """Another balancer, as far as it has said where forwards go."""

    region: str = ""
    incarnation: int = 0
    """Of the run that forwards are signed for."""
