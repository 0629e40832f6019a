"""A region whose own replicas are all down, or that is evacuated: what a peer can serve is served there."""

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.processes import eventually, free_port, get, start_mocks
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import SLOW, Region, Regions, regions

MANY = 40


@pytest.fixture(scope="module")
def both() -> Iterator[Regions]:
    """``us``, whose only replica is down, and ``eu``."""
    child, urls = start_mocks(1, *SLOW)
    try:
        engines = {"us": [f"http://127.0.0.1:{free_port()}"], "eu": urls}
        with regions("us", "eu", engines=engines) as found:
            yield found
    finally:
        child.stop()


MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}),
    "completion": ("/v1/completions", {"prompt": "Why?"}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 4}),
    "response": ("/v1/responses", {"input": "Why?"}),
    "response that is not kept": ("/v1/responses", {"input": "Why?", "store": False}),
    "tokens": ("/tokenize", {"prompt": "Why?"}),
    "tokens back": ("/detokenize", {"tokens": [1, 2, 3]}),
    "number of tokens": ("/v1/messages/count_tokens", {"messages": MESSAGES}),
}


@pytest.mark.parametrize("what", BODIES)
def test_whatever_a_peer_can_serve_is_forwarded_by_a_region_without_replicas(
    both: Regions, what: str
) -> None:
    path, body = BODIES[what]
    name = what.replace(" ", "-")
    data = request({"model": "mock", "max_tokens": 4} | body, path=path, request_id=name)
    answer = asyncio.run(ask(both["us"].front.port, data))
    assert answer.status == 200, answer.body
    said = eventually(
        lambda: [line for line in both["us"].front.log() if line["request_id"] == name], what="the log's line"
    )
    assert said[0]["peer"] == "eu"


def test_a_response_that_must_be_kept_stays_where_it_would_be_found_again(both: Regions) -> None:
    body = {"model": "mock", "input": "Why?", "store": True}
    answer = asyncio.run(ask(both["us"].front.port, request(body, path="/v1/responses")))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "no_replica_ready")


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_region_without_replicas_says_that_it_serves_as_long_as_a_peer_does(both: Regions) -> None:
    us = both["us"]
    front = f"http://127.0.0.1:{us.front.port}"
    assert [model["id"] for model in json.loads(get(f"{front}/v1/models"))["data"]] == ["mock"]
    assert [status(f"{front}{path}") for path in ("/v1/models/mock", "/v1/models/none", "/health")] == [
        200,
        404,
        200,
    ]
    assert [status(f"{us.front.admin}{path}") for path in ("/ready", "/ready/here")] == [200, 503]
    us.verb("/peers/eu/isolate")
    try:
        assert json.loads(get(f"{front}/v1/models"))["data"] == []
        assert status(f"{front}/health") == 503
        assert status(f"{us.front.admin}/ready") == 503
        note = us.verb("/regions/us/evacuate")["note"]
        assert note == "no peer can take requests now: they stay here until one can"
    finally:
        us.verb("/regions/us/undrain")
        us.verb("/peers/eu/rejoin")
    both.settled()


# -------------------------------------------------------------------------------- evacuation


@pytest.fixture(scope="module")
def three() -> Iterator[Regions]:
    """Three regions of one replica each: there is less room than origins."""
    with regions("us", "eu", "asia", replicas=1) as found:
        yield found


def served(region: Region, name: str, count: int) -> Counter[object]:
    """Where a burst was served: by peer, ``None`` here."""

    def found() -> list[dict[str, Any]] | None:
        mine = [line for line in region.front.log() if str(line["request_id"]).startswith(f"{name}-")]
        return mine if len(mine) >= count else None

    return Counter(line["peer"] for line in eventually(found, what=f"{count} lines of {name}"))


@pytest.mark.parametrize("at_once", [1, 4, MANY])
def test_a_region_of_one_replica_is_evacuated_whole(three: Regions, at_once: int) -> None:
    us, name = three["us"], f"out{at_once}"

    async def run() -> list[Answer]:
        turns = asyncio.Semaphore(at_once)

        async def one(index: int) -> Answer:
            async with turns:
                body = chat(f"{name} {index} asks", max_tokens=4)
                return await ask(us.front.port, request(body, request_id=f"{name}-{index}"))

        return await asyncio.gather(*map(one, range(MANY)))

    us.verb("/regions/us/evacuate")
    try:
        answers = asyncio.run(run())
        mesh = us.front.state()["mesh"]
    finally:
        us.verb("/regions/us/undrain")
    assert [answer.status for answer in answers] == [200] * MANY
    assert served(us, name, MANY)[None] == 0
    assert mesh["stayed"] == 0
    three.settled()


def test_what_cannot_leave_an_evacuated_region_is_counted_and_told(three: Regions) -> None:
    us = three["us"]
    for peer in ("eu", "asia"):
        us.verb(f"/peers/{peer}/isolate")
    try:
        assert "note" in us.verb("/regions/us/evacuate")
        answer = asyncio.run(ask(us.front.port, request(chat("and now?"))))
        assert answer.status == 200
        eventually(lambda: us.front.state()["mesh"]["stayed"] == 1, what="it is counted")
        eventually(lambda: "requests have stayed: 1;" in us.front.child.text(), what="it is told")
    finally:
        us.verb("/regions/us/undrain")
        for peer in ("eu", "asia"):
            us.verb(f"/peers/{peer}/rejoin")
    three.settled()
