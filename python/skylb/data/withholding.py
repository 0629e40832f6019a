"""Answers that a client does not get: failures that another replica may answer better."""

from http import HTTPStatus

from skylb import _core
from skylb._core import Relay, Request
from skylb.clock import monotonic_ns
from skylb.data.context import Context
from skylb.data.failures import failure_of
from skylb.data.leg import Leg


def withheld(leg: Leg, relay: Relay, request: Request, context: Context) -> int | None:
    """The failure that an answer is which another replica may answer better; ``None``: it is the client's."""
    if leg.forward is not None and relay.refused is not None:
        return _core.FAILURE_REFUSED
    status = relay.verdict
    given = leg.target.authorization is not None
    keyed = given or context.tenants.keyring is not None  # then no replica gets a client's key
    failure = failure_of(status, request, context.router, keyed=keyed)
    if failure == _core.FAILURE_UNAUTHORIZED:
        context.key_refusals.noted(leg.target.name, monotonic_ns(), given=given)
    return None if status == HTTPStatus.TOO_MANY_REQUESTS and leg.forward is not None else failure
