"""Clients that leave real engines."""

import asyncio
import time

import aiohttp

from tests.engines.load import TIMEOUT, chat
from tests.engines.vllm import Vllm, children
from tests.support.processes import balancer, eventually

LONG = 2000


async def leave_mid_stream(url: str, count: int) -> None:
    """Starts streams, reads one event of each, and cuts them."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        for index in range(count):
            body = chat([{"role": "user", "content": f"{index} the fox"}], max_tokens=LONG, stream=True)
            answer = await session.post(f"{url}/v1/chat/completions", json=body)
            await answer.content.readuntil(b"\n\n")
            answer.close()


def test_a_client_that_leaves_mid_stream_frees_the_engine_within_a_second(pair: list[Vllm]) -> None:
    with balancer(*(server.url for server in pair)) as front:
        asyncio.run(leave_mid_stream(front.url, 6))
        left = time.monotonic()
        eventually(lambda: all(s.running == 0 for s in pair), what="running back to 0", of=children(pair))
        print(f"running back to 0 after {time.monotonic() - left:.2f} s")
        assert front.metric("skylb_replica_in_flight") == 0
