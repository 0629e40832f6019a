"""Messages of a real vLLM that break, and go on at another one by their text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import pytest

from tests.engines.test_continuing import ANSWER_S, PROMPT, cuts, model, weighted
from tests.engines.vllm import Vllm
from tests.support.cutting import Cut
from tests.support.processes import Balancer, balancer, post_stream

__all__ = ["cuts", "model", "weighted"]

TOKENS = 400
"""Many a token of the tiny model is a part of a character: an event of text has several."""
CUTS_MAX = 50
PARTS = [{"type": "text", "text": "jumps "}, {"type": "text", "text": "over"}]
SHAPE = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
]


@pytest.fixture(scope="module")
def front(cuts: list[Cut]) -> Iterator[Balancer]:
    """SkyLB in front of the proxies; its messages go on."""
    arguments = ["--continue-streams", "--continue-by-text", "--engine-eject-ratio-max", "0"]
    with balancer(*(cut.url for cut in cuts), arguments=arguments) as running:
        yield running


def asked(**more: Any) -> dict[str, Any]:
    """A greedy message."""
    return {
        "model": "tiny",
        "system": [{"type": "text", "text": "a dog"}, {"type": "text", "text": " and a fox"}],
        "messages": [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": [{"type": "text", "text": "the fox"}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": "jumps "}, {"type": "text", "text": "over"}],
            },
        ],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        **more,
    }


@dataclass
class Heard:
    """What a client reads of a message."""

    shape: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    input_tokens: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)


def hear(url: str, body: dict[str, Any]) -> Heard:
    """Reads one message to its end."""
    heard = Heard()
    for data in post_stream(f"{url}/v1/messages", body, ANSWER_S):
        event = json.loads(data)
        if not heard.shape or heard.shape[-1] != event["type"]:
            heard.shape.append(event["type"])
        if event["type"] == "content_block_delta":
            heard.texts.append(event["delta"]["text"])
        elif event["type"] == "message_start":
            heard.input_tokens.append(_input_tokens(event["message"]["usage"]))
        elif event["type"] == "message_delta":
            heard.ends.append(event["delta"])
            heard.input_tokens.append(_input_tokens(event["usage"]))
    return heard


def _input_tokens(usage: dict[str, int]) -> int:
    return usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)


def test_a_message_that_is_cut_behind_each_text_is_one_message(
    weighted: list[Vllm], cuts: list[Cut], front: Balancer
) -> None:
    """What comes behind the cut may differ: its text is tokenised anew. How often is printed."""
    body = asked()
    whole = hear(weighted[0].url, body)
    assert whole.shape == SHAPE
    positions = range(3, min(len(whole.texts), CUTS_MAX) + 3)  # behind two events without text
    assert len(positions) >= 20
    equal = 0
    for position in positions:
        cuts[0].after = cuts[1].after = position
        heard = hear(front.url, body)
        where = f"cut after {position} events"
        assert heard.shape == SHAPE, where
        assert heard.input_tokens == whole.input_tokens, where
        assert len(heard.ends) == 1
        assert heard.ends[0]["stop_reason"] in {"max_tokens", "end_turn"}, where
        kept = "".join(whole.texts[: position - 2])
        assert heard.text.startswith(kept), where
        equal += heard.text == whole.text
    cuts[0].after = cuts[1].after = None
    done = sum(cut.done for cut in cuts)
    assert done >= len(positions) - 1
    assert front.metric("skylb_streams_continued_total") >= len(positions) // 2
    print(f"/v1/messages: {equal} of {len(positions)} answers equal by text, cut {done} times")


def test_the_sdk_of_anthropic_sees_one_message_when_an_engine_is_killed(
    weighted: list[Vllm], front: Balancer
) -> None:
    body = asked(max_tokens=500)
    del body["stream"]
    extra = {"temperature": body.pop("temperature")}
    killed = False
    with anthropic.Anthropic(base_url=front.url, api_key="unused", max_retries=0) as sdk:
        with sdk.messages.stream(**body, extra_body=extra) as stream:
            for index, _ in enumerate(stream.text_stream):
                if index == 20:
                    killed = True
                    next(server for server in weighted if server.running > 0).child.kill()
            message = stream.get_final_message()
    assert killed
    assert message.stop_reason in {"max_tokens", "end_turn"}
    assert 0 < message.usage.output_tokens <= 500
    assert front.metric("skylb_streams_continued_total") >= 1
