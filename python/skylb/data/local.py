"""Routes that need no replica: probes of the balancer, ``/v1/models`` and ``/workers``."""

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import unquote

from skylb import _core
from skylb._core import Head, Tenant
from skylb.data import answers
from skylb.data.context import Context
from skylb.router import Models

Found = TypeVar("Found")

PROBES = frozenset({_core.ROUTE_HEALTH, _core.ROUTE_PING, _core.ROUTE_READINESS, _core.ROUTE_LIVENESS})
"""What probes ask for: everybody gets the same answer."""

_READY = {
    _core.ROUTE_HEALTH: b'{"status":"ok"}',
    _core.ROUTE_PING: b"",
    _core.ROUTE_READINESS: b'{"status":"ready"}',
}


Answer = tuple[int, bytes, str | None, int | None]
"""Status and body; the error's code where it is one, and after how many seconds to come back."""


def answer(head: Head, context: Context, tenant: Tenant, then: Callable[[Answer], None]) -> None:
    """Calls ``then`` with the answer, now or later.

    Args:
        head: of the request.
        context: shared parts of the data plane.
        tenant: decides what is listed.
        then: gets the answer, once.
    """
    router = context.router
    if head.route == _core.ROUTE_FLEET:
        router.list_loads(lambda loads: then(_listing(head, context, loads, answers.fleet_body)))
    elif head.route == _core.ROUTE_MODELS:
        router.list_models(tenant, lambda models: then(_models(head, context, models)))
    else:
        then(_probe(head, context))


def _probe(head: Head, context: Context) -> Answer:
    if head.route == _core.ROUTE_LIVENESS:
        return 200, b'{"status":"alive"}', None, None
    if head.route == _core.ROUTE_READINESS and context.leaves():
        return _error(
            head, context, "no_replica_ready", "this balancer is stopping, or its region is evacuated"
        )
    if context.router.ready():
        return 200, _READY[head.route], None, None
    return _error(head, context, "no_replica_ready", "no replica is ready")


def _models(head: Head, context: Context, models: Models | None) -> Answer:
    # Names have slashes, and clients escape them or not; escapes are decoded once.
    name = unquote(head.target.removeprefix("/v1/models").removeprefix("/").removesuffix("/"))
    if models is not None and name:
        body = answers.model_body(name, models)
        if body is None:
            return _error(head, context, "model_not_found", f"the model {name!r} does not exist")
        return _bounded(head, context, body)
    return _listing(head, context, models, answers.models_body)


def _listing(head: Head, context: Context, found: Found | None, body_of: Callable[[Found], bytes]) -> Answer:
    if found is None:
        return _error(head, context, "engine_away", "this balancer is recovering from a failure")
    return _bounded(head, context, body_of(found))


def _bounded(head: Head, context: Context, body: bytes) -> Answer:
    if not context.budget.has(len(body)):  # it may wait for a client that does not take it
        return _error(head, context, "overloaded", "too many bytes in memory")
    return 200, body, None, None


def _error(head: Head, context: Context, code: str, message: str) -> Answer:
    context.local_errors[code] += 1
    status, body = answers.status_of(code), answers.error_body(code, message, anthropic=head.anthropic)
    return status, body, code, context.limits.retry_after_s if status == 503 else None
