"""Replicas and regions that are left within a time: streams go on elsewhere, and clients notice nothing."""

import json
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from skylb.addresses import parse_listen
from skylb.tools.operate.drain import DrainSettings, LeaveSettings, RegionSettings, drain, evacuate, leave
from tests.support.processes import (
    PATIENCE_S,
    Balancer,
    balancer,
    eventually,
    get,
    mocks,
    post_stream,
    start_mocks,
)
from tests.support.regions import Regions, regions

TOKENS = 400
WHOLE = "".join(f"{index:04}" for index in range(TOKENS))
MOCK = ("--number-tokens", "--profile", "l4-8b", "--time-scale", "0.5", "--max-num-seqs", "16")
ON = ["--continue-streams"]
STREAMS = 8
WITHIN_S = 0.5


class Streams:
    """Streams under way, each read by a thread."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._begun = threading.Semaphore(0)
        self._asked = 0
        self._read: list[Future[str]] = []

    def ask(self, url: str, count: int = 1, **more: Any) -> None:
        """Begins streams, all at once, so that none ends before another has begun; waits for first tokens."""
        for _ in range(count):
            self._asked += 1
            body = {
                "model": "mock",
                "messages": [{"role": "user", "content": f"request {self._asked} of some words"}],
                "max_tokens": TOKENS,
                "stream": True,
                "ignore_eos": True,
                **more,
            }
            self._read.append(self._pool.submit(self._one, url, body))
        for _ in range(count):
            assert self._begun.acquire(timeout=PATIENCE_S)

    def _one(self, url: str, body: dict[str, Any]) -> str:
        text = ""
        begun = False
        for data in post_stream(f"{url}/v1/chat/completions", body):
            if data == "[DONE]":
                return text
            event = json.loads(data)
            assert "error" not in event, event
            text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
            if text and not begun:
                begun = True
                self._begun.release()
        raise AssertionError("a stream without its end")

    @property
    def ended(self) -> int:
        """Those that have been read to the end, or failed."""
        return sum(one.done() for one in self._read)

    def whole(self) -> None:
        """All end as if nothing had happened."""
        assert [one.result(timeout=PATIENCE_S) for one in self._read] == [WHOLE] * len(self._read)


@contextmanager
def streams() -> Iterator[Streams]:
    """Streams that end before this does."""
    with ThreadPoolExecutor(STREAMS + 2) as pool:
        yield Streams(pool)


def running(*urls: str) -> int:
    """Requests at mock replicas, by what these say."""
    return sum(int(json.loads(get(f"{url}/mock/state"))["running"]) for url in urls)


def withdrawn(front: Balancer) -> float:
    """Streams that went on because they were withdrawn."""
    return front.metric('skylb_streams_continued_total{cause="withdrawn"}')


@pytest.fixture(scope="module")
def pair() -> Iterator[Regions]:
    with regions("us", "eu", mock=MOCK, arguments=ON) as found:
        yield found


@pytest.fixture(autouse=True)
def _taken_back(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "pair" in request.fixturenames:
        found = request.getfixturevalue("pair")
        for name in ("us", "eu"):
            found[name].verb(f"/regions/{name}/undrain")


def test_all_streams_of_an_evacuated_region_go_on_elsewhere_within_the_time(pair: Regions) -> None:
    us, eu = pair["us"], pair["eu"]
    before = withdrawn(us.front)
    with streams() as under_way:
        under_way.ask(us.front.url, STREAMS)
        here = running(*us.replicas)
        assert here > 0
        said = us.verb(f"/regions/us/evacuate?within={WITHIN_S}")
        assert (said["within_s"], said["in_flight"], said["ending_here"]) == (WITHIN_S, here, 0)
        assert json.loads(get(f"{us.front.admin}/peers"))["leaves_in_s"] <= WITHIN_S
        eventually(lambda: running(*us.replicas) == 0, what="the region is empty")
        assert under_way.ended == 0, "they have left, not ended"
        eventually(lambda: running(*eu.replicas) == STREAMS, what="all go on at the other region")
        under_way.whole()
    assert withdrawn(us.front) == before + here
    assert json.loads(get(f"{us.front.admin}/peers"))["stayed"] == 0


def test_streams_of_another_regions_clients_leave_an_evacuated_region_too(pair: Regions) -> None:
    us, eu = pair["us"], pair["eu"]
    with streams() as under_way:
        eventually(lambda: eu.peers()["us"]["room"] > 0, what="us takes requests")
        eu.verb("/regions/eu/evacuate")
        under_way.ask(eu.front.url, 4)
        assert running(*us.replicas) == 4
        eu.verb("/regions/eu/undrain")
        eventually(lambda: us.peers()["eu"]["room"] > 0, what="eu takes requests again")
        said = us.verb(f"/regions/us/evacuate?within={WITHIN_S}")
        assert (said["in_flight"], said["of_peers"]) == (4, 4)
        eventually(lambda: running(*us.replicas) == 0, what="the region is empty")
        assert under_way.ended == 0
        eventually(lambda: running(*eu.replicas) == 4, what="all go on at the other region")
        under_way.whole()


def test_a_stream_that_may_not_go_on_ends_where_it_is_and_the_answer_says_so(pair: Regions) -> None:
    us = pair["us"]
    with streams() as under_way:
        eventually(lambda: us.front.metric("skylb_replica_in_flight") == 0, what="nothing is under way")
        under_way.ask(us.front.url, logprobs=True)
        admin = parse_listen(us.front.admin.removeprefix("http://"))
        text = evacuate(RegionSettings(admin=admin, region="us", within=0))
        assert "In flight here: 1. Of these, 1 cannot go on elsewhere" in text
        before = withdrawn(us.front)
        under_way.whole()
        assert withdrawn(us.front) == before


def test_without_a_time_running_streams_end_where_they_are(pair: Regions) -> None:
    us = pair["us"]
    before = withdrawn(us.front)
    with streams() as under_way:
        under_way.ask(us.front.url)
        said = us.verb("/regions/us/evacuate")
        assert "within_s" not in said
        assert json.loads(get(f"{us.front.admin}/peers"))["leaves_in_s"] is None
        under_way.whole()
    assert withdrawn(us.front) == before


@pytest.mark.parametrize("query", ["within=soon", "within=-1", "within=86401", "in=5", "within=1&within=2"])
def test_a_time_that_is_none_is_refused(pair: Regions, query: str) -> None:
    us = pair["us"]
    name = us.replicas[0].removeprefix("http://")
    for path in ("/regions/us/evacuate", f"/replicas/{name}/drain"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            us.verb(f"{path}?{query}")
        with refused.value as error:
            assert (error.code, json.loads(error.read())["error"]["code"]) == (400, "bad_query")
    assert not json.loads(get(f"{us.front.admin}/peers"))["evacuating"]


def test_a_replica_that_is_drained_within_a_time_is_empty_then() -> None:
    with mocks(2, *MOCK) as urls, balancer(*urls, arguments=ON) as front, streams() as under_way:
        under_way.ask(front.url, STREAMS)
        left, other = sorted(urls, key=running, reverse=True)
        there = running(left)
        admin = parse_listen(front.admin.removeprefix("http://"))
        said = drain(DrainSettings(admin=admin, replica=left, within=WITHIN_S))
        assert f"What has not ended in {WITHIN_S:g} s goes elsewhere" in said
        row = next(row for row in front.state()["engine"]["replicas"] if row["name"] == left)
        assert row["empties_in_s"] <= WITHIN_S
        assert row["leaves_in_s"] is None
        eventually(lambda: running(left) == 0, what="the replica is empty")
        assert under_way.ended == 0
        eventually(lambda: running(other) == STREAMS, what="all go on at the other replica")
        under_way.whole()
        assert withdrawn(front) == there


def test_streams_of_a_replica_that_ends_go_on_before_its_end() -> None:
    with ExitStack() as stack:
        child, ending = start_mocks(1, *MOCK)
        stack.callback(child.stop)
        staying = stack.enter_context(mocks(1, *MOCK))
        front = stack.enter_context(balancer(*ending, *staying, arguments=ON))
        under_way = stack.enter_context(streams())
        under_way.ask(front.url, STREAMS)
        there = running(*ending)
        assert there > 0
        admin = parse_listen(front.admin.removeprefix("http://"))
        assert "ends in 1 s" in leave(LeaveSettings(admin=admin, replica=ending[0], in_=1))
        eventually(lambda: running(*ending) == 0, what="nothing is left at the replica")
        assert under_way.ended == 0, "they have left, not ended"
        child.kill()
        under_way.whole()
        assert withdrawn(front) == there
        assert front.metric("skylb_streams_continued_total") == there, "none broke"


def test_a_request_of_another_region_without_a_first_byte_is_served_elsewhere(pair: Regions) -> None:
    us, eu = pair["us"], pair["eu"]
    body = {"model": "mock", "messages": [{"role": "user", "content": "a whole answer"}], "max_tokens": 8}

    def answer() -> int:
        data = json.dumps(body).encode()
        sent = urllib.request.Request(
            f"{eu.front.url}/v1/chat/completions", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(sent, timeout=PATIENCE_S) as found:
            return len(json.load(found)["choices"])

    eventually(lambda: eu.peers()["us"]["room"] > 0, what="us takes requests")
    failed = eu.front.metric('skylb_forwards_total{outcome="failed",peer="us"}')
    eu.verb("/regions/eu/evacuate")
    with ThreadPoolExecutor(1) as threads:
        _freeze(us.replicas, on=True)
        try:
            waits = threads.submit(answer)
            eventually(lambda: us.front.metric("skylb_replica_in_flight") == 1, what="it is at us")
            eu.verb("/regions/eu/undrain")
            us.verb("/regions/us/evacuate?within=0")
            assert waits.result(timeout=PATIENCE_S) == 1
        finally:
            _freeze(us.replicas, on=False)
    assert eu.front.metric('skylb_forwards_total{outcome="failed",peer="us"}') == failed


def _freeze(urls: Sequence[str], *, on: bool) -> None:
    for url in urls:
        data = json.dumps({"freeze": on}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{url}/mock/faults", data, method="POST")).close()
