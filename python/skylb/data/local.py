"""Routes that need no replica: ``/health``, ``/ping`` and ``/v1/models``."""

from urllib.parse import unquote

from skylb import _core
from skylb._core import Head, Tenant
from skylb.data import answers
from skylb.data.context import Context


def answer(head: Head, context: Context, tenant: Tenant) -> tuple[int, bytes, str | None]:
    """Status, body, and the error's code where it is one; ``tenant`` decides what is listed."""
    router = context.router
    if head.route in (_core.ROUTE_HEALTH, _core.ROUTE_PING):
        if router.ready():
            return 200, b"" if head.route == _core.ROUTE_PING else b'{"status":"ok"}', None
        return _error(head, "no_replica_ready", "no replica is ready")
    models = router.models(tenant)
    # Names have slashes, and clients escape them or not; escapes are decoded once.
    name = unquote(head.target.removeprefix("/v1/models").removeprefix("/").removesuffix("/"))
    body = answers.model_body(name, models) if name else answers.models_body(models)
    if body is None:
        return _error(head, "model_not_found", f"the model {name!r} does not exist")
    if not context.budget.has(len(body)):  # it may wait for a client that does not take it
        return _error(head, "overloaded", "too many bytes in memory")
    return 200, body, None


def _error(head: Head, code: str, message: str) -> tuple[int, bytes, str]:
    return answers.status_of(code), answers.error_body(code, message, anthropic=head.anthropic), code
