"""Streams that go on at another replica: one stream for the client, whatever becomes of the replica."""

import asyncio
import json
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from tests.support.partitions import WAYS
from tests.support.processes import (
    PATIENCE_S,
    Balancer,
    Child,
    balancer,
    eventually,
    get,
    mocks,
    post_stream,
    start_mocks,
)
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import Region, regions

TOKENS = 60
WHOLE = "".join(f"{index:04}" for index in range(TOKENS))
SLOW = ("--number-tokens", "--time-scale", "1")
FAST = ("--number-tokens", "--time-scale", "0.05")
ON = ["--continue-streams", "--receipts", "100"]


def asked(number: int = 0, **more: Any) -> dict[str, Any]:
    """A chat whose answer is the numbers of its tokens."""
    return {
        "model": "mock",
        "messages": [{"role": "user", "content": f"request {number} of a prompt with some words"}],
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        **more,
    }


class Heard:
    """What a client reads of a stream."""

    def __init__(self) -> None:
        self.text = ""
        self.ids: list[int] = []
        self.roles = 0
        self.ends = 0
        self.finishes: list[str] = []
        self.names: set[tuple[str, int, str]] = set()
        self.usages: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []

    def add(self, data: str) -> None:
        """One event's data."""
        assert self.ends == 0, "nothing behind the end"
        if data == "[DONE]":
            self.ends += 1
            return
        event = json.loads(data)
        if "error" in event:
            self.errors.append(event["error"])
            return
        self.names.add((event["id"], event["created"], event["object"]))
        if event.get("usage"):
            self.usages.append(event["usage"])
        for choice in event["choices"]:
            delta = choice.get("delta", {})
            self.roles += "role" in delta
            self.text += choice.get("text") or delta.get("content") or ""
            self.ids += choice.get("token_ids") or []
            if choice["finish_reason"]:
                self.finishes.append(choice["finish_reason"])

    def is_whole(self) -> None:
        """As if nothing had happened."""
        assert self.errors == []
        assert self.text == WHOLE
        assert (self.finishes, self.ends, len(self.names)) == (["length"], 1, 1)


def hear(url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> Heard:
    """Reads one stream to its end."""
    heard = Heard()
    for data in post_stream(f"{url}{path}", body):
        heard.add(data)
    return heard


def reason(front: Balancer) -> dict[str, int]:
    """Why streams did not go on."""
    found = {}
    for line in front.metrics().splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("skylb_streams_not_continued_total{") and float(value):
            found[name.split('"')[1]] = int(float(value))
    return found


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Balancer, str]]:
    """A replica that cuts each answer after 7 tokens, and a sound one."""
    with mocks(1, *FAST, "--fault-cut-after-tokens", "7") as bad, mocks(1, *FAST) as good:
        with balancer(*bad, *good, arguments=ON) as front:
            yield front, bad[0]


def slow_slow_fast(stack: ExitStack) -> tuple[Child, Child, list[str]]:
    """Two replicas whose streams do not end by themselves within a test, and one that goes on with them."""
    children, urls = [], []
    for scale in ("10", "10", "0.05"):
        child, (url,) = start_mocks(1, "--number-tokens", "--time-scale", scale)
        stack.callback(child.stop)
        children.append(child)
        urls.append(url)
    return children[0], children[1], urls


def ordered(front: Balancer, replica: str, verb: str) -> None:
    """Tells a balancer to drain a replica, or to take it back."""
    url = f"{front.admin}/replicas/{replica.removeprefix('http://')}/{verb}"
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=PATIENCE_S).close()


def cut_one(front: Balancer, bad: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> Heard:
    """A stream that broke at the bad replica: others, which began at the sound one, are left out."""
    for _ in range(20):
        before = front.metric("skylb_streams_continued_total")
        heard = hear(front.url, body, path)
        if heard.errors or front.metric("skylb_streams_continued_total") > before:
            return heard
    raise AssertionError(f"no request came to {bad}")


def test_a_stream_that_is_cut_goes_on_as_one_stream(pair: tuple[Balancer, str]) -> None:
    heard = cut_one(*pair, asked(1))
    heard.is_whole()
    assert heard.roles == 1
    assert heard.ids == [], "the client has not asked for ids"
    (usage,) = heard.usages
    assert usage["completion_tokens"] == TOKENS
    assert usage["prompt_tokens"] + TOKENS == usage["total_tokens"]


def test_a_completion_goes_on_too_and_the_client_sees_ids_if_it_asked_for_them(
    pair: tuple[Balancer, str],
) -> None:
    body = asked(2, return_token_ids=True)
    del body["messages"]
    heard = cut_one(*pair, {**body, "prompt": "one prompt of a few words"}, "/v1/completions")
    heard.is_whole()
    assert b"".join(token.to_bytes(4, "big") for token in heard.ids).decode() == WHOLE
    assert {kind for _, _, kind in heard.names} == {"text_completion"}


def test_a_client_that_wants_no_usage_gets_none(pair: tuple[Balancer, str]) -> None:
    body = asked(3)
    del body["stream_options"]
    heard = cut_one(*pair, body)
    heard.is_whole()
    assert heard.usages == []


def test_the_log_and_the_receipt_say_where_it_went_on(pair: tuple[Balancer, str]) -> None:
    front, bad = pair
    cut_one(front, bad, asked(4))
    line = eventually(lambda: [of for of in front.log() if of.get("continued")], what="a line of the log")[-1]
    assert (line["status"], line["error_code"], line["continued"]) == (200, None, 1)
    assert line["continued_from"] == bad != line["replica"]
    assert line["continued_gap_s"] >= 0
    assert line["attempts"] == 2
    receipt = json.loads(get(f"{front.admin}/requests/{line['request_id']}"))
    first, second = (of for of in receipt["decisions"] if of["result"] == "push")
    assert (first["failed"], second["failed"]) == ("reset", None)
    assert first["first_byte_ns"] < first["failed_ns"] <= second["first_byte_ns"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"seed": 7}, "seed"),
        ({"presence_penalty": 0.5}, "penalty"),
        ({"stop": ["x"]}, "stop"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "guided"),
        ({"logprobs": True}, "logprobs"),
        ({"unheard_of": 1}, "field"),
    ],
)
def test_what_would_not_be_the_same_ends_as_ever_and_is_counted(
    pair: tuple[Balancer, str], more: dict[str, Any], why: str
) -> None:
    front, bad = pair
    before = reason(front).get(why, 0)
    heard = cut_one(front, bad, asked(5, **more))
    assert [error["code"] for error in heard.errors] == ["upstream_reset"]
    assert (heard.ends, heard.finishes) == (0, [])
    assert WHOLE.startswith(heard.text)
    assert heard.text
    eventually(lambda: reason(front).get(why, 0) == before + 1, what=f"a stream that is counted as {why}")


def test_without_the_switch_a_cut_stream_ends_and_engines_are_asked_for_nothing() -> None:
    with mocks(1, *FAST, "--fault-cut-after-tokens", "7") as bad, balancer(*bad) as front:
        heard = hear(front.url, asked())
        assert [error["code"] for error in heard.errors] == ["upstream_reset"]
        assert reason(front) == {}


def test_a_stream_that_nobody_goes_on_with_ends_with_one_error() -> None:
    with mocks(2, *FAST, "--fault-cut-after-tokens", "7") as bad, balancer(*bad, arguments=ON) as front:
        heard = hear(front.url, asked(max_tokens=300))
        # Each goes on for seven tokens, until too many were tried.
        assert len(heard.errors) == 1
        assert "".join(f"{index:04}" for index in range(300)).startswith(heard.text)
        assert len(heard.text) > 7 * 4
        assert (heard.ends, heard.finishes) == (0, [])
        assert reason(front) == {"no_place": 1}


def test_a_stream_whose_continuation_is_answered_with_errors_ends_with_one_error() -> None:
    failing = ("--fault-error-rate", "1", "--fault-status", "500")
    with (
        mocks(1, *FAST, "--fault-cut-after-tokens", "7") as cut,
        mocks(2, *FAST, *failing) as bad,
        balancer(*cut, *bad, arguments=[*ON, "--engine-attempts-max", "3"]) as front,
    ):

        async def run() -> list[Answer]:
            return [
                await ask(front.port, request(chat(f"{n}", max_tokens=50, stream=True))) for n in range(8)
            ]

        begun = [answer for answer in asyncio.run(run()) if answer.status == 200]
        assert begun
        assert reason(front)["no_place"] == len(begun)
        for answer in begun:
            assert answer.complete, "the body is ended, not left open"
            assert (answer.error_events, answer.done_events) == (1, 0)


def test_of_other_models_streams_end_as_ever() -> None:
    with mocks(1, *FAST, "--fault-cut-after-tokens", "7") as bad, mocks(1, *FAST) as good:
        with balancer(*bad, *good, arguments=[*ON, "--continue-models", "other"]) as front:
            heard = [hear(front.url, asked(number)) for number in range(6)]
            assert any(one.errors for one in heard)
            assert front.metric("skylb_streams_continued_total") == 0


def test_the_sdk_notices_nothing_of_replicas_that_are_killed_or_stopped() -> None:
    """Three replicas: one is killed under its streams, one is stopped, and the third goes on with all."""
    with ExitStack() as stack:
        killed, stopped, urls = slow_slow_fast(stack)
        front = stack.enter_context(balancer(*urls, arguments=[*ON, "--timeout-stream-idle-s", "2"]))
        ordered(front, urls[2], "drain")  # until all have begun at the two others
        begun = threading.Semaphore(0)

        def read(number: int) -> str:
            with openai.OpenAI(base_url=f"{front.url}/v1", api_key="unused", max_retries=0) as sdk:
                body = asked(number, max_tokens=200)
                extra = {"ignore_eos": body.pop("ignore_eos")}
                text = ""
                for chunk in sdk.chat.completions.create(**body, extra_body=extra):
                    for choice in chunk.choices:
                        text += choice.delta.content or ""
                    if len(text) == 8:
                        begun.release()
                return text

        with ThreadPoolExecutor(12) as threads:
            answers = [threads.submit(read, number) for number in range(12)]
            for _ in answers:
                assert begun.acquire(timeout=60)
            ordered(front, urls[2], "undrain")
            killed.kill()
            stopped.send(signal.SIGSTOP)
            try:
                texts = [answer.result(timeout=120) for answer in answers]
            finally:
                stopped.send(signal.SIGCONT)
        assert texts == ["".join(f"{index:04}" for index in range(200))] * 12
        assert front.metric("skylb_streams_continued_total") >= 1
        eventually(lambda: front.metric("skylb_replica_in_flight") == 0, what="nothing in flight")
        eventually(lambda: front.metric("skylb_kept_bytes") == 0, what="nothing kept")


def leaves_eu(us: Region, fault: Callable[[], object]) -> dict[str, Any]:
    """A stream that eu serves, and that goes on elsewhere at the fault; its line of the log."""
    texts = []
    for data in post_stream(f"{us.front.url}/v1/chat/completions", asked(max_tokens=150)):
        if data == "[DONE]":
            break
        event = json.loads(data)
        assert "error" not in event, event
        texts += [choice["delta"].get("content", "") for choice in event["choices"]]
        if len(texts) == 10:
            fault()
    assert "".join(texts) == "".join(f"{index:04}" for index in range(150))
    line = eventually(us.front.log, what="a line of the log")[-1]
    assert (line["continued"], line["continued_from"]) == (1, "eu")
    return line


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_stream_goes_on_here_when_nothing_comes_through_from_the_peer_that_serves_it(
    workers: tuple[str, ...],
) -> None:
    """As where a whole region loses its power: no connection breaks."""
    with mocks(1, *SLOW) as far, mocks(1, *SLOW) as near:
        engines = {"us": near, "eu": far}
        arguments = [*ON, *workers]
        with regions("us", "eu", engines=engines, arguments=arguments, wan=("--rtt-s", "0.02")) as found:
            us = found["us"]
            us.verb("/regions/us/evacuate")
            leaves_eu(us, lambda: WAYS["blackhole"](found))


def test_a_stream_goes_on_here_when_the_peer_that_serves_it_dies() -> None:
    """The origin goes on with it; the peer passes on what it gets."""
    with mocks(1, *SLOW) as far, mocks(1, *SLOW) as near:
        with regions("us", "eu", engines={"us": near, "eu": far}, arguments=ON) as found:
            us, eu = found["us"], found["eu"]
            us.verb("/regions/us/evacuate")
            line = leaves_eu(us, eu.kill)
            assert line["replica"] == near[0]


def test_a_chat_without_a_limit_goes_on_to_its_own_end(pair: tuple[Balancer, str]) -> None:
    body = asked(number=77)
    del body["max_tokens"], body["ignore_eos"]
    whole = hear(pair[0].url, body)  # at whichever replica; long enough to be more than the default of 16
    assert whole.errors == []
    heard = cut_one(*pair, body)
    assert heard.errors == []
    assert (heard.finishes, heard.ends) == (["stop"], 1)
    assert heard.text == whole.text
    assert len(heard.text) > 4 * (7 + 16)


def test_a_completion_whose_limit_is_null_has_sixteen_tokens(pair: tuple[Balancer, str]) -> None:
    front, bad = pair
    body = asked(5, prompt="one prompt of a few words", max_tokens=None)
    del body["messages"], body["ignore_eos"]
    heard = cut_one(front, bad, body, "/v1/completions")
    assert heard.errors == []
    assert (heard.finishes, heard.text) == (["length"], WHOLE[:64])
