"""Small clients for the engine tests."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=None)
"""None: an engine beside other work takes its time, and each test as a whole has a limit."""


def chat(messages: list[dict[str, str]], *, max_tokens: int, stream: bool = False) -> dict[str, Any]:
    """A chat request that runs to ``max_tokens``."""
    body: dict[str, Any] = {
        "model": "tiny",
        "messages": messages,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


@dataclass
class Batch:
    """Outcome of many requests at once."""

    answers: list[dict[str, Any]]
    statuses: list[int]
    wall_s: float


async def post_all(url: str, path: str, bodies: list[dict[str, Any]], *, concurrency: int) -> Batch:
    """Sends all bodies, at most ``concurrency`` at a time."""
    gate = asyncio.Semaphore(concurrency)
    async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            async with gate, session.post(f"{url}{path}", json=body) as answer:
                return answer.status, json.loads(await answer.read())

        started = time.monotonic()
        results = await asyncio.gather(*map(post, bodies))
        wall_s = time.monotonic() - started
    return Batch([answer for _, answer in results], [status for status, _ in results], wall_s)
