"""Two regions whose balancers have workers: what crosses, and what does when their engine processes die."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.processes import eventually
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import Region, Regions, regions
from tests.support.workers import at_rest, engine_pid, engine_pid_if_any, later, pids

MANY = 48
"""Requests at once: more than the replicas of one region have room for."""


@pytest.fixture(scope="module")
def two() -> Iterator[Regions]:
    with regions("us", "eu", arguments=["--workers", "2"]) as found:
        yield found


async def burst(region: Region, name: str, count: int = MANY) -> list[Answer]:
    """Requests of their own prompts, all at once."""
    asked = (
        request(chat(f"{name} {index} asks", max_tokens=40, stream=True), request_id=f"{name}-{index}")
        for index in range(count)
    )
    return await asyncio.gather(*(ask(region.front.port, one) for one in asked))


def lines(region: Region, name: str, count: int) -> list[dict[str, object]]:
    """The access log's lines of one burst, once all are written."""

    def found() -> list[dict[str, object]] | None:
        mine = [line for line in region.front.log() if str(line["request_id"]).startswith(f"{name}-")]
        return mine if len(mine) >= count else None

    return eventually(found, what=f"{count} lines of {name}")


def spills(two: Regions, name: str) -> None:
    """A burst at one region is served by both, and everything is accounted for."""
    answers = asyncio.run(burst(two["us"], name))
    assert Counter((answer.status, answer.done_events) for answer in answers) == {(200, 1): MANY}
    said = lines(two["us"], name, MANY)
    out = {str(line["request_id"]) for line in said if line["peer"] == "eu"}
    assert 0 < len(out) < MANY
    assert all((line["replica"] is None) == (line["peer"] is not None) for line in said)
    taken = lines(two["eu"], name, len(out))
    assert {str(line["request_id"]) for line in taken} == out
    assert {line["peer"] for line in taken} == {"us"}
    for region in ("us", "eu"):
        eventually(lambda region=region: at_rest(two[region].front), what=f"rest in {region}")


def test_workers_forward_what_their_region_has_no_room_for(two: Regions) -> None:
    two.settled()
    spills(two, "spill")


def test_workers_sign_as_the_engine_process_that_has_taken_the_place_of_another(two: Regions) -> None:
    """The peer must take the forwards of the new one, and workers must not sign as the dead one."""
    two.settled()
    for name in ("us", "eu"):
        front = two[name].front
        before = engine_pid(front)
        os.kill(before, signal.SIGKILL)
        eventually(
            lambda front=front, before=before: engine_pid_if_any(front) not in {before, None},
            what="another engine process",
        )
        eventually(lambda front=front: len(pids(front)) == 2, what="both workers have lines")
    two.settled()
    spills(two, "again")


def test_what_workers_have_forwarded_goes_on_when_their_engine_process_is_killed(two: Regions) -> None:
    two.settled()

    async def run() -> list[Answer]:
        task = asyncio.create_task(burst(two["us"], "cut"))
        front = two["us"].front
        await later(lambda: front.metric("skylb_peer_in_flight") > 0, "forwards")
        os.kill(engine_pid(front), signal.SIGKILL)
        return await task

    answers = asyncio.run(run())
    assert all(answer.done_events == 1 or b"engine_away" in answer.body for answer in answers)
    for region in ("us", "eu"):
        eventually(lambda region=region: at_rest(two[region].front), what=f"rest in {region}")
