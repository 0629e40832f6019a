"""What is given up: requests for a reason of this process, and attempts at replicas that show no life."""

from typing import TYPE_CHECKING

from skylb import _core
from skylb.clock import monotonic_ns
from skylb.data.phases import Phase

if TYPE_CHECKING:
    from skylb.data.proxy import Exchange


def give_up(exchange: "Exchange", code: str, message: str) -> None:
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


def withdraw(exchange: "Exchange") -> None:
    """Gives up an attempt that has had no first byte; the request is tried elsewhere."""
    connecting, exchange.connecting = exchange.connecting, None
    if connecting is not None:
        connecting.cancel()
    if exchange.phase in {Phase.CONNECT, Phase.WAIT}:
        exchange.fail(_core.FAILURE_WITHDRAWN, sent=True)
