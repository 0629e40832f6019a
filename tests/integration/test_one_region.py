"""Two balancers of one region before the same replicas: they serve together, and one carries on alone."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.processes import eventually, mocks
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import SLOW, Region, Regions, regions

NAMES = ("us-1", "us-2")
EACH = 24
REPLICAS = 2


@pytest.fixture(scope="module")
def both() -> Iterator[Regions]:
    with mocks(REPLICAS, *SLOW) as urls:
        with regions(*NAMES, engines=dict.fromkeys(NAMES, urls), one_region="us") as found:
            yield found


async def burst(region: Region, name: str) -> list[Answer]:
    """Requests of their own prompts, all at once."""
    bodies = [chat(f"{name} {number} asks", max_tokens=20, stream=True) for number in range(EACH)]
    return await asyncio.gather(*(ask(region.front.port, request(body)) for body in bodies))


def whole(answers: list[Answer]) -> bool:
    """Whether all were answered to the end."""
    return all(answer.status == 200 and answer.done_events == 1 for answer in answers)


def logged(both: Regions) -> list[dict[str, object]]:
    """The access log's lines of both, once each request's is written by who took it from a client."""

    def found() -> list[dict[str, object]] | None:
        lines = [line for name in NAMES for line in both[name].front.log()]
        taken = {line["request_id"] for line in lines}
        run = [line for line in lines if line["replica"] is not None]
        return lines if len(taken) >= EACH * len(NAMES) <= len(run) else None

    return eventually(found, what="every request in the log")


def test_both_serve_through_the_same_replicas(both: Regions) -> None:
    async def run() -> list[list[Answer]]:
        return await asyncio.gather(*(burst(both[name], name) for name in NAMES))

    assert all(whole(answers) for answers in asyncio.run(run()))
    served = {line["replica"] for line in logged(both)} - {None}
    assert served == set(both["us-1"].replicas)
    assert both["us-1"].peers()["us-2"]["region"] == "us"


def test_whatever_crosses_between_them_every_request_is_run_once(both: Regions) -> None:
    lines = logged(both)
    run = Counter(line["request_id"] for line in lines if line["replica"] is not None)
    assert set(run) == {line["request_id"] for line in lines}
    assert set(run.values()) == {1}


def test_one_that_dies_takes_no_replica_with_it_and_hands_none_over_twice(both: Regions) -> None:
    one, other = both["us-1"], both["us-2"]
    other.kill()
    eventually(lambda: one.peers()["us-2"]["state"] == "dead", what="us-2 is dead")
    assert whole(asyncio.run(burst(one, "alone")))
    assert one.serves() == set(one.replicas)
    other.start()
    both.settled()
    assert one.serves() == other.serves() == set(one.replicas)
    assert whole(asyncio.run(burst(other, "again")))
