"""Live pages: one answer with all a page needs, and the Server-Sent Events that it draws.

A *frame* is what a page shows at one moment, a JSON object. `skylb.admin.frame` says what is in a balancer's,
`skylb.tools.demo.frame` what is in the demo's. A page is served with a policy that lets it load nothing from
elsewhere and run no script but its own.
"""

import asyncio
import base64
import contextlib
import hashlib
from collections import deque
from functools import cache
from importlib import resources

import orjson
from aiohttp import web

from skylb.admin.refusal import Refusal

VIEWERS_MAX = 32
"""Open pages; more get a 503."""

PAST_KEPT = 600
"""What a page is given when it opens, so that its charts begin in the past: so many pieces."""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; connect-src 'self';"
    " img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Content Security Policy, level 3; bars have their widths in style attributes."""

FRESH = {"Cache-Control": "no-store"}


@cache
def _page(package: str) -> tuple[str, dict[str, str]]:
    """A page and its headers."""
    html = (resources.files(package) / "page.html").read_text("utf-8")
    style, script = (
        "".join(
            (resources.files(of) / f"{name}.{kind}").read_text("utf-8")
            for of, name in (("skylb.admin", "base"), (package, "page"))
        )
        for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    headers = {**FRESH, "Content-Security-Policy": POLICY.format(digest), "X-Content-Type-Options": "nosniff"}
    return html.replace("@STYLE@", style).replace("@SCRIPT@", script), headers


def page(package: str) -> web.Response:
    """The page of a package: its ``page.html``, with ``base`` and ``page`` as style and script."""
    html, headers = _page(package)
    return web.Response(text=html, content_type="text/html", headers=headers)


class Feed:
    """Frames, for every page that is open."""

    def __init__(self) -> None:
        self._past: deque[bytes] = deque(maxlen=PAST_KEPT)
        self._last = b""
        self._changed = asyncio.Event()
        self._closed = False
        self._watched = asyncio.Event()
        self._viewers = 0

    @property
    def is_watched(self) -> bool:
        """Whether a page is open."""
        return self._viewers > 0

    def publish(self, frame: object) -> None:
        """Shows a frame, fit for orjson, to the pages that are open."""
        self._last = orjson.dumps(frame)
        self._wake()

    def keep(self, piece: object) -> None:
        """Keeps a piece of the past, fit for orjson, for pages that open later."""
        self._past.append(orjson.dumps(piece))

    async def pause(self, seconds: float) -> None:
        """Sleeps, but not on when the first page opens."""
        if self._viewers:
            await asyncio.sleep(seconds)
            return
        self._last = b""  # it would be old
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._watched.wait()

    def close(self) -> None:
        """Ends every stream."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The live page's stream: the past in one event, then each frame."""
        if self._viewers >= VIEWERS_MAX:
            raise Refusal("overloaded", f"{VIEWERS_MAX} pages are open", {"Retry-After": "5"})
        answer = web.StreamResponse(headers={**FRESH, "Content-Type": "text/event-stream"})
        await answer.prepare(request)
        self._viewers += 1
        self._watched.set()
        try:
            await answer.write(b"event: past\ndata: [" + b",".join(self._past) + b"]\n\n")
            sent = b""
            while not self._closed:
                changed = self._changed
                if self._last is not sent and self._last:
                    sent = self._last
                    await answer.write(b"data: " + sent + b"\n\n")
                await changed.wait()
        except ConnectionError:
            return answer  # the page was closed
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._watched.clear()
        return answer
