"""The head of what is sent to a replica or a peer."""

from typing import Protocol

from skylb._core import Head, Request
from skylb.data.context import Context
from skylb.data.leg import Leg
from skylb.data.phases import Client
from skylb.mesh.signing import sha256
from skylb.types import Peer


class Sending(Protocol):
    """A request on its way."""

    body_digest: str | None
    """SHA-256 of the body as it is sent, where it is known."""
    client: Client
    context: Context
    head: Head
    request: Request


def head_for(sending: Sending, leg: Leg, body: bytes, length: int, path: str | None = None) -> bytes:
    """The head, built anew; one for a peer is signed.

    Args:
        sending: what is sent.
        leg: where it goes.
        body: what the signature covers.
        length: bytes that are sent: to a replica perhaps more than the body.
        path: another one than the request's. The known digest is not that of its body.
    """
    context, request, target = sending.context, sending.request, leg.target
    forward, crossing = leg.forward, context.crossing
    drops = context.tenants.keyring is not None
    head = request.upstream(target.authority, target.authorization, length, drops, path)
    if forward is None or crossing is None or not isinstance(target, Peer):
        return head
    digest = sending.body_digest if path is None else None
    trusted = sending.client.trusted
    return crossing.sign(head, forward, target, sending.head, request.tenant, trusted, digest or sha256(body))
