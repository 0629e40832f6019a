"""Two balancers of one region before the same replicas: each knows what the other has sent where."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.support.processes import eventually, mocks
from tests.support.raw import ask, chat, request
from tests.support.regions import Region, Regions, regions

NAMES = ("us-1", "us-2")
TENANTS = ("acme", "bolt")
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


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regions]:
    """Both keep the caches of tenants apart."""
    directory = tmp_path_factory.mktemp("keys")
    (directory / "isolation").write_text(base64.b64encode(bytes(range(32))).decode())
    lines = [f"{name}:{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()}" for name in TENANTS]
    (directory / "tenants").write_text("\n".join(lines))
    arguments = ["--isolate-tenants", "--isolation-key-file", str(directory / "isolation")]
    arguments += ["--tenant-key-file", str(directory / "tenants")]
    with mocks(4, "--profile", "l4-8b", "--time-scale", "0.05") as urls:
        engines = dict.fromkeys(NAMES, urls)
        with regions(*NAMES, engines=engines, one_region="us", arguments=arguments) as found:
            for name in NAMES:
                eventually(lambda name=name: shares(found[name]), what=f"{name} shares")
            yield found


def test_what_one_tenant_has_sent_is_no_hit_for_another_at_the_other_balancer(apart: Regions) -> None:
    first, second = (apart[name] for name in NAMES)

    def send(region: Region, tenant: str, number: int, name: str) -> int:
        """Blocks that the balancer believes cached where it sends a tenant's prompt."""
        headers = [f"Authorization: Bearer sk-{tenant}"]
        asked = request(chat(text(number), max_tokens=2), request_id=name, headers=headers)
        answer = asyncio.run(ask(region.front.port, asked))
        assert answer.status == 200
        lines = eventually(
            lambda: [line for line in region.front.log() if line["request_id"] == name], what="its line"
        )
        return int(lines[0]["match_blocks"])

    one, other = TENANTS
    for number in range(PROMPTS):
        assert send(first, one, number, f"{one}-{number}") == 0
    eventually(lambda: event(second, "cached_heard") >= PROMPTS, what="us-2 knows of all prompts")
    for number in range(PROMPTS):
        assert send(second, other, number, f"{other}-{number}") == 0, "it knows nothing of another's"
        assert send(second, one, number, f"again-{number}") > 0, "and all of its own"
