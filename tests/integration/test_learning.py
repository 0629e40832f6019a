"""The tree learns: answers, and what replicas report, through `skylb serve` and mock replicas."""

import json
import re
import urllib.request
from typing import Any

import pytest

from skylb.tools.synthetic import Answer, block_text
from tests.support.processes import Balancer, balancer, eventually, mocks

CONVERSATIONS = 12
PROMPT_TOKENS = 100
ANSWER_TOKENS = 500
ENGINE_BLOCK_TOKENS = 16

Message = dict[str, str]


def question(conversation: int, turn: int) -> Message:
    """A message of 100 tokens that nobody else sends, and which answer it wants."""
    block = 1_000 * conversation + 10 * turn
    answer = Answer(ANSWER_TOKENS, 512, runs=((block + 1, 1),))
    return {"role": "user", "content": block_text(block, PROMPT_TOKENS) + answer.directive()}


def ask(served: Balancer, messages: list[Message], *, stream: bool, **fields: Any) -> bytes:
    """The body of a chat completion's answer."""
    body = {"model": "mock-model", "messages": messages, "max_tokens": 600, "stream": stream, **fields}
    request = urllib.request.Request(
        f"{served.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def text_of(answer: bytes, *, stream: bool) -> str:
    """What a client's library makes of an answer."""
    if not stream:
        text: str = json.loads(answer)["choices"][0]["message"]["content"]
        return text
    events = [line.removeprefix(b"data: ") for line in answer.splitlines() if line.startswith(b"data: {")]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    return "".join(delta.get("content") or "" for delta in deltas)


def bucket(page: str, bound: str) -> float:
    """Requests whose prediction was wrong by no more than ``bound``."""
    found = re.search(rf'^skylb_prefix_error_tokens_bucket{{le="{re.escape(bound)}"}} (\S+)', page, re.M)
    assert found is not None, page
    return float(found[1])


def served_by(served: Balancer, count: int) -> list[str]:
    """Replicas of the first ``count`` requests, in their order."""
    lines = eventually(lambda: log if len(log := served.log()) >= count else None, what="access log")
    return [line["replica"] for line in lines]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_turn_two_returns_to_its_owner_and_predictions_are_right_to_a_block(stream: bool) -> None:
    arguments = ["--policy", "prefix", "--inject-usage"]
    with mocks(4, "--profile", "instant", "--model", "mock-model") as urls:
        with balancer(*urls, arguments=arguments) as served:
            histories: list[list[Message]] = [[] for _ in range(CONVERSATIONS)]
            turns = 4
            for turn in range(turns):
                for conversation, history in enumerate(histories):
                    history.append(question(conversation, turn))
                    answer = ask(served, history, stream=stream)
                    text = text_of(answer, stream=stream)
                    assert len(text) == 4 * ANSWER_TOKENS
                    assert not stream or b'"usage"' not in answer, "the client did not ask"
                    history.append({"role": "assistant", "content": text})
            replicas = served_by(served, turns * CONVERSATIONS)
            owners = replicas[:CONVERSATIONS]
            assert len(set(owners)) > 1
            assert replicas == owners * turns
            page = served.metrics()
            told = bucket(page, "+Inf")
            assert told == (turns - 1) * CONVERSATIONS
            right = bucket(page, f"{ENGINE_BLOCK_TOKENS}.0") - bucket(page, f"-{ENGINE_BLOCK_TOKENS}.0")
            assert right > told / 2, f"{right} of {told} within a block"
            assert 'event="cache_corrections"} 0' in page


def test_usage_that_a_client_asked_for_reaches_it_and_a_refusal_is_kept() -> None:
    message = question(1, 0)
    with (
        mocks(1, "--profile", "instant", "--model", "mock-model") as urls,
        balancer(*urls, arguments=["--inject-usage"]) as served,
    ):
        asked = ask(served, [message], stream=True, stream_options={"include_usage": True})
        refused = ask(served, [message], stream=True, stream_options={"include_usage": False})
        silent = ask(served, [message], stream=True)
        assert [b'"usage"' in answer for answer in (asked, refused, silent)] == [True, False, False]
        page = served.metrics()
        assert bucket(page, "+Inf") == 1, "of the three, the last was predicted and told"
