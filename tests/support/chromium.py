"""A headless Chromium, told what to do over its DevTools protocol (CDP)."""

import asyncio
import base64
import itertools
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.support.processes import Child

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-dev-shm-usage", "--window-size=1280,1150",
    "--remote-debugging-port=0",
)  # fmt: skip
START_S = 30.0
PATIENCE_S = 30.0


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        """Exceptions of scripts, and what the console calls an error."""

    async def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=PATIENCE_S)
            if message.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.complaints.append(message["params"]["entry"]["text"])
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def value(self, expression: str) -> Any:
        """What an expression is worth."""
        result = await self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        """Waits until an expression is true."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self.value(expression):  # noqa: ASYNC110 - it has no event to wait for
                    await asyncio.sleep(0.1)
        except TimeoutError:
            text = await self.value("document.body?.innerText")
            message = f"{expression} did not come true; the page says:\n{text}"
            raise AssertionError(message) from None

    async def click(self, selector: str) -> None:
        """Presses the left button over the middle of an element, as a hand would."""
        box = await self.value(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            " if (!node || node.hidden) return null; node.scrollIntoView({block: 'center'});"
            " const box = node.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        assert box is not None, f"{selector} is not there"
        for kind in ("mousePressed", "mouseReleased"):
            await self.tell(
                "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1
            )

    async def screenshot(self) -> bytes:
        """The page as it looks, a PNG."""
        shot = await self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def chromium(url: str) -> AsyncIterator[Page]:
    """A page that shows ``url``."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="skylb-test-chromium-", ignore_cleanup_errors=True) as profile:
        child = Child([CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"])
        try:
            at = child.require(
                lambda: re.search(r"DevTools listening on ws://([^/]+)/", child.text()),
                timeout_s=START_S,
                what="DevTools",
            )
            assert at is not None
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{at[1]}/json/list") as answer:
                    tabs = await answer.json()
                tab = next(tab for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=64 << 20) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log"):
                        await page.tell(f"{domain}.enable")
                    await page.tell("Page.navigate", url=url)
                    await page.until("document.readyState === 'complete'")
                    yield page
        finally:
            child.kill()
