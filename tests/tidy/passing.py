"""The tables of documents that come from those of the core."""

from collections.abc import Callable

from skylb import _core
from tests.tidy import api

FATES = {
    "passed": "passes",
    "trusted only": "passes from trusted senders, else left out",
    "dropped": "left out",
    "refused": "passes from trusted senders, else 400 `untrusted_field`",
    "zeroed": "passes where it is believed, else the engine is sent 0",
}


def _table(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *body]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _routes() -> str:
    body = [
        (f"`{path}`", methods, kind, served, about) for path, methods, kind, served, about in _core.routes()
    ]
    return _table(("path", "methods", "body", "answered by", "what it is"), body)


def _headers() -> str:
    body = [
        (f"`{name}*`" if name.endswith("-") else f"`{name}`", FATES[fate], effect)
        for name, fate, effect in _core.steering_headers()
    ]
    return _table(("header", "what becomes of it", "which server reads it, and what it does"), body)


def _fields() -> str:
    body = [(f"`{name}`", FATES[fate], effect) for name, fate, effect in _core.steering_fields()]
    return _table(("field", "what becomes of it", "which server reads it, and what it does"), body)


def _errors() -> str:
    body = [
        (str(status) if status else "in a stream", f"`{code}`", side, retry, about)
        for code, status, side, retry, about in _core.errors()
    ]
    return _table(("status", "code", "side", "send again", "meaning"), body)


def _policies() -> str:
    body = [(f"`{name}`", rule, source) for name, rule, source in _core.policies()]
    return _table(("policy", "rule", "source"), body)


def _admin() -> str:
    return _table(("request", "who may ask", "answer"), list(api.admin_routes()))


def _named_headers() -> str:
    return _table(("setting", "the header that it names"), list(api.header_settings()))


TABLES: dict[str, Callable[[], str]] = {
    "routes": _routes,
    "headers": _headers,
    "fields": _fields,
    "policies": _policies,
    "errors": _errors,
    "admin": _admin,
    "named_headers": _named_headers,
}
