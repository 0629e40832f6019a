"""Replicas killed with SIGKILL under streams: nothing without a body byte is lost, no stream is silent."""

import asyncio
import itertools
import re
import signal
from contextlib import ExitStack

from tests.support.processes import Balancer, balancer, eventually, start_mocks
from tests.support.raw import Answer, ask, chat, request

REPLICAS = 4
RUN_S = 16.0
KILL_EVERY_S = 2.0
RATE = 60


async def stream(port: int, index: int) -> Answer:
    """One streamed request of about a second."""
    return await ask(
        port, request(chat(f"{index} keeps going", max_tokens=40, stream=True), request_id=f"r{index}")
    )


class Fleet:
    """Mock replicas, one process each, killed and started again at their ports."""

    def __init__(self, stack: ExitStack) -> None:
        self.arguments = ("--profile", "l4-8b", "--time-scale", "0.5")
        started = [start_mocks(1, *self.arguments) for _ in range(REPLICAS)]
        self.children = [child for child, _ in started]
        self.urls = [urls[0] for _, urls in started]
        stack.callback(lambda: [child.stop() for child in self.children])

    def restart(self, index: int) -> None:
        """SIGKILL, then the same address again."""
        self.children[index].send(signal.SIGKILL)
        self.children[index].stop()
        listen = self.urls[index].removeprefix("http://")
        self.children[index], _ = start_mocks(1, *self.arguments, listen=listen)


async def storm(front: Balancer, fleet: Fleet) -> list[Answer]:
    """Streams at a steady rate while one replica after the other is killed."""
    loop = asyncio.get_running_loop()
    ending = loop.time() + RUN_S

    async def kill() -> None:
        for index in itertools.cycle(range(REPLICAS)):
            await asyncio.sleep(KILL_EVERY_S)
            if loop.time() > ending - KILL_EVERY_S:
                return
            await loop.run_in_executor(None, fleet.restart, index)

    killer = asyncio.ensure_future(kill())
    tasks = []
    for index in itertools.count():
        if loop.time() > ending:
            break
        tasks.append(asyncio.ensure_future(stream(front.port, index)))
        await asyncio.sleep(1 / RATE)
    answers = await asyncio.gather(*tasks)
    await killer
    return answers


def test_killing_replicas_loses_no_request_without_a_body_byte_and_ends_each_cut_stream_with_one_error() -> (
    None
):
    with ExitStack() as stack:
        fleet = Fleet(stack)
        front = stack.enter_context(balancer(*fleet.urls, arguments=["--hold-timeout-s", "30"]))
        answers = asyncio.run(storm(front, fleet))
        log = eventually(
            lambda: found if len(found := front.log()) >= len(answers) else None, what="the access log"
        )
        counted = front.metric("skylb_answers_cut_total")
        found = re.search(r'skylb_tenant_requests_total{outcome="failed",tenant=""} (\S+)', front.metrics())
        failed = float(found[1]) if found is not None else None
    whole = [
        a for a in answers if a.status == 200 and a.complete and a.done_events == 1 and not a.error_events
    ]
    cut = [a for a in answers if a.status == 200 and a.error_events]
    print(f"{len(answers)} requests: {len(whole)} whole, {len(cut)} cut")
    assert len(whole) + len(cut) == len(answers), [
        (a.status, a.error, a.body[-200:]) for a in answers if a not in whole and a not in cut
    ][:5]
    assert len(cut) > 0, "no stream was cut: the test shows nothing"
    assert counted == failed == len(cut), "what was cut is no success"
    for answer in cut:
        assert answer.error_events == 1
        assert answer.done_events == 0
        assert answer.complete
        assert answer.body.endswith(b"\n\n")
    assert max(entry["attempts"] for entry in log) <= 2
