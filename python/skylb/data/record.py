"""What is counted and logged of a request that ended."""

from typing import Protocol

from skylb._core import Digest, Forward, Head, Relay
from skylb.data.context import Context
from skylb.data.phases import Client
from skylb.types import Peer, Replica, Whose


class Ended(Protocol):
    """What is told of an exchange."""

    attempts: int
    bytes_in: int
    client: Client
    context: Context
    digest: Digest | None
    first_byte_ns: int
    forward: Forward | None
    head: Head
    held_ns: int
    match_blocks: int
    predicted_ttft_ns: int | None
    request_id: str
    start_ns: int
    target: Replica | Peer | None
    whose: Whose


def record(ended: Ended, relay: Relay | None, status: int, code: str | None, now_ns: int) -> None:
    """Hands one request to metrics and access log.

    Args:
        ended: the exchange.
        relay: of the response, where there was one.
        status: that the client has seen, 499 where it left.
        code: of the error, if it was one.
        now_ns: the end.
    """
    target, claims = ended.target, ended.client.claims
    name = target.name if target is not None else None
    origin = claims.origin if claims is not None else None
    ended.context.recorder.complete(
        ended.head,
        ended.digest,
        relay,
        ended.request_id,
        ended.whose.tenant,
        ended.client.peer,
        status,
        code,
        name if ended.forward is None else None,
        origin if ended.forward is None else name,
        ended.attempts,
        ended.match_blocks,
        ended.predicted_ttft_ns,
        ended.start_ns,
        ended.held_ns,
        ended.first_byte_ns,
        now_ns,
        ended.bytes_in,
    )
