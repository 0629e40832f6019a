"""The live page: one answer with all it needs, and the Server-Sent Events that it draws.

A *frame* is what the page shows at one moment, a JSON object; `skylb.admin.frame` says what is in it.
The page is served with a policy that lets it load nothing from elsewhere and run no script but its own.
"""

import asyncio
import base64
import hashlib
from collections import deque
from functools import cache
from importlib import resources

import orjson
from aiohttp import web

from skylb.admin.refusal import Refusal

VIEWERS_MAX = 32
"""Open pages; more get a 503."""

FRAMES_KEPT = 600
"""Frames that a page is given when it opens, thinned by the caller: its charts begin in the past."""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; connect-src 'self';"
    " img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Content Security Policy, level 3; bars have their widths in style attributes."""

FRESH = {"Cache-Control": "no-store"}


@cache
def _page() -> tuple[str, dict[str, str]]:
    """The page and its headers."""
    html, style, script = (
        (resources.files("skylb.admin") / f"page.{part}").read_text("utf-8") for part in ("html", "css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    headers = {**FRESH, "Content-Security-Policy": POLICY.format(digest), "X-Content-Type-Options": "nosniff"}
    return html.replace("@STYLE@", style).replace("@SCRIPT@", script), headers


def page() -> web.Response:
    """The page."""
    html, headers = _page()
    return web.Response(text=html, content_type="text/html", headers=headers)


class Feed:
    """Frames, for every page that is open."""

    def __init__(self) -> None:
        self._past: deque[bytes] = deque(maxlen=FRAMES_KEPT)
        self._last = b""
        self._changed = asyncio.Event()
        self._closed = False
        self._watched = asyncio.Event()
        self._viewers = 0

    def publish(self, frame: object, *, keep: bool) -> None:
        """Shows a frame.

        Args:
            frame: fit for orjson.
            keep: whether pages that open later get it as well.
        """
        self._last = orjson.dumps(frame)
        if keep:
            self._past.append(self._last)
        self._wake()

    async def watched(self) -> None:
        """Waits until a page is open."""
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
