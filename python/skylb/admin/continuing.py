"""The admin listener's verb for streams that go on elsewhere: ``PUT /continuing``."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from skylb.admin.refusal import field_of, json_answer

CHOICES = ("on", "off")


class ContinuingService(Protocol):
    """What shows and turns the switch."""

    @property
    def continuing(self) -> bool:
        """Streams go on at another replica where their requests allow it."""

    def set_continuing(self, on: bool, /) -> None:
        """Lets the streams of requests placed from now on go on elsewhere, or not."""


def put_continuing(service: ContinuingService) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler: ``{"continuing": "on"}`` is answered with what holds now, and what held before."""

    async def handle(request: web.Request) -> web.StreamResponse:
        """Lets new streams go on at another replica, or not, until the next start: `{"continuing": "on"}`."""
        asked = field_of(await request.read(), "continuing", "bad_continuing", CHOICES)
        before = service.continuing
        service.set_continuing(asked == "on")
        return json_answer({"continuing": _word(service.continuing), "before": _word(before)})

    return handle


def _word(on: bool) -> str:
    return "on" if on else "off"
