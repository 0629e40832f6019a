"""Selective pushing in front of real engines."""

import asyncio
import threading
import time

import aiohttp

from tests.engines.load import TIMEOUT, chat, post_all
from tests.engines.vllm import Vllm, children
from tests.support.processes import balancer, eventually

CLIENTS = 40
LONG = 2000

PATIENT = ["--hold-timeout-s", "3600", "--engine-blind-outstanding-max", "2", "--engine-wedged-s", "3600"]
"""Beside other work an engine may stand still for long. While its page is late, no more may be there than its
batch. What was pushed to it stays: an engine that stands still does not see that a request is taken back."""


class Watch:
    """Reads ``num_requests_waiting`` of each server again and again; keeps the highest."""

    def __init__(self, servers: list[Vllm]) -> None:
        self.servers = servers
        self.highest = 0.0
        self.samples = 0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        """Until told to end."""
        while not self.ending.wait(0.02):
            for server in self.servers:
                self.highest = max(self.highest, server.waiting)
                self.samples += 1

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join()


def prompt(index: int) -> list[dict[str, str]]:
    """A short prompt of its own."""
    return [{"role": "user", "content": f"{index} the quick brown fox jumps over a lazy dog"}]


def test_forty_clients_never_make_more_than_one_wait_on_a_replica(narrow: list[Vllm]) -> None:
    urls = [server.url for server in narrow]
    bodies = [chat(prompt(i), max_tokens=120) for i in range(CLIENTS)]
    with balancer(*urls, arguments=PATIENT) as front, Watch(narrow) as watch:
        batch = asyncio.run(post_all(front.url, "/v1/chat/completions", bodies, concurrency=CLIENTS))
        held = front.metric("skylb_hold_seconds_count")
        print(f"waiting at most {watch.highest} over {watch.samples} samples; {held:.0f} measured holds")
        assert batch.statuses == [200] * CLIENTS
        assert watch.samples >= 4
        assert watch.highest <= 1


async def leave_while_held(url: str, count: int) -> None:
    """Fills the fleet, lets more requests be held, then cuts all of them."""
    async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(index: int) -> None:
            body = chat([{"role": "user", "content": f"{index} the dog"}], max_tokens=LONG, stream=True)
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                await answer.read()

        tasks = [asyncio.ensure_future(ask(index)) for index in range(count)]
        await asyncio.sleep(2.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_clients_that_leave_while_held_are_never_pushed(narrow: list[Vllm]) -> None:
    with balancer(*(server.url for server in narrow)) as front:
        asyncio.run(leave_while_held(front.url, 20))
        left = time.monotonic()
        eventually(lambda: all(s.running == 0 for s in narrow), what="running back to 0", of=children(narrow))
        print(f"running back to 0 after {time.monotonic() - left:.2f} s")
        assert front.metric("skylb_hold_requests") == 0
        eventually(lambda: all(s.waiting == 0 for s in narrow), what="waiting back to 0", of=children(narrow))
