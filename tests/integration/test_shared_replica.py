"""Two balancers of one region before one small replica: they take turns, and one looks at it for both."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from skylb.addresses import parse_listen
from skylb.tools.operate.drain import SHARED, DrainSettings, ReplicaSettings, drain, undrain
from tests.support.processes import eventually, get, mocks
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import Region, Regions, regions

NAMES = ("us-1", "us-2")
SMALL = ("--profile", "l4-8b", "--time-scale", "0.2", "--max-num-seqs", "2")
EACH = 30


@pytest.fixture(scope="module")
def both() -> Iterator[Regions]:
    with mocks(1, *SMALL) as urls:
        with regions(*NAMES, engines=dict.fromkeys(NAMES, urls), one_region="us") as found:
            yield found


def replica(region: Region) -> dict[str, Any]:
    """The replica as one balancer sees it."""
    only: dict[str, Any] = region.front.state()["engine"]["replicas"][0]
    return only


def mock(region: Region) -> dict[str, Any]:
    """The replica as it is."""
    state: dict[str, Any] = json.loads(get(f"{region.replicas[0]}/mock/state"))
    return state


def probes(region: Region) -> float:
    """Probes that one balancer has sent."""
    return region.front.metric("skylb_replica_probes_total")


async def burst(region: Region, count: int) -> list[Answer]:
    """So many requests of their own prompts, all at once."""
    bodies = [chat(f"{region.name} {number} asks", max_tokens=24, stream=True) for number in range(count)]
    return await asyncio.gather(*(ask(region.front.port, request(body)) for body in bodies))


def whole(answers: list[Answer]) -> bool:
    """Whether all were answered to the end."""
    return all(answer.status == 200 and answer.done_events == 1 for answer in answers)


def shared(both: Regions) -> None:
    """Waits until both know that they share the replica."""
    for name in NAMES:
        eventually(lambda name=name: replica(both[name])["shared"], what=f"{name} shares the replica")


def test_one_of_both_probes_the_replica_and_both_know_its_load(both: Regions) -> None:
    shared(both)
    assert sorted(replica(both[name])["probed_here"] for name in NAMES) == [False, True]
    heard = "skylb_engine_events_total"
    eventually(
        lambda: any(
            'event="pages_heard"' in line and float(line.rsplit(" ", 1)[1]) >= 3
            for name in NAMES
            for line in both[name].front.metrics().splitlines()
            if line.startswith(heard)
        ),
        what="pages are passed on",
    )


def test_both_are_served_by_turns_and_one_request_waits(both: Regions) -> None:
    shared(both)
    one, other = both["us-1"], both["us-2"]
    before, probed = mock(one), [probes(both[name]) for name in NAMES]

    async def run() -> list[list[Answer]]:
        return list(await asyncio.gather(burst(one, EACH), burst(other, EACH)))

    assert all(whole(answers) for answers in asyncio.run(run()))
    after = mock(one)
    lines = eventually(
        lambda: (
            (found := [line for name in NAMES for line in both[name].front.log()])
            and len(found) >= 2 * EACH
            and found
        ),
        what="access log",
    )
    assert all(line["status"] == 200 for line in lines)
    # Twice what one balancer alone could leave waiting would be all of them.
    assert after["behind"] - before["behind"] <= EACH // 2, after
    # The other one probes too where pages come late, as on a machine that is busy.
    sent = [probes(both[name]) - earlier for name, earlier in zip(NAMES, probed, strict=True)]
    assert 4 * min(sent) <= 3 * max(sent), sent
    assert after["pages"] - before["pages"] <= sum(sent) + 2


def test_one_that_is_idle_does_not_keep_the_other_from_its_turn(both: Regions) -> None:
    shared(both)
    before = replica(both["us-2"])["pushed_total"]
    assert whole(asyncio.run(burst(both["us-1"], EACH)))
    eventually(lambda: replica(both["us-2"])["theirs_in_flight"] == 0, what="us-2 has heard that they ended")
    assert replica(both["us-2"])["pushed_total"] == before


def test_a_drain_at_one_leaves_the_replica_to_the_other_and_says_so(both: Regions) -> None:
    shared(both)
    one, other = both["us-1"], both["us-2"]
    (url,) = one.replicas
    asked = ReplicaSettings(replica=url, admin=parse_listen(f"127.0.0.1:{one.front.admin_port}"))
    said = drain(DrainSettings(replica=url, admin=asked.admin, wait=True))
    assert SHARED in said
    assert "No replica takes requests now." in said, "this balancer has no other"
    assert replica(one)["draining"]
    assert not replica(other)["draining"]
    assert whole(asyncio.run(burst(other, 1)))
    undrain(asked)
    assert not replica(one)["draining"]


def test_the_death_of_one_leaves_everything_to_the_other(both: Regions) -> None:
    one, other = both["us-1"], both["us-2"]
    other.kill()
    eventually(lambda: not replica(one)["shared"], what="us-1 shares with nobody")
    assert replica(one)["probed_here"]
    assert replica(one)["theirs_in_flight"] == 0
    assert whole(asyncio.run(burst(one, EACH)))
    other.start()
    both.settled()
    shared(both)
    assert whole(asyncio.run(burst(other, 4)))
