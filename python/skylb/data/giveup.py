"""How SkyLB gives up a request that it cannot finish, and an attempt at a replica that shows no life."""

from typing import Protocol

from skylb import _core
from skylb._core import Relay, Request
from skylb.clock import monotonic_ns
from skylb.data.context import Context
from skylb.data.continuing import may_be_left
from skylb.data.leg import Leg
from skylb.data.phases import CONNECT, RELAY, WAIT, Client, Phase


class Ongoing(Protocol):
    """A request under way, as far as it can be given up."""

    client: Client
    context: Context
    in_engine: bool
    legs: list[Leg]
    phase: Phase
    request: Request

    def cut(self, relay: Relay, code: str, message: str) -> None:
        """Ends a response that has begun."""

    def leave_hold(self) -> None:
        """Adds up the time in the hold."""

    def answer_error(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """Answers with a refusal."""

    def fail(self, failure: int, *, sent: bool, status: int = 0) -> None:
        """The attempt failed."""


def give_up(exchange: Ongoing, code: str, message: str) -> None:
    """Ends a request: a stream by its error event, one that has no byte yet by 503 with ``Retry-After``.

    The reason lies in this process: it stops, or lacks descriptors. So the attempt must not count against the
    replica.
    """
    if exchange.in_engine:
        exchange.in_engine = False
        exchange.context.router.complete(exchange.request, _core.OUTCOME_GIVEN_UP, None, monotonic_ns())
    leg = exchange.legs[-1] if exchange.legs else None
    if leg is not None:
        leg.discard()
    if exchange.phase is RELAY and leg is not None:
        exchange.cut(leg.relay, code, message)
        return
    exchange.leave_hold()
    exchange.answer_error(code, message, retry_after_s=exchange.context.limits.retry_after_s)


def withdraw(exchange: Ongoing) -> None:
    """Gives up an attempt: it is tried elsewhere. A stream that cannot go on elsewhere stays where it is."""
    if exchange.phase is RELAY:
        goes_on = may_be_left(exchange.context, exchange.request, exchange.legs[-1])
    else:
        goes_on = exchange.phase in {CONNECT, WAIT}
        if goes_on and exchange.client.claims is not None:
            exchange.request.not_attempted()  # its origin is to try elsewhere, and must not blame us
    if goes_on:
        exchange.fail(_core.FAILURE_WITHDRAWN, sent=True)
