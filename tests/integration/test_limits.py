"""Limits of tenants: over a real balancer with the real SDKs, whose own back-off succeeds, and over two."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from skylb.keys.edit import add_key
from tests.support.processes import PATIENCE_S, Balancer, balancer, get, mocks
from tests.support.regions import regions

MESSAGES: Any = [{"role": "user", "content": "hello"}]
PER_MINUTE = 12
"""One in five seconds: the longest that a client has to wait."""

MOCK = ("--model", "m", "--model", "n", "--profile", "instant")


@contextmanager
def limited(
    path: Path, *arguments: str, mock: tuple[str, ...] = (), **terms: object
) -> Iterator[tuple[Balancer, str]]:
    """A balancer in front of one replica, and a key of a tenant with these terms."""
    key, _ = add_key(path / "keys.toml", "acme", terms, {})
    with mocks(1, *MOCK, *mock) as urls:
        with balancer(*urls, arguments=["--keys-file", str(path / "keys.toml"), *arguments]) as front:
            yield front, key


def client_of(front: Balancer, key: str, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{front.url}/v1", api_key=key, max_retries=retries, timeout=PATIENCE_S)


def usage(front: Balancer) -> dict[str, Any]:
    """What ``GET /usage`` has of the one tenant."""
    (tenant,) = json.loads(get(f"{front.admin}/usage"))["tenants"]
    found: dict[str, Any] = tenant
    return found


def refused(client: openai.OpenAI) -> openai.RateLimitError:
    """Asks until a request is refused; the refusal."""
    for _ in range(4 * PER_MINUTE):
        try:
            client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2)
        except openai.RateLimitError as error:
            return error
    raise AssertionError("no request was refused")


def test_a_model_that_the_tenant_may_not_use_is_403_in_the_words_of_each_api(tmp_path: Path) -> None:
    with limited(tmp_path, models=["m"]) as (front, key):
        with client_of(front, key) as client:
            assert client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2).choices
            with pytest.raises(openai.PermissionDeniedError) as caught:
                client.chat.completions.create(model="n", messages=MESSAGES)
            assert caught.value.code == "model_not_allowed"
        with anthropic.Anthropic(base_url=front.url, api_key=key, max_retries=0) as claude:
            with pytest.raises(anthropic.PermissionDeniedError):
                claude.messages.create(model="n", max_tokens=2, messages=MESSAGES)


def test_over_the_limit_the_clients_own_back_off_succeeds(tmp_path: Path) -> None:
    with limited(tmp_path, requests_per_minute=PER_MINUTE) as (front, key):
        with client_of(front, key) as client:
            answer = client.chat.completions.with_raw_response.create(
                model="m", messages=MESSAGES, max_tokens=2
            )
            assert answer.headers["x-ratelimit-limit-requests"] == str(PER_MINUTE)
            assert answer.headers["x-ratelimit-remaining-requests"] == str(PER_MINUTE - 1)
            error = refused(client)
        assert error.code == "rate_limit_exceeded"
        assert 1 <= int(error.response.headers["retry-after"]) <= 60 / PER_MINUTE
        assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
        with client_of(front, key, retries=4) as patient:
            assert patient.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2).choices
        options: dict[str, Any] = {"base_url": front.url, "api_key": key, "timeout": PATIENCE_S}
        with anthropic.Anthropic(**options, max_retries=0) as claude:

            def ask_again_and_again() -> None:
                for _ in range(4 * PER_MINUTE):
                    claude.messages.create(model="m", max_tokens=2, messages=MESSAGES)

            with pytest.raises(anthropic.RateLimitError) as again:
                ask_again_and_again()
            assert again.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]  # typed as object
            assert int(again.value.response.headers["retry-after"]) >= 1
        with anthropic.Anthropic(**options, max_retries=4) as waiting:
            assert (
                waiting.messages.create(model="m", max_tokens=2, messages=MESSAGES).usage.output_tokens == 2
            )


def test_tokens_are_charged_as_they_were_reported_of_streams_too(tmp_path: Path) -> None:
    with limited(tmp_path, tokens_per_minute=1_000_000) as (front, key), client_of(front, key) as client:
        reported = 0
        for _ in range(3):
            answer = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=7)
            assert answer.usage is not None
            reported += answer.usage.total_tokens
        chunks = list(
            client.chat.completions.create(
                model="m", messages=MESSAGES, max_tokens=9, stream=True, extra_body={"ignore_eos": True}
            )
        )
        assert all(chunk.usage is None for chunk in chunks), "the client has not asked for it"
        said = usage(front)
        (model,) = said["models"]
        assert model["requests"] == 4
        assert model["completion_tokens"] == 3 * 7 + 9
        assert model["charged_tokens"] == model["prompt_tokens"] + model["completion_tokens"]
        assert model["charged_tokens"] > reported
        assert said["in_flight"] == 0
        assert said["tokens"]["limit"] == 1_000_000


def test_more_requests_at_once_than_a_tenant_may_have_are_refused(tmp_path: Path) -> None:
    slow = ("--step-base-us", "20000")
    with limited(tmp_path, mock=slow, concurrent=2) as (front, key), client_of(front, key) as client:
        streams = [
            client.chat.completions.create(
                model="m",
                messages=MESSAGES,
                max_tokens=10_000,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            for _ in range(2)
        ]
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2)
        assert usage(front)["in_flight"] == 2
        streams[0].close()
        with client_of(front, key, retries=4) as patient:
            assert patient.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2).choices
        streams[1].close()


# ------------------------------------------------------------------------ two balancers

RATE = 120
"""Requests per minute over both: two a second."""

WATCH_S = 8.0


def test_two_balancers_keep_to_one_limit_and_pass_it_by_one_window_at_most(tmp_path: Path) -> None:
    key, _ = add_key(tmp_path / "keys.toml", "acme", {"requests_per_minute": RATE}, {})
    arguments = ["--keys-file", str(tmp_path / "keys.toml")]
    mock = ("--profile", "instant")
    with regions("us", "eu", replicas=1, mock=mock, arguments=arguments) as found:
        fronts = [found["us"].front, found["eu"].front]
        begun = time.monotonic()

        def drive(front: Balancer, until: float) -> int:
            """Asks all the time; how many requests were served."""
            served = 0
            with client_of(front, key) as client:
                while time.monotonic() < until:
                    try:
                        client.chat.completions.create(model="mock", messages=MESSAGES, max_tokens=1)
                        served += 1
                    except openai.RateLimitError:
                        time.sleep(0.01)
            return served

        def both(seconds: float) -> tuple[int, float]:
            """Asks both; how many requests were served, and in which time."""
            start = time.monotonic()
            with ThreadPoolExecutor(2) as pool:
                counts = list(pool.map(lambda front: drive(front, start + seconds), fronts))
            return sum(counts), time.monotonic() - start

        served, _ = both(WATCH_S)
        elapsed_s = time.monotonic() - begun
        assert served <= 2 * RATE + elapsed_s * RATE / 60, "overshoot is one window at most"
        served, elapsed_s = both(WATCH_S)
        if served:
            # Both are drained: what is served now is what flows in, and at most what one was refilled with.
            assert served <= elapsed_s * RATE / 60 + 4
        assert served >= 1
