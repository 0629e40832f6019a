"""Streams that leave a replica which lives, and replicas that cannot go on with them."""

import http.client
import itertools
import json
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from skylb.keys.edit import add_key
from tests.integration.test_continuing import FAST, ON, SLOW, asked, reason
from tests.integration.test_continuing_messages import BY_TEXT
from tests.integration.test_continuing_messages import asked as asked_message
from tests.integration.test_continuing_messages import hear as hear_message
from tests.support.processes import (
    Balancer,
    Child,
    balancer,
    eventually,
    get,
    mocks,
    post_stream,
    start_mocks,
)

LONG = 300
NUMBERS = "".join(f"{index:04}" for index in range(LONG))


@pytest.fixture
def two() -> Iterator[dict[str, Child]]:
    """Two replicas by their URLs."""
    with ExitStack() as stack:
        found = {}
        for _ in range(2):
            child, (url,) = start_mocks(1, *SLOW)
            stack.callback(child.stop)
            found[url] = child
        yield found


def post(url: str, body: object = None) -> None:
    """Sends JSON, or nothing."""
    data = b"" if body is None else json.dumps(body).encode()
    urllib.request.urlopen(urllib.request.Request(url, data, method="POST"), timeout=30).close()


def busy(urls: dict[str, Child]) -> str:
    """The replica that has a request."""
    return next(url for url in urls if json.loads(get(f"{url}/mock/state"))["in_flight"])


def read(front: Balancer, begun: Callable[[], None]) -> str:
    """The text of one stream; calls `begun` when it has some."""
    text, told = "", False
    for data in post_stream(f"{front.url}/v1/chat/completions", asked(max_tokens=LONG)):
        if data == "[DONE]":
            return text
        event = json.loads(data)
        assert "error" not in event, event
        text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        if not told and len(text) > 20:
            told = True
            begun()
    raise AssertionError("no end")


def test_a_stream_leaves_a_replica_that_ends_soon(two: dict[str, Child]) -> None:
    with balancer(*two, arguments=ON) as front:

        def ends() -> None:
            name = busy(two).removeprefix("http://")
            post(f"{front.admin}/replicas/{name}/leave?in=1")

        assert read(front, ends) == NUMBERS
        line = eventually(front.log, what="a line of the log")[-1]
        assert (line["continued"], line["status"], line["error_code"]) == (1, 200, None)
        assert 'cause="withdrawn"} 1' in front.metrics()


def test_a_stream_leaves_a_replica_whose_engine_stands_still(two: dict[str, Child]) -> None:
    """Long before the stream's own time-out, which is two minutes."""
    with balancer(*two, arguments=ON) as front:
        assert read(front, lambda: post(f"{busy(two)}/mock/faults", {"freeze": True})) == NUMBERS
        assert 'skylb_streams_continued_total{cause="withdrawn"} 1' in front.metrics()


def test_a_replica_without_a_tokenizer_is_left_for_another_one() -> None:
    with ExitStack() as stack:
        (bad,) = stack.enter_context(mocks(1, *FAST, "--fault-cut-after-tokens", "7"))
        (broken,) = stack.enter_context(mocks(1, *FAST, "--fault-tokenize-status", "500"))
        (good,) = stack.enter_context(mocks(1, *FAST))
        front = stack.enter_context(balancer(bad, broken, good, arguments=BY_TEXT))
        numbers = itertools.count()

        def continued() -> bool:
            for _ in range(20):
                events = hear_message(front.url, asked_message(next(numbers), max_tokens=20))
                assert events[-1]["type"] == "message_stop", events
            return front.metric("skylb_streams_continued_total") >= 1

        eventually(continued, what="a stream that was cut")
        assert reason(front) == {}


def test_the_client_gets_comments_while_a_replica_is_asked(two: dict[str, Child]) -> None:
    arguments = [*BY_TEXT, "--timeout-stream-keep-alive-s", "0.5"]
    first, other = two
    with balancer(*two, arguments=arguments) as front:
        name = other.removeprefix("http://")
        post(f"{front.admin}/replicas/{name}/drain")  # so that it is known which one serves
        connection = http.client.HTTPConnection(front.url.removeprefix("http://"), timeout=60)
        head = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/messages", json.dumps(asked_message(max_tokens=60)), head)
        answer = connection.getresponse()
        lines = iter(answer.readline, b"")
        assert any(b"content_block_delta" in line for line in lines)
        two[first].send(signal.SIGSTOP)  # the stream does not end before its replica does
        two[other].send(signal.SIGSTOP)
        try:
            post(f"{front.admin}/replicas/{name}/undrain")
            two[first].kill()
            assert any(line == b": keep-alive\n" for line in lines)
        finally:
            two[other].send(signal.SIGCONT)
        assert b"message_stop" in b"".join(lines)
        connection.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_tenant_may_be_excluded(tmp_path: Path, workers: str) -> None:
    path = tmp_path / "keys.toml"
    without, _ = add_key(path, "without", {"continue_streams": False}, {})
    with_, _ = add_key(path, "with", {}, {})
    arguments = [*ON, "--keys-file", str(path), "--workers", workers]
    with mocks(1, *FAST, "--fault-cut-after-tokens", "7") as bad, mocks(1, *FAST) as good:
        with balancer(*bad, *good, arguments=arguments) as front:
            for words in ("short", "long " * 12_000):
                ends = [codes(front, without, f"{number} {words}") for number in range(6)]
                assert ["upstream_reset"] in ends
                before = front.metric("skylb_streams_continued_total")

                def continued(before: float = before, words: str = words) -> bool:
                    assert all(codes(front, with_, f"{number} {words}") == [] for number in range(6))
                    return front.metric("skylb_streams_continued_total") > before

                eventually(continued, what="a stream that was cut")


def codes(front: Balancer, key: str, text: str) -> list[str]:
    """The errors of one stream."""
    body: dict[str, Any] = asked(messages=[{"role": "user", "content": text}])
    head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    sent = urllib.request.Request(f"{front.url}/v1/chat/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(sent, timeout=60) as answer:
        events = [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]
    assert not any(choice.get("token_ids") for event in events for choice in event.get("choices", ()))
    return [event["error"]["code"] for event in events if "error" in event]


def test_a_message_leaves_its_replica_only_where_texts_can_be_made_tokens(two: dict[str, Child]) -> None:
    """A front that passes `/v1/*` only: the stream stays, and ends whole."""
    for url in two:
        post(f"{url}/mock/faults", {"tokenize_status": 404})
    with balancer(*two, arguments=BY_TEXT) as front:
        events = message(front, two, 1)
        assert events[-1]["type"] == "message_stop", events
        assert front.metric("skylb_streams_continued_total") == 0
        assert reason(front) == {}
    for url in two:
        post(f"{url}/mock/faults", {"tokenize_status": 200})
    with balancer(*two, arguments=BY_TEXT) as front:
        events = message(front, two, 2)
        assert events[-1]["type"] == "message_stop", events
        assert 'skylb_streams_continued_total{cause="withdrawn"} 1' in front.metrics()


def message(front: Balancer, two: dict[str, Child], number: int) -> list[dict[str, Any]]:
    """The events of one message; its replica is to be left once it has some text."""
    events: list[dict[str, Any]] = []
    for data in post_stream(f"{front.url}/v1/messages", asked_message(number, max_tokens=LONG)):
        events.append(json.loads(data))
        if len(events) == 8:
            name = busy(two).removeprefix("http://")
            post(f"{front.admin}/replicas/{name}/drain?within=0")
    return events


def test_a_replica_without_the_path_for_tokens_is_left_for_another_one() -> None:
    with ExitStack() as stack:
        (bad,) = stack.enter_context(mocks(1, *FAST, "--fault-cut-after-tokens", "7"))
        without = stack.enter_context(mocks(2, *FAST, "--fault-tokenize-status", "404"))
        (good,) = stack.enter_context(mocks(1, *FAST))
        in_turn = [*BY_TEXT, "--policy", "round_robin"]
        front = stack.enter_context(balancer(bad, *without, good, arguments=in_turn))
        for number in range(60):
            events = hear_message(front.url, asked_message(number, max_tokens=20))
            assert events[-1]["type"] == "message_stop", events
            if front.metric('skylb_attempts_total{outcome="limited"}'):
                break
        else:
            raise AssertionError("no such replica was asked")
        assert reason(front) == {}


def test_where_no_replica_has_the_path_for_tokens_a_message_that_breaks_ends() -> None:
    with ExitStack() as stack:
        lacks = ("--fault-tokenize-status", "404")
        (bad,) = stack.enter_context(mocks(1, *FAST, *lacks, "--fault-cut-after-tokens", "7"))
        (other,) = stack.enter_context(mocks(1, *FAST, *lacks))
        front = stack.enter_context(balancer(bad, other, arguments=BY_TEXT))
        ends = [hear_message(front.url, asked_message(number, max_tokens=20))[-1] for number in range(6)]
        errors = [end["error"]["code"] for end in ends if end["type"] == "error"]
        assert set(errors) == {"upstream_limited"}
        assert reason(front) == {"no_place": len(errors)}
        row = next(row for row in front.state()["engine"]["replicas"] if row["name"] == other)
        assert (row["failed_total"], row["health"]) == (0, "up"), "nothing is held against it"
