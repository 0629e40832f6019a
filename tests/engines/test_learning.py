"""The tree learns from real engines: answers are found again, and predictions are right to a block."""

import asyncio
import json
import random
import re
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from skylb._core import scan_metrics
from skylb.control.dialects import DIALECTS
from tests.engines.load import TIMEOUT, chat
from tests.engines.vllm import Vllm
from tests.engines.words import WORDS
from tests.support.processes import Balancer, balancer, eventually, get

CONVERSATIONS = 8
TURNS = 3
PROMPT_TOKENS = 100
ANSWER_TOKENS = 500


@dataclass
class Conversation:
    """What one client has said and heard."""

    number: int
    rng: random.Random
    messages: list[dict[str, str]] = field(default_factory=list)
    cached_tokens: list[int] = field(default_factory=list)
    """Of each turn, where its client asked for usage."""

    @property
    def asks_for_usage(self) -> bool:
        """Every other client; for the rest the balancer asks."""
        return self.number % 2 == 0


async def single_tokens(session: aiohttp.ClientSession, server: Vllm) -> list[int]:
    """Tokens that stand for a whole word with the space before it.

    A random model's answers are cut into other tokens when they are read as text again. Answers of
    these are not.
    """
    found = []
    for word in WORDS:
        body = {"model": "tiny", "prompt": f" {word}", "add_special_tokens": False}
        async with session.post(f"{server.url}/tokenize", json=body) as answer:
            tokens = (await answer.json())["tokens"]
        if len(tokens) == 1:
            found.append(int(tokens[0]))
    assert len(found) > 1, "the tokenizer knows its words"
    return found


async def take_turn(
    session: aiohttp.ClientSession, url: str, conversation: Conversation, turn: int, allowed: list[int]
) -> None:
    """Asks something new, and keeps the answer."""
    words = " ".join(conversation.rng.choice(WORDS) for _ in range(PROMPT_TOKENS))
    conversation.messages.append({"role": "user", "content": words})
    body: dict[str, Any] = chat(conversation.messages, max_tokens=ANSWER_TOKENS, stream=True)
    body |= {"temperature": 1.0, "seed": conversation.number, "allowed_token_ids": allowed}
    if not conversation.asks_for_usage:
        del body["stream_options"]
    headers = {"X-Request-Id": f"conversation-{conversation.number}-{turn}"}
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        lines = (await answer.read()).splitlines()
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: {")]
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    conversation.messages.append({"role": "assistant", "content": text})
    usages = [event["usage"] for event in events if event.get("usage")]
    assert bool(usages) == conversation.asks_for_usage, "who did not ask is not told"
    for usage in usages:
        assert usage["completion_tokens"] == ANSWER_TOKENS
        details = usage.get("prompt_tokens_details") or {}
        conversation.cached_tokens.append(details.get("cached_tokens") or 0)


async def converse(url: str, server: Vllm) -> list[Conversation]:
    """All conversations side by side, turn by turn."""
    conversations = [
        Conversation(number, random.Random(f"learning {number}")) for number in range(CONVERSATIONS)
    ]
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        allowed = await single_tokens(session, server)
        for turn in range(TURNS):
            turns = [take_turn(session, url, one, turn, allowed) for one in conversations]
            await asyncio.gather(*turns)
    return conversations


def replicas(front: Balancer) -> list[list[str]]:
    """For each conversation, the replicas of its turns."""
    lines = eventually(
        lambda: log if len(log := front.log()) >= CONVERSATIONS * TURNS else None, what="access log"
    )
    by_id = {line["request_id"]: line["replica"] for line in lines}
    return [
        [by_id[f"conversation-{number}-{turn}"] for turn in range(TURNS)] for number in range(CONVERSATIONS)
    ]


def engine_block_tokens(server: Vllm) -> int:
    """Block size of the engine's cache, in tokens."""
    found = re.search(
        r'^vllm:cache_config_info\{.*block_size="(\d+)"', get(f"{server.url}/metrics").decode(), re.M
    )
    assert found is not None
    return int(found[1])


def errors_up_to(page: str, bound: int) -> float:
    """Requests whose predicted minus reported tokens were no more than ``bound``."""
    found = re.findall(r'^skylb_prefix_error_tokens_bucket\{le="(\S+)"\} (\S+)', page, re.M)
    assert found, page
    return next(float(count) for upper, count in found if float(upper) >= bound)


def test_turns_return_to_their_owner_and_its_cache_is_predicted_to_a_block(pair: list[Vllm]) -> None:
    # Each replica takes whatever comes: where a turn goes is then the tree's choice alone.
    arguments = ["--policy", "prefix", "--engine-push", "blind", "--inject-usage"]
    block = engine_block_tokens(pair[0])
    with balancer(*(server.url for server in pair), arguments=arguments) as front:
        conversations = asyncio.run(converse(front.url, pair[0]))
        served_by = replicas(front)
        page = front.metrics()
    assert len({turns[0] for turns in served_by}) == len(pair)
    for turns in served_by:
        assert turns == turns[:1] * TURNS
    for conversation in conversations:
        for cached in conversation.cached_tokens[1:]:
            assert cached > ANSWER_TOKENS - block, "the engine found the answer, not the prompt alone"
    told = errors_up_to(page, 1 << 30)
    assert told == (TURNS - 1) * CONVERSATIONS
    right = errors_up_to(page, block) - errors_up_to(page, -block)
    print(f"predicted to a block of {block} tokens: {right:.0f} of {told:.0f}")
    assert right > told / 2


def test_vllm_tells_by_name_what_its_whole_page_tells_and_is_asked_for_no_more(pair: list[Vllm]) -> None:
    url = pair[0].url
    whole, narrowed = get(f"{url}/metrics"), get(f"{url}{DIALECTS[0].narrowed_path}")
    assert repr(scan_metrics(narrowed, "vllm")) == repr(scan_metrics(whole, "vllm"))
    assert scan_metrics(narrowed, "vllm").running is not None
    with balancer(url) as front:

        def probed() -> float:
            return front.metric("skylb_replica_probes_total")

        eventually(lambda: probed() >= 2, what="it is probed by name")
        count, told = probed(), front.metric("skylb_probe_bytes_total")
        eventually(lambda: probed() >= count + 3, what="it is probed on")
        each = (front.metric("skylb_probe_bytes_total") - told) / (probed() - count)
    print(f"a probe reads {each:.0f} bytes of {len(whole)}")
    assert each < len(whole) / 5
