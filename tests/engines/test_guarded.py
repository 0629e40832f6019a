"""A vLLM that asks for a key: its own refusals reach the client, and a key for probes reads its models."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.engines.vllm import Vllm, fleet
from tests.support.processes import Balancer, answers, balancer

KEY = "sk-engine"
MESSAGES = [{"role": "user", "content": "the quick brown fox jumps over a lazy dog"}]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Vllm]:
    """One server that serves holders of its key."""
    with fleet(1, "--max-num-seqs", "4", "--api-key", KEY) as servers:
        yield servers[0]


def sdk(front: Balancer, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{front.url}/v1", api_key=key, max_retries=0)


def test_those_with_a_key_are_served_and_its_refusals_pass(guarded: Vllm) -> None:
    with balancer(guarded.url) as front:
        assert answers(f"{front.admin}/ready")
        with sdk(front, KEY) as client:
            answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4)
            assert answer.choices[0].finish_reason is not None
            with pytest.raises(openai.NotFoundError, match="does not exist"):
                client.chat.completions.create(model="none", messages=MESSAGES, max_tokens=4)
        with sdk(front, "wrong") as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4)
        assert "/v1/models answers 401" in front.state()["replicas"][guarded.url]


def test_a_key_for_probes_reads_its_models_and_opens_nothing(guarded: Vllm, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    with balancer(guarded.url, arguments=["--probe-key-file", str(tmp_path / "key")]) as front:
        with sdk(front, KEY) as client:
            assert [model.id for model in client.models.list().data] == ["tiny"]
            assert client.models.retrieve("tiny").id == "tiny"
            with pytest.raises(openai.NotFoundError, match="Known models: tiny"):
                client.chat.completions.create(model="none", messages=MESSAGES, max_tokens=4)
        with sdk(front, "wrong") as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4)


def test_a_wrong_key_of_the_balancer_is_no_fault_of_the_client(guarded: Vllm, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("another")
    with balancer(guarded.url, arguments=["--replica-key-file", str(tmp_path / "key")]) as front:
        for key in (KEY, "wrong"):
            with sdk(front, key) as client, pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4)
            assert (caught.value.status_code, caught.value.code) == (502, "upstream_unauthorized")
