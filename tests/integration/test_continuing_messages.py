"""Streams of ``/v1/messages`` that go on at another replica, by their text."""

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import anthropic
import pytest

from tests.integration.test_continuing import FAST, ON, TOKENS, WHOLE, ordered, reason, slow_slow_fast
from tests.support.cutting import Cut, cutting
from tests.support.processes import Balancer, balancer, eventually, mocks, post_stream
from tests.support.workers import pids

PARTS = [{"type": "text", "text": "go on "}, {"type": "text", "text": "then"}]
BY_TEXT = [*ON, "--continue-by-text"]


def asked(number: int = 0, **more: Any) -> dict[str, Any]:
    """A message whose answer is the numbers of its tokens."""
    return {
        "model": "mock",
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": f"request {number} of a prompt with some words"},
            {"role": "assistant", "content": [{"type": "text", "text": "yes?"}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": "go on "}, {"type": "text", "text": "then"}],
            },
        ],
        "max_tokens": TOKENS,
        "stream": True,
        **more,
    }


def hear(url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of one stream; those of text are joined."""
    events: list[dict[str, Any]] = []
    for data in post_stream(f"{url}/v1/messages", body):
        event = json.loads(data)
        if event["type"] == "content_block_delta" and events[-1]["type"] == event["type"]:
            events[-1]["delta"]["text"] += event["delta"]["text"]
        else:
            events.append(event)
    return events


def nameless(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what differs in each answer."""
    for event in events:
        event.get("message", {}).pop("id", None)
        usage = event.get("usage", event.get("message", {}).get("usage", {}))
        usage["input_tokens"] = usage.get("input_tokens", 0) + usage.pop("cache_read_input_tokens", 0)
    return events


@pytest.fixture(scope="module", params=[0, 2], ids=["one process", "two workers"])
def cuts(request: pytest.FixtureRequest) -> Iterator[tuple[Balancer, list[Cut], str]]:
    """Two replicas behind proxies that cut, and the first one itself."""
    processes = ["--workers", str(request.param)] if request.param else []
    with mocks(2, *FAST) as urls, cutting(urls[0]) as one, cutting(urls[1]) as two:
        with balancer(one.url, two.url, arguments=[*BY_TEXT, *processes]) as front:
            if processes:
                eventually(lambda: len(pids(front)) == request.param, what="workers")
            yield front, [one, two], urls[0]


def test_a_message_that_is_cut_at_any_event_is_one_message(cuts: tuple[Balancer, list[Cut], str]) -> None:
    front, both, replica = cuts
    body = asked(1, max_tokens=12)
    whole = nameless(hear(replica, body))
    assert [event["type"] for event in whole] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    for position in range(1, 18):
        # Before the first text it is another attempt, which must not break as well.
        for cut in both if position > 2 else both[:1]:
            cut.after = position
        assert nameless(hear(front.url, body)) == whole, f"cut after {position} events"
        for cut in both:
            cut.after = None
    eventually(lambda: front.metric("skylb_streams_continued_total") >= 12, what="they are counted")
    assert reason(front) == {}
    eventually(lambda: front.metric("skylb_kept_bytes") == 0, what="nothing kept")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"stop_sequences": ["x"]}, "stop"),
        ({"tools": [{"name": "f", "input_schema": {"type": "object"}}]}, "tools"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "reasoning"),
        ({"unheard_of": 1}, "field"),
        ({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}, "field"),
    ],
)
def test_a_message_that_is_more_than_text_ends_as_ever(
    cuts: tuple[Balancer, list[Cut], str], more: dict[str, Any], why: str
) -> None:
    front, both, _ = cuts
    before = reason(front).get(why, 0)
    for cut in both:
        cut.after = 5
    events = hear(front.url, asked(2, **more))
    for cut in both:
        cut.after = None
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["code"] == "upstream_reset"
    eventually(lambda: reason(front).get(why, 0) == before + 1, what=f"a stream that is counted as {why}")


def test_without_its_switch_a_message_ends_as_ever() -> None:
    with mocks(1, *FAST, "--fault-cut-after-tokens", "7") as bad, balancer(*bad, arguments=ON) as front:
        assert hear(front.url, asked(3))[-1]["type"] == "error"
        assert reason(front) == {"route": 1}


@pytest.mark.parametrize("processes", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_the_sdk_of_anthropic_notices_nothing_of_replicas_that_are_killed_or_stopped(
    processes: list[str],
) -> None:
    """Three replicas: one is killed under its streams, one is stopped, and the third goes on with all."""
    with ExitStack() as stack:
        killed, stopped, urls = slow_slow_fast(stack)
        flags = [*BY_TEXT, "--timeout-stream-idle-s", "2", *processes]
        front = stack.enter_context(balancer(*urls, arguments=flags))
        ordered(front, urls[2], "drain")  # until all have begun at the two others
        begun = threading.Semaphore(0)

        def read(number: int) -> tuple[str, int, str | None]:
            body = asked(number)
            with anthropic.Anthropic(base_url=front.url, api_key="unused", max_retries=0) as sdk:
                with sdk.messages.stream(
                    model="mock", messages=body["messages"], system=body["system"], max_tokens=TOKENS
                ) as stream:
                    for index, _ in enumerate(stream.text_stream):
                        if index == 2:
                            begun.release()
                    message = stream.get_final_message()
            text = "".join(block.text for block in message.content if block.type == "text")
            return text, message.usage.output_tokens, message.stop_reason

        with ThreadPoolExecutor(12) as threads:
            answers = [threads.submit(read, number) for number in range(12)]
            for _ in answers:
                assert begun.acquire(timeout=60)
            ordered(front, urls[2], "undrain")
            killed.kill()
            stopped.send(signal.SIGSTOP)
            try:
                found = [answer.result(timeout=120) for answer in answers]
            finally:
                stopped.send(signal.SIGCONT)
        for text, tokens, stop_reason in found:
            assert WHOLE.startswith(text)
            assert len(text) == 4 * tokens
            assert stop_reason == ("max_tokens" if tokens == TOKENS else "end_turn")
        assert front.metric("skylb_streams_continued_total") >= 1
        eventually(lambda: front.metric("skylb_replica_in_flight") == 0, what="nothing in flight")
        eventually(lambda: front.metric("skylb_kept_bytes") == 0, what="nothing kept")
