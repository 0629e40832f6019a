"""Replicas that fail, and those that only seem to: who is left out, and what becomes of the requests."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skylb.tools.mock.faults import Faults
from skylb.tools.mock.replica import MockReplica
from tests.support.engine import Engine, engines, fronted, healthy, page, response, silent, status
from tests.support.mock import Mock, mock, run
from tests.support.processes import Balancer, balancer, eventually
from tests.support.raw import Answer, ask, chat, request
from tests.support.renewed import renew

PATIENT = ("--timeout-first-byte-s", "600")
ANSWERS_MIN = 8
"""Answers after which an engine is known: it gets no more than ``--engine-wedged-s``."""


async def asks(front: Balancer, count: int, text: str = "asks") -> list[Answer]:
    """Requests one after the other."""
    return [await ask(front.port, request(chat(f"{number} {text}"))) for number in range(count)]


async def seen(front: Balancer, condition: Callable[[list[dict[str, object]]], bool], what: str) -> None:
    """Waits for what the balancer says of its replicas."""
    await asyncio.to_thread(eventually, lambda: condition(front.state()["engine"]["replicas"]), what=what)


def whole(answers: list[Answer]) -> bool:
    """Whether all were served."""
    return all((answer.status, answer.body) == (200, b'{"ok": true}') for answer in answers)


# ---------------------------------------------------------------------- measurements that are not to be had


async def never(narrowed: bool) -> bytes:
    """A page that does not come."""
    del narrowed
    await asyncio.Event().wait()
    return b""


async def endless(narrowed: bool) -> bytes:
    """A page of 9 MiB, however it is asked for."""
    del narrowed
    return response(b"# nothing\n" * ((9 << 20) // 10), kind="text/plain")


@pytest.mark.parametrize("metrics", [never, endless], ids=["late", "too long"])
def test_replicas_whose_metrics_cannot_be_had_go_on_serving(
    metrics: Callable[[bool], Awaitable[bytes]],
) -> None:
    async def test() -> None:
        fleet = [Engine(), Engine()]
        for one in fleet:
            one.metrics = metrics
        async with fronted(*fleet, arguments=["--timeout-probe-s", "0.2"]) as front:
            assert whole(await asks(front, 20))
            await seen(front, lambda all_: all(one["blind"] for one in all_), "both are blind")
            probes = sum(one.probes for one in fleet)
            while sum(one.probes for one in fleet) < probes + 6:
                assert whole(await asks(front, 4))
            await seen(front, lambda all_: all(one["ready"] for one in all_), "both are ready")

    asyncio.run(test())


def test_a_page_that_is_too_long_is_asked_for_by_the_names_that_are_read() -> None:
    async def names_only(narrowed: bool) -> bytes:
        return response(page(running=3), kind="text/plain") if narrowed else await endless(narrowed)

    async def test() -> None:
        one = Engine()
        one.metrics = names_only
        async with fronted(one) as front:
            await seen(front, lambda all_: all_[0]["running"] == 3, "its load is known")

    asyncio.run(test())


def test_requests_wait_while_the_only_replica_is_being_looked_at(tmp_path: Path) -> None:
    async def slow(narrowed: bool) -> bytes:
        del narrowed
        await asyncio.sleep(0.5)
        return response(page(), kind="text/plain")

    async def test() -> None:
        old, new = Engine(), Engine()
        new.metrics = slow
        listed = tmp_path / "fleet"
        async with engines(old, new):
            listed.write_text(f"{old.url}\n")
            arguments = ["--replicas-file", str(listed), "--discovery-file-s", "0.05"]
            context = balancer(arguments=arguments)
            front = await asyncio.to_thread(context.__enter__)
            try:
                renew(listed, f"{new.url}\n")
                while not new.requests:
                    assert whole(await asks(front, 1))
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)

    asyncio.run(test())


# -------------------------------------------------------------------------------- replicas that stand still


async def stuck(front: Balancer, fleet: list[Engine]) -> tuple[asyncio.Task[Answer], Engine, Engine]:
    """A request that waits at one of two replicas; that replica, and the other."""
    sent = asyncio.ensure_future(ask(front.port, request(chat("waits"))))
    waits = [asyncio.ensure_future(one.asked.wait()) for one in fleet]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    at = next(one for one in fleet if one.requests)
    other = next(one for one in fleet if one is not at)
    other.answer = healthy
    return sent, at, other


def test_a_request_without_a_byte_is_tried_elsewhere_when_nobody_is_there_any_more() -> None:
    async def test() -> None:
        fleet = [Engine(silent), Engine(silent)]
        async with fronted(*fleet, arguments=PATIENT) as front:
            sent, at, other = await stuck(front, fleet)
            at.vanish()
            assert whole([await sent])
            assert len(other.requests) == 1

    asyncio.run(test())


def test_a_request_without_a_byte_leaves_an_engine_that_stands_still_and_that_is_out() -> None:
    async def test() -> None:
        fleet = [Engine(), Engine()]
        arguments = [*PATIENT, "--engine-wedged-s", "1", "--engine-probe-idle-interval-s", "0.1"]
        async with fronted(*fleet, arguments=arguments) as front:
            while min(len(one.requests) for one in fleet) < ANSWERS_MIN:
                assert whole(await asks(front, 4))
            for one in fleet:
                one.requests.clear()
                one.asked.clear()
                one.page = page(running=1, tokens=7)
                one.answer = silent
            sent, at, _ = await stuck(front, fleet)
            assert whole([await sent])
            name = at.url
            by_name = lambda all_: {one["name"]: one["health"] for one in all_}  # noqa: E731
            await seen(front, lambda all_: by_name(all_)[name] == "wedged", "it is out")
            assert whole(await asks(front, 8))
            assert len(at.requests) == 1
            at.answer = healthy
            at.page = page(running=1, tokens=8)
            await seen(front, lambda all_: by_name(all_)[name] == "up", "it is back")

    asyncio.run(test())


@asynccontextmanager
async def busy_mocks(*arguments: str) -> AsyncIterator[tuple[Mock, Balancer]]:
    """Two mock replicas that have answered, and each compute one endless answer, behind a balancer."""
    roomy = {"max_model_len": 1 << 20, "kv_tokens": 1 << 22}
    async with mock(count=2, profile="l4-8b", time_scale=0.2, **roomy) as fleet:
        context = balancer(*fleet.urls, arguments=[*PATIENT, *arguments])
        front = await asyncio.to_thread(context.__enter__)
        try:
            while min(sum(one.totals.ended.values()) for one in fleet.replicas) < ANSWERS_MIN:
                answers = [ask(front.port, request(chat(f"{n} warms", max_tokens=2))) for n in range(4)]
                assert {one.status for one in await asyncio.gather(*answers)} == {200}
            for index in range(2):
                connection = await fleet.connect(index)
                connection.writer.write(request(chat("endless", max_tokens=100_000, stream=True)))
            await until(lambda: all(one.model.running for one in fleet.replicas))
            yield fleet, front
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that the mock replicas in this loop bring about."""
    while not condition():  # noqa: ASYNC110 - the replicas set no event
        await asyncio.sleep(0.01)


async def waiting_at(front: Balancer, one: MockReplica) -> list[asyncio.Task[Answer]]:
    """Requests, sent until one of them waits at this replica."""
    sent: list[asyncio.Task[Answer]] = []
    before = one.in_flight
    while one.in_flight == before:
        number = len(sent)
        sent.append(asyncio.create_task(ask(front.port, request(chat(f"{number} new", max_tokens=2)))))
        await asyncio.sleep(0.05)
    return sent


def test_an_engine_that_hangs_while_its_server_answers_probes_loses_no_request_without_a_byte() -> None:
    async def test() -> None:
        async with busy_mocks() as (fleet, front):
            name, hung = fleet.urls[0], fleet.replicas[0]
            health = lambda all_: {one["name"]: one["health"] for one in all_}[name]  # noqa: E731
            hung.set_faults(Faults(freeze=True))
            pages = hung.totals.pages
            sent = await waiting_at(front, hung)
            await seen(front, lambda all_: health(all_) == "wedged", "it is out")
            assert hung.totals.pages > pages, "its probes are answered"
            assert {answer.status for answer in await asyncio.gather(*sent)} == {200}
            assert {answer.status for answer in [await ask(front.port, request(chat("later")))]} == {200}
            hung.set_faults(Faults())
            await seen(front, lambda all_: health(all_) == "up", "it is back")

    run(test)


def test_without_the_rule_a_request_at_an_engine_that_hangs_waits_for_it() -> None:
    async def test() -> None:
        async with busy_mocks("--engine-wedged-s", "600") as (fleet, front):
            hung = fleet.replicas[0]
            hung.set_faults(Faults(freeze=True))
            sent = await waiting_at(front, hung)
            pages = hung.totals.pages
            await until(lambda: hung.totals.pages >= pages + 8)
            assert not all(task.done() for task in sent)
            hung.set_faults(Faults())
            assert {answer.status for answer in await asyncio.gather(*sent)} == {200}

    run(test)


def test_an_engine_that_computes_for_long_keeps_its_requests() -> None:
    async def test() -> None:
        fleet = [Engine(silent), Engine(silent)]
        arguments = [*PATIENT, "--engine-wedged-s", "1", "--engine-probe-idle-interval-s", "0.1"]
        async with fronted(*fleet, arguments=arguments) as front:
            sent, at, other = await stuck(front, fleet)
            asked = at.probes
            while at.probes < asked + 40:
                at.page = page(running=1, tokens=at.probes)
                await asyncio.sleep(0.01)
            assert not sent.done()
            assert other.requests == []
            sent.cancel()

    asyncio.run(test())


# ------------------------------------------------------------------------------------ replicas that refuse


def test_replicas_that_refuse_everything_fail_no_request_and_are_left_out() -> None:
    async def test() -> None:
        fleet = [Engine(status(503)), Engine(status(503)), Engine(), Engine()]
        arguments = ["--engine-probe-idle-interval-s", "0.1"]
        async with fronted(*fleet, arguments=arguments) as front:
            out = lambda all_: sum(not one["ready"] for one in all_) == 2  # noqa: E731
            assert whole(await asks(front, 10))
            while not out((await asyncio.to_thread(front.state))["engine"]["replicas"]):
                assert whole(await asks(front, 10))
            log = await asyncio.to_thread(eventually, front.log, what="the access log")
            assert {entry["attempts"] for entry in log} == {1}

    asyncio.run(test())


def test_what_an_engine_says_with_429_reaches_the_client_when_nobody_else_can_serve() -> None:
    says = status(429, "Retry-After: 7", text=b'{"error": {"message": "quota of the engine"}}')

    async def test() -> None:
        fleet = [Engine(says), Engine(says)]
        async with fronted(*fleet) as front:
            for number in range(1, 9):
                (answer,) = await asks(front, 1)
                assert (answer.status, answer.headers["retry-after"]) == (429, "7")
                assert b"quota of the engine" in answer.body
                assert len(fleet[0].requests) == len(fleet[1].requests) == number
            fleet[1].answer = healthy
            assert whole(await asks(front, 8))
            await seen(front, lambda all_: all(one["ready"] for one in all_), "nobody is blamed")

    asyncio.run(test())


def test_the_text_of_a_full_engine_that_says_when_to_come_back_reaches_the_client() -> None:
    says = status(503, "Retry-After: 9", text=b'{"error": {"message": "maintenance"}}')

    async def test() -> None:
        async with fronted(Engine(says)) as front:
            (answer,) = await asks(front, 1)
            assert (answer.status, answer.headers["retry-after"]) == (503, "9")
            assert b"maintenance" in answer.body

    asyncio.run(test())


# ------------------------------------------------------------------------------- requests that are at fault


def test_requests_that_make_every_engine_fail_are_run_twice_and_put_no_replica_out() -> None:
    async def answer(body: bytes) -> bytes:
        return await (status(500)(body) if b"poison" in body else healthy(body))

    async def test() -> None:
        fleet = [Engine(answer) for _ in range(4)]
        async with fronted(*fleet) as front:
            answers = await asks(front, 30, "poison")
            assert {answer.status for answer in answers} == {500}
            ran = Counter(body for one in fleet for body in one.requests)
            assert set(ran.values()) == {2}
            await seen(front, lambda all_: all(one["ready"] for one in all_), "all are ready")
            assert whole(await asks(front, 8))

    asyncio.run(test())


def test_a_replica_that_fails_what_others_serve_is_left_out() -> None:
    async def test() -> None:
        fleet = [Engine(status(500)), Engine(), Engine()]
        async with fronted(*fleet) as front:
            out = lambda all_: sum(one["health"] == "ejected" for one in all_) == 1  # noqa: E731
            while not out((await asyncio.to_thread(front.state))["engine"]["replicas"]):
                assert whole(await asks(front, 10))

    asyncio.run(test())
