"""The demo's web server: the live page, its events, its buttons."""

import socket
from collections.abc import Sequence

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from skylb.admin.live import Feed, page
from skylb.admin.origin import foreign
from skylb.errors import SkyLBError
from skylb.listeners import bound_address
from skylb.tools.demo.actions import Action, ActionError, Actions

REQUEST_BYTES_MAX = 4096


class Web:
    """Serves the page on loopback.

    Args:
        feed: the frames.
        actions: what buttons do.
    """

    def __init__(self, feed: Feed, actions: Actions) -> None:
        self._feed = feed
        self._actions = actions
        app = web.Application(middlewares=[_guarded], client_max_size=REQUEST_BYTES_MAX)
        app.router.add_get("/", self._page)
        app.router.add_get("/events", self._feed.serve)
        app.router.add_post("/actions", self._act)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def start(self, sockets: Sequence[socket.socket]) -> str:
        """Serves on listening sockets; the page's URL."""
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock).start()
        return f"http://{bound_address(sockets[0])}/"

    async def close(self) -> None:
        """Ends streams and stops serving."""
        self._feed.close()
        await self._runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        del request
        return page("skylb.tools.demo")

    async def _act(self, request: web.Request) -> web.Response:
        try:
            done = await self._actions.perform(msgspec.json.decode(await request.read(), type=Action))
        except (msgspec.DecodeError, ActionError) as error:
            return _answer(400, str(error))
        except SkyLBError as error:
            self._actions.say(str(error))
            return _answer(500, str(error))
        return _answer(200, done)


def _answer(status: int, text: str) -> web.Response:
    body = msgspec.json.encode({"done" if status == 200 else "error": text})
    return web.Response(body=body, status=status, content_type="application/json")


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only for pages of this very origin, under a loopback name: a button kills processes."""
    if foreign(request):
        return _answer(403, "not for other web pages, and only under a loopback name")
    if request.method == "POST" and request.content_type != "application/json":
        return _answer(415, "expected application/json")
    return await handler(request)
