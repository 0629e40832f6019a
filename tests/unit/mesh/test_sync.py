"""Hearing a peer: who is taken for silent, and who is not."""

import asyncio
import time
from typing import Any, cast

import aiohttp
import pytest

from skylb.clock import STOOD_STILL_S
from skylb.mesh.sync import Closed, Socket, receive

WAIT_S = 0.01


class Quiet:
    """Brings one message after so many waits; the process stands still during the first of them."""

    def __init__(self, waits: int, *, still_s: float) -> None:
        self.waits = waits
        self.still_s = still_s

    async def receive(self, timeout_s: float) -> Any:
        """As aiohttp's."""
        if self.waits == 0:
            return aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, b"said meanwhile", None)
        self.waits -= 1
        time.sleep(self.still_s)  # noqa: ASYNC251 - the loop stands still
        self.still_s = 0.0
        await asyncio.sleep(timeout_s)
        raise TimeoutError

    def heard(self) -> bytes:
        """What is received."""
        return asyncio.run(receive(cast(Socket, self), WAIT_S))


def test_what_came_while_the_process_stood_still_is_heard() -> None:
    assert Quiet(1, still_s=STOOD_STILL_S + 0.1).heard() == b"said meanwhile"


@pytest.mark.parametrize("still_s", [0.0, STOOD_STILL_S + 0.1])
def test_who_says_nothing_is_silent(still_s: float) -> None:
    with pytest.raises(Closed, match="silent"):
        Quiet(2, still_s=still_s).heard()
