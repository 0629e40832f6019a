"""Conversations through real engines: who computes less again."""

import asyncio
import random

from tests.engines.load import chat, post_all
from tests.engines.vllm import Vllm
from tests.engines.words import WORDS
from tests.support.processes import balancer

CONVERSATIONS = 12
TURNS = 4
CONCURRENCY = 2
"""One for each server: room is never short, so that what is compared is the choice, not the spill."""


def text(rng: random.Random, words: int) -> str:
    """Words without sense."""
    return " ".join(rng.choice(WORDS) for _ in range(words))


async def converse(url: str, seed: int) -> tuple[int, int]:
    """Runs all conversations turn by turn; (cached, prompt) tokens of turns after the first."""
    rng = random.Random(seed)
    conversations = [[{"role": "user", "content": text(rng, 300)}] for _ in range(CONVERSATIONS)]
    cached = prompt = 0
    for turn in range(TURNS):
        order = list(conversations)
        rng.shuffle(order)
        batch = await post_all(
            url, "/v1/chat/completions", [chat(c, max_tokens=16) for c in order], concurrency=CONCURRENCY
        )
        assert set(batch.statuses) == {200}
        for conversation, answer in zip(order, batch.answers, strict=True):
            if turn:
                details = answer["usage"].get("prompt_tokens_details") or {}
                cached += details.get("cached_tokens") or 0
                prompt += answer["usage"]["prompt_tokens"]
            conversation.append(
                {"role": "assistant", "content": answer["choices"][0]["message"]["content"] or ""}
            )
            conversation.append({"role": "user", "content": text(rng, 100)})
    return cached, prompt


def test_prefix_reaches_clearly_more_engine_reported_hits_than_round_robin(pair: list[Vllm]) -> None:
    urls = [server.url for server in pair]
    rates = {}
    for seed, policy in enumerate(["round_robin", "prefix"]):
        with balancer(*urls, arguments=["--policy", policy]) as front:
            cached, prompt = asyncio.run(converse(front.url, seed))
        rates[policy] = cached / prompt
        print(f"{policy}: {cached} of {prompt} prompt tokens from cache = {rates[policy]:.3f}")
    print(f"ratio prefix / round_robin: {rates['prefix'] / rates['round_robin']:.2f}")
    assert rates["prefix"] >= 1.3 * rates["round_robin"]
