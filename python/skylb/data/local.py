"""Routes that need no replica: probes of the balancer, ``/v1/models`` and ``/workers``."""

from urllib.parse import unquote

from skylb import _core
from skylb._core import Head, Tenant
from skylb.data import answers
from skylb.data.context import Context

PROBES = frozenset({_core.ROUTE_HEALTH, _core.ROUTE_PING, _core.ROUTE_READINESS, _core.ROUTE_LIVENESS})
"""What probes ask for: everybody gets the same answer."""

_READY = {
    _core.ROUTE_HEALTH: b'{"status":"ok"}',
    _core.ROUTE_PING: b"",
    _core.ROUTE_READINESS: b'{"status":"ready"}',
}


def answer(head: Head, context: Context, tenant: Tenant) -> tuple[int, bytes, str | None]:
    """Status, body, and the error's code where it is one; ``tenant`` decides what is listed."""
    router = context.router
    if head.route == _core.ROUTE_LIVENESS:
        return 200, b'{"status":"alive"}', None
    if head.route == _core.ROUTE_READINESS and context.leaves():
        return _error(head, "no_replica_ready", "this balancer is stopping, or its region is evacuated")
    if head.route in _READY:
        if router.ready():
            return 200, _READY[head.route], None
        return _error(head, "no_replica_ready", "no replica is ready")
    if head.route == _core.ROUTE_FLEET:
        return _bounded(head, context, answers.fleet_body(router.gauges()))
    models = router.models(tenant)
    # Names have slashes, and clients escape them or not; escapes are decoded once.
    name = unquote(head.target.removeprefix("/v1/models").removeprefix("/").removesuffix("/"))
    body = answers.model_body(name, models) if name else answers.models_body(models)
    if body is None:
        return _error(head, "model_not_found", f"the model {name!r} does not exist")
    return _bounded(head, context, body)


def _bounded(head: Head, context: Context, body: bytes) -> tuple[int, bytes, str | None]:
    if not context.budget.has(len(body)):  # it may wait for a client that does not take it
        return _error(head, "overloaded", "too many bytes in memory")
    return 200, body, None


def _error(head: Head, code: str, message: str) -> tuple[int, bytes, str]:
    return answers.status_of(code), answers.error_body(code, message, anthropic=head.anthropic), code
