"""Connections that break before an answer: what they cost, and who is asked next."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from skylb.data.leg import STALE_NS
from tests.support.engine import Answer as Answering
from tests.support.engine import Engine, fronted, healthy
from tests.support.processes import Balancer, eventually
from tests.support.raw import Answer, ask, chat, request

CHAT = request(chat("hello"))

SLOW_PROBES = (
    *("--engine-probe-interval-s", "60", "--engine-probe-idle-interval-s", "60"),
    *("--engine-probe-stale-s", "600"),
)
"""Requests find out first that nobody is there."""


def outcomes(front: Balancer) -> dict[str, int]:
    """Attempts at replicas, by how they ended."""
    pattern = r'^skylb_attempts_total\{outcome="(\w+)"\} (\d+)'
    return {name: int(value) for name, value in re.findall(pattern, front.metrics(), re.M) if int(value)}


def attempts(front: Balancer, count: int) -> list[int]:
    """Of each of so many requests."""
    eventually(lambda: len(front.log()) == count, what="lines in the access log")
    return [line["attempts"] for line in front.log()]


async def asks(front: Balancer, *requests: bytes) -> list[Answer]:
    """Requests, one after the other."""
    return [await ask(front.port, each) for each in requests]


def serve(work: Callable[[Balancer], Awaitable[None]], *engines: Engine, slowly: bool = False) -> None:
    """Runs a test's work against a balancer in front of engines."""

    async def run() -> None:
        async with fronted(*engines, arguments=SLOW_PROBES if slowly else ()) as front:
            await asyncio.to_thread(
                eventually, lambda: front.metric("skylb_replica_ready") == len(engines), what="all are up"
            )
            await work(front)

    asyncio.run(run())


def breaks_once(one: Engine, after_s: float = 0.0) -> Answering:
    """The second request meets the end of its connection."""

    async def answer(body: bytes) -> bytes:
        if len(one.requests) == 2:
            await asyncio.sleep(after_s)
            raise ConnectionAbortedError
        return await healthy(body)

    return answer


def dies_of(poison: bytes, one: Engine) -> Answering:
    """The engine is gone as soon as such a request comes."""

    async def answer(body: bytes) -> bytes:
        if poison in body:
            one.vanish()
            raise ConnectionAbortedError
        return await healthy(body)

    return answer


def test_a_used_connection_that_was_closed_costs_no_attempt() -> None:
    one = Engine()
    one.answer = breaks_once(one)

    async def work(front: Balancer) -> None:
        assert [each.status for each in await asks(front, CHAT, CHAT)] == [200, 200]
        assert await asyncio.to_thread(attempts, front, 2) == [1, 1]
        assert await asyncio.to_thread(outcomes, front) == {"ok": 2, "stale": 1}

    serve(work, one)
    assert len(one.requests) == 3


def test_a_used_connection_that_breaks_long_after_it_had_the_request_costs_one() -> None:
    one = Engine()
    one.answer = breaks_once(one, after_s=STALE_NS / 1e9 + 0.3)

    async def work(front: Balancer) -> None:
        assert [each.status for each in await asks(front, CHAT, CHAT)] == [200, 200]
        assert await asyncio.to_thread(attempts, front, 2) == [1, 2]
        assert await asyncio.to_thread(outcomes, front) == {"ok": 2, "reset": 1}

    serve(work, one)


@pytest.mark.parametrize("field", ["store", "background"])
def test_a_request_that_must_not_run_twice_gets_a_new_connection(field: str) -> None:
    once = request({"model": "mock", "input": "x", field: True}, path="/v1/responses")
    one = Engine()
    one.answer = breaks_once(one)

    async def work(front: Balancer) -> None:
        assert [each.status for each in await asks(front, CHAT, once)] == [200, 502]
        assert await asyncio.to_thread(outcomes, front) == {"ok": 1, "reset": 1}

    serve(work, one)
    assert len(one.requests) == 2, "it came once"


def test_a_request_of_which_engines_die_is_not_followed_through_the_fleet() -> None:
    fleet = [Engine() for _ in range(5)]
    for one in fleet:
        one.answer = dies_of(b"poison", one)

    async def work(front: Balancer) -> None:
        found = await asks(front, *(request(chat(f"{number} hello")) for number in range(40)))
        assert {each.status for each in found} == {200}
        (answer,) = await asks(front, request(chat("poison")))
        assert answer.status == 502

    serve(work, *fleet, slowly=True)
    assert sum(b"poison" in body for one in fleet for body in one.requests) == 2


def test_replicas_that_are_gone_cost_no_attempt() -> None:
    fleet = [Engine() for _ in range(4)]

    async def work(front: Balancer) -> None:
        for one in fleet[:3]:
            one.vanish()
        at_once = (ask(front.port, request(chat(f"{number} hi"))) for number in range(16))
        assert {each.status for each in await asyncio.gather(*at_once)} == {200}
        assert set(await asyncio.to_thread(attempts, front, 16)) == {1}
        found = await asyncio.to_thread(outcomes, front)
        assert found["ok"] == 16
        assert found["connect"] >= 3, "requests have found out"

    serve(work, *fleet, slowly=True)
