"""What would be decided about a request now: ``POST /route``. Nothing is sent to a replica."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import orjson
from aiohttp import web

from skylb import _core
from skylb._core import RequestError
from skylb.admin.refusal import Refusal, json_answer
from skylb.router import Router

AT_ONCE_MAX = 4
"""Bodies in memory for rehearsals; a further one gets 503."""

SMALL_BODY_BYTES = 256 << 10
"""A larger body is read by a thread, as on the way of real requests."""

PATHS = ((b'"messages"', "/v1/chat/completions"), (b'"prompt"', "/v1/completions"))
"""The path that is meant without one: the first whose field the body has, else the first of all."""

CLASSES = ("high", "normal", "low")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the query says of the request.

    Attributes:
        path: of the API.
        tenant: whose request it is.
        session: names its session, as ``--key-header`` does.
        requested_class: its class, as a trusted proxy names it.
    """

    path: str | None = None
    tenant: str | None = None
    session: str | None = None
    requested_class: str | None = None

    @classmethod
    def of(cls, request: web.Request) -> "Asked":
        """From the query of a request.

        Raises:
            Refusal: a value is none.
        """
        query = request.query
        unknown = sorted(set(query) - {"path", "tenant", "session", "class"})
        if unknown:
            raise Refusal("bad_query", f"{unknown[0]}: expected path, tenant, session or class")
        named = query.get("class")
        if named is not None and named not in CLASSES:
            raise Refusal("bad_query", f"class {named!r}: expected one of {', '.join(CLASSES)}")
        for name in ("path", "session"):
            text = query.get(name)
            if text is not None and not (text.isascii() and text.isprintable() and " " not in text and text):
                raise Refusal("bad_query", f"{name}: expected visible ASCII characters")
        return cls(
            path=query.get("path"),
            tenant=query.get("tenant"),
            session=query.get("session"),
            requested_class=named,
        )


class Source(Protocol):
    """What decides."""

    @property
    def body_bytes_max(self) -> int:
        """The largest body."""

    async def rehearse(self, asked: Asked, body: bytes) -> bytes:
        """What would be decided now, in JSON.

        Raises:
            RequestError: the request is refused.
        """


class Rehearsal:
    """The handler.

    Args:
        source: what decides.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at_once = 0

    def add_to(self, app: web.Application) -> None:
        """Adds the route."""
        app.router.add_post("/route", self._route)

    async def _route(self, request: web.Request) -> web.Response:
        """What would be decided now about this request; nothing is sent ([EXPLAIN.md](EXPLAIN.md))."""
        asked = Asked.of(request)
        if self._at_once == AT_ONCE_MAX:
            raise Refusal("overloaded", f"{AT_ONCE_MAX} bodies are being read", {"Retry-After": "1"})
        self._at_once += 1
        try:
            said = await self._source.rehearse(asked, await self._body(request))
        except RequestError as error:
            raise Refusal(error.code, error.message) from error
        finally:
            self._at_once -= 1
        return json_answer(orjson.Fragment(said))

    async def _body(self, request: web.Request) -> bytes:
        """The body, which may be larger than those of the other paths."""
        most = self._source.body_bytes_max
        parts: list[bytes] = []
        length = 0
        async for part in request.content.iter_any():
            parts.append(part)
            length += len(part)
            if max(length, request.content_length or 0) > most:
                raise Refusal("body_too_large", f"expected a body of {most:,} bytes at most")
        return b"".join(parts)


async def rehearse(router: Router, asked: Asked, body: bytes) -> bytes:
    """What a router would decide now; a large body is read beside the event loop.

    Raises:
        RequestError: the request is refused.
    """
    large = len(body) > SMALL_BODY_BYTES
    path = asked.path
    if path is None:
        path = await asyncio.to_thread(_meant, body) if large else _meant(body)
    lines = [f"POST {path} HTTP/1.1", "Host: skylb", "Content-Type: application/json"]
    lines.append(f"Content-Length: {len(body)}")
    if asked.session is not None:
        lines.append(f"X-Session: {asked.session}")
    if asked.requested_class is not None:
        lines.append(f"X-Class: {asked.requested_class}")
    parser = _core.HeadParser("x-session", False, "x-class")
    head = parser.parse(("\r\n".join(lines) + "\r\n\r\n").encode())
    if head is None or head.is_local:
        raise Refusal("bad_query", f"path {path!r}: expected a path that replicas serve")
    front = asked.requested_class is not None
    sender = _core.Sender(None, "http", False, front)
    request = _core.Request(head, sender, _core.RequestIds("rehearsal"), 0, len(body))
    if asked.tenant is not None:
        request.tenant = _core.Tenant(asked.tenant)
    if not large:
        return router.rehearse(request, body)
    tenant = request.tenant
    known = (front, router.only_model(), tenant, router.highest_class(tenant))
    scanned = await asyncio.to_thread(router.scanner().scan, head, body, *known)
    return router.rehearse(request, scanned)


def _meant(body: bytes) -> str:
    """The path of an API whose requests have such bodies."""
    return next((path for field, path in PATHS if field in body), PATHS[0][1])
