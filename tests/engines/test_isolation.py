"""``--isolate-tenants`` in front of real engines: who finds whose prompts in the prefix cache."""

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines.vllm import Vllm
from tests.engines.words import WORDS
from tests.support.processes import Balancer, balancer
from tests.support.raw import ask, request

WORDS_LEN = 400
"""A block of the prefix cache has 128 tokens on the CPU."""

OWN = "a salt of the client"


@pytest.fixture(scope="module", params=[True, False], ids=["isolated", "shared"])
def front(request: pytest.FixtureRequest, pair: list[Vllm]) -> Iterator[tuple[Balancer, bool]]:
    """A balancer, and whether it isolates. Without tenants' names, credentials tell clients apart."""
    arguments = ["--isolate-tenants"] if request.param else []
    with balancer(*(server.url for server in pair), arguments=arguments) as found:
        yield found, request.param


def bodies(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The same text for each API that vLLM generates by."""
    messages = [{"role": "user", "content": text}]
    return [
        ("/v1/chat/completions", {"messages": messages, "max_tokens": 2}),
        ("/v1/completions", {"prompt": text, "max_tokens": 2}),
        ("/v1/responses", {"input": text, "max_output_tokens": 2, "store": False}),
        ("/v1/messages", {"messages": messages, "max_tokens": 2}),
        ("/invocations", {"prompt": text, "max_tokens": 2}),
    ]


def cached_tokens(found: Balancer, path: str, body: dict[str, Any], key: str) -> int:
    """What the engine says that it had cached, for the holder of a key."""
    asked = request({"model": "tiny", **body}, path=path, headers=[f"Authorization: Bearer {key}"])
    answer = asyncio.run(ask(found.port, asked))
    assert answer.status == 200, (path, answer.body)
    usage = json.loads(answer.body)["usage"]
    if path == "/v1/messages":
        return usage["cache_read_input_tokens"] or 0
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return details.get("cached_tokens") or 0


def test_a_tenant_finds_its_own_prompts_in_a_real_cache_and_no_others(front: tuple[Balancer, bool]) -> None:
    found, isolates = front
    rng = random.Random(11 + isolates)
    for path, _ in bodies(""):
        text = " ".join(rng.choice(WORDS) for _ in range(WORDS_LEN))
        body = dict(bodies(text))[path]
        assert cached_tokens(found, path, body, "sk-one") == 0, path
        # Both servers are idle: the tree says which of them has the prompt.
        assert cached_tokens(found, path, body, "sk-one") > 0, path
        across = cached_tokens(found, path, body, "sk-two")
        print(f"{path}: another tenant finds {across} tokens")
        assert (across == 0) is isolates, path
        if isolates:
            assert cached_tokens(found, path, {**body, "cache_salt": OWN}, "sk-one") == 0, path
            assert cached_tokens(found, path, {**body, "cache_salt": OWN}, "sk-one") > 0, path


def test_vllm_takes_the_salt_of_every_tenant(front: tuple[Balancer, bool]) -> None:
    found, _ = front
    body = dict(bodies("hello"))["/v1/completions"]
    for number in range(64):  # half of them would have a slash in the common base64
        cached_tokens(found, "/v1/completions", body, f"sk-{number}")
