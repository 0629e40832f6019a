"""Peers that stand in a file: they come and go with it, and a broken one changes nothing."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.processes import eventually
from tests.support.raw import ask, chat, request
from tests.support.regions import SLOW, Regions, regions
from tests.support.renewed import renew


@pytest.fixture(scope="module")
def both() -> Iterator[Regions]:
    with regions("us", "eu", replicas=1, mock=SLOW, listed=True) as found:
        yield found


def test_who_leaves_the_file_is_forgotten_and_who_returns_is_heard(both: Regions) -> None:
    us, line = both["us"], both["us"].peers_file.read_text()
    renew(us.peers_file, f"{line}\n{line}\n")
    eventually(lambda: "is given twice" in us.front.child.text(), what="the log says what is wrong")
    assert us.peers()["eu"]["state"] == "alive"
    renew(us.peers_file, "asia=http://127.0.0.1:1\n")
    eventually(lambda: set(us.peers()) == {"asia"}, what="eu is forgotten")
    answer = asyncio.run(ask(us.front.port, request(chat("alone", max_tokens=2))))
    assert answer.status == 200
    renew(us.peers_file, line)
    both.settled()
    assert set(us.peers()) == {"eu"}
