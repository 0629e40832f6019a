"""SkyLB's own keys in front of real vLLM servers, one that asks for a key and some that do not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from skylb.keys.edit import add_key, revoke_key
from tests.engines.vllm import Vllm, fleet
from tests.support.processes import Balancer, balancer, eventually, get

ENGINE_KEY = "sk-engine"
MESSAGES: Any = [{"role": "user", "content": "the quick brown fox jumps over a lazy dog"}]
PER_MINUTE = 12
"""One in five seconds: the longest that a client has to wait."""

TIMEOUT_S = 300.0


@dataclass
class Front:
    """A balancer with a keys file, and one of its keys."""

    running: Balancer
    path: Path
    key: str
    id: str

    def openai(self, key: str | None = None, retries: int = 0) -> openai.OpenAI:
        """The official OpenAI SDK."""
        url = f"{self.running.url}/v1"
        return openai.OpenAI(base_url=url, api_key=key or self.key, max_retries=retries, timeout=TIMEOUT_S)

    def anthropic(self, key: str | None = None, retries: int = 0) -> anthropic.Anthropic:
        """The official Anthropic SDK."""
        return anthropic.Anthropic(
            base_url=self.running.url, api_key=key or self.key, max_retries=retries, timeout=TIMEOUT_S
        )

    def answers(self, key: str | None = None) -> list[int]:
        """What both SDKs get with a key, one after the other: 200 or 401."""
        answers = []
        with self.openai(key) as client:
            try:
                client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4)
                answers.append(200)
            except openai.AuthenticationError as error:
                answers.append(error.status_code)
        with self.anthropic(key) as claude:
            try:
                claude.messages.create(model="tiny", max_tokens=4, messages=MESSAGES)
                answers.append(200)
            except anthropic.AuthenticationError as error:
                answers.append(error.status_code)
        return answers

    def served(self, key: str | None = None) -> bool:
        """Whether both SDKs are served with a key; one that is not gets 401 from both."""
        answers = self.answers(key)
        assert answers in ([200, 200], [401, 401])
        return answers == [200, 200]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Vllm]:
    """One server that serves holders of its key."""
    with fleet(1, "--max-num-seqs", "4", "--api-key", ENGINE_KEY) as servers:
        yield servers[0]


@pytest.fixture(params=["with a key", "without one"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[str], list[str]]:
    """URLs of servers that ask for a key, or do not; and the arguments that SkyLB needs for them."""
    if request.param == "without one":
        servers: list[Vllm] = request.getfixturevalue("pair")
        return [server.url for server in servers], []
    (tmp_path / "engine-key").write_text(ENGINE_KEY)
    server: Vllm = request.getfixturevalue("guarded")
    return [server.url], ["--replica-key-file", str(tmp_path / "engine-key")]


@contextmanager
def front(engine: tuple[list[str], list[str]], tmp_path: Path, **terms: object) -> Iterator[Front]:
    """SkyLB with one key, of a tenant with these terms."""
    urls, arguments = engine
    path = tmp_path / "keys.toml"
    key, key_id = add_key(path, "acme", terms, {})
    arguments = ["--keys-file", str(path), "--discovery-file-s", "0.05", *arguments]
    with balancer(*urls, arguments=arguments) as running:
        yield Front(running, path, key, key_id)


def test_a_right_key_is_served_and_a_wrong_one_is_not(
    engine: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    with front(engine, tmp_path) as found:
        assert found.served()
        with found.openai() as client:
            assert [model.id for model in client.models.list().data] == ["tiny"]
        for wrong in ("sk-wrong", ENGINE_KEY, found.key[:-1]):
            assert not found.served(wrong)
        assert found.running.metric("skylb_keys_refused_total") == 6


def test_a_key_revoked_in_mid_stream_ends_its_stream_whole_and_begins_no_other(
    engine: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    with front(engine, tmp_path) as found, found.openai() as client:
        stream = client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=600, stream=True, extra_body={"ignore_eos": True}
        )
        chunks = [next(stream)]
        revoke_key(found.path, found.id, datetime.now(UTC))
        # It may come to an end between the one SDK and the other.
        eventually(lambda: found.answers() == [401, 401], what="the key is refused")
        chunks += stream
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"


def test_over_the_limit_the_clients_own_back_off_succeeds(
    engine: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    with front(engine, tmp_path, requests_per_minute=PER_MINUTE) as found:

        def use_up() -> None:
            with found.openai() as client:
                for _ in range(20 * PER_MINUTE):
                    client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=1)

        with pytest.raises(openai.RateLimitError) as caught:
            use_up()
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers["x-ratelimit-limit-requests"] == str(PER_MINUTE)
        with found.openai(retries=4) as patient:
            assert patient.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=1).choices
        with found.anthropic(retries=4) as waiting:
            said = waiting.messages.create(model="tiny", max_tokens=1, messages=MESSAGES)
            assert said.usage.output_tokens == 1


def test_a_stream_is_charged_what_vllm_reports(engine: tuple[list[str], list[str]], tmp_path: Path) -> None:
    with front(engine, tmp_path, tokens_per_minute=1_000_000) as found, found.openai() as client:
        answer = client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=8, extra_body={"ignore_eos": True}
        )
        assert answer.usage is not None
        chunks = list(
            client.chat.completions.create(
                model="tiny", messages=MESSAGES, max_tokens=8, stream=True, extra_body={"ignore_eos": True}
            )
        )
        assert all(chunk.usage is None for chunk in chunks), "the client has not asked for it"
        (tenant,) = json.loads(get(f"{found.running.admin}/usage"))["tenants"]
        (model,) = tenant["models"]
        # The same prompt and the same length twice, once as a stream.
        assert model["completion_tokens"] == 2 * answer.usage.completion_tokens
        assert model["prompt_tokens"] == 2 * answer.usage.prompt_tokens
        assert model["charged_tokens"] == 2 * answer.usage.total_tokens
