"""Two balancers of one region before the same replicas: each knows what the other has sent where."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.support.processes import eventually, mocks
from tests.support.raw import ask, chat, request
from tests.support.regions import Region, Regions, regions

NAMES = ("us-1", "us-2")
PROMPTS = 8
"""Each is cached at one of four replicas: who does not know where finds all of them with a chance of 4^-8."""


@pytest.fixture(scope="module", params=[True, False], ids=["told", "not told"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Regions, bool]]:
    arguments = () if request.param else ("--no-region-cache",)
    with mocks(4, "--profile", "l4-8b", "--time-scale", "0.05") as urls:
        engines = dict.fromkeys(NAMES, urls)
        with regions(*NAMES, engines=engines, one_region="us", arguments=arguments) as found:
            for name in NAMES:
                eventually(lambda name=name: shares(found[name]), what=f"{name} shares")
            yield found, request.param


def shares(region: Region) -> bool:
    """It knows that the other sends requests to all replicas too."""
    return all(row["shared"] for row in region.front.state()["engine"]["replicas"])


def event(region: Region, name: str) -> float:
    """A counter of the engine."""
    sample = f'skylb_engine_events_total{{event="{name}"}} '
    lines = region.front.metrics().splitlines()
    return sum(float(line.removeprefix(sample)) for line in lines if line.startswith(sample))


def text(number: int) -> str:
    """A prompt of some thousand tokens, like no other."""
    return f"{number} begins " + f"word{number} " * 1_500


def cached(region: Region, prompt: str) -> int:
    """Tokens of a prompt that its replica had cached."""
    answer = asyncio.run(ask(region.front.port, request(chat(prompt, max_tokens=2))))
    assert answer.status == 200
    return int(json.loads(answer.body)["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_a_session_that_comes_to_the_other_balancer_finds_its_cache(both: tuple[Regions, bool]) -> None:
    found, told = both
    first, second = (found[name] for name in NAMES)
    for number in range(PROMPTS):
        assert cached(first, text(number)) == 0
    if told:
        eventually(lambda: event(second, "cached_heard") >= PROMPTS, what="us-2 knows of all prompts")
    hits = sum(cached(second, text(number) + "and goes on") > 0 for number in range(PROMPTS))
    assert (hits == PROMPTS) is told, f"{hits} of {PROMPTS}"
    sent = [event(found[name], "cached_bytes") for name in NAMES]
    assert all(sent) if told else not any(sent)
    assert event(second, "cached_refused") == 0
