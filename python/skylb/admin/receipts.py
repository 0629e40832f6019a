"""Why requests went where they went: ``GET /requests`` and ``GET /requests/ID``."""

import re
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from aiohttp import web

from skylb.admin.refusal import Refusal, json_answer
from skylb.clock import unix_offset_ns

LISTED = 100
"""Requests that a listing has unless it is asked for more."""

LISTED_MAX = 1_000

_LIMIT = re.compile("[0-9]{1,9}", re.ASCII)
"""What int() takes: it refuses thousands of digits."""


class Source(Protocol):
    """What has the receipts."""

    def receipt(self, request_id: str) -> bytes | None:
        """A receipt as JSON; ``None``: none is kept of this request."""

    def receipts(self, len_max: int) -> bytes | None:
        """The newest requests with receipts, as JSON; ``None``: receipts are off."""


class Receipts:
    """The handlers.

    Args:
        source: what has the receipts.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        app.router.add_get("/requests", self._list)
        app.router.add_get("/requests/{request:.+}", self._one)

    async def _list(self, request: web.Request) -> web.Response:
        """The newest requests that have receipts, and how many are kept. `limit=N` says how many to list."""
        if unknown := sorted(set(request.query) - {"limit"}):
            raise Refusal("bad_query", f"{unknown[0]}: expected limit")
        text = request.query.get("limit", str(LISTED))
        if _LIMIT.fullmatch(text) is None or not 1 <= int(text) <= LISTED_MAX:
            shown = text if len(text) <= 40 else f"{text[:40]}..."
            raise Refusal("bad_query", f"limit {shown!r}: expected an integer from 1 to {LISTED_MAX:,}")
        listing = self._listing(int(text))
        for row in listing["requests"]:
            row["submitted"] = moment(row["submitted_ns"])
        listing["since"] = moment(listing["since_ns"]) if listing["since_ns"] is not None else None
        return json_answer(listing)

    async def _one(self, request: web.Request) -> web.Response:
        """Why a request went where it went ([EXPLAIN.md](EXPLAIN.md)); the id is that of `X-Request-Id`."""
        name = request.match_info["request"]
        found = self._source.receipt(name)
        if found is None:
            raise Refusal("no_receipt", self._missing(name))
        receipt: dict[str, Any] = orjson.loads(found)
        return json_answer({"submitted": moment(receipt["submitted_ns"]), **receipt})

    def _missing(self, name: str) -> str:
        listing = self._listing(1)
        kept, most = listing["kept"], listing["kept_max"]
        if not kept:
            return f"no receipt of request {name!r}: no request has come since the start"
        since = moment(listing["since_ns"])
        return (
            f"no receipt of request {name!r}: {kept:,} of {most:,} are kept, the oldest from {since}; "
            "a request that was refused for its head or body has none"
        )

    def _listing(self, len_max: int) -> dict[str, Any]:
        found = self._source.receipts(len_max)
        if found is None:
            raise Refusal("no_receipt", "receipts are off: start SkyLB with --receipts=N")
        listing: dict[str, Any] = orjson.loads(found)
        return listing


def moment(monotonic_ns: int) -> str:
    """A moment of the monotonic clock, as people write it: to the millisecond, in UTC."""
    at = datetime.fromtimestamp((monotonic_ns + unix_offset_ns()) / 1e9, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
