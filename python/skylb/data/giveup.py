"""What is given up: requests for a reason of this process, and attempts at replicas that show no life."""

import asyncio
from typing import Protocol

from skylb import _core
from skylb._core import Relay
from skylb.clock import monotonic_ns
from skylb.data.context import Context
from skylb.data.phases import Phase
from skylb.data.relay import Response


class Ongoing(Protocol):
    """A request under way, as far as it can be given up."""

    context: Context
    connecting: asyncio.Task[None] | None
    id: int
    phase: Phase
    response: Response | None

    def drop_withheld(self) -> None:
        """An error response that was kept back is not needed."""

    def cut(self, relay: Relay, code: str, message: str) -> None:
        """Ends a response that has begun."""

    def leave_hold(self) -> None:
        """Adds up the time in the hold."""

    def answer_error(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """Answers with a refusal."""

    def fail(self, failure: int, *, sent: bool) -> None:
        """The attempt failed."""


def give_up(exchange: Ongoing, code: str, message: str) -> None:
    """Ends a request: a stream by its error event, one that has no byte yet by 503 with ``Retry-After``."""
    connecting, exchange.connecting = exchange.connecting, None
    if connecting is not None:
        connecting.cancel()
    request_id, exchange.id = exchange.id, 0
    if request_id:
        exchange.context.router.complete(request_id, _core.OUTCOME_CLIENT_LEFT, None, monotonic_ns())
    response, exchange.response = exchange.response, None
    if response is not None:
        response.discard()
    exchange.drop_withheld()
    if exchange.phase is Phase.RELAY and response is not None:
        exchange.cut(response.relay, code, message)
        return
    if exchange.phase is Phase.HOLD:
        exchange.leave_hold()
    exchange.answer_error(503, code, message, retry_after_s=exchange.context.limits.retry_after_s)


def withdraw(exchange: Ongoing) -> None:
    """Gives up an attempt that has had no first byte; the request is tried elsewhere."""
    connecting, exchange.connecting = exchange.connecting, None
    if connecting is not None:
        connecting.cancel()
    if exchange.phase in {Phase.CONNECT, Phase.WAIT}:
        exchange.fail(_core.FAILURE_WITHDRAWN, sent=True)
